//! Base64 of bytes that are still coming, so that an answer with many large pictures needs little
//! memory.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use darkroom_farm_api::Outgoing;
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// Bytes that become whole digits together.
const GROUP: usize = 3;

/// The digits, part by part.
pub(super) fn encoded(parts: Outgoing<Bytes>) -> Outgoing<Bytes> {
    let begin = Some((parts, Vec::new()));
    stream::try_unfold(begin, |state| async move {
        let Some((mut parts, mut rest)) = state else { return Ok(None) };
        while let Some(part) = parts.try_next().await? {
            rest.extend_from_slice(&part);
            let whole = rest.len() / GROUP * GROUP;
            if whole > 0 {
                let digits = STANDARD.encode(&rest[..whole]);
                rest.drain(..whole);
                return Ok(Some((Bytes::from(digits), Some((parts, rest)))));
            }
        }
        Ok((!rest.is_empty()).then(|| (Bytes::from(STANDARD.encode(&rest)), None)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use darkroom_core::error::{Code, UserError};

    use super::*;

    #[tokio::test]
    async fn the_digits_are_the_same_however_the_bytes_are_cut() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in [0, 1, 2, 3, 4, 100, 256] {
            let bytes = &bytes[..length];
            for part in [1, 2, 3, 4, 7, 64, 300] {
                let parts: Vec<_> =
                    bytes.chunks(part).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
                let digits = encoded(stream::iter(parts).boxed());
                let digits: Vec<Bytes> = digits.try_collect().await.expect("digits");
                assert_eq!(digits.concat(), STANDARD.encode(bytes).as_bytes(), "{length} {part}");
            }
        }
    }

    #[tokio::test]
    async fn an_error_comes_through() {
        let lost = UserError::new(Code::NotFound, "LOST", "lost");
        let parts = stream::iter([Ok(Bytes::from_static(b"abc")), Err(lost.clone())]).boxed();
        let digits: Vec<_> = encoded(parts).collect().await;
        assert_eq!(digits, [Ok(Bytes::from_static(b"YWJj")), Err(lost)]);
    }
}
