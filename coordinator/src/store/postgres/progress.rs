//! A job's version, counters and low-water marks. Every transaction on a job changes this row, and
//! locks it before anything else of the job.
//!
//! So two transactions that change one job run one after the other. Rows that were read after the
//! lock stay as read, so image rows need no lock of their own. Jobs are locked in order of `seq`;
//! texts are locked before jobs.

use std::collections::BTreeMap;

use darkroom_core::{
    id::JobId,
    image_state::ImageState,
    job_state::{JobEvent, JobState, transition},
};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, Tx,
    block_bits::{BLOCK, BlockDelta},
    rows::{array, column, number},
};
use crate::store::{
    change::Move,
    row::row,
    spent::Spent,
    tally::{self, Counter, Tally},
};

/// Position of `encode` in the arrays.
const ENCODE: usize = 0;

row! {
    /// A job that this transaction has locked.
    #[derive(Debug)]
    pub(super) struct LockedJob {
        pub(super) job: i64,
        id: Uuid,
        version: i64,
        images: i64,
        texts: i64,
        done: i64,
        dead: i64,
        cancelled: i64,
        ready: Vec<i64>,
        dispatched: Vec<i64>,
        passed: Vec<i64>,
        /// Dead and cancelled images that did not pass a stage of theirs.
        stopped: Vec<i64>,
        low: Vec<i64>,
        =/// Gets a new version.
        raised: bool,
        =/// Only a low-water mark changed, so the version stays.
        marked: bool,
    }
}

impl LockedJob {
    pub(super) fn id(&self) -> JobId {
        JobId(self.id)
    }

    /// Stages that some image passes, or that are the job's. Images whose prompt has settings of
    /// its own may pass fewer, so what a success means is decided by the job's plan.
    pub(super) fn stages(&self) -> usize {
        self.ready.len().saturating_sub(1)
    }

    /// Adds counters for stages that only some images pass. Nothing is in those stages yet.
    pub(super) fn lengthen(&mut self, stages: usize) {
        for counters in [
            &mut self.ready,
            &mut self.dispatched,
            &mut self.passed,
            &mut self.stopped,
            &mut self.low,
        ] {
            counters.resize(counters.len().max(ENCODE + 1 + stages), 0);
        }
    }

    /// The version that was locked.
    pub(super) fn version(&self) -> i64 {
        self.version
    }

    /// The version that this transaction makes, if it changes the job.
    pub(super) fn next_version(&self) -> i64 {
        self.version + 1
    }

    /// Makes a new version.
    pub(super) fn raise(&mut self) {
        self.raised = true;
    }

    /// Whether every image is terminal.
    pub(super) fn complete(&self) -> bool {
        self.images > 0 && self.done + self.dead + self.cancelled == self.images
    }

    /// The numbers of its images.
    pub(super) fn tally(&self) -> Tally {
        Tally { done: self.done, dead: self.dead, images: self.images }
    }

    /// The state that it ends in, once every image is terminal.
    pub(super) fn end(&self) -> Result<JobState, Error> {
        let event = JobEvent::Finish { done: number(self.done)?, dead: number(self.dead)? };
        Ok(transition(JobState::Active, event)?)
    }

    /// Counts a chunk of a submit.
    pub(super) fn receive(&mut self, images: i64, ready: i64, texts: i64, encoded: i64) {
        self.raise();
        self.images += images;
        self.texts += texts;
        add(&mut self.passed, ENCODE, encoded);
        add(&mut self.ready, ENCODE + 1, ready);
    }

    /// Counts texts that were encoded (or, negative, lost).
    pub(super) fn encode(&mut self, texts: i64) {
        self.raise();
        add(&mut self.passed, ENCODE, texts);
    }

    /// A text, by its row's id, is wanted again.
    pub(super) fn want(&mut self, embedding: i64) {
        self.raise();
        self.lower(ENCODE, embedding);
    }

    /// Where to look for texts to encode.
    pub(super) fn wanted_from(&self) -> i64 {
        self.low.get(ENCODE).copied().unwrap_or(0)
    }

    /// No text below is wanted.
    pub(super) fn set_wanted_from(&mut self, embedding: i64) {
        self.rise(ENCODE, embedding);
    }

    /// Where to look for images that are ready for a stage.
    pub(super) fn ready_from(&self, stage: usize) -> i64 {
        self.low.get(stage + 1).copied().unwrap_or(0)
    }

    /// No image below is ready for the stage.
    pub(super) fn set_ready_from(&mut self, stage: usize, idx: i64) {
        self.rise(stage + 1, idx);
    }

