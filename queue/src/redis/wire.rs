//! The format of tasks and results in the streams.
//!
//! A task is `k {key} t {body}`, a suspect `k {key} s {body}`, a result `k {key} r {body}`. The key
//! lets scripts find entries without reading bodies, and the field's name lets them recognise
//! suspects. Bodies are compact JSON without the values that the key has.

use std::borrow::Cow;

use darkroom_core::{
    digest::Digest,
    id::{ImageId, JobId, WorkerId},
    shown::shown,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::reply::Entry;
use crate::{
    Error,
    mac::{Mac, Signature},
    task::{EntryId, Outcome, Subject, Task, TaskBody, TaskKey, TaskResult},
};

/// Field of a task's body.
pub(super) const TASK: &str = "t";
/// Field of a suspect's body.
pub(super) const SUSPECT: &str = "s";
/// Field of a key.
const KEY: &[u8] = b"k";
/// Field of a result's body.
const RESULT: &[u8] = b"r";

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("its fields are not those of a task or result")]
    Fields,
    #[error("its key cannot be read")]
    Key,
    #[error("its body cannot be read: {}", shown(&.0.to_string()))]
    Body(serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct SealedTask<'a> {
    #[serde(rename = "c", borrow)]
    compatibility: Cow<'a, str>,
    #[serde(rename = "p", borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(rename = "b")]
    body: Cow<'a, TaskBody>,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    warrant: Option<Mac>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    seal: Option<Mac>,
}

#[derive(Serialize, Deserialize)]
struct SealedResult<'a> {
    #[serde(rename = "w", borrow)]
    worker: Cow<'a, str>,
    #[serde(rename = "h", borrow)]
    place: Cow<'a, str>,
    #[serde(rename = "d", borrow)]
    device_class: Cow<'a, str>,
    #[serde(rename = "a")]
    alone: bool,
    #[serde(rename = "s")]
    seconds: f64,
    /// Absent from an older worker's.
    #[serde(rename = "b", default)]
    batch: u32,
    #[serde(rename = "o")]
    outcome: Cow<'a, Outcome>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    warrant: Option<Mac>,
    /// Absent from a forged one, or an older worker's.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    signature: Option<Cow<'a, Signature>>,
}

pub(super) fn seal_task(task: &Task) -> Result<Vec<u8>, Error> {
    let sealed = SealedTask {
        compatibility: Cow::Borrowed(&task.compatibility),
        traceparent: task.traceparent.as_deref().map(Cow::Borrowed),
        body: Cow::Borrowed(&task.body),
        warrant: task.warrant,
        seal: task.seal,
    };
    serde_json::to_vec(&sealed).map_err(|error| Error::Malformed(error.to_string()))
}

pub(super) fn seal_result(result: &TaskResult) -> Result<Vec<u8>, Error> {
    let sealed = SealedResult {
        worker: Cow::Borrowed(&result.worker.0),
        place: Cow::Borrowed(&result.place),
        device_class: Cow::Borrowed(&result.device_class),
        alone: result.alone,
        seconds: result.seconds,
        batch: result.batch,
        outcome: Cow::Borrowed(&result.outcome),
        warrant: result.warrant,
        signature: result.signature.as_ref().map(Cow::Borrowed),
    };
    serde_json::to_vec(&sealed).map_err(|error| Error::Malformed(error.to_string()))
}

pub(super) fn open_task(entry: &Entry) -> Result<Task, Unreadable> {
    let Parts { key, field, body } = parts(entry)?;
    let suspect = field == SUSPECT.as_bytes();
    if !suspect && field != TASK.as_bytes() {
        return Err(Unreadable::Fields);
    }
    let sealed: SealedTask<'_> = serde_json::from_slice(body).map_err(Unreadable::Body)?;
    Ok(Task {
        key,
        compatibility: sealed.compatibility.into_owned(),
        suspect,
        body: sealed.body.into_owned(),
        traceparent: sealed.traceparent.map(Cow::into_owned),
        warrant: sealed.warrant,
        seal: sealed.seal,
    })
}

pub(super) fn open_result(entry: &Entry) -> Result<TaskResult, Unreadable> {
    let Parts { key, field, body } = parts(entry)?;
    if field != RESULT {
        return Err(Unreadable::Fields);
    }
    let sealed: SealedResult<'_> = serde_json::from_slice(body).map_err(Unreadable::Body)?;
    Ok(TaskResult {
        key,
        worker: WorkerId(sealed.worker.into_owned()),
        place: sealed.place.into_owned(),
        device_class: sealed.device_class.into_owned(),
        alone: sealed.alone,
        seconds: sealed.seconds,
        batch: sealed.batch,
        outcome: sealed.outcome.into_owned(),
        warrant: sealed.warrant,
        signature: sealed.signature.map(Cow::into_owned),
    })
}

