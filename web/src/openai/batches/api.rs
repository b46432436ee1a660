//! `/v1/batches`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use darkroom_core::{
    batch_state::BatchState,
    error::{Code, UserError},
};
use darkroom_farm_api::{
    Answer, Caller, authority,
    batches::{Batch, NewBatch, Page, Purpose},
};
use darkroom_proto::v1;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{
    super::{
        EDITS, GENERATIONS,
        fields::{Fields, wrong},
        form,
        refusals::is_retry,
    },
    forms::{List, ListQuery, expiry},
    ids::Named,
    line::endpoint,
    plan::Work,
    progress::{Fault, Progress},
};
use crate::{entry::Entry, json_answer::json, problem::Refusal, site::Site, words::told};

/// Batches of a page, usually and at most.
const PAGE: (u32, u32) = (20, 100);
/// Most notes of a batch, and their longest names and values, characters; as OpenAI has it.
const METADATA: (usize, usize, usize) = (16, 64, 512);
/// Batches among which a repeated request looks for its first one.
const LOOKED_AT: u32 = 20;
/// How long ago that may have been, seconds. Clients wait ten minutes for an answer.
const RECENT: i64 = 30 * 60;
/// The longest time that a batch may take.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A batch as clients see it.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    object: &'static str,
    endpoint: String,
    /// The model of all of its requests, if they have one in common.
    model: Option<String>,
    errors: Option<Faults>,
    input_file_id: String,
    completion_window: String,
    status: &'static str,
    output_file_id: Option<String>,
    error_file_id: Option<String>,
    created_at: i64,
    in_progress_at: Option<i64>,
    expires_at: i64,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: Counts,
    metadata: Option<BTreeMap<String, String>>,
    /// Ids of its jobs, which can be looked up on the page and in the farm's other APIs.
    jobs: Vec<String>,
    /// Why its jobs are not accepted yet, or what its next step waits for.
    waiting_for: Option<String>,
}

#[derive(Debug, Serialize)]
struct Faults {
    object: &'static str,
    data: Vec<ShownFault>,
}

/// An error of a batch as clients see it.
#[derive(Debug, Serialize)]
struct ShownFault {
    code: String,
    message: String,
    param: Option<String>,
    line: Option<u64>,
}

impl From<Fault> for ShownFault {
    fn from(fault: Fault) -> Self {
        let Fault { code, message, param, line, .. } = fault;
        let message = match line {
            Some(line) => format!("line {line}: {message}"),
            None => message,
        };
        Self { code, message, param, line }
    }
}

#[derive(Debug, Serialize)]
struct Counts {
    total: u64,
    completed: u64,
    failed: u64,
}

/// `POST /v1/batches`.
pub(super) async fn create(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    let caller = entry.caller.clone();
    let authority = authority(&entry.parts.uri, entry.headers()).unwrap_or_default();
    let is_retry = is_retry(entry.headers());
    let mut fields = form::read_json(entry).await?;
    let new = NewBatch {
        id: Named::fresh(),
        input: input(&mut fields)?,
        endpoint: route(&mut fields)?,
        window: window(&mut fields)?,
        metadata: metadata(&mut fields)?,
        keep_output: fields
            .take("output_expires_after")
            .map(|value| expiry("output_expires_after", value))
            .transpose()?,
        origin: site.origin(&authority),
    };
    fields.finish(&[
        "input_file_id",
        "endpoint",
        "completion_window",
        "metadata",
        "output_expires_after",
    ])?;
    let file = site.batches.file(&caller, new.input).await.map_err(of_input_file)?;
    if file.purpose != Purpose::Batch {
        let message = format!(
            "input_file_id is {}, a file with purpose {}; accepted: one with purpose batch",
            Named::File.show(new.input),
            file.purpose.name()
        );
        return Err(UserError::invalid("input_file_id", message).into());
    }
    let repeated = if is_retry { repeated(&site, &caller, &new).await? } else { None };
    let batch = match repeated {
        Some(batch) => batch,
        None => site.batches.add_batch(&caller, new).await.map_err(of_input_file)?,
    };
    site.bell.ring();
    json(StatusCode::OK, &shown(&site, &caller, batch).await?, None)
}

/// `GET /v1/batches`.
pub(super) async fn list(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    let query: ListQuery = entry.query()?;
    if !query.purpose.is_empty() {
        let message = "purpose is for files; accepted here: after, limit, order";
        return Err(UserError::invalid("purpose", message).into());
    }
    let page = query.page(Named::Batch, PAGE)?;
    let mut batches = Vec::new();
    for batch in site.batches.batches(&entry.caller, &page).await? {
        // One that cannot be looked into hides no other.
        let (id, bare) = (batch.id, batch.clone());
        batches.push(shown(&site, &entry.caller, batch).await.unwrap_or_else(|error| {
            let id = Named::Batch.show(id);
            tracing::warn!(batch = %id, %error, "a batch is listed without its counts");
            Shown::of(bare, Progress::default(), &[])
        }));
    }
    let list = List::of(batches, &page, |batch: &Shown| batch.id.clone());
    json(StatusCode::OK, &list, Some(entry.headers()))
}

