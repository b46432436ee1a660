//! Answers to requests whose body was not read: over HTTP/1.1, nothing else can follow on that
//! connection, so the answer says that it is closed. Otherwise a client would send its next request
//! there, and get no answer. What the client has sent already is read for a while and forgotten, or
//! the system would reset the connection and the answer with it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http::{HeaderValue, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};

/// Most bytes of a body that are read if the last of them are forgotten: some more than the largest
/// picture has, so that whoever sends one that is too large is told so if the rest comes in time.
const MOST: usize = 80 << 20;
/// Longest time for that.
const WHILE: Duration = Duration::from_secs(2);

/// Passes a request on, and says in its answer if the connection cannot be used again.
pub(crate) async fn close(request: Request, next: Next) -> Response {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let request =
        request.map(|body| Body::new(Watched { body, read: 0, ended: Arc::clone(&ended) }));
    let mut answer = next.run(request).await;
    if !ended.load(Ordering::Relaxed) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// A body that notes when it was read to its end. If it is dropped before that, the rest is read and
/// forgotten.
struct Watched {
    body: Body,
    /// Bytes that were read.
    read: usize,
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
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.read = self.read.saturating_add(size(frame));
        }
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

impl Drop for Watched {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let body = std::mem::take(&mut self.body);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(WHILE, forget(body, MOST.saturating_sub(self.read))));
        }
    }
}

fn size(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}

async fn forget(mut body: Body, mut left: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(size(&frame)) else { return };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware, routing::post};
    use futures::StreamExt as _;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn only_an_answer_before_the_end_of_the_body_closes_the_connection() {
        let app = Router::new()
            .route("/reads", post(async |body: String| body))
            .route("/begins", post(async |body: Body| drop(body.into_data_stream().next().await)))
            .route("/refuses", post(async || "no"))
            .layer(middleware::from_fn(close));
        let ask = async |path: &str, version: Version, body: &'static [&'static str]| {
            let parts = futures::stream::iter(body.iter().map(|part| Ok::<_, axum::Error>(*part)));
            let body = match body {
                [] => Body::empty(),
                // Ends with its only frame, while a stream ends after its last one.
                [whole] => Body::from(*whole),
                _ => Body::from_stream(parts),
            };
            let request = Request::post(path).version(version).body(body);
            let answer = app.clone().oneshot(request.expect("a request")).await.expect("answers");
            answer.headers().get(header::CONNECTION).cloned()
        };
        let close = Some(HeaderValue::from_static("close"));
        let (whole, parts): (&[&str], &[&str]) = (&["a picture"], &["a ", "picture"]);
        for version in [Version::HTTP_10, Version::HTTP_11] {
            for body in [whole, parts] {
                assert_eq!(ask("/refuses", version, body).await, close);
                assert_eq!(ask("/reads", version, body).await, None, "{body:?}");
            }
            assert_eq!(ask("/begins", version, parts).await, close);
            assert_eq!(ask("/begins", version, whole).await, None, "that was all");
            assert_eq!(ask("/refuses", version, &[]).await, None);
        }
        assert_eq!(ask("/refuses", Version::HTTP_2, parts).await, None, "a stream of its own");
    }
}
