//! The farm's record in SQL: the only truth about what was submitted and how far it has come.
//!
//! One method is one transaction. Every UPDATE names the state it expects, and counters come from the rows it
//! returned, never from its input. Time is the database's. Backends decide nothing about the domain: they read rows,
//! ask `darkroom_core`'s state machines, and write the answer where the row is still as read. What any backend must
//! do is tested by [`conformance`].

mod cause;
mod change;
pub mod conduct;
pub mod conformance;
pub(crate) mod custom_id;
pub mod error;
pub mod forecast;
pub mod limits;
mod notes;
pub mod postgres;
pub mod records;
pub mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use conduct::Aside;
use darkroom_core::{
    cascade::Cascade,
    digest::Digest,
    fair_share,
    forecast::{Forecast, StageSpent},
    id::{JobId, WorkerId},
    job_state::JobState,
};
use darkroom_queue::task::{PoolId, TaskKey};
use uuid::Uuid;

pub use error::Error;
use forecast::StageRate;
use limits::NewDeadline;
use records::{
    Around, Changes, Committed, Dispatched, ImagePage, ImageQuery, ImageRecord, Input, JobPage, JobQuery,
    JobRecord, NewJob, NewPrompt, Onward, Release, Report, Submitted, Term,
};

/// How long a wish to drain is remembered: ids are a process's own, so what is left of one that is gone does no harm.
pub const WISH: Duration = Duration::from_secs(3600);

