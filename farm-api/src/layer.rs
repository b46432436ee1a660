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
};
use darkroom_proto::status::to_status;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};
use tonic::Status;
use tower::{Layer, Service};

use crate::{
    Caller,
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
        Self { door: Door::Open, peer: |_| Peer::default() }
    }

    /// For a farm whose callers need keys. Only health is open to everybody.
    #[must_use]
    pub fn kept(keeper: Arc<dyn Keeper>) -> Self {
        Self { door: Door::Kept(keeper), peer: |_| Peer::default() }
    }

    /// The same, with a way to see who is at the other end of a connection.
    #[must_use]
    pub fn with_peer(self, peer: PeerOf) -> Self {
        Self { peer, ..self }
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
    R: Default + 'static,
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
        // The service that reported ready must be the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let asked = Asked::by(request.uri().path(), request.headers(), &peer);
            let expires = match let_in(keeper.as_ref(), asked).await {
                Ok(None) => None,
                Ok(Some((Known { caller, expires }, proof, scope))) => {
                    request.extensions_mut().insert(caller.at(peer.address));
                    request.extensions_mut().insert(Standing { keeper, proof, scope });
                    expires
                }
                Err(refused) => return Ok(refused.into_http()),
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
    /// Whether this proof is of a caller with this scope.
    Caller(Scope, Proof),
    /// Whether it is a caller's at all, who then learns that there is no such call.
    Unknown(Proof),
}

impl Asked {
    fn by(path: &str, headers: &HeaderMap, peer: &Peer) -> Result<Self, UserError> {
        let proof = || proof(headers, peer.certificate.clone());
        Ok(match rule::of(path) {
            Rule::Open => Self::Open,
            Rule::Scope(scope) => Self::Caller(scope, proof()?),
            Rule::Unknown => Self::Unknown(proof()?),
        })
    }
}

/// The caller of a request that may be made, and how it was let in; none for a call that is open to
/// everybody.
async fn let_in(
    keeper: &dyn Keeper,
    asked: Result<Asked, UserError>,
) -> Result<Option<(Known, Proof, Scope)>, Status> {
    let told = |error: UserError| to_status(&error);
    match asked.map_err(told)? {
        Asked::Open => Ok(None),
        Asked::Caller(scope, proof) => {
            let known = keeper.known(&proof).await.map_err(told)?;
            known.caller.needs(scope).map_err(told)?;
            // Workers and encoders renew their keys, whatever a tenant does.
            if scope != Scope::Member {
                keeper.admit(&known.caller).map_err(told)?;
            }
            Ok(Some((known, proof, scope)))
        }
        Asked::Unknown(proof) => {
            keeper.known(&proof).await.map_err(told)?;
            // The path can be long, so it is not repeated.
            Err(Status::unimplemented("this farm has no such call"))
        }
    }
}

/// What a request shows. A key counts before a certificate.
fn proof(headers: &HeaderMap, certificate: Option<String>) -> Result<Proof, UserError> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    match (shown.next(), shown.next()) {
        (Some(value), None) => bearer(value)?.parse::<Key>().map(Proof::Key),
        (Some(_), Some(_)) => Err(unauthenticated(
            "MALFORMED_KEY",
            "the call has the metadata authorization twice; accepted: one key",
        )),
        (None, _) => certificate.map(Proof::Certificate).ok_or_else(|| {
            unauthenticated(
                "NO_KEY",
                "the call has no key; set DARKROOM_KEY to a key of this farm, or send it as \
                 metadata: authorization: Bearer dk_…",
            )
        }),
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

    use super::*;

    fn shown(values: &[&str], certificate: Option<&str>) -> Result<Proof, UserError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).expect(value));
        }
        proof(&headers, certificate.map(str::to_owned))
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
}
