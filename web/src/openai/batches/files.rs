//! `/v1/files`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{
    Answer, Caller, Incoming, Standing,
    batches::{FileRecord, MOST_NAME, NewFile, Purpose},
    while_it_stands,
};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    super::form::{FORM, LARGEST_TEXT, MOST_PARTS, boundary, text, too_many_parts, unread},
    forms::{List, ListQuery, lifetime},
    ids::Named,
};
use crate::{
    entry::{Entry, unsupported},
    json_answer::{header_value, json},
    pictures::{ASKED, About, File, Opened},
    problem::Refusal,
    site::Site,
    words::told,
};

/// Files of a page, usually and at most.
const PAGE: (u32, u32) = (1_000, 10_000);

/// A file as clients see it.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    object: &'static str,
    bytes: u64,
    created_at: i64,
    expires_at: Option<i64>,
    filename: String,
    purpose: &'static str,
    /// Clients of older versions require it.
    status: &'static str,
}

/// What is left of a file.
#[derive(Debug, Serialize)]
struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

impl Shown {
    fn of(file: FileRecord) -> Self {
        Self {
            id: Named::File.show(file.id),
            object: "file",
            bytes: file.bytes,
            created_at: file.created_ms / 1000,
            expires_at: file.expires_ms.map(|ms| ms / 1000),
            filename: file.name,
            purpose: file.purpose.name(),
            status: "processed",
        }
    }
}

/// `POST /v1/files`.
pub(super) async fn create(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    let boundary = boundary(entry.headers())
        .ok_or_else(|| unsupported(entry.headers(), &format!("{FORM} with a boundary")))?;
    let (caller, standing) = (entry.caller.clone(), entry.standing.clone());
    let mut parts =
        Multipart::with_constraints(entry.into_body().into_data_stream(), boundary, limits());
    let mut stored = None;
    let read = read(&site, (&caller, standing), &mut parts, &mut stored).await;
    let Some(stored) = stored else {
        read?;
        let message = "file is missing; accepted: a part of the form with the file";
        return Err(UserError::invalid("file", message).into());
    };
    if let Err(refusal) = read {
        // What was refused leaves nothing behind.
        if let Err(error) = site.batches.delete_file(&caller, stored.id).await {
            tracing::warn!(%error, "the file of a form that was refused stays until it expires");
        }
        return Err(refusal);
    }
    json(StatusCode::OK, &Shown::of(stored), None)
}

/// Reads a form, and stores its file.
async fn read(
    site: &Site,
    (caller, standing): (&Caller, Option<Standing>),
    parts: &mut Multipart<'static>,
    stored: &mut Option<FileRecord>,
) -> Result<(), Refusal> {
    let (mut form, mut count) = (Form::default(), 0);
    while let Some(part) = parts.next_field().await.map_err(|error| unread(&error))? {
        count += 1;
        if count > MOST_PARTS {
            return Err(too_many_parts());
        }
        let name = part.name().unwrap_or_default().to_owned();
        if name != "file" {
            if stored.is_some() && name != "purpose" {
                let message = format!("{} comes after file; accepted: before it", told(&name));
                return Err(UserError::invalid(told(&name), message).into());
            }
            form.add(name, part).await?;
            continue;
        }
        if stored.is_some() {
            return Err(UserError::invalid("file", "file is given twice; accepted: once").into());
        }
        form.check(false)?;
        let new = NewFile {
            id: Named::fresh(),
            name: file_name(part.file_name())?,
            purpose: Purpose::Batch,
            keep: form.keep()?,
        };
        let bytes: Incoming<_> = part.map_err(|error| unread(&error).into_error()).boxed();
        let bytes = while_it_stands(standing.clone(), bytes);
        *stored = Some(site.batches.add_file(caller, new, bytes).await?);
    }
    Ok(form.check(stored.is_some())?)
}

/// The parts of a form beside the file.
#[derive(Default)]
struct Form {
    purpose: Option<String>,
    expires: Map<String, Value>,
}

impl Form {
    async fn add(&mut self, name: String, part: Field<'_>) -> Result<(), Refusal> {
        let value = text(part).await?;
        let key = name.strip_prefix("expires_after[").and_then(|rest| rest.strip_suffix(']'));
        match key {
            Some("seconds") => {
                let number = value.parse::<u64>().map_or(Value::String(value), Value::from);
                self.expires.insert("seconds".to_owned(), number);
            }
            Some(key) => {
                self.expires.insert(key.to_owned(), Value::String(value));
            }
            None if name == "purpose" && self.purpose.is_none() => self.purpose = Some(value),
            None => {
                let name = told(&name);
                let message = format!(
                    "{name} is not a parameter of this route, or is given twice; accepted: file, \
                     purpose, expires_after[anchor], expires_after[seconds]"
                );
                let error = UserError::new(Code::InvalidArgument, "UNKNOWN_PARAMETER", message);
                let field = Some(name);
                return Err(UserError { field, ..error }.into());
            }
        }
        Ok(())
    }

    fn keep(&self) -> Answer<Option<std::time::Duration>> {
        if self.expires.is_empty() {
            return Ok(None);
        }
        lifetime("expires_after", self.expires.clone()).map(Some)
    }

