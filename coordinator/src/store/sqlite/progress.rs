//! Jobs within a write transaction. Nothing else can change them meanwhile.

use std::collections::{BTreeMap, HashMap};

use darkroom_core::id::JobId;

use super::{
    Error, Tx,
    rows::{job_id, to_json},
};
use crate::store::tally::Tally;

/// A job with its counters.
pub(super) struct LockedJob {
    id: JobId,
    tally: Tally,
}

impl LockedJob {
    pub(super) fn id(&self) -> JobId {
        self.id
    }

    /// The numbers of its images when it was read.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Does nothing: a statement that changes the job also raises its version.
    pub(super) fn raise(&mut self) {}
}

/// Jobs by their `seq`, and those whose images a transaction has moved.
#[derive(Default)]
pub(super) struct LockedJobs {
    jobs: HashMap<i64, LockedJob>,
    moved: BTreeMap<i64, JobId>,
}

impl LockedJobs {
    pub(super) async fn lock(
        tx: &mut Tx,
        jobs: impl IntoIterator<Item = i64>,
    ) -> Result<Self, Error> {
        let seqs: Vec<i64> = jobs.into_iter().collect();
        let rows: Vec<(i64, String, i64, i64, i64)> = sqlx::query_as(
            "SELECT seq, id, done, dead, images FROM jobs
             WHERE seq IN (SELECT value FROM json_each(?1))",
        )
        .bind(to_json(&seqs)?)
        .fetch_all(&mut **tx)
        .await?;
        let job = |(seq, id, done, dead, images): (i64, String, i64, i64, i64)| {
            Ok((seq, LockedJob { id: job_id(&id)?, tally: Tally { done, dead, images } }))
        };
        let jobs = rows.into_iter().map(job).collect::<Result<_, Error>>()?;
        Ok(Self { jobs, moved: BTreeMap::new() })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut LockedJob> {
        self.jobs.values_mut()
    }

    pub(super) fn get_mut(&mut self, seq: i64) -> Option<&mut LockedJob> {
        self.jobs.get_mut(&seq)
    }

    pub(super) fn get(&self, seq: i64) -> Option<&LockedJob> {
        self.jobs.get(&seq)
    }

    /// Notes that images of these jobs moved.
    pub(super) fn moved(&mut self, jobs: impl IntoIterator<Item = (i64, JobId)>) {
        self.moved.extend(jobs);
    }

    /// `seq` of the jobs whose images moved. The statement that ends them reads their counters.
    pub(super) fn may_end(&self) -> Vec<i64> {
        self.moved.keys().copied().collect()
    }

    /// Ids of the jobs whose images moved.
    pub(super) fn raised(&self) -> Vec<JobId> {
        self.moved.values().copied().collect()
    }

    /// Does nothing: every change was written at once.
    pub(super) async fn save(&mut self, _: &mut Tx) -> Result<(), Error> {
        Ok(())
    }
}
