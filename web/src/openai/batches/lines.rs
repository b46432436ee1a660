//! The lines of a stored file, one at a time.

use std::io;

use bytes::Bytes;
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Outgoing};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio_util::codec::LinesCodecError;

use crate::lines::{LONGEST, numbered};

/// The lines that are not blank, with their numbers from 1. The error of a line that cannot be read
/// does not name it.
pub(super) fn lines(
    parts: Outgoing<Bytes>,
) -> impl Stream<Item = (u64, Answer<String>)> + Send + Unpin {
    let lines = numbered(parts.map_err(io::Error::other));
    Box::pin(lines.map(|(number, line)| (number, line.map_err(unread))))
}

/// The bytes of a file, and an error if they end before the whole file was read.
pub(super) fn whole(parts: Outgoing<Bytes>, size: u64) -> Outgoing<Bytes> {
    let end = stream::once(async { Ok(None) });
    let parts = parts.map_ok(Some).chain(end);
    parts
        .scan(size, |left, part| {
            let part = match part {
                Ok(Some(part)) => {
                    *left = left.saturating_sub(part.len() as u64);
                    Some(Ok(part))
                }
                Ok(None) if *left == 0 => None,
                Ok(None) => Some(Err(UserError::new(
                    Code::Unavailable,
                    "FILE_CUT_OFF",
                    "the file could not be read to its end",
                ))),
                Err(error) => Some(Err(error)),
            };
            async move { part }
        })
        .boxed()
}

fn unread(error: LinesCodecError) -> UserError {
    let wrong = |message: String| UserError::new(Code::InvalidArgument, "INVALID_LINE", message);
    match error {
        LinesCodecError::MaxLineLengthExceeded => {
            wrong(format!("the line has more than {LONGEST} bytes; accepted: at most {LONGEST}"))
        }
        LinesCodecError::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            wrong("the line is not UTF-8; accepted: UTF-8".to_owned())
        }
        LinesCodecError::Io(error) => match error.downcast::<UserError>() {
            Ok(error) => error,
            Err(error) => UserError::new(
                Code::Unavailable,
                "FILE_UNREADABLE",
                format!("the file cannot be read now: {error}"),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(parts: Vec<Answer<Bytes>>) -> Vec<(u64, Answer<String>)> {
        lines(stream::iter(parts).boxed()).collect().await
    }

    #[tokio::test]
    async fn lines_are_numbered_as_an_editor_does() {
        let parts = vec![Ok(Bytes::from_static(b"a\n\n  \r\nb")), Ok(Bytes::from_static(b"c\n"))];
        let expected = [(1, Ok("a".to_owned())), (4, Ok("bc".to_owned()))];
        assert_eq!(read(parts).await, expected);
    }

    #[tokio::test]
    async fn a_mark_of_utf_8_is_no_part_of_the_first_line() {
        let parts = vec![Ok(Bytes::from_static("\u{feff}a\n\u{feff}b\n".as_bytes()))];
        let expected = [(1, Ok("a".to_owned())), (2, Ok("\u{feff}b".to_owned()))];
        assert_eq!(read(parts).await, expected);
    }

    #[tokio::test]
    async fn a_file_that_is_cut_off_is_no_shorter_file() {
        let parts = || stream::iter([Ok(Bytes::from_static(b"a\nb"))]).boxed();
        let read = async |size| lines(whole(parts(), size)).collect::<Vec<_>>().await;
        assert_eq!(read(3).await.len(), 2);
        let cut = read(4).await;
        let error = cut.iter().find_map(|(_, line)| line.as_ref().err()).expect("cut off");
        assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, "FILE_CUT_OFF"));
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_read_says_why() {
        let wrong = read(vec![Ok(Bytes::from_static(b"a\n\xff\n"))]).await;
        let (number, error) = &wrong[1];
        let said = &error.as_ref().expect_err("no UTF-8").message;
        assert_eq!((*number, said.as_str()), (2, "the line is not UTF-8; accepted: UTF-8"));
        let long = read(vec![Ok(vec![b'x'; LONGEST + 1].into())]).await;
        assert!(long[0].1.as_ref().expect_err("long").message.contains("at most 1048576"));
        let lost = UserError::new(Code::NotFound, "LOST", "the file is lost");
        let broken = read(vec![Ok(Bytes::from_static(b"a\n")), Err(lost.clone())]).await;
        assert_eq!(broken[1].1, Err(lost));
    }
}
