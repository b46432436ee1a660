//! A client of the farm's HTTP API, as simple as a test wants it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// A client of one farm.
#[derive(Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    farm: String,
    headers: HeaderMap,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// Reads a whole answer.
    ///
    /// # Panics
    /// When it breaks off.
    pub async fn of(answer: Response<Incoming>) -> Self {
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("a whole answer").to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// A header as text; empty if it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or_default())
    }

    /// What a problem document says: its status, reason, field and sentence.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn problem(&self) -> (u16, String, Option<String>, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        let text = |name: &str| problem[name].as_str().map(str::to_owned);
        let told = |name| text(name).unwrap_or_default();
        (self.status.as_u16(), told("reason"), text("field"), told("detail"))
    }
}

impl Http {
    /// A client of the farm at `HOST:PORT`, over HTTP/1.1.
    #[must_use]
    pub fn new(farm: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, farm: farm.to_owned(), headers: HeaderMap::new() }
    }

    /// The same over HTTP/2, without TLS.
    #[must_use]
    pub fn over_http2(farm: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { client, farm: farm.to_owned(), headers: HeaderMap::new() }
    }

    /// The same with a header in every request.
    ///
    /// # Panics
    /// When it cannot be a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name of a header");
        self.headers.insert(name, HeaderValue::from_str(value).expect("a value of a header"));
        self
    }

    /// The same with a key.
    #[must_use]
    pub fn with_key(self, key: &str) -> Self {
        self.with("authorization", &format!("Bearer {key}"))
    }

    /// Sends a request, and returns the answer with its body still to come.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
        *request.uri_mut() = format!("http://{}{path}", self.farm).parse().expect("an address");
        *request.headers_mut() = self.headers.clone();
        self.client.request(request).await.unwrap_or_else(|error| {
            panic!("no answer to {method} {path}: {error:?}");
        })
    }

    /// Sends a request, and reads the whole answer.
    ///
    /// # Panics
    /// When there is no answer, or it breaks off.
    pub async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Reply {
        Reply::of(self.open(method, path, body).await).await
    }

    /// Gets an answer.
    ///
    /// # Panics
    /// As [`Http::send`].
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, Bytes::new()).await
    }

    /// Sends JSON.
    ///
    /// # Panics
    /// As [`Http::send`].
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let json = self.clone().with("content-type", "application/json");
        json.send("POST", path, body.to_string()).await
    }
}
