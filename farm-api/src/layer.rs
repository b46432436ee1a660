//! Adds the caller to every request of every protocol, before anything else handles it, and refuses
//! a request whose caller may not make it.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use darkroom_core::{
    error::{Code, UserError},
    key::{EXPIRES_METADATA, Key},
    scope::Scope,
    session::Session,
};
use darkroom_proto::{problem, status::to_status};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use tonic::Status;
use tower::{Layer, Service};

use crate::{
    Answer, Caller,
    cookie::{Cookie, authority},
    keeper::{Keeper, Known, Peer, PeerOf, Proof},
    rule::{self, Rule},
    standing::Standing,
};

/// Tells a client when its key ends: seconds since 1970.
const EXPIRES: HeaderName = HeaderName::from_static(EXPIRES_METADATA);
/// How a key is announced in `authorization`; upper or lower case.
const SCHEME: &str = "bearer ";

/// Puts a [`Caller`] into the extensions of each request, where clients can put nothing.
#[derive(Clone)]
pub struct CallerLayer {
    door: Door,
    peer: PeerOf,
    speaks: Speaks,
}

/// What the requests are, and how they are refused.
#[derive(Clone, Copy)]
enum Speaks {
    /// Calls of gRPC: their path says what they need.
    Grpc,
    /// Requests of one route over HTTP.
    Http(HttpRoute),
}

/// A route over HTTP.
#[derive(Clone, Copy, Debug)]
pub struct HttpRoute {
    /// What it needs.
    pub needs: Rule,
    /// Whether browsers reach it over TLS.
    pub tls: bool,
}

/// Who is let in.
#[derive(Clone)]
enum Door {
    /// Everybody, as the caller of an open farm.
    Open,
    /// Callers whom the keeper knows, to the calls of their scopes.
    Kept(Arc<dyn Keeper>),
}

impl CallerLayer {
    /// For an open farm, where everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self { door: Door::Open, peer: |_| Peer::default(), speaks: Speaks::Grpc }
    }

    /// For a farm whose callers need keys. Only health is open to everybody.
    #[must_use]
    pub fn kept(keeper: Arc<dyn Keeper>) -> Self {
        Self { door: Door::Kept(keeper), peer: |_| Peer::default(), speaks: Speaks::Grpc }
    }

    /// The same, with a way to see who is at the other end of a connection.
    #[must_use]
    pub fn with_peer(self, peer: PeerOf) -> Self {
        Self { peer, ..self }
    }

    /// The same for a route over HTTP. A session's cookie counts there, after a key and a
    /// certificate, and refusals are problem documents.
    #[must_use]
    pub fn over_http(self, route: HttpRoute) -> Self {
        Self { speaks: Speaks::Http(route), ..self }
    }

    /// Whether everybody may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.door, Door::Open)
    }

    /// Begins a session for a key.
    ///
    /// # Errors
    /// As [`Keeper::begin_session`]; an open farm has no sessions.
    pub async fn begin_session(&self, key: &Key) -> Answer<(Session, Known)> {
        match &self.door {
            Door::Kept(keeper) => keeper.begin_session(key).await,
            Door::Open => Err(UserError::new(
                Code::FailedPrecondition,
                "OPEN_FARM",
                "this farm is open: everybody may do everything, and nobody logs in",
            )),
        }
    }
}

impl fmt::Debug for CallerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.door {
            Door::Open => "CallerLayer(open)",
            Door::Kept(_) => "CallerLayer(kept)",
        })
    }
}

impl<S> Layer<S> for CallerLayer {
    type Service = WithCaller<S>;

    fn layer(&self, inner: S) -> WithCaller<S> {
        WithCaller { inner, layer: self.clone() }
    }
}

/// A service whose requests have a [`Caller`].
#[derive(Clone, Debug)]
pub struct WithCaller<S> {
    inner: S,
    layer: CallerLayer,
}

