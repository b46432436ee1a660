//! The course through ended jobs on which outputs are taken, from the job that ended first to the
//! last one, and then again from the first one.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    cleaner,
    error::Error,
    shared::Shared,
    store::{
        leftovers::{End, EndedJob, Left},
        records::Term,
        roles::Leftovers,
    },
    stored::on_disk,
};

/// Ended jobs, and outputs of one, that are read at one time.
const JOBS: u32 = 100;
const OUTPUTS: u32 = 500;
/// Why pictures are gone, for those who look for them.
const BY: &str = "the disk budget";
/// Time between two rounds through all jobs. Most of what a round has left stays where it is.
const ROUND: Duration = Duration::from_secs(600);

/// Where the removal of outputs goes on: jobs in the order in which they ended. A job that is
/// retried ends later, and comes again. What was left because another job needed it is found in the
/// next round.
#[derive(Debug)]
pub(super) struct Course {
    left: Left,
    /// The last job that was worked off.
    after: End,
    /// When the latest round began.
    round: Option<Instant>,
}

/// One removal.
#[derive(Debug, Default)]
struct Walk {
    /// The jobs after the last one that was worked off.
    next: VecDeque<EndedJob>,
    /// The job that is worked off, and its last output that was removed.
    job: Option<(EndedJob, Option<(u64, usize)>)>,
    /// Where this removal began, once it has begun again with the first job.
    until: Option<End>,
}

impl Course {
    pub(super) fn new(left: Left) -> Self {
        Self { left, after: End::default(), round: None }
    }

    /// Takes outputs from ended jobs, about `most` bytes or all that there are. Returns how many
    /// bytes were taken. The cleaner removes them from storage soon after.
    pub(super) async fn take<S: Leftovers + ?Sized>(
        &mut self,
        shared: &Shared,
        store: &S,
        term: Term,
        most: u64,
    ) -> Result<u64, Error> {
        let mut bytes = 0;
        // Read anew each time: a job may have been retried since, and then it ends later.
        let mut walk = Walk::default();
        while bytes < most {
            if walk.job.is_none() && !self.go_on(store, &mut walk).await? {
                break;
            }
            let Some((job, after)) = walk.job else { continue };
            let mut leftovers = store.leftovers((job.id, self.left), after, OUTPUTS).await?;
            if leftovers.is_empty() {
                (self.after, walk.job) = (job.end, None);
                continue;
            }
            let mut taken = 0;
            let enough = leftovers.iter().position(|one| {
                taken += on_disk(one.artifact.size);
                bytes + taken >= most
            });
            leftovers.truncate(enough.map_or(leftovers.len(), |last| last + 1));
            let outputs: Vec<_> = leftovers.iter().map(|one| (one.index, one.stage)).collect();
            if self.left == Left::Intermediates {
                let sources: Vec<_> = leftovers.into_iter().map(|one| one.artifact).collect();
                cleaner::keep_previews(shared, &sources).await;
            }
            if store.take(term, (job.id, self.left), &outputs, BY).await? > 0 {
                bytes += taken;
            }
            walk.job = Some((job, outputs.last().copied()));
        }
        if bytes > 0 {
            shared.events.clean.notify_one();
        }
        Ok(bytes)
    }

    /// Goes on to the next job; false if all were seen.
    async fn go_on<S: Leftovers + ?Sized>(
        &mut self,
        store: &S,
        walk: &mut Walk,
    ) -> Result<bool, Error> {
        if walk.next.is_empty() {
            walk.next = store.ended_after(self.after, JOBS).await?.into();
        }
        if walk.next.is_empty() && walk.until.is_none() && self.may_begin_again() {
            walk.until = Some(self.after);
            (self.after, self.round) = (End::default(), Some(Instant::now()));
            walk.next = store.ended_after(self.after, JOBS).await?.into();
        }
        let is_new = |job: &EndedJob| walk.until.is_none_or(|until| job.end <= until);
        if !walk.next.front().is_some_and(is_new) {
            return Ok(false);
        }
        walk.job = walk.next.pop_front().map(|job| (job, None));
        Ok(true)
    }

    fn may_begin_again(&self) -> bool {
        self.after > End::default() && self.round.is_none_or(|began| began.elapsed() >= ROUND)
    }
}
