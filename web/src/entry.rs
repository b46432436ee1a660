//! What a route's handler receives: who calls, the parameters of the path, the query and the body.

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
use serde::de::DeserializeOwned;

use crate::{problem::Refusal, query};

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
            UserError::new(Code::Unauthenticated, "NO_CALLER", "the request has no caller")
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
            return Err(unsupported(JSON));
        }
        let bytes = collect(self.body).await?;
        match (bytes.is_empty(), is_json) {
            (true, _) if optional => Ok(json::read(b"{}")?),
            (_, true) => Ok(json::read(&bytes)?),
            (_, false) => Err(unsupported(JSON)),
        }
    }

    /// The body as it comes.
    pub(crate) fn into_stream(self) -> Body {
        self.body
    }
}

impl Params {
    /// One of them.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Puts one into the field that it stands for, which nothing else may set.
    pub(crate) fn fill<T: Field>(
        &self,
        slot: &mut T,
        name: &str,
        field: &str,
    ) -> Result<(), Refusal> {
        if *slot != T::default() {
            let message = format!("{field} is given twice; accepted: once, as a part of the path");
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
                format!("{field} is {text:?}; accepted: a whole number, from 0"),
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
pub(crate) fn unsupported(accepted: &str) -> Refusal {
    Refusal::http(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "MEDIA_TYPE",
        format!(
            "the body has another type than this route takes; accepted: content-type: {accepted}"
        ),
    )
}

/// A body that must be JSON.
pub(crate) async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    if media_type(headers).is_none_or(|media| media != JSON) {
        return Err(unsupported(JSON));
    }
    Ok(json::read(&collect(body).await?)?)
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
            let error = from_status(status);
            return match error.code {
                Code::DeadlineExceeded => Refusal::with_status(StatusCode::REQUEST_TIMEOUT, error),
                _ => error.into(),
            };
        }
        cause = error.source();
    }
    let message = "the request's body broke off before its end; send it again";
    Refusal::http(StatusCode::BAD_REQUEST, "BODY_BROKE_OFF", message)
}

fn too_large() -> Refusal {
    let most = MAX_MESSAGE_BYTES >> 20;
    Refusal::http(
        StatusCode::PAYLOAD_TOO_LARGE,
        "BODY_TOO_LARGE",
        format!(
            "the body has more than {most} MiB; accepted: at most {most} MiB of JSON, or a job of any \
             size as content-type: application/jsonl"
        ),
    )
}
