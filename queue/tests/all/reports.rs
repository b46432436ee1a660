//! Results that are ready together are reported together; a single one is reported at once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use darkroom_core::{error::UserError, id::WorkerId};
use darkroom_queue::{
    Error, Leased, TaskQueue,
    memory::MemoryQueue,
    stage_loop::{self, BatchFault, Fault, Loaded, Model, Options, Row, Serve, Stage},
    task::{
        Completion, EntryId, EntrySummary, Lease, Orders, Outcome, PoolId, ResultEntry, Task,
        TaskKey, TaskResult, WorkerCard,
    },
};
use darkroom_suites::queue::{pool, task};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// A queue that delays each answer to `complete` until the test permits it, and reports how many
/// results each call had.
struct Gated {
    queue: MemoryQueue,
    leave: Semaphore,
    sizes: mpsc::UnboundedSender<usize>,
}

#[async_trait]
impl TaskQueue for Gated {
    async fn complete(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        results: Vec<(EntryId, TaskResult)>,
    ) -> Result<Vec<Completion>, Error> {
        self.sizes.send(results.len()).expect("the test listens");
        self.leave.acquire().await.expect("open").forget();
        self.queue.complete(pool, worker, results).await
    }

    async fn add(&self, pool: &PoolId, tasks: Vec<Task>) -> Result<(), Error> {
        self.queue.add(pool, tasks).await
    }

    async fn wait_for_tasks(&self, pools: &[PoolId], wait: Duration) -> Result<bool, Error> {
        self.queue.wait_for_tasks(pools, wait).await
    }

    async fn lease(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Lease>, Error> {
        self.queue.lease(pool, worker, max, wait).await
    }

    async fn heartbeat(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<Vec<EntryId>, Error> {
        self.queue.heartbeat(pool, worker, leases).await
    }

    async fn hand_back(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<(), Error> {
        self.queue.hand_back(pool, worker, leases).await
    }

    async fn results(
        &self,
        pool: &PoolId,
        committer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ResultEntry>, Error> {
        self.queue.results(pool, committer, max, wait).await
    }

    async fn acknowledge(&self, pool: &PoolId, results: &[EntryId]) -> Result<(), Error> {
        self.queue.acknowledge(pool, results).await
    }

    async fn remove(
        &self,
        pool: &PoolId,
        tasks: &[TaskKey],
        leased: Leased,
    ) -> Result<Vec<TaskKey>, Error> {
        self.queue.remove(pool, tasks, leased).await
    }

    async fn reap(&self, pool: &PoolId, lease: Duration) -> Result<Vec<Lease>, Error> {
        self.queue.reap(pool, lease).await
    }

    async fn entries(&self, pool: &PoolId) -> Result<Vec<EntrySummary>, Error> {
        self.queue.entries(pool).await
    }

    async fn announce(&self, card: WorkerCard) -> Result<Orders, Error> {
        self.queue.announce(card).await
    }

    async fn ask_to_drain(&self, worker: &WorkerId) -> Result<(), Error> {
        self.queue.ask_to_drain(worker).await
    }

    async fn set_aside(
        &self,
        pools: &[PoolId],
        workers: &[(WorkerId, Duration)],
    ) -> Result<(), Error> {
        self.queue.set_aside(pools, workers).await
    }

    async fn withdraw(&self, worker: &WorkerId) -> Result<(), Error> {
        self.queue.withdraw(worker).await
    }

    async fn workers(&self, since: Duration) -> Result<Vec<WorkerCard>, Error> {
        self.queue.workers(since).await
    }
}

/// Every task ends when its inputs are loaded.
struct Ends;

#[async_trait]
impl Stage for Ends {
    type Input = ();
    type Output = ();
    type File = ();

    async fn load(&self, _pool: &PoolId, _task: &Task) -> Result<Loaded<()>, Fault> {
        let outcome = Outcome::Failed { code: "x".into(), message: "x".to_owned() };
        Ok(Loaded::Already { outcome, device_class: None })
    }

    fn encode(&self, _task: &Task, _output: (), _device_class: &str) -> Result<(), Outcome> {
        Ok(())
    }

    async fn store(&self, _task: &Task, _file: &()) -> Result<Outcome, Fault> {
        Err(Fault::Storage("not asked".to_owned()))
    }
}

struct Idle;

impl Model for Idle {
    type Input = ();
    type Output = ();

    fn run(
        &mut self,
        _pool: &PoolId,
        rows: &[Row<'_, ()>],
        _on_step: &mut dyn FnMut() -> std::ops::ControlFlow<()>,
    ) -> Result<Vec<Result<(), Outcome>>, BatchFault> {
        Ok(vec![Ok(()); rows.len()])
    }

    fn device(&self) -> String {
        String::new()
    }

    fn device_class(&self) -> String {
        String::new()
    }
}

#[tokio::test]
async fn what_is_ready_together_is_reported_in_one_call() -> Result<(), UserError> {
    let (sizes, mut told) = mpsc::unbounded_channel();
    let queue = Arc::new(Gated { queue: MemoryQueue::default(), leave: Semaphore::new(0), sizes });
    let pool = pool("base");
    let serve = Serve { pool: pool.clone(), batch_cap: 8 };
    let options = Options::new(WorkerId("w".to_owned()), "host", vec![serve]);
    let shared = Arc::clone(&queue) as Arc<dyn TaskQueue>;
    let running =
        stage_loop::start(options, shared, Arc::new(Ends), || Ok(Idle), CancellationToken::new())
            .await?;

    queue.add(&pool, vec![task(0)]).await.expect("added");
    assert_eq!(told.recv().await, Some(1), "a single result does not wait");
    queue.leave.add_permits(1);
    queue.add(&pool, (1..9).map(task).collect()).await.expect("added");
    assert_eq!(told.recv().await, Some(8));
    queue.leave.add_permits(1);

    running.shutdown();
    running.join().await
}
