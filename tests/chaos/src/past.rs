//! The content of Redis some minutes ago, for a restart from an old snapshot.

use std::{collections::VecDeque, time::Duration};

use darkroom_test_servers::redis::Snapshot;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

/// Time between two copies.
const EVERY: Duration = Duration::from_secs(120);
/// Number of copies kept. In a long run, the oldest is four to six minutes old.
const MOST_KEPT: usize = 3;
/// Smallest age of a copy that Redis is set back to, early in a run.
const LEAST_AGE: Duration = Duration::from_secs(3);

/// Copies of the content of Redis, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Past {
    copies: VecDeque<(Instant, Snapshot)>,
}

impl Past {
    /// Takes a copy when one is due. Skips an empty queue, because that is the same as a flush.
    pub(crate) fn keep_up(&mut self, cluster: &Cluster) {
        let is_time = self.copies.back().is_none_or(|(taken, _)| taken.elapsed() >= EVERY);
        if is_time && cluster.left_in_queue().is_ok_and(|left| !left.is_empty()) {
            self.keep(cluster.redis.snapshot());
        }
    }

    /// The oldest copy and its age. If there is none yet, takes one and waits until it is old
    /// enough.
    pub(crate) async fn oldest(&mut self, cluster: &Cluster) -> (&Snapshot, Duration) {
        if self.copies.is_empty() {
            self.keep(cluster.redis.snapshot());
        }
        let (taken, copy) = self.copies.front().expect("one was just kept");
        sleep(LEAST_AGE.saturating_sub(taken.elapsed())).await;
        (copy, taken.elapsed())
    }

    fn keep(&mut self, copy: Snapshot) {
        if self.copies.len() == MOST_KEPT {
            self.copies.pop_front();
        }
        self.copies.push_back((Instant::now(), copy));
    }
}
