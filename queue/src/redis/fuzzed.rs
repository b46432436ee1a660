//! What the fuzz targets of `tests/fuzz` call: the readers of what lies in Redis, which anybody
//! with access to it may have written. Nothing else uses them from outside.

use super::{cards, reply::Entry, wire};
use crate::task::{Task, TaskResult, WorkerCard};

/// Reads an entry of a pool's stream, given as its fields.
///
/// # Errors
/// Why it is dropped.
pub fn task(fields: Vec<Vec<u8>>) -> Result<Task, String> {
    wire::open_task(&entry(fields)).map_err(|error| error.to_string())
}

/// Reads an entry of a stream of results, given as its fields.
///
/// # Errors
/// Why it is dropped.
pub fn result(fields: Vec<Vec<u8>>) -> Result<TaskResult, String> {
    wire::open_result(&entry(fields)).map_err(|error| error.to_string())
}

/// The fields of a task, as they are written.
#[must_use]
pub fn fields_of_task(task: &Task) -> Option<Vec<Vec<u8>>> {
    let field = if task.suspect { wire::SUSPECT } else { wire::TASK };
    let key = wire::key_text(&task.key).into_bytes();
    Some(vec![b"k".to_vec(), key, field.into(), wire::seal_task(task).ok()?])
}

/// The fields of a result, as they are written.
#[must_use]
pub fn fields_of_result(result: &TaskResult) -> Option<Vec<Vec<u8>>> {
    let key = wire::key_text(&result.key).into_bytes();
    Some(vec![b"k".to_vec(), key, b"r".to_vec(), wire::seal_result(result).ok()?])
}

/// Reads a worker's card, as the card of the worker that it names; `None` for one that is skipped.
#[must_use]
pub fn card(age_ms: u64, text: &[u8]) -> Option<WorkerCard> {
    let named = serde_json::from_slice::<WorkerCard>(text).ok()?;
    cards::card(age_ms, named.id.0.as_bytes(), text)
}

fn entry(fields: Vec<Vec<u8>>) -> Entry {
    Entry { id: "1-0".to_owned(), fields }
}