impl<S, B, R> Service<Request<B>> for WithCaller<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + From<String> + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let peer = (self.layer.peer)(request.extensions());
        let keeper = match &self.layer.door {
            Door::Open => {
                request.extensions_mut().insert(Caller::open().at(peer.address));
                return Box::pin(self.inner.call(request));
            }
            Door::Kept(keeper) => Arc::clone(keeper),
        };
        let speaks = self.layer.speaks;
        // The service that reported ready must be the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let asked = Asked::by(&request, speaks, &peer);
            let expires = match let_in(keeper.as_ref(), asked).await {
                Ok(Admission::Open) => None,
                Ok(Admission::Known(Known { caller, expires }, proof, scope)) => {
                    request.extensions_mut().insert(caller.at(peer.address));
                    request.extensions_mut().insert(Standing { keeper, proof, scope });
                    expires
                }
                // The path can be long, so it is not repeated.
                Ok(Admission::Nowhere) => {
                    return Ok(Status::unimplemented("this farm has no such call").into_http());
                }
                Err(refused) => return Ok(speaks.refusal(&refused)),
            };
            let mut answer = inner.call(request).await?;
            if let Some(expires) = expires {
                answer.headers_mut().insert(EXPIRES, HeaderValue::from(expires));
            }
            Ok(answer)
        })
    }
}

/// What has to be found out about a request.
enum Asked {
    /// Nothing: everybody may ask this.
    Open,
    /// Whether this proof is of a caller, with this scope if one is needed.
    Caller(Option<Scope>, Proof),
    /// Whether it is a caller's at all, who then learns that there is no such call.
    Unknown(Proof),
}

impl Asked {
    fn by<B>(request: &Request<B>, speaks: Speaks, peer: &Peer) -> Result<Self, UserError> {
        let headers = request.headers();
        let (rule, session) = match speaks {
            Speaks::Grpc => (rule::of(request.uri().path()), None),
            Speaks::Http(route) => (route.needs, cookie_of(request, route.tls)),
        };
        let proof = || proof(headers, peer.certificate.clone(), session);
        Ok(match rule {
            Rule::Open => Self::Open,
            Rule::Anybody => Self::Caller(None, proof()?),
            Rule::Scope(scope) => Self::Caller(Some(scope), proof()?),
            Rule::Unknown => Self::Unknown(proof()?),
        })
    }
}

/// The cookie that a request's session would be in.
fn cookie_of<B>(request: &Request<B>, tls: bool) -> Option<Cookie> {
    authority(request.uri(), request.headers()).map(|authority| Cookie::at(&authority, tls))
}

impl Speaks {
    fn refusal<R: Default + From<String>>(self, error: &UserError) -> Response<R> {
        match self {
            Self::Grpc => to_status(error).into_http(),
            Self::Http(_) => problem::answer(error).map(R::from),
        }
    }
}

/// A request that is not refused.
enum Admission {
    /// Everybody may make it.
    Open,
    /// Its caller may make it, and how the caller was let in.
    Known(Known, Proof, Option<Scope>),
    /// There is no such call.
    Nowhere,
}

/// Whether a request may be made.
async fn let_in(
    keeper: &dyn Keeper,
    asked: Result<Asked, UserError>,
) -> Result<Admission, UserError> {
    match asked? {
        Asked::Open => Ok(Admission::Open),
        Asked::Caller(scope, proof) => {
            let known = keeper.known(&proof).await?;
            if let Some(scope) = scope {
                known.caller.needs(scope)?;
            }
            // Workers and encoders renew their keys, whatever a tenant does.
            if scope != Some(Scope::Member) {
                keeper.admit(&known.caller)?;
            }
            Ok(Admission::Known(known, proof, scope))
        }
        Asked::Unknown(proof) => {
            keeper.known(&proof).await?;
            Ok(Admission::Nowhere)
        }
    }
}

/// What a request shows. A key counts before a certificate, and that before a session.
fn proof(
    headers: &HeaderMap,
    certificate: Option<String>,
    session: Option<Cookie>,
) -> Result<Proof, UserError> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    match (shown.next(), shown.next()) {
        (Some(value), None) => bearer(value)?.parse::<Key>().map(Proof::Key),
        (Some(_), Some(_)) => Err(unauthenticated(
            "MALFORMED_KEY",
            "the call has the metadata authorization twice; accepted: one key",
        )),
        (None, _) => {
            if let Some(certificate) = certificate {
                return Ok(Proof::Certificate(certificate));
            }
            let session = session.map(|cookie| cookie.read(headers)).transpose()?.flatten();
            session.map(Proof::Session).ok_or_else(|| {
                unauthenticated(
                    "NO_KEY",
                    "the call has no key; set DARKROOM_KEY to a key of this farm, or send it as \
                     metadata: authorization: Bearer dk_…",
                )
            })
        }
    }
}

