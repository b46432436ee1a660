//! Reading jobs and images.

use async_trait::async_trait;
use darkroom_core::id::JobId;
use darkroom_queue::task::PoolId;

use crate::store::{
    error::Error,
    records::{
        Around, Changes, Failures, ImagePage, ImageQuery, ImageRecord, JobPage, JobQuery,
        JobRecord, Seen,
    },
};

/// Most jobs, prompts or images that one page of a listing reads.
pub const LOOKED_AT: u32 = 20_000;
/// Most changes that a page by version reads beyond its limit, if it is of at most 100 images and
/// has no labels and no text.
pub const NOT_LISTED: u32 = 1_000;
/// Most codes of failures in a job's summary.
pub const MOST_CODES: u32 = 100;
/// Most images that are counted for a summary of failures.
pub const MOST_COUNTED: u32 = 100_000;

/// Reading jobs and images.
#[async_trait]
pub trait Queries: Send + Sync + 'static {
    /// A job; jobs that are still received are not found.
    async fn job(&self, job: JobId) -> Result<JobRecord, Error>;

    /// Whether this tenant has this job. False as well if there is no such job, or if it is still
    /// received.
    async fn is_of(&self, job: JobId, tenant: &str) -> Result<bool, Error>;

    /// Jobs in the order of their submission. Reads at most [`LOOKED_AT`] jobs and prompts
    /// together, so a short or empty page may have a position to continue from.
    async fn jobs(&self, query: &JobQuery) -> Result<JobPage, Error>;

    /// Images of a job in order of index, or in order of version if only changes are requested.
    /// Reads at most [`LOOKED_AT`] prompts or images, like [`jobs`](Self::jobs). With only an index
    /// or states, it reads one more image than it returns. With only a version or also states, it
    /// reads some changes that it does not return: at most [`NOT_LISTED`] for a page of up to 100
    /// images, and ten for each image of a larger page.
    async fn images(&self, query: &ImageQuery) -> Result<ImagePage, Error>;

    /// How a job's images failed, by the code of their last failure: at most [`MOST_CODES`] codes,
    /// and at most [`MOST_COUNTED`] images in all.
    async fn failures(&self, job: JobId) -> Result<Failures, Error>;

    /// One image.
    async fn image(&self, job: JobId, index: u64) -> Result<ImageRecord, Error>;

    /// The job and the images that have changed since, as of one moment; at most `limit` images.
    async fn changes(&self, job: JobId, after: Seen, limit: u32) -> Result<Changes, Error>;

    /// At most `limit` notes about texts of a job (truncated, unknown words), each once with its
    /// images, in the order of the images.
    async fn notes(&self, job: JobId, limit: u32) -> Result<Vec<String>, Error>;

    /// Number of images that are dispatched, or ready before this job's, in a pool.
    async fn ahead(&self, job: JobId, pool: &PoolId) -> Result<u64, Error>;

    /// Number of active jobs of at least this priority, which share the farm.
    async fn active_jobs(&self, priority: u8) -> Result<u64, Error>;

    /// Additional information for a job's view, with at most this many notes.
    async fn around(&self, job: JobId, priority: u8, notes: u32) -> Result<Around, Error> {
        let (notes, rivals) = tokio::try_join!(self.notes(job, notes), self.active_jobs(priority))?;
        Ok(Around { notes, rivals })
    }

    /// A job with its [additional information](Self::around), which is the most frequent query.
    async fn view(&self, job: JobId, notes: u32) -> Result<(JobRecord, Around), Error> {
        let job = self.job(job).await?;
        let around = self.around(job.id, job.priority, notes).await?;
        Ok((job, around))
    }
}
