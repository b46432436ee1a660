//! Takes entries from the streams: tasks for a worker, results for a committer. What cannot be read
//! is deleted on the way.

use std::{sync::atomic::Ordering, time::Duration};

use darkroom_core::id::WorkerId;
use tokio::time::{Instant, sleep};

use super::{
    CHUNK, RedisQueue,
    connection::with_jitter,
    keys::PoolKeys,
    reply::Entry,
    script::SCRIPTS,
    wire::{self, Unreadable, texts},
};
use crate::{
    Error,
    task::{EntryId, Lease, PoolId, ResultEntry},
};

impl RedisQueue {
    pub(super) async fn has_waiting(&self, keys: &PoolKeys) -> Result<bool, Error> {
        let call = SCRIPTS.waiting.call(&[&keys.tasks, &keys.head]);
        Ok(self.link.ask::<i64>(&SCRIPTS.waiting, call).await? == 1)
    }

    pub(super) async fn take_leases(
        &self,
        pool: &PoolId,
        keys: &PoolKeys,
        worker: &WorkerId,
        max: usize,
    ) -> Result<Vec<Lease>, Error> {
        let most = max.min(CHUNK);
        loop {
            let holding = self.holdings.begin(pool, worker);
            let mut call = SCRIPTS.lease.call(&[
                &keys.tasks,
                &keys.head,
                &keys.bell,
                &keys.suspect,
                &keys.aside,
            ]);
            call.arg(&worker.0).arg(most);
            if let Some(known) = holding.known_after_doubt() {
                call.arg(1).arg(texts(known));
            }
            let (head, line): (Vec<Entry>, Vec<Entry>) =
                self.link.ask(&SCRIPTS.lease, call).await?;
            let (head, line) = (
                head.into_iter().map(|entry| (true, entry)),
                line.into_iter().map(|entry| (false, entry)),
            );
            let mut leases = Vec::new();
            let mut unreadable = Vec::new();
            for (at_head, entry) in head.chain(line) {
                let id = wire::lease_id(at_head, &entry.id);
                match wire::open_task(&entry) {
                    Ok(task) => leases.push(Lease { id, worker: worker.clone(), task }),
                    Err(error) => unreadable.push((at_head, entry.id, error)),
                }
            }
            holding.answered(&leases);
            if unreadable.is_empty() {
                return Ok(leases);
            }
            for (at_head, id, error) in unreadable {
                self.discard(if at_head { &keys.head } else { &keys.tasks }, id, &error).await;
            }
            if !leases.is_empty() {
                return Ok(leases);
            }
        }
    }

    pub(super) async fn take_results(
        &self,
        keys: &PoolKeys,
        committer: &str,
        max: usize,
    ) -> Result<Vec<ResultEntry>, Error> {
        let owed = self.readings.owed(&keys.results);
        if !owed.is_empty() {
            self.forget(&keys.results, &owed).await?;
            self.readings.paid(&keys.results, &owed);
        }
        let scan = self.readings.scan_is_due(&keys.results, committer, self.options.takeover / 2);
        let mut call = SCRIPTS.results.call(&[&keys.results, &keys.rung]);
        let takeover = u64::try_from(self.options.takeover.as_millis()).unwrap_or(u64::MAX);
        call.arg(committer).arg(max.min(CHUNK * 2)).arg(takeover).arg(u8::from(scan));
        let (taken, new): (Vec<Entry>, Vec<Entry>) = self.link.ask(&SCRIPTS.results, call).await?;
        let mut results = Vec::with_capacity(taken.len() + new.len());
        let mut unreadable = Vec::new();
        for entry in taken.into_iter().chain(new) {
            match wire::open_result(&entry) {
                Ok(result) => {
                    let id = EntryId(entry.id);
                    // Otherwise this committer has it already and is still working on it.
                    if self.readings.hand_out(&keys.results, committer, &id) {
                        results.push(ResultEntry { id, result });
                    }
                }
                Err(error) => unreadable.push((entry.id, error)),
            }
        }
        for (id, error) in unreadable {
            self.discard(&keys.results, id, &error).await;
        }
        Ok(results)
    }

    /// Deletes an unreadable entry, so that nobody reads it again. If the deletion fails, the other
    /// entries of the same read are still returned.
    pub(super) async fn discard(&self, stream: &str, id: String, error: &Unreadable) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
        tracing::error!(stream, entry.id = id, %error, "a queue entry cannot be read and is deleted");
        if let Err(error) = self.forget(stream, &[EntryId(id)]).await {
            tracing::warn!(stream, %error, "an unreadable entry could not be deleted");
        }
    }

    pub(super) async fn forget(&self, stream: &str, ids: &[EntryId]) -> Result<(), Error> {
        for chunk in ids.chunks(CHUNK) {
            let mut call = SCRIPTS.forget.call(&[stream]);
            call.arg(texts(chunk));
            self.link.ask::<i64>(&SCRIPTS.forget, call).await?;
        }
        Ok(())
    }

    /// Waits until one of the bells rings, and calls `look` before that and from time to time.
    /// Temporary errors are retried until the time is over.
    pub(super) async fn look_until<T, F>(
        &self,
        bells: &[&str],
        wait: Duration,
        mut look: impl FnMut() -> F,
    ) -> Result<Option<T>, Error>
    where
        F: Future<Output = Result<Option<T>, Error>>,
    {
        let deadline = Instant::now() + wait;
        let mut backoff = self.options.backoff();
        // Registers interest first, so that nothing is missed between a look and the wait.
        let mut interest = if wait.is_zero() { None } else { Some(self.bells.listen(bells)) };
        loop {
            let error = match look().await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => None,
                Err(error) => Some(error),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match (error, &mut interest) {
                (Some(error), _) if left.is_zero() || !error.retryable() => return Err(error),
                (Some(_), _) => sleep(with_jitter(backoff.pause()).min(left)).await,
                (None, Some(interest)) if !left.is_zero() => {
                    backoff.reset();
                    interest.rung_within(left.min(self.options.look_again)).await;
                }
                (None, _) => return Ok(None),
            }
        }
    }
}
