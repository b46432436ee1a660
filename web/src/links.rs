//! Links to single pictures, for people without a key: the storage's own where it has them, and the
//! farm's otherwise.
//!
//! A link of the farm's names the picture, the tenant and an end, sealed by the farm. It is good for
//! GET of that one picture until then.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Caller, Purpose, Scope, authority};
use darkroom_proto::{json, v1};
use futures::StreamExt as _;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::{
    clock::now,
    entry::Entry,
    json_answer::{header_value, json as answer},
    paths::LINKS,
    pictures::send_picture,
    problem::Refusal,
    site::Site,
};

/// Longest link that is read, bytes.
const LONGEST: usize = 2048;
/// Default lifetime of a link, seconds. The farm has checked the one that is asked for.
const LINK_SECONDS: u32 = 3600;

/// What a link is good for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Grant {
    /// The tenant whose picture it is.
    t: String,
    /// Its job.
    j: String,
    /// Its index.
    i: u64,
    /// The stage; empty: the final picture.
    s: String,
    /// The longest edge; 0: as it is.
    e: u32,
    /// When the link ends, seconds since 1970.
    x: u64,
}

/// `POST /jobs/{job}/images/{index}/links`.
pub(crate) async fn make(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    let (caller, params) = (entry.caller.clone(), entry.params.clone());
    let authority = authority(&entry.parts.uri, entry.headers()).unwrap_or_default();
    let mut asked: json::SignImageRequest = entry.body(true).await?;
    params.fill(&mut asked.job_id, "job", "job_id")?;
    params.fill(&mut asked.index, "index", "index")?;
    let asked = v1::SignImageRequest::from(asked);
    let signed = signed(&site, &caller, asked, &authority).await?;
    answer(StatusCode::CREATED, &json::SignImageResponse::from(signed), None)
}

/// A link of the storage's, or else of the farm's. `authority`: the host and port by which the
/// client reached the farm.
pub(crate) async fn signed(
    site: &Site,
    caller: &Caller,
    asked: v1::SignImageRequest,
    authority: &str,
) -> Result<v1::SignImageResponse, UserError> {
    match site.farm.sign_image(caller, asked.clone()).await {
        Err(error) if error.reason == "STORAGE_HAS_NO_LINKS" => {
            own(site, caller, asked, authority).await
        }
        signed => signed,
    }
}

/// A link of the farm's. The caller has been found to see the picture.
async fn own(
    site: &Site,
    caller: &Caller,
    asked: v1::SignImageRequest,
    authority: &str,
) -> Result<v1::SignImageResponse, UserError> {
    let v1::SignImageRequest { job_id, index, link_seconds, stage, max_edge } = asked;
    let job = site.farm.get_job(caller, v1::GetJobRequest { id: job_id.clone() }).await?;
    let fetch = v1::FetchImageRequest {
        job_id: job_id.clone(),
        index,
        stage: stage.clone(),
        max_edge,
        offset: 0,
    };
    let first = site.farm.fetch_image(caller, fetch).await?.next().await.transpose()?;
    let first = first.unwrap_or_default();
    let lasts = if link_seconds == 0 { LINK_SECONDS } else { link_seconds };
    let expires = now().saturating_add(lasts.into());
    let tenant = job.spec.unwrap_or_default().tenant;
    let grant = Grant { t: tenant, j: job_id, i: index, s: stage, e: max_edge, x: expires };
    let seconds = i64::try_from(expires).unwrap_or(i64::MAX);
    Ok(v1::SignImageResponse {
        url: format!("{}{LINKS}/{}", site.origin(authority), seal(site, &grant)?),
        expires_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        size_bytes: first.total_bytes,
        format: first.format,
        sha256: first.sha256,
    })
}

/// A link of the farm's to an image's final picture, without a look whether it is there. `ends`:
/// seconds since 1970.
pub(crate) fn of_the_farm(
    site: &Site,
    origin: &str,
    image: &v1::Image,
    (tenant, ends): (&str, i64),
) -> Result<String, UserError> {
    let grant = Grant {
        t: tenant.to_owned(),
        j: image.job_id.clone(),
        i: image.index,
        s: String::new(),
        e: 0,
        x: ends.try_into().unwrap_or_default(),
    };
    Ok(format!("{origin}{LINKS}/{}", seal(site, &grant)?))
}

/// `GET /links/{link}`.
pub(crate) async fn follow(
    State(site): State<Arc<Site>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    // A link has no characters that are encoded in a path.
    let link = parts.uri.path().strip_prefix(LINKS).and_then(|rest| rest.strip_prefix('/'));
    let grant = link.and_then(|link| open(&site, link)).ok_or_else(|| {
        let message = "the link is incomplete or belongs to another farm; ask the sender for a \
                       new one";
        UserError::new(Code::NotFound, "NO_SUCH_LINK", message)
    })?;
    if now() >= grant.x {
        let message = "the link has expired; ask the sender for a new one";
        return Err(UserError::new(Code::NotFound, "LINK_ENDED", message).into());
    }
    let Grant { t, j, i, s, e, x } = grant;
    let caller = Caller::of(Some(t), [Scope::Read], None);
    let fetch = v1::FetchImageRequest { job_id: j, index: i, stage: s, max_edge: e, offset: 0 };
    let mut sent = send_picture(site, (caller, None), fetch, &parts).await?;
    let lasts = x.saturating_sub(now()).min(300);
    let cache = format!("private, max-age={lasts}");
    let headers = sent.headers_mut();
    headers.insert(header::CACHE_CONTROL, header_value(&cache));
    // Whoever has a link may show its picture on a page.
    let policy = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(policy, HeaderValue::from_static("cross-origin"));
    Ok(sent)
}

fn seal(site: &Site, grant: &Grant) -> Result<String, UserError> {
    let text = serde_json::to_vec(grant).map_err(|error| {
        tracing::error!(%error, "a link cannot be written");
        let message = "the link cannot be written; the farm's log may say why; please report this";
        UserError::new(Code::Internal, "INTERNAL", message)
    })?;
    let mac = site.seals.seal(Purpose::Link, &text);
    Ok(format!("{}.{}", URL_SAFE_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(mac)))
}

/// What a link is good for, if the farm has made it.
fn open(site: &Site, link: &str) -> Option<Grant> {
    if link.len() > LONGEST {
        return None;
    }
    let (text, mac) = link.split_once('.')?;
    let text = URL_SAFE_NO_PAD.decode(text).ok()?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    let right = site.seals.seal(Purpose::Link, &text);
    let sealed: bool = subtle::ConstantTimeEq::ct_eq(&right[..], &mac[..]).into();
    sealed.then(|| serde_json::from_slice(&text).ok()).flatten()
}
