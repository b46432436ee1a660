//! Answers in JSON, with a tag by which a client asks whether it has changed.

use axum::{body::Body, response::Response};
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{entry::JSON, problem::Refusal};

/// Digits of a hash that make a tag.
const TAG: usize = 32;

/// An answer in JSON. `asked`: the headers of a request that only reads.
pub(crate) fn json<T: Serialize>(
    status: StatusCode,
    value: &T,
    asked: Option<&HeaderMap>,
) -> Result<Response, Refusal> {
    let text = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        let message = "the answer cannot be written as JSON; the farm's log may say why; please \
                       report this";
        UserError::new(Code::Internal, "INTERNAL", message)
    })?;
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    let headers = &mut parts.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(asked) = asked {
        let tag = tag(&text);
        if has(asked, &tag) {
            parts.status = StatusCode::NOT_MODIFIED;
            headers.remove(header::CONTENT_TYPE);
        }
        headers.insert(header::ETAG, header_value(&tag));
    }
    let is_known = parts.status == StatusCode::NOT_MODIFIED;
    let body = if is_known { Body::empty() } else { Body::from(text) };
    Ok(Response::from_parts(parts, body))
}

/// A header of characters that headers may have.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// The tag of an answer with these bytes.
pub(crate) fn tag(bytes: &[u8]) -> String {
    format!("\"{:.TAG$}\"", Digest::of(bytes).to_string())
}

/// Whether the client has what the tag stands for (`If-None-Match`, RFC 9110 §13.1.2).
pub(crate) fn has(asked: &HeaderMap, tag: &str) -> bool {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_the_client_has_comes_without_a_body() {
        let asked = |tags: &[&str]| {
            let mut headers = HeaderMap::new();
            for tag in tags {
                headers.append(header::IF_NONE_MATCH, header_value(tag));
            }
            json(StatusCode::OK, &7, Some(&headers)).expect("JSON")
        };
        let first = asked(&[]);
        assert_eq!(first.status(), 200);
        let tag = first.headers()[header::ETAG].to_str().expect("text").to_owned();
        for known in [&[&tag[..]][..], &["*"], &[&format!("\"x\", W/{tag}")], &["\"x\"", &tag]] {
            let again = asked(known);
            assert_eq!(
                (again.status().as_u16(), &again.headers()[header::ETAG]),
                (304, &first.headers()[header::ETAG])
            );
            assert!(again.headers().get(header::CONTENT_TYPE).is_none(), "no body");
        }
        for other in [&["\"x\""][..], &["W/\"x\""], &[&tag[1..]], &[""]] {
            assert_eq!(asked(other).status(), 200, "{other:?}");
        }
        assert!(json(StatusCode::CREATED, &7, None).expect("JSON").headers().get("etag").is_none());
    }
}
