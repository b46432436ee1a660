//! `POST /inputs`: a picture that prompts can name by its hash.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use darkroom_farm_api::{Incoming, while_it_stands};
use darkroom_proto::{json, v1};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    entry::{Entry, broken, media_type, unsupported},
    json_answer::json as answer,
    problem::Refusal,
    site::Site,
};

/// The types of pictures.
const PICTURES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];
/// Largest picture, bytes; as the farm has it.
pub(crate) const LARGEST: u64 = 64 << 20;
/// Most bytes of a chunk of an upload.
const CHUNK: usize = 64 << 10;

/// Stores the body.
pub(crate) async fn upload(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    if !media_type(entry.headers()).is_some_and(|media| PICTURES.contains(&media.as_str())) {
        return Err(unsupported(entry.headers(), &PICTURES.join(", ")));
    }
    let (caller, standing) = (entry.caller.clone(), entry.standing.clone());
    let chunks = while_it_stands(standing, chunks(picture(entry.into_body())));
    let stored = site.farm.upload_input(&caller, chunks).await?;
    answer(StatusCode::CREATED, &json::UploadInputResponse::from(stored), None)
}

/// The bytes of a picture, up to the largest one.
fn picture(body: Body) -> Incoming<Bytes> {
    let most = usize::try_from(LARGEST).unwrap_or(usize::MAX);
    let bytes = Limited::new(body, most).into_data_stream();
    let bytes = bytes.map_err(move |error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Refusal::too_large("the picture", most, None).into_error(),
        None => broken(error.as_ref()).into_error(),
    });
    bytes.boxed()
}

/// The bytes in chunks as the farm takes them.
pub(crate) fn chunks(bytes: Incoming<Bytes>) -> Incoming<v1::UploadInputChunk> {
    let chunks = bytes.map_ok(|mut bytes| {
        let parts = std::iter::from_fn(move || {
            let part = bytes.split_to(bytes.len().min(CHUNK));
            (!part.is_empty()).then(|| Ok(v1::UploadInputChunk { data: part.into() }))
        });
        stream::iter(parts)
    });
    chunks.try_flatten().boxed()
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use darkroom_core::error::UserError;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    /// The status and the reason of the refusal of a picture whose bytes come so.
    async fn refused(parts: Vec<Result<Bytes, Status>>) -> (u16, String) {
        let body = Body::from_stream(stream::iter(parts));
        let sent: Result<Vec<_>, UserError> = chunks(picture(body)).try_collect().await;
        // The farm returns the error of the stream.
        let error = sent.expect_err("refused");
        (Refusal::from(error.clone()).into_response().status().as_u16(), error.reason)
    }

    #[tokio::test]
    async fn a_picture_is_refused_with_the_status_of_what_is_wrong_with_its_body() {
        let mib = Bytes::from(vec![0; 1 << 20]);
        let whole = Body::from_stream(stream::iter(vec![Ok::<_, Status>(mib.clone()); 64]));
        let sent: Vec<v1::UploadInputChunk> =
            chunks(picture(whole)).try_collect().await.expect("the largest picture");
        assert_eq!(sent.iter().map(|chunk| chunk.data.len()).sum::<usize>(), 64 << 20);
        let mut large = vec![Ok(mib); 64];
        large.push(Ok(Bytes::from_static(b"x")));
        assert_eq!(refused(large).await, (413, "BODY_TOO_LARGE".to_owned()));
        let none = std::collections::HashMap::<String, String>::new();
        let details = ErrorDetails::with_error_info("REQUEST_STALLED", "darkroom", none);
        let stalled = Status::with_error_details(Code::DeadlineExceeded, "too slow", details);
        assert_eq!(refused(vec![Err(stalled)]).await, (408, "REQUEST_STALLED".to_owned()));
    }
}
