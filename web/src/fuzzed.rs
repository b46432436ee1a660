//! What the fuzz targets of `tests/fuzz` call. Nothing else uses them from outside.

use axum::{body::Body, response::IntoResponse as _};
use bytes::Bytes;
use darkroom_core::{digest::Digest, error::UserError};
use darkroom_proto::{json, v1};
use futures::executor::block_on;
use http::{HeaderMap, Method, Uri};
use multer::Field;

pub use crate::openai::fuzzed::mask;
use crate::{
    gate::{self, Hosts},
    openai::fuzzed::{Files, order, read_form, whole},
    pictures::PictureQuery,
    problem::Refusal,
    query, serving,
};

/// The boundary of the forms of [`form`].
pub const BOUNDARY: &str = "b";

/// Reads a query into the forms of a few requests, and says how many take it.
///
/// # Errors
/// The refusal of the first one, if none does.
pub fn query(text: &str) -> Result<usize, UserError> {
    let jobs = query::read::<json::ListJobsRequest>(text);
    let all = [
        jobs.as_ref().is_ok_and(|form| {
            let _ = v1::ListJobsRequest::from(form.clone());
            true
        }),
        query::read::<json::ListImagesRequest>(text).is_ok(),
        query::read::<json::FarmHistoryRequest>(text).is_ok(),
        query::read::<json::GetImageMapRequest>(text).is_ok(),
        query::read::<PictureQuery>(text).is_ok(),
    ];
    match (jobs, all.iter().filter(|taken| **taken).count()) {
        (Err(error), 0) => Err(error),
        (_, count) => Ok(count),
    }
}

/// Files that go nowhere.
struct Nowhere;

impl Files for Nowhere {
    async fn picture(&self, part: Field<'static>) -> Result<String, Refusal> {
        Ok(Digest::of(&whole(part).await?).to_string())
    }

    async fn mask(&self, part: Field<'static>) -> Result<String, Refusal> {
        self.picture(part).await
    }
}

/// Reads a form with the boundary [`BOUNDARY`] as a request for edits, and says how many pictures
/// are asked for.
///
/// # Errors
/// The refusal that the client gets.
pub fn form(body: &[u8]) -> Result<u32, UserError> {
    let body = Body::from(Bytes::copy_from_slice(body));
    let read = block_on(read_form(&Nowhere, body, BOUNDARY.to_owned()));
    order(read.map_err(Refusal::into_error)?.0)
}

/// Lets a request pass the gate, and says how the server treats it.
///
/// # Errors
/// The status of the refusal, and the refusal.
pub fn route(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<String, (u16, UserError)> {
    let treated = (serving::web().describe)(method, uri.path(), headers);
    let hosts = Hosts::new(["farm.example.com".to_owned()], None);
    gate::checked(&hosts, method, uri, headers).map_err(|refusal| {
        let error = refusal.clone().into_error();
        (refusal.into_response().status().as_u16(), error)
    })?;
    Ok(format!("{} {:?}", treated.lasts, treated.body))
}
