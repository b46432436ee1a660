//! How the routes of this crate are served beside gRPC, on one port.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use darkroom_core::error::UserError;
use darkroom_proto::problem;
use darkroom_runtime::server::{self, WebBody, WebRequest, is_grpc};
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Method};
use tonic::service::Routes;
use tower::Service;

use crate::{
    openai::{self, dialect},
    paths::API,
    submission::is_lines,
};

/// What a request is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is answered soon.
    Short,
    /// Its body is gathered in memory, and may take long.
    Upload,
    /// If its body is JSON lines, it may have any length, and is worked on bit by bit.
    Stream,
    /// Its body may have any length, whatever it is, and is worked on bit by bit.
    File,
    /// Its answer may stay open for ever.
    Lasting,
}

/// What a request with this method and path is like.
fn kind(method: &Method, path: &str) -> Kind {
    if *method == Method::POST && [openai::GENERATIONS, openai::EDITS].contains(&path) {
        return Kind::Upload;
    }
    if *method == Method::POST && path == openai::FILES {
        return Kind::File;
    }
    let Some(path) = path.strip_prefix(API) else { return Kind::Short };
    match path {
        "/jobs" | "/forecasts" if *method == Method::POST => Kind::Stream,
        "/inputs" if *method == Method::POST => Kind::Upload,
        path if *method == Method::GET && path.starts_with('/') && path.ends_with("/events") => {
            Kind::Lasting
        }
        _ => Kind::Short,
    }
}

/// How a server treats requests of this crate's routes.
#[must_use]
pub fn web() -> server::Web {
    server::Web { describe }
}

fn describe(method: &Method, path: &str, headers: &HeaderMap) -> WebRequest {
    let mut kind = kind(method, path);
    // One JSON document is decoded as a whole, and must be there soon.
    if kind == Kind::Stream && !is_lines(headers) {
        kind = Kind::Short;
    }
    let body = match kind {
        Kind::Short | Kind::Lasting => WebBody::Decoded,
        Kind::Upload => WebBody::Gathered,
        Kind::Stream | Kind::File => WebBody::Streamed,
    };
    let refuse = if dialect::is_ours(path) { refuse_like_openai } else { refuse };
    WebRequest { lasts: kind == Kind::Lasting, body, refuse }
}

/// The same in OpenAI's shape.
fn refuse_like_openai(error: &UserError) -> http::Response<tonic::body::Body> {
    dialect::refuse(error).map(tonic::body::Body::new)
}

/// The answer that tells an error.
fn refuse(error: &UserError) -> http::Response<tonic::body::Body> {
    problem::answer(error).map(|text| tonic::body::Body::new(Body::from(text)))
}

/// Both kinds of routes: requests of gRPC go to `grpc`, and all others to `web`.
#[must_use]
pub fn beside(grpc: Routes, web: Router) -> Routes {
    let split = Split { grpc: grpc.into_axum_router(), web };
    Routes::from(Router::new().fallback_service(split))
}

#[derive(Clone)]
struct Split {
    grpc: Router,
    web: Router,
}

impl Service<Request> for Split {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routers are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let router = if is_grpc(request.headers()) { &mut self.grpc } else { &mut self.web };
        router.call(request).boxed()
    }
}

#[cfg(test)]
mod tests {
    use darkroom_proto::calls::Class;
    use http::header;

    use super::*;
    use crate::{admin_routes, farm_routes};

    #[test]
    fn a_route_lasts_if_its_call_does_and_takes_long_if_its_call_receives_a_stream() {
        for route in farm_routes::routes().into_iter().chain(admin_routes::routes()) {
            let path = format!("{API}{}", route.path);
            let kind = kind(&route.method, &path);
            let name = route.call.path;
            assert_eq!(kind == Kind::Lasting, route.call.class == Class::Lasting, "{name}");
            assert_eq!(kind == Kind::Upload, route.call.gathers, "{name}");
            let streams = route.call.class == Class::Long || name.ends_with("/SubmitJob");
            let long = [Kind::Upload, Kind::Stream].contains(&kind);
            assert_eq!(long, streams, "{name}");
        }
        let described = |media: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media));
            describe(&Method::POST, "/api/v1/jobs", &headers).body
        };
        assert_eq!(described("application/jsonl; charset=utf-8"), WebBody::Streamed);
        assert_eq!(described("application/json"), WebBody::Decoded);
        assert_eq!(kind(&Method::POST, "/jobs"), Kind::Short);
        assert_eq!(kind(&Method::GET, "/api/v1/jobs"), Kind::Short);
        assert_eq!(kind(&Method::GET, "/api/v1x/events"), Kind::Short, "no route of the API");
        for path in ["/v1/images/generations", "/v1/images/edits"] {
            assert_eq!(kind(&Method::POST, path), Kind::Upload, "it waits for pictures");
            assert_eq!(kind(&Method::GET, path), Kind::Short);
        }
        assert_eq!(kind(&Method::GET, "/v1/models"), Kind::Short);
    }
}