/// `GET /v1/batches/{batch}`.
pub(super) async fn show(State(site): State<Arc<Site>>, entry: Entry) -> Result<Response, Refusal> {
    entry.no_query()?;
    let batch = site.batches.batch(&entry.caller, id(&entry)?).await?;
    let shown = shown(&site, &entry.caller, batch).await?;
    json(StatusCode::OK, &shown, Some(entry.headers()))
}

/// `POST /v1/batches/{batch}/cancel`.
pub(super) async fn cancel(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    let batch = site.batches.cancel_batch(&entry.caller, id(&entry)?).await?;
    site.bell.ring();
    json(StatusCode::OK, &shown(&site, &entry.caller, batch).await?, None)
}

/// The batch that a client's first try has begun: its client repeats requests on its own, and sends
/// nothing that names them.
async fn repeated(site: &Site, caller: &Caller, new: &NewBatch) -> Answer<Option<Batch>> {
    let page = Page { after: None, limit: LOOKED_AT, oldest_first: false };
    let since = site.batches.clock_ms().await?.saturating_sub(RECENT * 1000);
    let is_it = |batch: &Batch| {
        let began = batch.since_ms.get(&BatchState::Validating).copied().unwrap_or_default();
        began >= since
            && batch.key.as_deref() == caller.key()
            && (batch.input, &batch.endpoint, batch.window)
                == (new.input, &new.endpoint, new.window)
            && batch.metadata == new.metadata
            && batch.keep_output == new.keep_output
    };
    Ok(site.batches.batches(caller, &page).await?.into_iter().find(is_it))
}

fn id(entry: &Entry) -> Answer<Uuid> {
    Named::Batch.read(entry.params.get("batch"))
}

/// A batch with what its jobs say now.
async fn shown(site: &Arc<Site>, caller: &Caller, batch: Batch) -> Answer<Shown> {
    let progress = Progress::read(&batch.progress)?;
    let jobs = if progress.completed.is_none() && !batch.state.is_terminal() {
        let work = Work { site: Arc::clone(site), caller: caller.clone(), batch: batch.clone() };
        work.jobs(&progress).await?
    } else {
        Vec::new()
    };
    Ok(Shown::of(batch, progress, &jobs))
}

impl Shown {
    fn of(batch: Batch, progress: Progress, jobs: &[v1::Job]) -> Self {
        let (completed, failed) = match batch.state {
            BatchState::Failed => (0, 0),
            _ => progress.counts(jobs),
        };
        let at = |state: BatchState| batch.since_ms.get(&state).map(|ms| ms / 1000);
        let faults = Some(progress.faults).filter(|faults| !faults.is_empty());
        let waits = jobs.iter().map(|job| &job.waiting_for).find(|why| !why.is_empty()).cloned();
        let mut models: Vec<_> = progress.jobs.iter().map(|job| &job.key.cascade).collect();
        models.dedup();
        let model = match models[..] {
            [digest] => {
                let names = progress.models.iter().filter(|(name, _)| !name.is_empty());
                let mut names = names.filter(|(_, of)| *of == digest);
                names.next().map(|(name, _)| name.clone())
            }
            _ => None,
        };
        Self {
            id: Named::Batch.show(batch.id),
            object: "batch",
            endpoint: batch.endpoint,
            model,
            errors: faults.map(|faults| {
                let data = faults.into_iter().map(Into::into).collect();
                Faults { object: "list", data }
            }),
            input_file_id: Named::File.show(batch.input),
            completion_window: told_window(batch.window),
            status: batch.state.name(),
            output_file_id: batch.output.map(|id| Named::File.show(id)),
            error_file_id: batch.errors.map(|id| Named::File.show(id)),
            created_at: at(BatchState::Validating).unwrap_or_default(),
            in_progress_at: at(BatchState::InProgress),
            expires_at: batch.expires_ms / 1000,
            finalizing_at: at(BatchState::Finalizing),
            completed_at: at(BatchState::Completed),
            failed_at: at(BatchState::Failed),
            expired_at: at(BatchState::Expired),
            cancelling_at: at(BatchState::Cancelling),
            cancelled_at: at(BatchState::Cancelled),
            request_counts: Counts { total: progress.total, completed, failed },
            metadata: Some(batch.metadata).filter(|notes| !notes.is_empty()),
            jobs: progress.jobs.into_iter().filter_map(|group| group.job).collect(),
            waiting_for: progress.waiting_for.or(waits),
        }
    }
}

