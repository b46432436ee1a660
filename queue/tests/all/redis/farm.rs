//! Whole stage loops on a server that is killed, flushed and paused while they run.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use darkroom_core::{artifact::ArtifactRef, digest::Digest};
use darkroom_queue::{
    Error, TaskQueue as _,
    redis::RedisQueue,
    stage_loop::{self, BatchFault, Fault, Handle, Loaded, Model, Options, Row, Serve, Stage},
    task::{Outcome, PoolId, Task},
};
use darkroom_suites::queue::{pool, task};
use darkroom_test_servers::redis::Redis;
use tokio_util::sync::CancellationToken;

use super::support::{eventually, index, queue_on, worker};

const TASKS: u64 = 400;

/// Stores nothing and reports success.
struct Fleeting;

#[async_trait]
impl Stage for Fleeting {
    type Input = ();
    type Output = ();
    type File = ();

    async fn load(&self, _pool: &PoolId, _task: &Task) -> Result<Loaded<()>, Fault> {
        Ok(Loaded::Ready(()))
    }

    fn encode(&self, _task: &Task, _output: (), _device_class: &str) -> Result<(), Outcome> {
        Ok(())
    }

    async fn store(&self, task: &Task, _file: &()) -> Result<Outcome, Fault> {
        let key = format!("t/{}", index(&task.key));
        let artifact = ArtifactRef { key, sha256: Digest::of(b""), size: 0 };
        Ok(Outcome::Done { artifact, notes: Vec::new() })
    }
}

struct Quick;

impl Model for Quick {
    type Input = ();
    type Output = ();

    fn run(
        &mut self,
        _pool: &PoolId,
        rows: &[Row<'_, ()>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<(), Outcome>>, BatchFault> {
        std::thread::sleep(Duration::from_millis(5));
        if on_step().is_break() {
            return Err(BatchFault::Interrupted);
        }
        Ok(vec![Ok(()); rows.len()])
    }

    fn device(&self) -> String {
        "quick".to_owned()
    }

    fn device_class(&self) -> String {
        "quick".to_owned()
    }
}

async fn work(redis: &Redis, name: &str) -> Handle {
    let serve = Serve { pool: pool("base"), batch_cap: 4 };
    let options = Options {
        heartbeat: Duration::from_millis(100),
        ..Options::new(worker(name), name, vec![serve])
    };
    let queue = queue_on(redis).await;
    let drain = CancellationToken::new();
    stage_loop::start(options, queue, Arc::new(Fleeting), || Ok(Quick), drain)
        .await
        .expect("starts")
}

/// Does what a coordinator does: commits results, and dispatches again what the queue has lost.
struct Coordinator {
    queue: Arc<RedisQueue>,
    pool: PoolId,
    done: Mutex<BTreeSet<u64>>,
}

impl Coordinator {
    async fn pass(&self) -> Result<(), Error> {
        let results = self.queue.results(&self.pool, "c", 100, Duration::from_millis(20)).await?;
        self.done
            .lock()
            .expect("no panic")
            .extend(results.iter().map(|entry| index(&entry.result.key)));
        let ids: Vec<_> = results.into_iter().map(|entry| entry.id).collect();
        self.queue.acknowledge(&self.pool, &ids).await?;
        let known: BTreeSet<u64> =
            self.queue.entries(&self.pool).await?.iter().map(|entry| index(&entry.key)).collect();
        let done = self.done.lock().expect("no panic").clone();
        let missing = (0..TASKS).filter(|index| !known.contains(index) && !done.contains(index));
        let missing: Vec<Task> =
            missing.take(40_usize.saturating_sub(known.len())).map(task).collect();
        if missing.is_empty() { Ok(()) } else { self.queue.add(&self.pool, missing).await }
    }

    fn done(&self) -> usize {
        self.done.lock().expect("no panic").len()
    }

    async fn until_done(&self, count: usize) {
        eventually("tasks are done", async || {
            // Its errors come from an unreachable server; it retries.
            drop(self.pass().await);
            self.done() >= count
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_done_whatever_becomes_of_the_server() {
    let mut redis = Redis::start();
    let coordinator =
        Coordinator { queue: queue_on(&redis).await, pool: pool("base"), done: Mutex::default() };
    let workers = [work(&redis, "a").await, work(&redis, "b").await];
    coordinator.until_done(40).await;
    redis.restart();
    coordinator.until_done(100).await;
    redis.flush();
    redis.flush_scripts();
    coordinator.until_done(160).await;
    let snapshot = redis.snapshot();
    coordinator.until_done(220).await;
    redis.restart_from_snapshot(&snapshot);
    coordinator.until_done(280).await;
    redis.pause();
    tokio::time::sleep(super::support::options().command * 3 / 2).await;
    redis.resume();
    coordinator.until_done(TASKS as usize).await;
    for worker in workers {
        worker.shutdown();
        worker.join().await.expect("no worker ended because of it");
    }
}
