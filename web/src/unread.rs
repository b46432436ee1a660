//! Answers to requests whose body was not read: over HTTP/1.1, nothing else can follow on that
//! connection, so the answer says that it is closed. Otherwise a client would send its next request
//! there, and get no answer.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http::{HeaderValue, Version, header};
use http_body::{Frame, SizeHint};

/// Passes a request on, and says in its answer if the connection cannot be used again.
pub(crate) async fn close(request: Request, next: Next) -> Response {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| Body::new(Watched { body, ended: Arc::clone(&ended) }));
    let mut answer = next.run(request).await;
    if !ended.load(Ordering::Relaxed) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// A body that notes when it was read to its end.
struct Watched {
    body: Body,
    ended: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let is_last = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if is_last {
            self.ended.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware, routing::post};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn only_an_answer_before_the_end_of_the_body_closes_the_connection() {
        let app = Router::new()
            .route("/reads", post(async |body: String| body))
            .route("/refuses", post(async || "no"))
            .layer(middleware::from_fn(close));
        let ask = async |path: &str, version: Version, body: &'static str| {
            let request = Request::post(path).version(version).body(Body::from(body));
            let answer = app.clone().oneshot(request.expect("a request")).await.expect("answers");
            answer.headers().get(header::CONNECTION).cloned()
        };
        let close = Some(HeaderValue::from_static("close"));
        assert_eq!(ask("/refuses", Version::HTTP_11, "a picture").await, close);
        assert_eq!(ask("/refuses", Version::HTTP_11, "").await, None);
        assert_eq!(
            ask("/refuses", Version::HTTP_2, "a picture").await,
            None,
            "a stream of its own"
        );
        assert_eq!(ask("/reads", Version::HTTP_11, "a picture").await, None);
    }
}
