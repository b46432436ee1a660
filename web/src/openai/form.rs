//! The body of a request for edits: fields, and the picture and mask that it brings.
//!
//! A picture goes to the farm as it arrives. A mask is gathered, because it must be converted first.
//! Pictures are files of the form, or SHA-256 hashes of the tenant's own uploads; the farm never
//! opens a path or an address that a request names.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};
use darkroom_farm_api::{Answer, Caller, Incoming, Standing, while_it_stands};
use darkroom_proto::v1;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::{
    entry::{Entry, JSON, broken, media_type, unsupported},
    problem::Refusal,
    site::Site,
    uploads::{self, LARGEST},
    words::told,
};

/// Largest body of JSON, bytes.
const LARGEST_JSON: usize = 256 << 10;
/// Largest text of a form, bytes.
pub(super) const LARGEST_TEXT: u64 = 64 << 10;
/// Most parts of a form.
pub(super) const MOST_PARTS: usize = 64;
/// The media type of forms.
pub(super) const FORM: &str = "multipart/form-data";

/// The pictures that a request brings, by the SHA-256 of their files; empty: none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) image: String,
    pub(crate) mask: String,
}

/// Reads a body that is JSON.
pub(super) async fn read_json(entry: Entry) -> Result<Fields, Refusal> {
    if media_type(entry.headers()).is_none_or(|media| media != JSON) {
        return Err(unsupported(entry.headers(), JSON));
    }
    let body = Limited::new(entry.into_body(), LARGEST_JSON).collect().await;
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => too_large("the body", LARGEST_JSON as u64),
        None => broken(error.as_ref()),
    })?;
    let values: Map<String, Value> = darkroom_proto::json::read(&body.to_bytes())?;
    Ok(Fields::of_json(values))
}

/// Reads a request for edits.
pub(super) async fn read(site: &Arc<Site>, entry: Entry) -> Result<(Fields, Inputs), Refusal> {
    let media = media_type(entry.headers()).unwrap_or_default();
    if media == JSON {
        let mut fields = read_json(entry).await?;
        let inputs = named_inputs(&mut fields)?;
        return Ok((fields, inputs));
    }
    let boundary = boundary(entry.headers())
        .ok_or_else(|| unsupported(entry.headers(), &format!("{FORM} with a boundary, {JSON}")))?;
    let uploader =
        Uploader { site, caller: entry.caller.clone(), standing: entry.standing.clone() };
    read_form(&uploader, entry.into_body(), boundary).await
}

/// The pictures that fields of JSON name by their hashes.
pub(super) fn named_inputs(fields: &mut Fields) -> Answer<Inputs> {
    let mut named = |field: &str| fields.take(field).map(|value| hash(field, value));
    let image = named("image").unwrap_or_else(|| Err(no_picture()))?;
    let mask = named("mask").transpose()?.unwrap_or_default();
    Ok(Inputs { image, mask })
}

/// What is between the parts of a form; none: the body is no form.
pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
    media_type(headers).filter(|media| media == FORM)?;
    let media = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    multer::parse_boundary(media).ok()
}

/// Where the files of a form go.
pub(crate) trait Files {
    /// Takes a picture, and returns the SHA-256 that names it.
    fn picture(&self, part: Field<'static>)
    -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Takes a mask, and returns the SHA-256 that names it.
    fn mask(&self, part: Field<'static>) -> impl Future<Output = Result<String, Refusal>> + Send;
}

/// Reads a form.
pub(crate) async fn read_form(
    files: &impl Files,
    body: Body,
    boundary: String,
) -> Result<(Fields, Inputs), Refusal> {
    let (mut fields, mut inputs) = (Fields::of_form(), Inputs::default());
    let mut parts = Multipart::with_constraints(body.into_data_stream(), boundary, limits());
    let mut count = 0;
    while let Some(part) = parts.next_field().await.map_err(|error| unread(&error))? {
        count += 1;
        if count > MOST_PARTS {
            return Err(too_many_parts());
        }
        let Some(name) = part.name().map(str::to_owned) else {
            let message = "a part of the form has no name; accepted: parts named after \
                           parameters, like name=\"prompt\"";
            return Err(UserError::new(Code::InvalidArgument, "INVALID_FORM", message).into());
        };
        match name.as_str() {
            "image" | "image[]" if !inputs.image.is_empty() => return Err(one_picture().into()),
            "image" | "image[]" => {
                inputs.image = if is_file(&part) {
                    files.picture(part).await?
                } else {
                    hash("image", Value::String(text(part).await?))?
                }
            }
            "mask" if !inputs.mask.is_empty() => {
                let message = "mask is given twice; accepted: once";
                return Err(UserError::invalid("mask", message).into());
            }
            "mask" => {
                inputs.mask = if is_file(&part) {
                    files.mask(part).await?
                } else {
                    hash("mask", Value::String(text(part).await?))?
                }
            }
            _ => fields.add(name, text(part).await?)?,
        }
    }
    if inputs.image.is_empty() {
        return Err(no_picture().into());
    }
    Ok((fields, inputs))
}

/// All bytes of a file that must be whole before it is used.
pub(crate) async fn whole(part: Field<'static>) -> Result<Bytes, Refusal> {
    part.bytes().await.map_err(|error| unread(&error))
}

/// Sends the files of a form to the farm.
struct Uploader<'a> {
    site: &'a Arc<Site>,
    caller: Caller,
    standing: Option<Standing>,
}

impl Files for Uploader<'_> {
    /// Sends a picture to the farm while it arrives.
    async fn picture(&self, part: Field<'static>) -> Result<String, Refusal> {
        let bytes = part.map_err(|error| UserError {
            field: Some("image".to_owned()),
            ..unread(&error).into_error()
        });
        self.upload("image", bytes.boxed()).await
    }

