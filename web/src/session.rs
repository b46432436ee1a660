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
use darkroom_farm_api::{Cookie, Known, authority};
use darkroom_proto::{hidden::Hidden, json::Seconds};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};

use crate::{
    clock::now,
    entry::{Entry, read_json},
    json_answer::{header_value, json as answer},
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
    // This machine's clock decides only how long the browser keeps the cookie.
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
        let message = "the request has no Host; accepted: the farm's address, like 127.0.0.1:7878";
        UserError::invalid("host", message)
    })?;
    Ok(Cookie::at(&authority, site.tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_sent_in_an_object_and_not_in_a_list() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let read = async |body: &'static str| {
            let read = read_json::<LogIn>(&headers, Body::from(body)).await;
            read.map(|log_in| log_in.key.0).map_err(|refusal| refusal.into_error().reason)
        };
        assert_eq!(read(r#"{"key": "dk_x"}"#).await, Ok("dk_x".to_owned()));
        for wrong in [r#"["dk_x"]"#, "[]", r#""dk_x""#, "null", "{", r#"{"key": "a", "key": "b"}"#]
        {
            assert_eq!(read(wrong).await, Err("INVALID_JSON".to_owned()), "{wrong}");
        }
    }
}
