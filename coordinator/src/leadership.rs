//! Leadership of this coordinator as last known, and when it gives leadership up.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    store::{self, records::Term, roles::Leading},
};

/// How long a leader waits for the queue before it gives leadership up, so that another one can
/// lead before the term ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// This process as leader or candidate.
pub(crate) struct Leadership {
    store: Arc<dyn Leading>,
    /// Name of this process as leader and as committer.
    holder: String,
    /// The term in which this coordinator leads, as last known.
    term: Mutex<Option<Term>>,
    /// When the queue last answered this process.
    reached: Mutex<Instant>,
}

impl Leadership {
    /// For a process that does not lead yet.
    pub(crate) fn new(store: Arc<dyn Leading>) -> Self {
        Self {
            store,
            holder: format!("coordinator-{}", uuid::Uuid::new_v4().simple()),
            term: Mutex::default(),
            reached: Mutex::new(Instant::now()),
        }
    }

    /// Name of this process in the record and at the queue.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Takes or renews leadership if `queue` says that the queue can be reached. A leader that is
    /// cut off from the queue must not prevent healthy coordinators from becoming leader, so it
    /// gives leadership up after a while.
    pub(crate) async fn take(
        &self,
        queue: impl Future<Output = Result<(), Error>>,
    ) -> Result<Option<Term>, Error> {
        let asked = Instant::now();
        if let Err(error) = queue.await {
            self.give_way(asked).await;
            return Err(error);
        }
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        let term = self.store.lead(&self.holder).await?;
        let before =
            std::mem::replace(&mut *self.term.lock().unwrap_or_else(PoisonError::into_inner), term);
        match (before, term) {
            (None, Some(term)) => {
                tracing::info!(holder = self.holder, term = term.0, "leads the farm")
            }
            (Some(term), None) => tracing::info!(term = term.0, "lost leadership"),
            _ => {}
        }
        Ok(term)
    }

    /// The term of this process in the record, even if the queue cannot be reached.
    pub(crate) async fn term(&self) -> Result<Option<Term>, store::Error> {
        self.store.lead(&self.holder).await
    }

    /// Tells the leader, if it is another process, that a task may be ready for dispatch.
    pub(crate) async fn tell_leader(&self) -> Result<(), store::Error> {
        self.store.tell_leader().await
    }

    /// Waits for a message from another process to the leader.
    pub(crate) async fn told(&self) -> Result<(), store::Error> {
        self.store.told().await
    }

    /// Gives leadership up, if this process has it.
    pub(crate) async fn resign(&self) {
        if let Err(error) = self.store.resign(&self.holder).await {
            tracing::warn!(%error, "could not give up leadership; it expires by itself");
        }
    }

    /// Gives leadership up if the queue could not be reached for too long.
    async fn give_way(&self, asked: Instant) {
        let reached = *self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        // Measured from the request, because its answer may be late.
        if asked.saturating_duration_since(reached) < PATIENCE {
            return;
        }
        let led = self.term.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(term) = led else { return };
        tracing::warn!(term = term.0, "lost leadership: the queue cannot be reached");
        self.resign().await;
    }
}
