//! What a route's handler receives: who calls, the parameters of the path, the query and the body.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
};
use bytes::Bytes;
use darkroom_core::{
    error::{Code, UserError},
    shown::shown,
};
use darkroom_farm_api::{Caller, Standing};
use darkroom_proto::{bounds::MAX_MESSAGE_BYTES, json, status::from_status};
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{problem::Refusal, query, words::told_header};

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";

/// A request, apart.
pub(crate) struct Entry {
    pub(crate) caller: Caller,
    /// How the caller was let in; none on an open farm.
    pub(crate) standing: Option<Standing>,
    pub(crate) parts: Parts,
    pub(crate) params: Params,
    body: Body,
}

/// The parameters of a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Entry {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let params = RawPathParams::from_request_parts(&mut parts, state).await;
        let params = params.map_err(|_| {
            let message = "the path is not UTF-8 after decoding; accepted: UTF-8, percent-encoded";
            Refusal::http(StatusCode::BAD_REQUEST, "INVALID_PATH", message)
        })?;
        let params = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let params = Params(params.collect());
        let standing = parts.extensions.remove::<Standing>();
        // Without the layer that finds out who calls, nobody is let in.
        let caller = parts.extensions.remove::<Caller>().ok_or_else(|| {
            let message = "the server did not check who calls; please report this";
            UserError::new(Code::Unauthenticated, "NO_CALLER", message)
        })?;
        Ok(Self { caller, standing, parts, params, body })
    }
}

impl Entry {
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Whether the answer may be the one that the client already has.
    pub(crate) fn reads(&self) -> bool {
        [Method::GET, Method::HEAD].contains(&self.parts.method)
    }

    /// The query, in the form of a request.
    pub(crate) fn query<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        Ok(query::read(self.parts.uri.query().unwrap_or_default())?)
    }

    /// Refuses a query where the route takes none.
    pub(crate) fn no_query(&self) -> Result<(), Refusal> {
        match self.parts.uri.query() {
            None | Some("") => Ok(()),
            Some(_) => Err(Refusal::http(
                StatusCode::BAD_REQUEST,
                "INVALID_QUERY",
                "this route takes no query; send its fields as JSON in the body",
            )),
        }
    }

    /// The body, which must be JSON. An empty one counts as `{}` where everything can be left out.
    pub(crate) async fn body<T: DeserializeOwned>(self, optional: bool) -> Result<T, Refusal> {
        self.no_query()?;
        let is_json = media_type(self.headers()).is_some_and(|media| media == JSON);
        if !is_json && !optional {
            return Err(unsupported(self.headers(), JSON));
        }
        let headers = self.parts.headers;
        let bytes = collect(self.body).await?;
        match (bytes.is_empty(), is_json) {
            (true, _) if optional => Ok(json::read(b"{}")?),
            (_, true) => Ok(json::read(&bytes)?),
            (_, false) => Err(unsupported(&headers, JSON)),
        }
    }

    /// The body as it comes.
    pub(crate) fn into_body(self) -> Body {
        self.body
    }
}

impl Params {
    /// One of them.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Sets a field from the path. Refuses a request whose query or body sets it too.
    pub(crate) fn fill<T: Field>(
        &self,
        slot: &mut T,
        name: &str,
        field: &str,
    ) -> Result<(), Refusal> {
        if *slot != T::default() {
            let message = format!(
                "{field} is in the path and in the query or body; accepted: in the path only"
            );
            return Err(UserError::invalid(field, message).into());
        }
        *slot = T::read(self.get(name), field)?;
        Ok(())
    }
}

/// A field that a part of the path can fill.
pub(crate) trait Field: Default + PartialEq + Sized {
    fn read(text: &str, field: &str) -> Result<Self, UserError>;
}

impl Field for String {
    fn read(text: &str, _: &str) -> Result<Self, UserError> {
        Ok(text.to_owned())
    }
}

impl Field for json::U64 {
    fn read(text: &str, field: &str) -> Result<Self, UserError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Self).ok_or_else(|| {
            let text = shown(text);
            UserError::invalid(
                field,
                format!("{field} is {text:?}; accepted: a whole number from 0 to {}", u64::MAX),
            )
        })
    }
}

/// The media type of a request's body, in lower case and without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let media = value.to_str().ok()?.split(';').next()?;
    Some(media.trim().to_ascii_lowercase())
}

/// The refusal of a body of another type.
pub(crate) fn unsupported(headers: &HeaderMap, accepted: &str) -> Refusal {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let given = match (given.next(), given.next()) {
        (None, _) => "missing".to_owned(),
        (Some(value), None) => format!("{:?}", told_header(value)),
        (Some(_), Some(_)) => "given more than once".to_owned(),
    };
    Refusal::http(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "MEDIA_TYPE",
        format!("content-type is {given}; accepted: {accepted}"),
    )
}

/// A body that must be a JSON object.
pub(crate) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    if media_type(headers).is_none_or(|media| media != JSON) {
        return Err(unsupported(headers, JSON));
    }
    let body = collect(body).await?;
    // A derived form would take a list for its fields in order.
    json::read::<BTreeMap<String, IgnoredAny>>(&body)?;
    Ok(json::read(&body)?)
}

/// The whole body, of the size of a message at most.
async fn collect(body: Body) -> Result<Bytes, Refusal> {
    let collected = Limited::new(body, MAX_MESSAGE_BYTES).collect().await;
    collected.map(|collected| collected.to_bytes()).map_err(|error| broken(error.as_ref()))
}

/// Why a body cannot be read: the reason of the server that carries it, or that the client broke it
/// off.
pub(crate) fn broken(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return too_large();
        }
        if let Some(status) = error.downcast_ref::<tonic::Status>() {
            return from_status(status).into();
        }
        cause = error.source();
    }
    let message = "the request's body broke off before its end; send it again";
    Refusal::http(StatusCode::BAD_REQUEST, "BODY_BROKE_OFF", message)
}

/// The refusal of a message that is too large.
fn too_large() -> Refusal {
    let most = MAX_MESSAGE_BYTES >> 20;
    let accepted = format!(
        "at most {most} MiB of JSON, or a job of any size as content-type: application/jsonl"
    );
    Refusal::too_large("the body", MAX_MESSAGE_BYTES, Some(&accepted))
}