/// What every entry has: the key of its task, the name of its second field, and what that holds.
struct Parts<'a> {
    key: TaskKey,
    field: &'a [u8],
    body: &'a [u8],
}

fn parts(entry: &Entry) -> Result<Parts<'_>, Unreadable> {
    let [name, key, field, body] = entry.fields.as_slice() else { return Err(Unreadable::Fields) };
    if name != KEY {
        return Err(Unreadable::Fields);
    }
    let key = std::str::from_utf8(key).ok().and_then(parse_key).ok_or(Unreadable::Key)?;
    Ok(Parts { key, field, body })
}

/// `i.{job}.{index}.{generation}.{dispatch}` or `t.{digest}.{generation}.{dispatch}`.
pub(super) fn key_text(key: &TaskKey) -> String {
    let TaskKey { subject, generation, dispatch } = key;
    match subject {
        Subject::Image(ImageId { job, index }) => {
            format!("i.{}.{index}.{generation}.{dispatch}", job.0.simple())
        }
        Subject::Text(digest) => format!("t.{digest}.{generation}.{dispatch}"),
    }
}

pub(super) fn parse_key(text: &str) -> Option<TaskKey> {
    let mut parts = text.split('.');
    let subject = match parts.next()? {
        "i" => {
            let job = JobId(Uuid::try_parse(parts.next()?).ok()?);
            Subject::Image(ImageId { job, index: parts.next()?.parse().ok()? })
        }
        "t" => Subject::Text(parts.next()?.parse::<Digest>().ok()?),
        _ => return None,
    };
    let key = TaskKey {
        subject,
        generation: parts.next()?.parse().ok()?,
        dispatch: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(key)
}

/// Ids as arguments of a script.
pub(super) fn texts(ids: &[EntryId]) -> Vec<&str> {
    ids.iter().map(|id| id.0.as_str()).collect()
}

/// A lease's id: the entry's id, with a mark if the entry is in the stream of the head.
pub(super) fn lease_id(at_head: bool, entry: &str) -> EntryId {
    EntryId(if at_head { format!("h{entry}") } else { entry.to_owned() })
}

/// Whether Redis accepts this as an entry's id.
pub(super) fn is_stream_id(id: &EntryId) -> bool {
    id.0.split_once('-')
        .is_some_and(|(ms, seq)| ms.parse::<u64>().is_ok() && seq.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::samples::{done, task};

    fn entry(field: &str, key: &TaskKey, body: Vec<u8>) -> Entry {
        let fields =
            vec![b"k".to_vec(), key_text(key).into_bytes(), field.as_bytes().to_vec(), body];
        Entry { id: "1-0".to_owned(), fields }
    }

    #[test]
    fn tasks_come_out_as_they_went_in() {
        let traced = Task { traceparent: Some("00-\"x\"-é".to_owned()), ..task(3) };
        let suspect = Task { suspect: true, ..task(u64::MAX) };
        for (task, field) in [(traced, TASK), (suspect, SUSPECT)] {
            let sealed = seal_task(&task).unwrap();
            assert_eq!(open_task(&entry(field, &task.key, sealed)).unwrap(), task);
        }
    }

    #[test]
    fn results_come_out_as_they_went_in() {
        let result = done(1);
        let sealed = seal_result(&result).unwrap();
        assert_eq!(open_result(&entry("r", &result.key, sealed)).unwrap(), result);
    }

    #[test]
    fn keys_of_images_and_texts_come_out_as_they_went_in() {
        let text =
            TaskKey { subject: Subject::Text(Digest::of(b"x")), generation: 0, dispatch: u64::MAX };
        for key in [task(7).key, text] {
            assert_eq!(parse_key(&key_text(&key)), Some(key));
        }
        assert!(
            ["", "i", "i.x.1.1.1", "t.00.1.1", "x.1"].iter().all(|text| parse_key(text).is_none())
        );
        assert_eq!(parse_key(&format!("{}.1", key_text(&text))), None);
    }

    #[test]
    fn ids_of_other_queues_are_not_stream_ids() {
        assert!(is_stream_id(&EntryId("17-0".to_owned())));
        assert!(
            ["", "17", "h17-0", "a-0", "1-2-3"]
                .iter()
                .all(|id| !is_stream_id(&EntryId((*id).to_owned())))
        );
    }
}
