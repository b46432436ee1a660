//! Files and batches, as the record has them.
//!
//! A batch is stepped by a runner, which claims it for a while. Every change names the state that
//! it expects. A file stays while an open batch reads it.

use std::time::Duration;

use darkroom_core::{
    artifact::ArtifactRef,
    batch_state::BatchState,
    digest::Digest,
    error::{Code, UserError},
};
pub use darkroom_farm_api::batches::{
    Batch, FileRecord, NewBatch, Page, Purpose, Step, shown_batch, shown_file,
};
use uuid::Uuid;

use super::Error;

/// Most files of a tenant. Results of batches count, and are stored nevertheless.
pub const MOST_FILES: u64 = 10_000;
/// Most batches of a tenant that have not ended.
pub const MOST_OPEN: u64 = 100;
/// What files' keys end in.
pub const EXTENSION: &str = "jsonl";

/// A file in storage that is about to be recorded.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its bytes in storage.
    pub stored: ArtifactRef,
    /// How long it is kept; `None`: as the policy says.
    pub keep: Option<Duration>,
}

/// A file of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// What is told of it.
    pub record: FileRecord,
    /// Its bytes in storage.
    pub stored: ArtifactRef,
}

/// What became of a file that was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddedFile {
    /// It is recorded.
    Added(StoredFile),
    /// The tenant has had a file with this id. That one stays.
    Existed(StoredFile),
    /// An older object under this key is being removed. Store the file under another key, then
    /// record it.
    Leaving,
}

/// Whose batch begins.
#[derive(Clone, Copy, Debug)]
pub struct Creator<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The id of the key.
    pub key: Option<&'a str>,
}

/// How many files and batches were removed from the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForgottenFiles {
    /// How many files.
    pub files: u64,
    /// How many batches.
    pub batches: u64,
    /// Whether there may be more.
    pub more: bool,
}

/// The prefix of a file's storage key. `mark` is 0 unless an earlier file with this id is being
/// removed from storage.
#[must_use]
pub fn file_prefix(id: Uuid, mark: u64) -> String {
    if mark == 0 { format!("files/{id}/") } else { format!("files/{id}/{mark}/") }
}

/// There is no such file, or it is another tenant's.
pub(crate) fn no_file(id: Uuid) -> Error {
    Error::NotFound(format!("there is no file {}", shown_file(id)))
}

/// There is no such batch, or it is another tenant's.
pub(crate) fn no_batch(id: Uuid) -> Error {
    Error::NotFound(format!("there is no batch {}", shown_batch(id)))
}

/// A file cannot be deleted yet.
pub(super) fn in_use(file: Uuid, batch: Uuid) -> Error {
    let (file, batch) = (shown_file(file), shown_batch(batch));
    let message = format!(
        "file {file} cannot be deleted while batch {batch} reads it; cancel the batch, or wait until \
         it has ended"
    );
    UserError::new(Code::FailedPrecondition, "FILE_IN_USE", message).into()
}

/// A batch cannot be cancelled any more.
pub(super) fn not_cancellable(batch: Uuid, state: BatchState) -> Error {
    let accepted: Vec<_> = BatchState::ALL
        .into_iter()
        .filter(|state| state.can_be_cancelled())
        .map(BatchState::name)
        .collect();
    let message = format!(
        "batch {} is {state}; accepted: a batch that is {}",
        shown_batch(batch),
        accepted.join(" or ")
    );
    UserError::new(Code::FailedPrecondition, "BATCH_NOT_OPEN", message).into()
}

/// A step that no batch takes.
pub(super) fn no_step(step: &Step) -> Error {
    let Step { id, from, to, .. } = step;
    let message = format!("batch {} is {from}, and may not become {to}", shown_batch(*id));
    UserError::new(Code::FailedPrecondition, "BATCH_STEP", message).into()
}

/// Refuses one more file of a tenant that has so many.
pub(super) fn check_files(tenant: &str, has: u64) -> Result<(), UserError> {
    if has < MOST_FILES {
        return Ok(());
    }
    let message = format!(
        "tenant {tenant:?} has {has} files; accepted: at most {MOST_FILES}, so delete some first"
    );
    Err(UserError::new(Code::ResourceExhausted, "TOO_MANY_FILES", message))
}

/// Refuses one more batch of a tenant of which so many are open.
pub(super) fn check_open(tenant: &str, open: u64) -> Result<(), UserError> {
    if open < MOST_OPEN {
        return Ok(());
    }
    let message = format!(
        "tenant {tenant:?} has {open} batches that have not ended; accepted: at most {MOST_OPEN}, \
         so wait for the end of one, or cancel one"
    );
    let refused = UserError::new(Code::ResourceExhausted, "TOO_MANY_BATCHES", message);
    Err(UserError { retry_after: Some(OPEN_AGAIN), ..refused })
}

/// How long a client should wait when too many batches are open, whose end nobody knows.
const OPEN_AGAIN: Duration = Duration::from_secs(60);

/// The purpose with this name.
pub(super) fn purpose(name: &str) -> Result<Purpose, Error> {
    Purpose::ALL
        .into_iter()
        .find(|purpose| purpose.name() == name)
        .ok_or_else(|| Error::Corrupt(format!("purpose {name:?} of a file")))
}

/// What is told of a file in storage.
pub(super) fn stored_file(
    (id, tenant, name): (Uuid, String, String),
    purpose: Purpose,
    stored: ArtifactRef,
    (created_ms, expires_ms): (i64, Option<i64>),
) -> StoredFile {
    let digest: Digest = stored.sha256;
    let record = FileRecord {
        id,
        tenant,
        name,
        purpose,
        bytes: stored.size,
        sha256: digest.to_string(),
        created_ms,
        expires_ms,
    };
    StoredFile { record, stored }
}
