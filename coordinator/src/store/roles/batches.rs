//! Files and batches.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::store::{
    batches::{
        AddedFile, Batch, Creator, ForgottenFiles, NewBatch, NewFile, Page, Purpose, Step,
        StoredFile,
    },
    error::Error,
    records::Term,
};

/// Files and batches. `tenant` says whose are reached; `None`: everyone's.
#[async_trait]
pub trait Batches: Send + Sync + 'static {
    /// Where a file with this id is to be stored: the number for
    /// [`file_prefix`](crate::store::batches::file_prefix).
    async fn file_mark(&self, id: Uuid) -> Result<u64, Error>;

    /// Records a file that is stored. Its bytes count as its tenant's. The result of a batch is
    /// never refused, because its pictures are there. [`Error::NotFound`] if another tenant has a
    /// file with this id.
    async fn add_file(&self, new: &NewFile) -> Result<AddedFile, Error>;

    /// A file.
    async fn file(&self, id: Uuid, tenant: Option<&str>) -> Result<StoredFile, Error>;

    /// A part of a listing.
    async fn list_files(
        &self,
        tenant: Option<&str>,
        page: &Page,
        purpose: Option<Purpose>,
    ) -> Result<Vec<StoredFile>, Error>;

    /// Deletes a file that no open batch reads. Its bytes become a candidate. Returns what it was.
    async fn delete_file(&self, id: Uuid, tenant: Option<&str>) -> Result<StoredFile, Error>;

    /// Records a batch, which is due at once. If the tenant has one with this id, that one stays
    /// and is returned, with false.
    async fn add_batch(&self, creator: Creator<'_>, new: &NewBatch)
    -> Result<(Batch, bool), Error>;

    /// A batch.
    async fn batch(&self, id: Uuid, tenant: Option<&str>) -> Result<Batch, Error>;

    /// A part of a listing.
    async fn list_batches(&self, tenant: Option<&str>, page: &Page) -> Result<Vec<Batch>, Error>;

    /// Makes a batch `cancelling` and due. Returns whether it was not before. Its runner keeps it
    /// until it gives it back or its lease is over, so that two never work on it.
    async fn cancel_batch(&self, id: Uuid, tenant: Option<&str>) -> Result<(Batch, bool), Error>;

    /// Takes the batch that has been due for longest, if nobody has it.
    async fn claim_batch(&self, runner: Uuid, lease: Duration) -> Result<Option<Batch>, Error>;

    /// Keeps a batch that a runner has taken for so much longer from now. False: another one has
    /// taken it since, or it was given back.
    async fn renew_batch(&self, runner: Uuid, id: Uuid, lease: Duration) -> Result<bool, Error>;

    /// Records a step of a batch that a runner has taken, and gives the batch back. False: another
    /// one has taken it since, or it was cancelled. In the latter case it is given back and due at
    /// once.
    async fn advance_batch(&self, runner: Uuid, step: &Step) -> Result<bool, Error>;

    /// Whether [`forget_files`](Self::forget_files) would find something to do.
    async fn is_file_due(&self, now_ms: i64) -> Result<bool, Error>;

    /// Removes about `limit` files whose time is over, or that the policies do not keep any longer,
    /// unless an open batch reads them. Their bytes become candidates. Also removes about `limit`
    /// batches that ended before the files of that time go, and none of whose files is left.
    /// [`Error::NotLeading`] if the term has ended.
    async fn forget_files(
        &self,
        term: Term,
        now_ms: i64,
        limit: u32,
    ) -> Result<ForgottenFiles, Error>;
}
