//! A deadline for every call: the client's `grpc-timeout`, but never longer than the server's own
//! limit.
//!
//! The deadline runs until the response begins. For a unary or client-streaming call that is the
//! whole call. A server stream may then continue for as long as its handler and its client like.
//! (tonic's own time limit answers CANCELLED, which looks like a cancel by the client; this one
//! answers DEADLINE_EXCEEDED.)

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::server::OverWeb;

/// The server's limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For all other calls.
    pub call: Duration,
    /// For the calls in `long`, and for requests over HTTP that may take long.
    pub long_call: Duration,
    /// Paths (`/package.Service/Method`) of calls that receive a stream and therefore take longer.
    pub long: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(60),
            long_call: Duration::from_secs(3600),
            long: Vec::new(),
        }
    }
}

/// Adds [`Limits`] to a service.
#[derive(Clone, Debug)]
pub struct DeadlineLayer(Arc<Limits>);

impl DeadlineLayer {
    /// A layer with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(limits))
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, limits: Arc::clone(&self.0) }
    }
}

/// A service whose calls have a deadline.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S, RequestBody> Service<Request<RequestBody>> for Deadline<S>
where
    S: Service<Request<RequestBody>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let web = request.extensions().get::<OverWeb>().copied();
        let is_long = web.is_some_and(|OverWeb(request)| request.is_long())
            || self.limits.long.iter().any(|path| path == request.uri().path());
        let limit = if is_long { self.limits.long_call } else { self.limits.call };
        let deadline = client_timeout(request.headers()).map_or(limit, |wanted| wanted.min(limit));
        let response = self.inner.call(request);
        Box::pin(async move {
            match tokio::time::timeout(deadline, response).await {
                Ok(response) => response,
                Err(_) => {
                    let deadline = deadline.as_secs_f64();
                    let message = format!("the call did not finish within {deadline:.1} s");
                    Ok(match web {
                        Some(web) => web.late(message),
                        None => Status::deadline_exceeded(message).into_http(),
                    })
                }
            }
        })
    }
}

/// The time that the client allows: `grpc-timeout`, up to eight digits and a unit. A malformed
/// header is ignored.
fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;

    use super::*;

    #[derive(Clone)]
    struct Slow(Duration);

    impl Service<Request<()>> for Slow {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            let time = self.0;
            Box::pin(async move {
                tokio::time::sleep(time).await;
                Ok(Response::new(Body::empty()))
            })
        }
    }

    async fn code(takes: u64, path: &str, header: Option<&str>) -> Option<Code> {
        let limits = Limits {
            call: Duration::from_secs(10),
            long_call: Duration::from_secs(100),
            long: vec!["/p.S/Long".to_owned()],
        };
        let mut service = DeadlineLayer::new(limits).layer(Slow(Duration::from_secs(takes)));
        let mut request = Request::builder().uri(path);
        if let Some(header) = header {
            request = request.header("grpc-timeout", header);
        }
        let response = service.call(request.body(()).expect("request")).await.expect("infallible");
        Status::from_header_map(response.headers()).map(|status| status.code())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_the_earlier_of_both_limits() {
        assert_eq!(code(9, "/p.S/Get", None).await, None);
        assert_eq!(code(11, "/p.S/Get", None).await, Some(Code::DeadlineExceeded));
        assert_eq!(code(5, "/p.S/Get", Some("2S")).await, Some(Code::DeadlineExceeded));
        assert_eq!(code(5, "/p.S/Get", Some("6000m")).await, None);
        assert_eq!(code(11, "/p.S/Get", Some("1H")).await, Some(Code::DeadlineExceeded));
        assert_eq!(code(99, "/p.S/Long", None).await, None);
    }

    #[test]
    fn a_malformed_timeout_counts_as_none() {
        for text in ["", "S", "5", "123456789S", "-1S", "5x"] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("header"));
            assert_eq!(client_timeout(&headers), None, "{text:?}");
        }
    }
}
