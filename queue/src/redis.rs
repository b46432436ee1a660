//! The queue on Redis or Valkey, 7.0 or newer. Each pool has one stream for tasks, a short second
//! one for tasks that were handed back to its head, and one for results. The streams' pending lists
//! are the leases.
//!
//! - Every change is one Lua script on the keys of one pool, which share a hash tag. So it is
//!   atomic and works in a cluster.
//! - Redis may be killed, flushed, restored from an old snapshot or replaced at any moment. Scripts
//!   create what is missing, connections are retried for ever, and the coordinator's sweep finds
//!   what was lost: SQL is the truth.
//! - Waiting processes wait at a bell (see `bell`), so that a task wakes about one worker, not all
//!   of them.
//! - Nothing is reaped within one lease after Redis restarted or was unreachable, because live
//!   workers could not renew in that time.
//!
//! Redis needs no persistence for this. An append-only file saves running tasks from a second run
//! after a restart, and costs one write per task. `maxmemory-policy noeviction` is required; a
//! waiting task takes about 1.4 KiB.
//!
//! It never knows SQL, and it never trusts an entry: an unreadable entry is counted, logged by its
//! id and deleted.

mod address;
mod bell;
mod cards;
mod connection;
#[doc(hidden)]
pub mod fuzzed;
mod health;
mod holdings;
mod keys;
mod options;
mod reading;
mod reply;
#[cfg(test)]
mod samples;
mod script;
mod sentinel;
mod start;
mod start_error;
mod taking;
mod target;
mod throttle;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use darkroom_core::{
    guard::{Guard, stands},
    id::WorkerId,
};

use crate::{
    Error, Leased, TaskQueue,
    task::{
        Completion, EntryId, EntryState, EntrySummary, Lease, Orders, PoolId, ResultEntry, Task,
        TaskKey, TaskResult, WorkerCard,
    },
};
use bell::Bells;
use connection::Link;
use holdings::Holdings;
use keys::{FarmKeys, PoolKeys};
use reading::Readings;
use script::SCRIPTS;
use throttle::Throttle;
use wire::{Unreadable, texts};

pub use health::Health;
pub use options::Options;
pub use start_error::StartError;

/// Most entries per call of a script, so that no call delays others for long.
const CHUNK: usize = 500;
/// Most expired leases per call.
const REAPED: usize = 1000;

/// One farm's queue on Redis or Valkey.
#[derive(Debug)]
pub struct RedisQueue {
    farm: FarmKeys,
    options: Options,
    link: Arc<Link>,
    bells: Bells,
    holdings: Holdings,
    readings: Readings,
    tidied: Throttle,
    malformed: AtomicU64,
}

impl RedisQueue {
    /// Connects to the queue of a farm and checks that the server is suitable.
    ///
    /// `url` is `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database number
    /// if needed. For a cluster it is `redis+cluster://host:port,host:port` (`rediss+cluster://`).
    /// For the server that Sentinels call the master MASTER it is
    /// `redis+sentinel://host:port,host:port/MASTER` (`rediss+sentinel://`); the Sentinels' own
    /// user and password follow as `?sentinel_user=…&sentinel_password=…`. Warnings about the
    /// server are logged; see [`health`](Self::health). With TLS the server's certificate must be
    /// signed by one of the system's authorities. If the environment's `SSL_CERT_FILE` names a PEM
    /// file (`SSL_CERT_DIR`: a folder), its authorities replace the system's.
    ///
    /// # Errors
    /// When no Redis answers at that address, its certificate is not trusted, it refuses the user,
    /// or it is too old. Each error is one sentence.
    pub async fn connect(url: &str, farm: &str, options: Options) -> Result<Self, StartError> {
        let farm = FarmKeys::new(farm).ok_or_else(|| StartError::FarmId(farm.to_owned()))?;
        let target = target::Target::parse(url)?;
        let link = Arc::new(Link::new(target, options.clone()));
        let health = start::check(&link, &farm).await?;
        for warning in &health.warnings {
            tracing::warn!(warning, "redis setup needs a change");
        }
        Ok(Self {
            farm,
            bells: Bells::new(Arc::clone(&link)),
            holdings: Holdings::default(),
            readings: Readings::default(),
            tidied: Throttle::default(),
            malformed: AtomicU64::new(0),
            link,
            options,
        })
    }

