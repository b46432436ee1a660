//! The web page: prebuilt files that are compiled into the program.

use std::sync::LazyLock;

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Method, StatusCode, header};

use crate::{
    json_answer::{has, header_value, tag},
    problem::Refusal,
};

/// A file of the page.
struct File {
    /// Its path, from `/` on.
    path: &'static str,
    media: &'static str,
    bytes: &'static [u8],
}

/// The tag of each file, in their order.
static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| FILES.iter().map(|file| tag(file.bytes)).collect());

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// The page itself, which every path without a file shows.
const PAGE: &str = "/index.html";
/// Files with a hash in their name never change.
const HASHED: &str = "/assets/";
/// Only our own files and pictures, no inline scripts, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Serves a file, or the page.
pub(crate) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let is_api = ["/api/", "/v1/", "/links/"].iter().any(|part| path.starts_with(part));
    let find = |path: &str| FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.path == path);
    let found = match find(path) {
        None if !is_api && !path.starts_with(HASHED) => find(PAGE),
        found => found,
    };
    let Some((file, tag)) = found.filter(|_| reads) else {
        let message = "this farm has no such route; /api/v1/openapi.json lists those it has";
        return Refusal::http(StatusCode::NOT_FOUND, "NO_SUCH_ROUTE", message).into_response();
    };
    let mut answer = Response::new(Body::empty());
    if has(request.headers(), tag) {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *answer.body_mut() = Body::from(file.bytes);
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(file.media));
    }
    let cache = if file.path.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = answer.headers_mut();
    headers.insert(header::ETAG, header_value(tag));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer
}