    /// Refuses a purpose that the farm has no use for. `is_whole`: no part follows.
    fn check(&self, is_whole: bool) -> Answer<()> {
        let given = match self.purpose.as_deref() {
            Some("batch") => return Ok(()),
            None if !is_whole => return Ok(()),
            None => "missing".to_owned(),
            Some(other) => format!("{:?}", told(other)),
        };
        Err(UserError::invalid("purpose", format!("purpose is {given}; accepted: batch")))
    }
}

/// The name that a client gives, without the folders of its machine.
fn file_name(given: Option<&str>) -> Answer<String> {
    let given = given.unwrap_or_default();
    let name = given.rsplit(['/', '\\']).next().unwrap_or_default().trim();
    if name.is_empty() {
        return Ok("requests.jsonl".to_owned());
    }
    if name.chars().count() > MOST_NAME || name.chars().any(char::is_control) {
        let message = format!(
            "file has the name {:?}; accepted: at most {MOST_NAME} printable characters",
            told(name)
        );
        return Err(UserError::invalid("file", message));
    }
    Ok(name.to_owned())
}

fn limits() -> Constraints {
    let most = darkroom_farm_api::batches::MOST_FILE_BYTES;
    let sizes = SizeLimit::new()
        .whole_stream(most + MOST_PARTS as u64 * LARGEST_TEXT)
        .per_field(LARGEST_TEXT)
        .for_field("file", most);
    Constraints::new().size_limit(sizes)
}

/// `GET /v1/files`.
pub(super) async fn list(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    let query: ListQuery = entry.query()?;
    let page = query.page(Named::File, PAGE)?;
    let purpose = match query.purpose.as_str() {
        "" => None,
        name => {
            let found = Purpose::ALL.into_iter().find(|purpose| purpose.name() == name);
            Some(found.ok_or_else(|| {
                let message = format!("purpose is {:?}; accepted: batch, batch_output", told(name));
                UserError::invalid("purpose", message)
            })?)
        }
    };
    let files = site.batches.files(&entry.caller, &page, purpose).await?;
    let files = files.into_iter().map(Shown::of).collect();
    let list = List::of(files, &page, |file: &Shown| file.id.clone());
    json(StatusCode::OK, &list, Some(entry.headers()))
}

/// `GET /v1/files/{file}`.
pub(super) async fn show(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    entry.no_query()?;
    let file = site.batches.file(&entry.caller, id(&entry)?).await?;
    json(StatusCode::OK, &Shown::of(file), Some(entry.headers()))
}

/// `DELETE /v1/files/{file}`.
pub(super) async fn delete(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    let id = id(&entry)?;
    site.batches.delete_file(&entry.caller, id).await?;
    let deleted = Deleted { id: Named::File.show(id), object: "file", deleted: true };
    json(StatusCode::OK, &deleted, None)
}

/// `GET /v1/files/{file}/content`.
pub(super) async fn content(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    let id = id(&entry)?;
    let Entry { caller, standing, parts, .. } = entry;
    let open = move |offset| {
        let (site, caller, standing) = (Arc::clone(&site), caller.clone(), standing.clone());
        async move {
            let (file, parts) = site.batches.read_file(&caller, id, offset).await?;
            let FileRecord { bytes, sha256, .. } = file;
            let about = About { bytes, sha256, media: "application/jsonl", sheet: None };
            Ok(Opened { about, parts: while_it_stands(standing, parts) })
        }
        .boxed()
    };
    let mut answer = File { open: Box::new(open), cache: ASKED }.send(&parts).await?;
    let name = format!("attachment; filename=\"{}.jsonl\"", Named::File.show(id));
    answer.headers_mut().insert(http::header::CONTENT_DISPOSITION, header_value(&name));
    Ok(answer)
}

fn id(entry: &Entry) -> Answer<Uuid> {
    Named::File.read(entry.params.get("file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_folders_and_nothing_that_a_terminal_obeys() {
        for (given, name) in [
            (None, "requests.jsonl"),
            (Some(""), "requests.jsonl"),
            (Some("a.jsonl"), "a.jsonl"),
            (Some("/home/me/a b.jsonl"), "a b.jsonl"),
            (Some("C:\\me\\a.jsonl"), "a.jsonl"),
            (Some("../.."), ".."),
        ] {
            assert_eq!(file_name(given), Ok(name.to_owned()));
        }
        for wrong in ["a\u{1b}[2J", "a\nb", &"x".repeat(201)] {
            assert_eq!(file_name(Some(wrong)).expect_err("refused").field.as_deref(), Some("file"));
        }
    }

    #[test]
    fn only_files_for_batches_are_taken() {
        let check = |purpose: Option<&str>, is_whole| {
            Form { purpose: purpose.map(str::to_owned), ..Default::default() }.check(is_whole)
        };
        assert_eq!(check(Some("batch"), true), Ok(()));
        assert_eq!(check(None, false), Ok(()), "it may follow the file");
        let error = check(None, true).expect_err("missing");
        assert_eq!(error.message, "purpose is missing; accepted: batch");
        let error = check(Some("fine-tune"), false).expect_err("no use");
        assert_eq!(error.message, "purpose is \"fine-tune\"; accepted: batch");
    }
}