    /// Marks this Redis as the queue of the farm in this SQL database. Call it again from time to
    /// time: after a flush the mark is set again.
    ///
    /// # Errors
    /// [`StartError::TwoFarms`] when another database with the same farm id (a restored copy) has
    /// marked it.
    pub async fn claim_farm(&self, database_identity: &str) -> Result<(), StartError> {
        start::claim(&self.link, &self.farm, database_identity).await
    }

    /// Waits up to `patience` until this Redis has the mark of a live coordinator of the farm
    /// ([`claim_farm`](Self::claim_farm)). After a flush the coordinators need some time to set it
    /// again.
    ///
    /// # Errors
    /// [`StartError::OtherRedis`] when the mark does not appear: nobody would dispatch tasks here.
    pub async fn expect_farm(&self, patience: Duration) -> Result<(), StartError> {
        start::expect(&self.link, &self.farm, patience).await
    }

    /// The server's facts and warnings.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn health(&self) -> Result<Health, Error> {
        health::read_health(&self.link, &self.farm).await.map_err(connection::unavailable)
    }

    /// How many unreadable entries were deleted so far.
    #[must_use]
    pub fn malformed_entries(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    fn keys(&self, pool: &PoolId) -> PoolKeys {
        self.farm.pool(pool)
    }
}

fn some_if_any<T>(found: Vec<T>) -> Option<Vec<T>> {
    (!found.is_empty()).then_some(found)
}

#[async_trait]
impl TaskQueue for RedisQueue {
    async fn add(&self, pool: &PoolId, tasks: Vec<Task>) -> Result<(), Error> {
        let keys = self.keys(pool);
        let mut to_come = tasks.len();
        for chunk in tasks.chunks(CHUNK) {
            let mut call = SCRIPTS.add.call(&[
                &keys.tasks,
                &keys.head,
                &keys.results,
                &keys.bell,
                &keys.suspect,
            ]);
            call.arg(self.options.pool_limit).arg(to_come);
            for task in chunk {
                let field = if task.suspect { wire::SUSPECT } else { wire::TASK };
                call.arg(field).arg(wire::key_text(&task.key)).arg(wire::seal_task(task)?);
            }
            if self.link.ask::<i64>(&SCRIPTS.add, call).await? == 0 {
                return Err(Error::Full { pool: pool.to_string(), limit: self.options.pool_limit });
            }
            to_come -= chunk.len();
        }
        Ok(())
    }

    async fn wait_for_tasks(&self, pools: &[PoolId], wait: Duration) -> Result<bool, Error> {
        let pools: Vec<PoolKeys> = pools.iter().map(|pool| self.keys(pool)).collect();
        let bells: Vec<&str> = pools.iter().map(|keys| keys.bell.as_str()).collect();
        let look = || async {
            let looks = pools.iter().map(|keys| self.has_waiting(keys));
            let found = futures::future::try_join_all(looks).await?;
            Ok(found.contains(&true).then_some(()))
        };
        Ok(self.look_until(&bells, wait, look).await?.is_some())
    }

    async fn lease(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Lease>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let keys = self.keys(pool);
        let look = || async { Ok(some_if_any(self.take_leases(pool, &keys, worker, max).await?)) };
        Ok(self.look_until(&[&keys.bell], wait, look).await?.unwrap_or_default())
    }

