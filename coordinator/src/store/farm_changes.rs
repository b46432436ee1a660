//! The order in which the jobs of a farm changed, for all coordinators.
//!
//! Every change has a mark. Transactions may commit in another order than their marks, so a reader
//! uses bounds: it reads from its position to `next`, and then begins again at `settled`, which it
//! got before the read. It never skips a change, but may see changes between the two again.

use std::collections::HashMap;

use darkroom_core::id::JobId;

use super::records::JobRecord;

/// The bounds that a reader needs before it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeBounds {
    /// Identity of the record of the marks. Marks of another record mean nothing here.
    pub era: String,
    /// Every change with a smaller mark is visible.
    pub settled: u64,
    /// No visible change has this mark or a greater one.
    pub next: u64,
    /// The greatest mark of a deleted job that nothing is left of. A reader that has not come
    /// further must read everything again. 0: none.
    pub forgotten: u64,
}

/// A position in the order of changes: after the job with this `seq` among those with this mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangePosition {
    /// The mark.
    pub mark: u64,
    /// The job's `seq`; 0: before the first.
    pub after: i64,
}

impl ChangePosition {
    /// Before every change with this mark.
    #[must_use]
    pub fn before(mark: u64) -> Self {
        Self { mark, after: 0 }
    }
}

/// Which changes to read.
#[derive(Clone, Copy, Debug)]
pub struct ChangeQuery<'a> {
    /// Only those of this tenant's jobs.
    pub tenant: Option<&'a str>,
    /// After this position.
    pub from: ChangePosition,
    /// Below this mark.
    pub next: u64,
    /// At most so many.
    pub limit: u32,
    /// Jobs that the reader knows, by `seq`, with their versions. Those that still have that
    /// version are left out.
    pub known: &'a HashMap<i64, u64>,
}

/// A job that changed, and the position after it.
#[derive(Clone, Debug)]
pub struct ChangedJob {
    /// The next position.
    pub position: ChangePosition,
    /// The job as it is now, which may include later changes.
    pub job: JobRecord,
}

/// A job that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedJob {
    /// The next position.
    pub position: ChangePosition,
    /// Its id.
    pub id: JobId,
    /// Its place in the order of submission.
    pub seq: i64,
    /// The version that its deletion made, or a later one.
    pub version: u64,
    /// Its tenant.
    pub tenant: String,
}

/// Changes in order.
#[derive(Clone, Debug, Default)]
pub struct ChangedJobs {
    /// The jobs.
    pub jobs: Vec<ChangedJob>,
    /// Jobs that were deleted.
    pub deleted: Vec<DeletedJob>,
    /// The next position, if there are others.
    pub more: Option<ChangePosition>,
}

/// A page of the jobs that have not ended, newest first.
#[derive(Clone, Debug, Default)]
pub struct LiveJobs {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// Whether there are others.
    pub more: bool,
}

/// The mark of a change, from its column as text.
pub(super) fn mark(text: &str) -> Result<u64, super::Error> {
    text.parse().map_err(|_| super::Error::Corrupt(format!("transaction id {text:?}")))
}
