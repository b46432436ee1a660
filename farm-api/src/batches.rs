//! Files and batches, which the HTTP doors offer in OpenAI's shape. They have no call over gRPC:
//! a batch becomes jobs, and those are followed there.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::batch_state::BatchState;
use uuid::Uuid;

use crate::{Answer, Caller, Incoming, Outgoing};

/// A file's id as people and programs see it: `file-` and 32 hex digits.
#[must_use]
pub fn shown_file(id: Uuid) -> String {
    format!("file-{}", id.simple())
}

/// A batch's id as people and programs see it: `batch_` and 32 hex digits.
#[must_use]
pub fn shown_batch(id: Uuid) -> String {
    format!("batch_{}", id.simple())
}

/// Most bytes of a file that a client sends.
pub const MOST_FILE_BYTES: u64 = 200 << 20;

/// Longest note of a runner, bytes.
pub const MOST_PROGRESS: usize = 1 << 20;

/// Maximum length of a file's name, in characters.
pub const MOST_NAME: usize = 200;

/// What a farm keeps of files and batches. A caller reaches those of its tenant, or with the scope
/// `operate` those of all; what belongs to others looks like what does not exist.
#[async_trait]
pub trait Batches: Send + Sync + 'static {
    /// Stores a file. If the caller's tenant has a file with this id, that one stays and is
    /// returned: whoever writes a file twice after a crash writes the same.
    ///
    /// # Errors
    /// NOT_FOUND if another tenant has a file with this id. For a file that a client sends:
    /// INVALID_ARGUMENT if it has more than [`MOST_FILE_BYTES`]; RESOURCE_EXHAUSTED if the tenant
    /// has no room for it, or too many files. Results count, and are never refused for that.
    async fn add_file(
        &self,
        caller: &Caller,
        new: NewFile,
        parts: Incoming<Bytes>,
    ) -> Answer<FileRecord>;

    /// One file.
    ///
    /// # Errors
    /// NOT_FOUND.
    async fn file(&self, caller: &Caller, id: Uuid) -> Answer<FileRecord>;

    /// Files, the newest first.
    ///
    /// # Errors
    /// NOT_FOUND if there is none with the id of `after`.
    async fn files(
        &self,
        caller: &Caller,
        page: &Page,
        purpose: Option<Purpose>,
    ) -> Answer<Vec<FileRecord>>;

    /// The bytes of a file from an offset on. They end early if the farm stops, so a caller that
    /// needs all of them must count them.
    ///
    /// # Errors
    /// NOT_FOUND.
    async fn read_file(
        &self,
        caller: &Caller,
        id: Uuid,
        offset: u64,
    ) -> Answer<(FileRecord, Outgoing<Bytes>)>;

    /// Deletes a file.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION (`FILE_IN_USE`) while a batch reads it.
    async fn delete_file(&self, caller: &Caller, id: Uuid) -> Answer<()>;

    /// Records a batch, in state `validating`.
    ///
    /// # Errors
    /// NOT_FOUND if its input is no file of the caller's tenant; RESOURCE_EXHAUSTED if the tenant
    /// has too many open batches.
    async fn add_batch(&self, caller: &Caller, new: NewBatch) -> Answer<Batch>;

    /// One batch.
    ///
    /// # Errors
    /// NOT_FOUND.
    async fn batch(&self, caller: &Caller, id: Uuid) -> Answer<Batch>;

    /// Batches, the newest first.
    ///
    /// # Errors
    /// NOT_FOUND if there is none with the id of `after`.
    async fn batches(&self, caller: &Caller, page: &Page) -> Answer<Vec<Batch>>;

    /// Makes a batch `cancelling`, and due at once. A runner that has taken it keeps it until its
    /// step, which then records nothing, or until its lease is over. One that is being cancelled or
    /// was cancelled stays as it is.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION if it has ended otherwise, or its results are being written.
    async fn cancel_batch(&self, caller: &Caller, id: Uuid) -> Answer<Batch>;

    /// The time of the clock by which batches begin and expire, milliseconds since 1970.
    ///
    /// # Errors
    /// If the record fails.
    async fn clock_ms(&self) -> Answer<i64>;

    /// Takes the batch that has waited longest for its next step, for this long. Nobody else takes
    /// it meanwhile. `None`: no batch is due.
    ///
    /// # Errors
    /// If the record fails.
    async fn claim_batch(&self, runner: Uuid, lease: Duration) -> Answer<Option<Batch>>;

    /// Takes a batch that this runner has taken for so much longer from now. False: it has lost it.
    ///
    /// # Errors
    /// If the record fails.
    async fn renew_batch(&self, runner: Uuid, id: Uuid, lease: Duration) -> Answer<bool>;

    /// Records a step of a batch that this runner has taken, and gives it back. False: it was
    /// cancelled or taken by another runner since, so nothing is recorded.
    ///
    /// # Errors
    /// If the record fails, or the state may not become the next one.
    async fn advance_batch(&self, runner: Uuid, step: &Step) -> Answer<bool>;
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The requests of a batch.
    Batch,
    /// The results of a batch.
    BatchOutput,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Batch, Self::BatchOutput];

    /// Its name in SQL and in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
        }
    }
}

