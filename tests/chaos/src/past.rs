//! What was in Redis minutes ago, for a restart from an old snapshot.

use std::{collections::VecDeque, time::Duration};

use darkroom_test_servers::redis::Snapshot;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

/// Time between two copies.
const EVERY: Duration = Duration::from_secs(120);
/// Copies kept. The oldest is then four to six minutes old, and not of the first seconds of a long run.
const MOST_KEPT: usize = 3;
/// Least age of a copy that Redis is set back to, where a run is too young for an old one.
const LEAST_AGE: Duration = Duration::from_secs(3);

/// Copies of what was in Redis, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Past {
    copies: VecDeque<(Instant, Snapshot)>,
}

impl Past {
    /// Takes a copy when it is time for one and the queue has something in it: nothing is what a flush leaves.
    pub(crate) fn keep_up(&mut self, cluster: &Cluster) {
        let is_time = self.copies.back().is_none_or(|(taken, _)| taken.elapsed() >= EVERY);
        if is_time && cluster.left_in_queue().is_ok_and(|left| !left.is_empty()) {
            self.keep(cluster.redis.snapshot());
        }
    }

    /// The oldest copy and its age; when there is none yet, one of now, in a while.
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