    fn move_image(&mut self, one: &Move) {
        let Move { idx, from, to, stages, .. } = one;
        tally::moved((from, to), *stages, |counter, count| match counter {
            Counter::Ready(stage) => add(&mut self.ready, stage + 1, count),
            Counter::Dispatched(stage) => add(&mut self.dispatched, stage + 1, count),
            Counter::Passed(stage) => add(&mut self.passed, stage + 1, count),
            Counter::Stopped(stage) => add(&mut self.stopped, stage + 1, count),
            Counter::Done => self.done += count,
            Counter::Dead => self.dead += count,
            Counter::Cancelled => self.cancelled += count,
        });
        if to.state == ImageState::Ready {
            self.lower(to.stage + 1, *idx);
        }
    }

    fn lower(&mut self, position: usize, to: i64) {
        if let Some(low) = self.low.get_mut(position) {
            *low = to.min(*low);
        }
    }

    fn rise(&mut self, position: usize, to: i64) {
        if let Some(low) = self.low.get_mut(position) {
            self.marked |= *low != to;
            *low = to;
        }
    }
}

fn add(counters: &mut [i64], position: usize, count: i64) {
    if let Some(counter) = counters.get_mut(position) {
        *counter += count;
    }
}

/// The jobs that a transaction has locked, with its changes; [`save`](Self::save) writes them.
#[derive(Debug, Default)]
pub(super) struct LockedJobs {
    jobs: BTreeMap<i64, LockedJob>,
    blocks: BTreeMap<(i64, i64), BlockDelta>,
    changes: BTreeMap<i64, Vec<i64>>,
    /// The pool that worked on the jobs, and the sums over its results.
    spent: Option<(PoolId, BTreeMap<i64, Spent>)>,
}

