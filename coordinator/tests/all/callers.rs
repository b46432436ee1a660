//! Every call of the farm has a caller, or is refused.

use crate::support::Farm;
use darkroom_core::error::Code;
use darkroom_farm_api::{CallerLayer, grpc};
use darkroom_proto::{calls::CALLS, status::from_status};
use http::{Request, header};
use tonic::{Status, body::Body, service::Routes};
use tower::ServiceExt as _;

/// Sends an empty message, and reads the beginning of the answer: a refusal, or nothing yet.
async fn ask(routes: Routes, path: &str) -> Option<Status> {
    // A frame of gRPC: not compressed, 0 bytes.
    let message = http_body_util::Full::from(&[0; 5][..]);
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/grpc")
        .body(Body::new(message))
        .expect("a request");
    let response = routes.oneshot(request).await.expect("answered");
    Status::from_header_map(response.headers())
}

fn of_the_farm() -> impl Iterator<Item = &'static str> {
    CALLS.iter().map(|call| call.path).filter(|path| path.starts_with("/darkroom.v1.Farm/"))
}

#[tokio::test]
async fn a_call_without_a_caller_is_refused_whatever_it_asks() {
    let farm = Farm::start().await;
    let routes = Routes::new(grpc::service(farm.handle.calls()));
    for path in of_the_farm() {
        let refused = ask(routes.clone(), path).await.expect(path);
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{path}: {refused}");
        let error = from_status(&refused);
        assert_eq!((error.code, error.reason.as_str()), (Code::Unauthenticated, "NO_CALLER"));
    }
    farm.shutdown().await;
}

#[tokio::test]
async fn the_open_farms_caller_reaches_every_call() {
    let farm = Farm::start().await;
    let routes = Routes::new(grpc::service(farm.handle.calls()));
    let routes = grpc::behind(CallerLayer::open(), routes);
    let mut answered = 0;
    for path in of_the_farm() {
        let refused = [tonic::Code::Unauthenticated, tonic::Code::Unimplemented];
        match ask(routes.clone(), path).await {
            Some(status) => assert!(!refused.contains(&status.code()), "{path}: {status}"),
            None => answered += 1,
        }
    }
    assert!(answered >= 4, "calls that work with an empty message are answered: {answered}");
    farm.shutdown().await;
}