    async fn mask(&self, part: Field<'static>) -> Result<String, Refusal> {
        let strokes = self.site.openai.masks.strokes(whole(part).await?).await?;
        self.upload("mask", stream::iter([Ok(strokes)]).boxed()).await
    }
}

impl Uploader<'_> {
    async fn upload(&self, field: &str, bytes: Incoming<Bytes>) -> Result<String, Refusal> {
        let chunks = while_it_stands(self.standing.clone(), uploads::chunks(bytes));
        let stored: Answer<v1::UploadInputResponse> =
            self.site.farm.upload_input(&self.caller, chunks).await;
        let stored = stored.map_err(|error| match error.field.as_deref() {
            Some("data") => UserError {
                field: Some(field.to_owned()),
                message: error.message.replacen("the file", field, 1),
                ..error
            },
            _ => error,
        })?;
        Ok(stored.sha256)
    }
}

pub(super) fn too_many_parts() -> Refusal {
    let message =
        format!("the form has more than {MOST_PARTS} parts; accepted: at most {MOST_PARTS}");
    UserError::new(Code::InvalidArgument, "INVALID_FORM", message).into()
}

fn limits() -> Constraints {
    let files = ["image", "image[]", "mask"];
    // A picture and a mask; every other part is short.
    let sizes = SizeLimit::new()
        .whole_stream(2 * LARGEST + MOST_PARTS as u64 * LARGEST_TEXT)
        .per_field(LARGEST_TEXT);
    let sizes = files.iter().fold(sizes, |sizes, file| sizes.for_field(*file, LARGEST));
    Constraints::new().size_limit(sizes)
}

fn is_file(part: &Field<'_>) -> bool {
    let is_picture = part.content_type().is_some_and(|media| media.type_() == "image");
    part.file_name().is_some() || is_picture
}

pub(super) async fn text(part: Field<'_>) -> Result<String, Refusal> {
    let name = part.name().map(told).unwrap_or_default();
    let bytes = part.bytes().await.map_err(|error| unread(&error))?;
    String::from_utf8(bytes.into()).map_err(|_| {
        let message = format!("{name} is not UTF-8; send it as UTF-8 text");
        UserError::invalid(name, message).into()
    })
}

/// The hash of an upload that a field names, alone or as the only one of a list.
fn hash(field: &str, value: Value) -> Answer<String> {
    let named = match value {
        Value::Array(mut list) => match (list.pop(), list.is_empty()) {
            (Some(one), true) => one,
            (Some(_), false) => return Err(one_picture()),
            (None, _) => return Err(no_picture()),
        },
        other => other,
    };
    let digest = named.as_str().and_then(|name| name.parse::<Digest>().ok());
    digest.map(|digest| digest.to_string()).ok_or_else(|| {
        let shown = named.to_string();
        let message = format!(
            "{field} is {}; accepted: a file in a {FORM} body, or the SHA-256 (64 hex digits) of a \
             picture that was uploaded with POST /api/v1/inputs",
            told(&shown)
        );
        UserError::invalid(field, message)
    })
}

fn no_picture() -> UserError {
    let message = format!(
        "image is missing; accepted: a file in a {FORM} body, or the SHA-256 (64 hex digits) of a \
         picture that was uploaded with POST /api/v1/inputs"
    );
    UserError::invalid("image", message)
}

fn one_picture() -> UserError {
    let message = "image is given more than once; accepted: one image, because this farm's \
                   cascades start from one";
    UserError::invalid("image", message)
}

/// Why a form cannot be read.
pub(super) fn unread(error: &multer::Error) -> Refusal {
    let wrong =
        |message: String| UserError::new(Code::InvalidArgument, "INVALID_FORM", message).into();
    match error {
        multer::Error::FieldSizeExceeded { limit, field_name } => {
            let name = field_name.as_deref().map_or("a part of the form".into(), told);
            too_large(&name, *limit)
        }
        multer::Error::StreamSizeExceeded { limit } => too_large("the body", *limit),
        multer::Error::StreamReadFailed(error) => broken(error.as_ref()),
        // A body that breaks off is an error of the stream. Here it has come to its end.
        multer::Error::IncompleteFieldData { field_name } => {
            let name = field_name.as_deref().map_or("a part of the form".into(), told);
            wrong(format!("{name} has no closing boundary; send a complete {FORM} body (RFC 7578)"))
        }
        multer::Error::IncompleteStream | multer::Error::IncompleteHeaders => wrong(format!(
            "the form's boundary differs from the one in content-type, its closing boundary is \
             missing, or a part has no headers; send {FORM} as in RFC 7578"
        )),
        other => wrong(format!(
            "the form cannot be read: {}; send {FORM} as in RFC 7578",
            told(&other.to_string())
        )),
    }
}

/// The refusal of a part or a body that is too large.
fn too_large(what: &str, most: u64) -> Refusal {
    Refusal::too_large(what, usize::try_from(most).unwrap_or(usize::MAX), None)
}

#[cfg(test)]
mod tests;
