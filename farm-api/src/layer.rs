//! Adds the caller to every request of every protocol, before anything else handles it.

use std::task::{Context, Poll};

use http::Request;
use tower::{Layer, Service};

use crate::Caller;

/// Puts a [`Caller`] into the extensions of each request, where clients can put nothing.
#[derive(Clone, Debug)]
pub struct CallerLayer {
    caller: Caller,
}

impl CallerLayer {
    /// For an open farm, where every request has the same caller.
    #[must_use]
    pub fn open() -> Self {
        Self { caller: Caller::open() }
    }
}

impl<S> Layer<S> for CallerLayer {
    type Service = WithCaller<S>;

    fn layer(&self, inner: S) -> WithCaller<S> {
        WithCaller { inner, caller: self.caller.clone() }
    }
}

/// A service whose requests have a [`Caller`].
#[derive(Clone, Debug)]
pub struct WithCaller<S> {
    inner: S,
    caller: Caller,
}

impl<S, B> Service<Request<B>> for WithCaller<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.caller.clone());
        self.inner.call(request)
    }
}
