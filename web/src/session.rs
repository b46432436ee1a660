//! Sessions of the web page: a key is shown once, and a cookie stands for it from then on.
//!
//! The cookie holds no key: it names the key and an end, sealed by the farm. It is void as soon as
//! the key is.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use darkroom_core::{error::UserError, key::Key, scope::Scope};
use darkroom_farm_api::{Cookie, Known};
use darkroom_proto::{hidden::Hidden, json::Seconds};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};

use crate::{
    entry::{Entry, read_json},
    json_answer::{header_value, json as answer},
    places::authority,
    problem::Refusal,
    site::Site,
};

/// A key to log in with.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct LogIn {
    /// The whole key: `dk_…`.
    key: Hidden<String>,
}

/// Who calls.
#[derive(Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct WhoCalls {
    /// Whether everybody may do everything here.
    open: bool,
    /// The caller's tenant; empty for a caller of all tenants.
    tenant: String,
    /// What the caller may do.
    scopes: Vec<String>,
    /// The public id of the caller's key; empty on an open farm.
    key: String,
    /// When the session or the key ends; null: never.
    expires_at: Option<Seconds>,
}

impl WhoCalls {
    fn of(known: &Known, open: bool) -> Self {
        let caller = &known.caller;
        let scopes = Scope::ALL.iter().filter(|scope| caller.may(**scope));
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2⁵³")]
        let expires_at = known.expires.map(|end| Seconds(end as f64));
        Self {
            open,
            tenant: caller.tenant().unwrap_or_default().to_owned(),
            scopes: scopes.map(|scope| scope.name().to_owned()).collect(),
            key: caller.key().unwrap_or_default().to_owned(),
            expires_at,
        }
    }
}

/// `GET /session`: says who calls.
pub(crate) async fn show(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    let expires = match &entry.standing {
        Some(standing) => standing.known().await?.expires,
        None => None,
    };
    let known = Known { caller: entry.caller, expires };
    answer(StatusCode::OK, &WhoCalls::of(&known, site.callers.is_open()), None)
}

/// `POST /session`: logs in with a key.
pub(crate) async fn begin(
    State(site): State<Arc<Site>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let LogIn { key } = read_json(&parts.headers, body).await?;
    let key: Key = key.0.trim().parse()?;
    let (session, known) = site.callers.begin_session(&key).await?;
    let mut begun = answer(StatusCode::OK, &WhoCalls::of(&known, false), None)?;
    let lasts = session.expires().saturating_sub(now());
    set(&mut begun, &cookie(&site, &parts.uri, &parts.headers)?.keep(&session, lasts));
    Ok(begun)
}

/// `DELETE /session`: logs out. The browser forgets its session; revoking the key ends all of them.
pub(crate) async fn end(
    State(site): State<Arc<Site>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let mut ended = Response::new(Body::empty());
    *ended.status_mut() = StatusCode::NO_CONTENT;
    set(&mut ended, &cookie(&site, &parts.uri, &parts.headers)?.forget());
    // What the browser has cached may be another caller's business from now on.
    ended.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\""));
    Ok(ended)
}

fn set(answer: &mut Response, cookie: &str) {
    let headers = answer.headers_mut();
    headers.insert(header::SET_COOKIE, header_value(cookie));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn cookie(site: &Site, uri: &Uri, headers: &HeaderMap) -> Result<Cookie, Refusal> {
    let authority = authority(uri, headers).ok_or_else(|| {
        UserError::invalid("host", "the request names no host; accepted: the farm's address")
    })?;
    Ok(Cookie::at(&authority, site.tls))
}

/// Seconds since 1970, by this machine's clock, which decides only how long a browser keeps the
/// cookie.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| time.as_secs())
}