/// The text behind `Bearer`.
fn bearer(value: &HeaderValue) -> Result<&str, UserError> {
    let text = value.to_str().ok();
    let parts = text.and_then(|text| text.split_at_checked(SCHEME.len()));
    let key = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME)).map(|(_, key)| key);
    key.ok_or_else(|| {
        unauthenticated(
            "MALFORMED_KEY",
            "the metadata authorization is not a key; accepted: Bearer dk_…",
        )
    })
}

fn unauthenticated(reason: &str, message: &str) -> UserError {
    UserError::new(Code::Unauthenticated, reason, message)
}

#[cfg(test)]
mod tests {
    use darkroom_core::key::RANDOM_BYTES;
    use http::header::HOST;

    use super::*;

    fn shown(values: &[&str], certificate: Option<&str>) -> Result<Proof, UserError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).expect(value));
        }
        proof(&headers, certificate.map(str::to_owned), None)
    }

    #[test]
    fn a_key_is_read_behind_bearer_and_counts_before_a_certificate() {
        let key = Key::of_random(&[7; RANDOM_BYTES]);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let value = format!("{scheme} {}", key.expose());
            for certificate in [None, Some("CN=a")] {
                let Ok(Proof::Key(read)) = shown(&[&value], certificate) else {
                    panic!("{scheme} {certificate:?}")
                };
                assert_eq!(read.expose(), key.expose());
            }
        }
        assert!(matches!(shown(&[], Some("CN=a")), Ok(Proof::Certificate(of)) if of == "CN=a"));
    }

    #[test]
    fn what_is_no_key_is_told_from_none_and_never_repeated() {
        let whole = Key::of_random(&[7; RANDOM_BYTES]).expose();
        let none = shown(&[], None).expect_err("nothing");
        assert_eq!((none.code, none.reason.as_str()), (Code::Unauthenticated, "NO_KEY"));
        let bearer = format!("Bearer {whole}");
        for wrong in [
            vec![""],
            vec!["Bearer"],
            vec!["Bearer "],
            vec![&whole[..]],
            vec!["Basic ZGs6ZGs="],
            vec!["Bearer  x"],
            vec!["Bearer \u{e9}"],
            vec!["\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"],
            vec![&bearer[..bearer.len() - 1]],
            vec![&bearer, &bearer],
        ] {
            let error = shown(&wrong, Some("CN=a")).expect_err("no key");
            let told = (error.code, error.reason.as_str());
            assert_eq!(told, (Code::Unauthenticated, "MALFORMED_KEY"), "{wrong:?}");
            assert!(!error.message.contains(&whole[20..30]), "{error}");
        }
    }

    #[test]
    fn a_session_counts_only_over_http_and_only_without_a_key_or_certificate() {
        let session = Session::new("0123456789ab".parse().expect("an id"), 1, |_| [7; 32]);
        let cookie = Cookie::at("farm:7878", false).keep(&session, 60);
        let pair = cookie.split(';').next().expect("a pair").to_owned();
        let key = Key::of_random(&[7; RANDOM_BYTES]);
        let asked = |speaks, key: Option<&Key>, certificate: Option<&str>| {
            let mut request = Request::get("/x").header(HOST, "farm:7878").header("cookie", &pair);
            if let Some(key) = key {
                request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose()));
            }
            let certificate = certificate.map(str::to_owned);
            let request = request.body(()).expect("a request");
            Asked::by(&request, speaks, &Peer { address: None, certificate })
        };
        let http = Speaks::Http(HttpRoute { needs: Rule::Scope(Scope::Read), tls: false });
        let read = asked(http, None, None).expect("a proof");
        assert!(matches!(&read, Asked::Caller(_, Proof::Session(of)) if of.expires() == 1));
        let read = asked(http, Some(&key), Some("CN=a")).expect("a proof");
        assert!(matches!(read, Asked::Caller(_, Proof::Key(_))));
        let read = asked(http, None, Some("CN=a")).expect("a proof");
        assert!(matches!(read, Asked::Caller(_, Proof::Certificate(_))));
        // gRPC clients have no cookies, and under TLS the cookie has another name.
        let tls = Speaks::Http(HttpRoute { needs: Rule::Anybody, tls: true });
        let refused = asked(tls, None, None).err().expect("no session");
        assert_eq!(refused.reason, "NO_KEY");
        let path = darkroom_proto::calls::farm::GET_JOB.path;
        let request = Request::get(path).header(HOST, "farm:7878").header("cookie", &pair);
        let request = request.body(()).expect("a request");
        let refused = Asked::by(&request, Speaks::Grpc, &Peer::default()).err();
        assert_eq!(refused.expect("no session").reason, "NO_KEY");
    }
}
