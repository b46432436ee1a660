//! The changes of the whole farm, which each process reads once for all its followers.
//!
//! While there are no followers, nothing is read. A follower first [joins](Feed::join), which waits
//! until the feed reads. Then it reads the record itself up to now, and then takes the feed's news,
//! which contain every later commit. If a follower is too slow, news are dropped, and it reads the
//! record again from its position.

use std::{sync::Arc, time::Duration};

use darkroom_core::{id::WorkerId, worker_health::WINDOW_SECONDS};
use darkroom_queue::task::WorkerCard;
use tokio::sync::{Notify, broadcast, watch};

use crate::store::{
    Error,
    farm_changes::{ChangePosition, DeletedJob},
    records::JobRecord,
    roles::WorkerHealth,
    worker_health::Aside,
};

/// Jobs per read, and so per event.
pub(crate) const JOBS: u32 = 100;
/// Most news that wait for a follower. A follower with more must read the record.
const BEHIND: usize = 16;

/// The workers, and which of them are blamed or set aside.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Workers {
    pub(crate) cards: Vec<WorkerCard>,
    pub(crate) asides: Vec<Aside>,
    /// Workers that failed on images that others completed, and on how many lately.
    pub(crate) blamed: Vec<(WorkerId, u64)>,
}

/// What changed.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Changed {
        jobs: Vec<JobRecord>,
        /// Jobs that were deleted.
        deleted: Vec<DeletedJob>,
        /// All of them, if they changed.
        workers: Option<Workers>,
        /// A follower that has all news up to this one has all changes before this position.
        position: ChangePosition,
    },
    /// The record lost changes that were already reported, because a standby without them took
    /// over.
    LostChanges,
}

/// The followers, and the news for them.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) news: broadcast::Sender<Arc<News>>,
    /// Whether every change from now on will be in the news.
    pub(crate) reads: watch::Sender<bool>,
    pub(crate) wanted: Notify,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            news: broadcast::channel(BEHIND).0,
            reads: watch::channel(false).0,
            wanted: Notify::new(),
        }
    }
}

impl Feed {
    /// Begins to follow. Every commit after this returns is in the news.
    pub(crate) async fn join(&self) -> broadcast::Receiver<Arc<News>> {
        let news = self.news.subscribe();
        self.wanted.notify_one();
        // The sender is in the same struct, so it exists.
        let _ = self.reads.subscribe().wait_for(|reads| *reads).await;
        news
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.news.receiver_count() > 0
    }
}

impl Workers {
    /// With what the record knows of them.
    pub(crate) async fn of<S: WorkerHealth + ?Sized>(
        store: &S,
        cards: Vec<WorkerCard>,
    ) -> Result<Self, Error> {
        let blamed = store.blamed(Duration::from_secs(WINDOW_SECONDS), 1).await?;
        Ok(Self { cards, asides: store.asides().await?, blamed })
    }

    /// Without the values that change all the time, so that two readings can be compared.
    pub(crate) fn lasting(mut self) -> Self {
        self.cards.iter_mut().for_each(|card| card.seen_seconds_ago = 0.0);
        self.cards.sort_by(|one, other| one.id.cmp(&other.id));
        self.blamed.sort();
        self.asides.iter_mut().for_each(|aside| aside.left = Duration::ZERO);
        self
    }
}