/// The record of one farm.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Identity of the farm, chosen when the record was made; part of every key in a shared queue.
    async fn farm_id(&self) -> Result<Uuid, Error>;

    /// Takes or renews the leadership of dispatch and reaping for `holder`; `None` while another one leads.
    /// Cheap to ask often: a backend renews when it must, not each time.
    async fn lead(&self, holder: &str) -> Result<Option<Term>, Error>;

    /// Gives the leadership up, if `holder` has it, so that another one need not wait for its end.
    async fn resign(&self, holder: &str) -> Result<(), Error>;

    /// Tells the leader, if that is another process, that something may be ready to be dispatched. A hint: it may be
    /// lost, and the leader polls.
    async fn tell_leader(&self) -> Result<(), Error>;

    /// Waits until [`tell_leader`](Self::tell_leader) was called, here or by another process. May wait for ever.
    async fn told(&self) -> Result<(), Error>;

    /// How long a lease lasts in this farm; `None` until somebody has said it. Whoever reaps asks here, so that no two
    /// coordinators think differently.
    async fn lease(&self) -> Result<Option<Duration>, Error>;

    /// Makes the farm's lease `to` where it is `from`, if nobody leads; without `from`, where there is none yet. Returns the
    /// farm's lease after that.
    async fn set_lease(&self, from: Option<Duration>, to: Duration) -> Result<Duration, Error>;

    /// Makes a cascade known, for jobs to refer to. Idempotent.
    async fn register_cascade(&self, cascade: &Cascade) -> Result<(), Error>;

    // ---- submit

    /// The accepted job that a client's request id made, and the digest of its content.
    async fn find_submitted(
        &self,
        tenant: &str,
        client_request_id: &str,
    ) -> Result<Option<(JobId, Digest)>, Error>;

    /// Accepts a job whole; refuses one whose deadline is not in the future.
    async fn submit(&self, job: &NewJob, prompts: &[NewPrompt], content: Digest) -> Result<Submitted, Error>;

    /// Starts a job that arrives in chunks; nothing of it runs before [`Store::accept`].
    async fn begin(&self, job: &NewJob) -> Result<(), Error>;

    /// Adds a chunk. `NotFound` when the job was swept meanwhile; refused where it repeats another chunk's custom id.
    async fn receive(&self, job: JobId, prompts: &[NewPrompt]) -> Result<(), Error>;

    /// Accepts what was received, or finds that its client's request id was accepted before; then what was received
    /// is gone.
    async fn accept(&self, job: JobId, content: Digest) -> Result<Submitted, Error>;

    /// Forgets a job that was not accepted.
    async fn abandon(&self, job: JobId) -> Result<(), Error>;

    /// Forgets jobs whose last chunk came longer than `idle` ago. Returns how many.
    async fn sweep_receiving(&self, idle: Duration) -> Result<u64, Error>;

    // ---- pictures to start from

    /// Notes a picture that lies in the object store; what was known of it is written anew.
    async fn add_input(&self, input: &Input) -> Result<(), Error>;

    /// Those of the pictures that are known, in no order.
    async fn inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error>;

    // ---- dispatch

    /// Active jobs with tasks ready for the pool, oldest first.
    async fn candidates(&self, pool: &PoolId) -> Result<Vec<fair_share::Candidate>, Error>;

    /// How many of the pool's tasks are dispatched.
    async fn dispatched_count(&self, pool: &PoolId) -> Result<u64, Error>;

    /// Marks tasks as dispatched and returns them with all that a worker needs. Fewer than picked when jobs changed
    /// meanwhile. [`Error::NotLeading`] when the term is over.
    async fn dispatch(
        &self,
        term: Term,
        pool: &PoolId,
        picks: &[fair_share::Pick],
    ) -> Result<Vec<Dispatched>, Error>;

    /// Every dispatched task of the pool: O(workers).
    async fn dispatched(&self, pool: &PoolId) -> Result<Vec<TaskKey>, Error>;

    /// The dispatched tasks of one job's images, each with its pool.
    async fn dispatched_of_job(&self, job: JobId) -> Result<Vec<(PoolId, TaskKey)>, Error>;

    // ---- outcomes

    /// Applies results: each changes its image or text, or is discarded for a reason. The last image of a job
    /// finishes it in the same transaction.
    async fn commit(&self, pool: &PoolId, reports: &[Report]) -> Result<Committed, Error>;

    /// As [`commit`](Self::commit); and images that are ready thereby are dispatched at once where they have leave, so that
    /// a row is written once where it would be twice. [`Error::NotLeading`] when the term is over: nothing was committed
    /// then. A backend may dispatch nothing.
    async fn commit_onward(
        &self,
        pool: &PoolId,
        reports: &[Report],
        _onward: &[Onward],
    ) -> Result<(Committed, Vec<(PoolId, Dispatched)>), Error> {
        Ok((self.commit(pool, reports).await?, Vec::new()))
    }

    /// Takes dispatched tasks back to ready, where they are still the handing-out that is named.
    /// [`Error::NotLeading`] when the term is over.
    async fn release(
        &self,
        term: Term,
        pool: &PoolId,
        tasks: &[TaskKey],
        why: &Release,
    ) -> Result<Committed, Error>;

    /// Lets the images of texts whose embedding was committed (or given up) follow, about `limit` images at a time.
    /// `more` says whether there are others.
    async fn spread(&self, limit: u64) -> Result<Committed, Error>;

    /// Lets image rows follow a cancel or retry of their job, about `limit` at a time.
    async fn follow(&self, limit: u64) -> Result<Committed, Error>;

    // ---- a user's wishes

    /// Ends a job; its images follow. Idempotent.
    async fn cancel(&self, job: JobId) -> Result<JobRecord, Error>;

    /// Holds a job. Idempotent.
    async fn pause(&self, job: JobId) -> Result<JobRecord, Error>;

    /// Lets a held job go on. Idempotent.
    async fn resume(&self, job: JobId) -> Result<JobRecord, Error>;

    /// Runs what is dead or cancelled again, in a new generation; its images follow. Refused where the job's deadline
    /// has passed and no other is given.
    async fn retry(&self, job: JobId, deadline: NewDeadline) -> Result<JobRecord, Error>;

    // ---- a job's limits

    /// Ends jobs, about `limit` of each kind, whose deadline has passed by the database's clock (as if cancelled), or of
    /// which more images are dead than they allow (as failed); their images follow. Says which.
    /// [`Error::NotLeading`] when the term is over.
    async fn end_overdue(&self, term: Term, limit: u32) -> Result<Vec<JobId>, Error>;

    /// Notes how far the active jobs have come, about `limit` of them, where that was not done lately: from it every
    /// coordinator reckons the same rates. Forgets those that ended.
    async fn note_paces(&self, limit: u32) -> Result<(), Error>;

    // ---- forecasts

    /// Keeps a live job's first forecast; false where one is kept, or the job has ended.
    async fn keep_forecast(&self, job: JobId, forecast: &Forecast) -> Result<bool, Error>;

    /// Active jobs, about `limit` in no order, of which no forecast is kept.
    async fn without_forecast(&self, limit: u32) -> Result<Vec<JobId>, Error>;

    /// Says what a job took, beside its first forecast if there is one.
    async fn note_spent(&self, job: JobId, spent: &[StageSpent]) -> Result<(), Error>;

    /// Replaces how fast classes of device are at stages; others stay as they were.
    async fn note_rates(&self, rates: &[StageRate]) -> Result<(), Error>;

    /// How fast every class of device was that ever ran a stage.
    async fn rates(&self) -> Result<Vec<StageRate>, Error>;

    // ---- conduct of workers

    /// Workers who within the last `window` failed, each time alone, at `images` or more images that another worker
    /// then did; with how many.
    async fn blamed(&self, window: Duration, images: u64) -> Result<Vec<(WorkerId, u64)>, Error>;

    /// Sets a worker aside, longer each time (`darkroom_core::conduct`); what it is blamed for is settled by it.
    /// [`Error::NotLeading`] when the term is over.
    async fn set_aside(&self, term: Term, worker: &WorkerId, reason: &str) -> Result<(), Error>;

    /// Ends a worker's time aside. [`Error::NotLeading`] when the term is over.
    async fn take_back(&self, term: Term, worker: &WorkerId) -> Result<(), Error>;

    /// Who is set aside now, the one whose time ends first before the others.
    async fn asides(&self) -> Result<Vec<Aside>, Error>;

    /// Remembers that a worker is to drain, for [`WISH`]. Idempotent.
    async fn wish_drain(&self, worker: &WorkerId) -> Result<(), Error>;

    /// Who is to drain, by id.
    async fn drains(&self) -> Result<Vec<WorkerId>, Error>;

    /// Forgets failures older than `window`, who was set aside when that ended more than a day ago, and wishes to drain that
    /// are older than [`WISH`].
    async fn forget_conduct(&self, window: Duration) -> Result<(), Error>;

    // ---- queries

    /// A job; jobs that are still received are not found.
    async fn job(&self, job: JobId) -> Result<JobRecord, Error>;

    /// Jobs, newest first.
    async fn jobs(&self, query: &JobQuery) -> Result<JobPage, Error>;

    /// Images of a job, in order of index, or of version when only changes are asked for.
    async fn images(&self, query: &ImageQuery) -> Result<ImagePage, Error>;

    /// One image.
    async fn image(&self, job: JobId, index: u64) -> Result<ImageRecord, Error>;

    /// The job and the images that changed after a version, as of one moment; at most `limit` images.
    async fn changes(&self, job: JobId, after: (u64, Option<u64>), limit: u32) -> Result<Changes, Error>;

    /// Why texts of a job deserve a note: truncated, unknown words. At most `limit`, each once, each with the images it is
    /// about, in their order.
    async fn notes(&self, job: JobId, limit: u32) -> Result<Vec<String>, Error>;

    /// Images dispatched or ready before this job's in a pool: of higher priority, and in all.
    async fn ahead(&self, job: JobId, pool: &PoolId) -> Result<u64, Error>;

    /// Active jobs of at least this priority, who share the farm.
    async fn active_jobs(&self, priority: u8) -> Result<u64, Error>;

    /// What a job's view shows beside the job, with at most so many notes.
    async fn around(&self, job: JobId, priority: u8, notes: u32) -> Result<Around, Error> {
        let (notes, rivals) = tokio::try_join!(self.notes(job, notes), self.active_jobs(priority))?;
        Ok(Around { notes, rivals })
    }

    /// A job with what is [around](Self::around) it: the question that is asked most.
    async fn view(&self, job: JobId, notes: u32) -> Result<(JobRecord, Around), Error> {
        let job = self.job(job).await?;
        let around = self.around(job.id, job.priority, notes).await?;
        Ok((job, around))
    }

    // ---- manifests

    /// Jobs whose manifest is to be written, with the generation it describes. Another process that asks gets them
    /// only after a while in which they were not written.
    async fn pending_manifests(&self, limit: u32) -> Result<Vec<(JobId, u32)>, Error>;

    /// Says that a generation's manifest is stored. False when the job went on meanwhile.
    async fn manifest_written(
        &self,
        job: JobId,
        generation: u32,
        key: &str,
        sha256: Digest,
    ) -> Result<bool, Error>;

    /// Finishes jobs whose images are all terminal but which are not; zero are expected. Returns which, and counts them.
    async fn finish_overlooked(&self) -> Result<Vec<JobId>, Error>;

    /// Jobs that [`finish_overlooked`](Self::finish_overlooked) has finished since the record began.
    async fn overlooked(&self) -> Result<u64, Error>;

    // ---- care

    /// Forgets, of a job that ended, some of what listing by version needs no more; whether there is more to forget. A
    /// backend that keeps nothing of the kind does nothing.
    async fn prune_changes(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// What in a job's counters disagrees with its rows; nothing, if all is well.
    async fn audit(&self, job: JobId) -> Result<Vec<String>, Error>;

    /// Jobs in a state, for tests and audits.
    async fn count(&self, state: JobState) -> Result<u64, Error>;

    /// Why the record cannot be reached, for a person, where it fails: what the pool of connections does not tell.
    /// `None` where it can be reached after all, or where a backend has no more to say.
    async fn diagnose(&self) -> Option<String> {
        None
    }

    /// Closes connections and files.
    async fn close(&self);
}