fn input(fields: &mut Fields) -> Answer<Uuid> {
    let id = fields.text("input_file_id")?.ok_or_else(|| {
        let message = "input_file_id is missing; accepted: the id of a file with purpose batch";
        UserError::invalid("input_file_id", message)
    })?;
    Named::File.read(&id).map_err(of_input_file)
}

fn route(fields: &mut Fields) -> Answer<String> {
    let given = fields.text("endpoint")?;
    let known = given.as_deref().filter(|path| endpoint(path).is_some());
    known.map(str::to_owned).ok_or_else(|| {
        let given = given
            .as_deref()
            .map_or_else(|| "missing".to_owned(), |path| format!("{:?}", told(path)));
        let message = format!("endpoint is {given}; accepted: {GENERATIONS}, {EDITS}");
        UserError::invalid("endpoint", message)
    })
}

/// How long a batch may take: OpenAI has `24h` alone.
fn window(fields: &mut Fields) -> Answer<Duration> {
    let accepted = "\"24h\", or another whole number of hours or days, up to \"30d\"";
    let Some(given) = fields.text("completion_window")? else {
        let message = format!("completion_window is missing; accepted: {accepted}");
        return Err(UserError::invalid("completion_window", message));
    };
    let unit = match given.chars().last() {
        Some('h') => Some(3600),
        Some('d') => Some(24 * 3600),
        _ => None,
    };
    let digits = given.get(..given.len().saturating_sub(1)).unwrap_or_default();
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let count = digits.parse::<u64>().ok().filter(|_| is_number);
    let seconds = count.zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
    let span = seconds.map(Duration::from_secs);
    span.filter(|span| !span.is_zero() && *span <= LONGEST)
        .ok_or_else(|| wrong("completion_window", &Value::String(given), accepted))
}

/// A time as [`window`] reads it.
fn told_window(window: Duration) -> String {
    format!("{}h", window.as_secs() / 3600)
}

fn metadata(fields: &mut Fields) -> Answer<BTreeMap<String, String>> {
    let (most, longest_name, longest) = METADATA;
    let accepted = format!(
        "an object of at most {most} texts, with names of 1 to {longest_name} and values of at \
         most {longest} characters"
    );
    let Some(value) = fields.take("metadata") else { return Ok(BTreeMap::new()) };
    let refuse = || wrong("metadata", &value, &accepted);
    let object = value.as_object().filter(|object| object.len() <= most).ok_or_else(refuse)?;
    let pair = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| value.chars().count() <= longest)?;
        let fits = (1..=longest_name).contains(&name.chars().count());
        fits.then(|| (name.clone(), value.to_owned()))
    };
    object.iter().map(pair).collect::<Option<_>>().ok_or_else(refuse)
}

/// A refusal with the name of the parameter.
fn of_input_file(error: UserError) -> UserError {
    match error.code {
        Code::NotFound => UserError { field: Some("input_file_id".to_owned()), ..error },
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of_json(serde_json::from_value(value).expect("an object"))
    }

    #[test]
    fn a_window_is_a_day_or_another_span() {
        let of = |text: &str| window(&mut fields(json!({"completion_window": text})));
        for (text, hours) in [("24h", 24), ("1h", 1), ("7d", 168), ("30d", 720), ("720h", 720)] {
            let span = of(text).expect(text);
            assert_eq!(span.as_secs(), hours * 3600);
            assert_eq!(of(&told_window(span)), Ok(span), "it is told as it is read");
        }
        for wrong in [
            "",
            "h",
            "0h",
            "24",
            "24H",
            "31d",
            "721h",
            "-1h",
            "+1h",
            "1.5h",
            "99999999999999999999d",
            "24 h",
            "é",
        ] {
            let error = of(wrong).expect_err(wrong);
            assert_eq!(error.field.as_deref(), Some("completion_window"), "{error}");
        }
    }

    #[test]
    fn notes_are_few_short_texts() {
        let of = |value| metadata(&mut fields(json!({"metadata": value})));
        assert_eq!(of(Value::Null), Ok(BTreeMap::new()));
        assert_eq!(of(json!({"a": "b"})).expect("notes")["a"], "b");
        let many: BTreeMap<_, _> = (0..17).map(|n| (format!("k{n}"), "v")).collect();
        for wrong in [
            json!([]),
            json!({"a": 1}),
            json!({"": "b"}),
            json!({"x".repeat(65): "b"}),
            json!({"a": "x".repeat(513)}),
            json!(many),
        ] {
            assert_eq!(of(wrong).expect_err("refused").field.as_deref(), Some("metadata"));
        }
    }

    #[test]
    fn a_route_is_one_of_the_image_api() {
        let of = |value| route(&mut fields(json!({"endpoint": value})));
        assert_eq!(of(json!("/v1/images/edits")), Ok(EDITS.to_owned()));
        for wrong in [Value::Null, json!("/v1/responses"), json!(""), json!("/v1/images/edits/")] {
            of(wrong).expect_err("refused");
        }
    }
}