impl LockedJobs {
    /// Locks the jobs with these `seq`; those that are gone are left out.
    pub(super) async fn lock(
        tx: &mut Tx,
        seqs: impl IntoIterator<Item = i64>,
    ) -> Result<Self, Error> {
        let mut seqs: Vec<i64> = seqs.into_iter().collect();
        seqs.sort_unstable();
        seqs.dedup();
        if seqs.is_empty() {
            return Ok(Self::default());
        }
        let rows: Vec<LockedJob> = sqlx::query_as(
            "SELECT p.job, j.id, p.version, p.images, p.texts, p.done, p.dead, p.cancelled, p.ready, p.dispatched,
                    p.passed, p.stopped, p.low
             FROM unnest($1::bigint[]) AS wanted (job)
             CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = wanted.job
                                 ORDER BY newest.version DESC LIMIT 1 FOR NO KEY UPDATE) AS p
             JOIN jobs AS j ON j.seq = p.job",
        )
        .bind(&seqs)
        .fetch_all(&mut **tx)
        .await?;
        let whole = |mut job: LockedJob| {
            // The list `stopped` stays empty until the first image stops.
            job.stopped.resize(job.ready.len(), 0);
            (job.job, job)
        };
        let jobs = rows.into_iter().map(whole).collect();
        Ok(Self { jobs, ..Self::default() })
    }

    /// Keeps these jobs only. The others stay locked, and unchanged.
    pub(super) fn retain(&mut self, seqs: &[i64]) {
        self.jobs.retain(|seq, _| seqs.contains(seq));
    }

    pub(super) fn get(&self, seq: i64) -> Option<&LockedJob> {
        self.jobs.get(&seq)
    }

    pub(super) fn get_mut(&mut self, seq: i64) -> Option<&mut LockedJob> {
        self.jobs.get_mut(&seq)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut LockedJob> {
        self.jobs.values_mut()
    }

    /// Ids of all of them.
    pub(super) fn ids(&self) -> Vec<Uuid> {
        self.jobs.values().map(|job| job.id).collect()
    }

    /// Ids of the jobs that have a new version.
    pub(super) fn raised(&self) -> Vec<JobId> {
        self.jobs.values().filter(|job| job.raised).map(LockedJob::id).collect()
    }

    /// `seq` of the jobs that end if nothing else holds them up: the transaction has changed them,
    /// and their images are all terminal.
    pub(super) fn may_end(&self) -> Vec<i64> {
        let complete = self.jobs.values().filter(|job| job.raised && job.complete());
        complete.map(|job| job.job).collect()
    }

    /// Counts a change that was written to an image's row.
    pub(super) fn moved(&mut self, one: &Move) {
        let Move { job, idx, from, to, .. } = one;
        let (job, idx) = (*job, *idx);
        if let Some(locked) = self.jobs.get_mut(&job) {
            locked.raise();
            locked.move_image(one);
        }
        if from.state != to.state {
            self.blocks.entry((job, idx / BLOCK)).or_default().moved(idx, from.state, to.state);
        }
        self.changes.entry(job).or_default().push(idx);
    }

    /// Counts a new image; `receive` counts it in its job.
    pub(super) fn inserted(&mut self, job: i64, idx: i64, state: ImageState) {
        self.blocks.entry((job, idx / BLOCK)).or_default().inserted(idx, state);
        self.changes.entry(job).or_default().push(idx);
    }

    /// Adds the sums over a pool's results. Each result belongs to an image that moves, so its job
    /// is saved.
    pub(super) fn spend(&mut self, pool: &PoolId, spent: BTreeMap<i64, Spent>) {
        self.spent = (!spent.is_empty()).then(|| (pool.clone(), spent));
    }

    /// Writes all changes. It must be the transaction's last change of progress.
    pub(super) async fn save(&mut self, tx: &mut Tx) -> Result<(), Error> {
        let changed: Vec<&LockedJob> =
            self.jobs.values().filter(|job| job.raised || job.marked).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let numbers =
            |value: fn(&LockedJob) -> i64| changed.iter().map(|job| value(job)).collect::<Vec<_>>();
        let arrays = |value: fn(&LockedJob) -> &[i64]| {
            changed.iter().map(|job| array(value(job))).collect::<Vec<_>>()
        };
        let blocks: Vec<_> = self.blocks.iter().filter(|(_, delta)| !delta.is_nothing()).collect();
        let states =
            |state: usize| blocks.iter().map(|(_, delta)| delta.count(state)).collect::<Vec<_>>();
        let bits =
            |state: usize| blocks.iter().map(|(_, delta)| delta.bits(state)).collect::<Vec<_>>();
        let changes = self.changes();
        let nothing = BTreeMap::new();
        let (pool, spent) = match &self.spent {
            Some((pool, spent)) => (Some(pool), spent),
            None => (None, &nothing),
        };
        let spent_on = |job: &LockedJob| spent.get(&job.job).map_or(0, |spent| spent.device_us);
        let saved = sqlx::query(
            "WITH counted AS (
                 INSERT INTO image_blocks AS b (job, block, waiting, ready, dispatched, done, dead, cancelled,
                                                waiting_bits, ready_bits, dispatched_bits, done_bits, dead_bits,
                                                cancelled_bits)
                 SELECT job, block, waiting, ready, dispatched, done, dead, cancelled, bits1::bit(256),
                        bits2::bit(256), bits3::bit(256), bits4::bit(256), bits5::bit(256), bits6::bit(256)
                 FROM unnest($12::bigint[], $13::bigint[], $14::int[], $15::int[], $16::int[], $17::int[],
                             $18::int[], $19::int[], $34::text[], $35::text[], $36::text[], $37::text[], $38::text[],
                             $39::text[])
                     AS n (job, block, waiting, ready, dispatched, done, dead, cancelled, bits1, bits2,
                           bits3, bits4, bits5, bits6)
                 ON CONFLICT (job, block) DO UPDATE
                 SET waiting = b.waiting + excluded.waiting, ready = b.ready + excluded.ready,
                     dispatched = b.dispatched + excluded.dispatched, done = b.done + excluded.done,
                     dead = b.dead + excluded.dead, cancelled = b.cancelled + excluded.cancelled,
                     waiting_bits = b.waiting_bits # excluded.waiting_bits,
                     ready_bits = b.ready_bits # excluded.ready_bits,
                     dispatched_bits = b.dispatched_bits # excluded.dispatched_bits,
                     done_bits = b.done_bits # excluded.done_bits,
                     dead_bits = b.dead_bits # excluded.dead_bits,
                     cancelled_bits = b.cancelled_bits # excluded.cancelled_bits),
             changed AS (
                 INSERT INTO image_changes (job, version, first, last, images)
                 SELECT job, version, first, last, images::bigint[]
                 FROM unnest($20::bigint[], $21::bigint[], $22::bigint[], $25::bigint[], $23::text[])
                     AS c (job, version, first, last, images)),
             logged AS (
                 INSERT INTO work_log (stage, pool, tenant, done, failed, device_us, batches)
                 SELECT $26::text, $27::bytea, j.tenant, sum(w.done)::bigint, sum(w.failed)::bigint, sum(w.device_us)::bigint,
                        sum(w.batches)
                 FROM unnest($28::bigint[], $29::bigint[], $30::bigint[], $31::bigint[], $32::float8[])
                     AS w (job, done, failed, device_us, batches)
                 JOIN jobs AS j ON j.seq = w.job
                 GROUP BY j.tenant)
             UPDATE job_progress AS p
             SET version = n.version, images = n.images, texts = n.texts, done = n.done, dead = n.dead,
                 cancelled = n.cancelled, ready = n.ready::bigint[], dispatched = n.dispatched::bigint[],
                 passed = n.passed::bigint[], stopped = n.stopped::bigint[], low = n.low::bigint[], touched_at = clock_timestamp(),
                 device_us = p.device_us + n.device_us
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                         $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $24::bigint[],
                         $33::bigint[], $40::text[])
                 AS n (job, was, version, images, texts, done, dead, ready, dispatched, passed, low, cancelled,
                       device_us, stopped)
             WHERE p.job = n.job AND p.version = n.was",
        )
        .bind(numbers(|job| job.job))
        .bind(numbers(|job| job.version))
        .bind(numbers(|job| if job.raised { job.next_version() } else { job.version }))
        .bind(numbers(|job| job.images))
        .bind(numbers(|job| job.texts))
        .bind(numbers(|job| job.done))
        .bind(numbers(|job| job.dead))
        .bind(arrays(|job| &job.ready))
        .bind(arrays(|job| &job.dispatched))
        .bind(arrays(|job| &job.passed))
        .bind(arrays(|job| &job.low))
        .bind(blocks.iter().map(|((job, _), _)| *job).collect::<Vec<_>>())
        .bind(blocks.iter().map(|((_, block), _)| *block).collect::<Vec<_>>())
        .bind(states(0))
        .bind(states(1))
        .bind(states(2))
        .bind(states(3))
        .bind(states(4))
        .bind(states(5))
        .bind(changes.iter().map(|change| change.job).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.version).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.first).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.images.as_str()).collect::<Vec<_>>())
        .bind(numbers(|job| job.cancelled))
        .bind(changes.iter().map(|change| change.last).collect::<Vec<_>>())
        .bind(pool.map(|pool| pool.stage.as_str()))
        .bind(pool.map(|pool| pool.digest.0))
        .bind(spent.keys().copied().collect::<Vec<_>>())
        .bind(spent.values().map(|spent| spent.done).collect::<Vec<_>>())
        .bind(spent.values().map(|spent| spent.failed).collect::<Vec<_>>())
        .bind(spent.values().map(|spent| spent.device_us).collect::<Vec<_>>())
        .bind(spent.values().map(|spent| spent.batches).collect::<Vec<_>>())
        .bind(changed.iter().map(|job| spent_on(job)).collect::<Vec<_>>())
        .bind(bits(0))
        .bind(bits(1))
        .bind(bits(2))
        .bind(bits(3))
        .bind(bits(4))
        .bind(bits(5))
        .bind(arrays(|job| &job.stopped))
        .execute(&mut **tx)
        .await?;
        if saved.rows_affected() == column(changed.len()).try_into().unwrap_or(u64::MAX) {
            Ok(())
        } else {
            Err(Error::Corrupt("a job changed under its lock".to_owned()))
        }
    }
}

