//! Requests that are not gRPC: what the server must know of each, and how it refuses one.

use std::fmt;

use darkroom_core::error::{Code, UserError};
use http::{HeaderMap, Method, Response, header};
use tonic::body::Body;

use super::refusal::AGAIN;

/// How requests over plain HTTP are treated. Their routes are among the server's routes.
#[derive(Clone, Copy)]
pub struct Web {
    /// What a request with this method, path and these headers is like.
    pub describe: fn(&Method, &str, &HeaderMap) -> WebRequest,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Web")
    }
}

/// What a request is like.
#[derive(Clone, Copy, Debug)]
pub struct WebRequest {
    /// Its answer may stay open for ever.
    pub lasts: bool,
    /// What its handler does with its body.
    pub body: WebBody,
    /// The answer that tells an error.
    pub refuse: fn(&UserError) -> Response<Body>,
}

/// What a handler does with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebBody {
    /// It reads all of it, and decodes it. Such a request is answered soon.
    Decoded,
    /// It gathers all of it in memory, and the request may take long.
    Gathered,
    /// It works on it bit by bit, and the request may take long.
    Streamed,
}

impl WebRequest {
    /// Whether it may take as long as a stream of messages.
    pub(crate) fn is_long(self) -> bool {
        self.body != WebBody::Decoded
    }
}

/// Whether a request is a call of gRPC, by its content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    media.is_some_and(|media| media.starts_with(b"application/grpc"))
}

/// A request over plain HTTP, in the extensions of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverWeb(pub(crate) WebRequest);

impl OverWeb {
    /// The request with these parts, if it is one.
    pub(super) fn of(
        web: Option<Web>,
        (method, path): (&Method, &str),
        headers: &HeaderMap,
    ) -> Option<Self> {
        web.filter(|_| !is_grpc(headers)).map(|web| Self((web.describe)(method, path, headers)))
    }

    /// The refusal of a request for which there is no room.
    pub(super) fn busy(self, message: &str) -> Response<Body> {
        let error = UserError::new(Code::Unavailable, "BUSY", message);
        (self.0.refuse)(&UserError { retry_after: Some(AGAIN), ..error })
    }

    /// The refusal of a request that took too long.
    pub(crate) fn late(self, message: String) -> Response<Body> {
        (self.0.refuse)(&UserError::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message))
    }
}
