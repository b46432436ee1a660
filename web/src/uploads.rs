//! `POST /inputs`: a picture that prompts can name by its hash.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use bytes::Bytes;
use darkroom_farm_api::{Incoming, while_it_stands};
use darkroom_proto::{json, v1};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;

use crate::{
    entry::{Entry, broken, media_type, unsupported},
    json_answer::json as answer,
    problem::Refusal,
    site::Site,
};

/// The types of pictures.
const PICTURES: [&str; 3] = ["image/png", "image/jpeg", "image/webp"];
/// Most bytes of a chunk of an upload.
const CHUNK: usize = 64 << 10;

/// Stores the body.
pub(crate) async fn upload(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    if !media_type(entry.headers()).is_some_and(|media| PICTURES.contains(&media.as_str())) {
        return Err(unsupported(&PICTURES.join(", ")));
    }
    let (caller, standing) = (entry.caller.clone(), entry.standing.clone());
    let body = entry.into_stream().into_data_stream();
    let body = body.map_err(|error| broken(&error).into_error());
    let chunks = while_it_stands(standing, chunks(body.boxed()));
    let stored = site.farm.upload_input(&caller, chunks).await?;
    answer(StatusCode::CREATED, &json::UploadInputResponse::from(stored), None)
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