    async fn heartbeat(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<Vec<EntryId>, Error> {
        let keys = self.keys(pool);
        let mut lost = Vec::new();
        for chunk in leases.chunks(CHUNK) {
            let mut call = SCRIPTS.heartbeat.call(&[&keys.tasks, &keys.head]);
            call.arg(&worker.0).arg(texts(chunk));
            let ids: Vec<String> = self.link.ask(&SCRIPTS.heartbeat, call).await?;
            lost.extend(ids.into_iter().map(EntryId));
        }
        self.holdings.ended(pool, worker, &lost);
        Ok(lost)
    }

    async fn complete(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        results: Vec<(EntryId, TaskResult)>,
    ) -> Result<Vec<Completion>, Error> {
        let keys = self.keys(pool);
        let mut completions = Vec::with_capacity(results.len());
        for chunk in results.chunks(CHUNK) {
            let mut call =
                SCRIPTS.complete.call(&[&keys.tasks, &keys.head, &keys.results, &keys.rung]);
            call.arg(&worker.0);
            for (id, result) in chunk {
                call.arg(&id.0).arg(wire::key_text(&result.key)).arg(wire::seal_result(result)?);
            }
            let recorded: Vec<i64> = self.link.ask(&SCRIPTS.complete, call).await?;
            completions.extend(recorded.into_iter().map(|recorded| match recorded {
                1 => Completion::Recorded,
                _ => Completion::LeaseLost,
            }));
        }
        let ids: Vec<EntryId> = results.into_iter().map(|(id, _)| id).collect();
        self.holdings.ended(pool, worker, &ids);
        Ok(completions)
    }

    async fn hand_back(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<(), Error> {
        let keys = self.keys(pool);
        // From the last part to the first, because each part is put in front of the queue.
        for chunk in leases.rchunks(CHUNK) {
            let mut call = SCRIPTS.hand_back.call(&[&keys.tasks, &keys.head, &keys.bell]);
            call.arg(&worker.0).arg(texts(chunk));
            self.link.ask::<i64>(&SCRIPTS.hand_back, call).await?;
        }
        self.holdings.ended(pool, worker, leases);
        Ok(())
    }

    async fn results(
        &self,
        pool: &PoolId,
        committer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ResultEntry>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let keys = self.keys(pool);
        let look = || async { Ok(some_if_any(self.take_results(&keys, committer, max).await?)) };
        Ok(self.look_until(&[&keys.rung], wait, look).await?.unwrap_or_default())
    }

    async fn acknowledge(&self, pool: &PoolId, results: &[EntryId]) -> Result<(), Error> {
        let keys = self.keys(pool);
        let ids: Vec<EntryId> =
            results.iter().filter(|id| wire::is_stream_id(id)).cloned().collect();
        // Kept until Redis has confirmed it: these results are committed, and nobody asks for them
        // again.
        self.readings.owe(&keys.results, &ids);
        self.forget(&keys.results, &ids).await?;
        self.readings.paid(&keys.results, &ids);
        Ok(())
    }

    async fn remove(
        &self,
        pool: &PoolId,
        tasks: &[TaskKey],
        leased: Leased,
    ) -> Result<Vec<TaskKey>, Error> {
        let keys = self.keys(pool);
        let mut removed = Vec::new();
        for wanted in tasks.chunks(CHUNK) {
            let wanted: Vec<String> = wanted.iter().map(wire::key_text).collect();
            // A task that is handed back in between moves from the line to its head, never the
            // other way.
            for stream in [&keys.tasks, &keys.head] {
                let mut from = "-".to_owned();
                while !from.is_empty() {
                    let mut call = SCRIPTS.remove.call(&[stream]);
                    call.arg(&from).arg(CHUNK).arg(u8::from(leased == Leased::Remove)).arg(&wanted);
                    let mut answer =
                        self.link.ask::<Vec<String>>(&SCRIPTS.remove, call).await?.into_iter();
                    from = answer.next().unwrap_or_default();
                    removed.extend(answer.filter_map(|text| wire::parse_key(&text)));
                }
            }
        }
        Ok(removed)
    }

    async fn reap(&self, pool: &PoolId, lease: Duration) -> Result<Vec<Lease>, Error> {
        if self.link.since_trouble() < lease && stands(Guard::ReapPause) {
            return Ok(Vec::new());
        }
        let keys = self.keys(pool);
        let tidy = self.tidied.is_due(&keys.tasks, self.options.tidy_every);
        let mut call = SCRIPTS.reap.call(&[&keys.tasks, &keys.head, &keys.results]);
        call.arg(lease.as_millis().to_string())
            .arg(self.link.known_server(&keys.tasks))
            .arg(REAPED)
            .arg(u8::from(tidy));
        call.arg(self.options.consumer_idle.as_millis().to_string())
            .arg(self.options.pool_lifetime.as_secs());
        let answer: reply::Reaped = self.link.ask(&SCRIPTS.reap, call).await?;
        if self.link.meet_server(&keys.tasks, answer.run_id) && stands(Guard::ReapPause) {
            return Ok(Vec::new());
        }
        let mut leases = Vec::with_capacity(answer.expired.len());
        for (worker, entry) in answer.expired {
            match wire::open_task(&entry) {
                Ok(task) => {
                    leases.push(Lease { id: EntryId(entry.id), worker: WorkerId(worker), task })
                }
                Err(error) => {
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(stream = keys.tasks, entry.id = entry.id, %error,
                        "a leased entry cannot be read and is deleted");
                }
            }
        }
        Ok(leases)
    }

    async fn entries(&self, pool: &PoolId) -> Result<Vec<EntrySummary>, Error> {
        let keys = self.keys(pool);
        let mut entries = Vec::new();
        // In the order in which an entry moves on, so that an entry may be seen twice but is never
        // missed.
        for stream in [&keys.tasks, &keys.head, &keys.results] {
            let mut from = "-".to_owned();
            while !from.is_empty() {
                let mut call = SCRIPTS.entries.call(&[stream]);
                call.arg(&from).arg(CHUNK);
                let answer = self.link.ask::<Vec<Vec<u8>>>(&SCRIPTS.entries, call).await?;
                // Keys and holders may be any bytes, if somebody else wrote them.
                let mut answer =
                    answer.into_iter().map(|text| String::from_utf8_lossy(&text).into_owned());
                from = answer.next().unwrap_or_default();
                while let (Some(id), Some(key), Some(holder)) =
                    (answer.next(), answer.next(), answer.next())
                {
                    let Some(key) = wire::parse_key(&key) else {
                        self.discard(stream, id, &Unreadable::Key).await;
                        continue;
                    };
                    let state = match holder {
                        _ if *stream == keys.results => EntryState::Result,
                        holder if holder.is_empty() => EntryState::Waiting,
                        holder => EntryState::Leased(WorkerId(holder)),
                    };
                    entries.push(EntrySummary { key, state });
                }
            }
        }
        Ok(entries)
    }

    async fn announce(&self, card: WorkerCard) -> Result<Orders, Error> {
        cards::announce(&self.link, &self.farm, &card).await
    }

    async fn ask_to_drain(&self, worker: &WorkerId) -> Result<(), Error> {
        cards::ask_to_drain(&self.link, &self.farm, worker).await
    }

    async fn set_aside(
        &self,
        pools: &[PoolId],
        workers: &[(WorkerId, Duration)],
    ) -> Result<(), Error> {
        // Each pool's keys are on one node; the node of the farm's keys knows the workers.
        for pool in pools {
            cards::set_aside(&self.link, &self.keys(pool).aside, workers).await?;
        }
        cards::set_aside(&self.link, &self.farm.aside, workers).await
    }

    async fn withdraw(&self, worker: &WorkerId) -> Result<(), Error> {
        cards::withdraw(&self.link, &self.farm, worker).await
    }

    async fn workers(&self, since: Duration) -> Result<Vec<WorkerCard>, Error> {
        cards::workers(&self.link, &self.farm, since).await
    }
}