/// A file that is about to be stored.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Its id, which the caller makes.
    pub id: Uuid,
    /// Its name for people, without control characters, at most [`MOST_NAME`] characters.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// How long it is kept; `None`: as the retention of files says.
    pub keep: Option<Duration>,
}

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: String,
    /// Its name for people.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// When it was stored, milliseconds since 1970.
    pub created_ms: i64,
    /// When it is removed, milliseconds since 1970; `None`: it says nothing itself.
    pub expires_ms: Option<i64>,
}

/// A part of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The last one that the client has.
    pub after: Option<Uuid>,
    /// At most this many.
    pub limit: u32,
    /// The oldest first instead.
    pub oldest_first: bool,
}

/// A batch that is about to be recorded.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Its id, which the caller makes.
    pub id: Uuid,
    /// The route of all of its requests.
    pub endpoint: String,
    /// The file of its requests.
    pub input: Uuid,
    /// How long it may take.
    pub window: Duration,
    /// The client's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Where links to its pictures begin, like `https://farm.example.com`.
    pub origin: String,
    /// How long the files of its results are kept; `None`: as the retention of files says.
    pub keep_output: Option<Duration>,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: String,
    /// The id of the key that began it; `None` on an open farm.
    pub key: Option<String>,
    /// The route of all of its requests.
    pub endpoint: String,
    /// The file of its requests.
    pub input: Uuid,
    /// How long it may take.
    pub window: Duration,
    /// The client's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Where links to its pictures begin.
    pub origin: String,
    /// How long the files of its results are kept; `None`: as the retention of files says.
    pub keep_output: Option<Duration>,
    /// Where it stands.
    pub state: BatchState,
    /// When it came into each state, milliseconds since 1970.
    pub since_ms: BTreeMap<BatchState, i64>,
    /// When its time is over, milliseconds since 1970.
    pub expires_ms: i64,
    /// What its runner has noted, in the runner's own form; empty at first.
    pub progress: String,
    /// The file of its results.
    pub output: Option<Uuid>,
    /// The file of its errors.
    pub errors: Option<Uuid>,
}

/// A step of a batch.
#[derive(Clone, Debug)]
pub struct Step {
    /// The batch.
    pub id: Uuid,
    /// The state that it was claimed in.
    pub from: BatchState,
    /// Its state from now on.
    pub to: BatchState,
    /// What the runner notes, at most 256 KiB.
    pub progress: String,
    /// The file of its results; `None`: as before.
    pub output: Option<Uuid>,
    /// The file of its errors; `None`: as before.
    pub errors: Option<Uuid>,
    /// When the next step is due, from now.
    pub again: Duration,
}