/// A row of `image_changes`.
struct ChangeRow {
    job: i64,
    version: i64,
    first: i64,
    last: i64,
    images: String,
}

/// Most images of one row of `image_changes`.
const CHANGES: usize = 1000;

impl LockedJobs {
    /// Which images this transaction's versions changed, in runs whose order is that of the images.
    fn changes(&self) -> Vec<ChangeRow> {
        let mut rows = Vec::with_capacity(self.changes.len());
        for (job, images) in &self.changes {
            let version = self.jobs.get(job).map_or(0, LockedJob::next_version);
            let mut images = images.clone();
            images.sort_unstable();
            images.dedup();
            for run in images.chunks(CHANGES) {
                if let (Some(first), Some(last)) = (run.first(), run.last()) {
                    rows.push(ChangeRow {
                        job: *job,
                        version,
                        first: *first,
                        last: *last,
                        images: array(run),
                    });
                }
            }
        }
        rows
    }
}

/// The `seq` of jobs. It never changes, so it needs no lock.
pub(super) async fn seqs_of(tx: &mut Tx, ids: &[Uuid]) -> Result<BTreeMap<Uuid, i64>, Error> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as("SELECT id, seq FROM jobs WHERE id = ANY ($1)")
        .bind(ids)
        .fetch_all(&mut **tx)
        .await?;
    Ok(rows.into_iter().collect())
}
