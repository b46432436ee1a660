//! The guards of the workers' loop, with the queue in memory.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use darkroom_core::{error::UserError, guard::Guard, id::WorkerId};
use darkroom_guards::red;
use darkroom_queue::{
    TaskQueue as _,
    memory::MemoryQueue,
    stage_loop::{self, BatchFault, Fault, Handle, Loaded, Model, Options, Row, Serve, Stage},
    task::{EntryState, Outcome, PoolId, Task},
};
use darkroom_suites::queue::{pool, task};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_millis(500);

/// Storage that refuses every write.
struct Unstorable;

#[async_trait]
impl Stage for Unstorable {
    type Input = ();
    type Output = ();
    type File = ();

    async fn load(&self, _pool: &PoolId, _task: &Task) -> Result<Loaded<()>, Fault> {
        Ok(Loaded::Ready(()))
    }

    fn encode(&self, _task: &Task, (): (), _device_class: &str) -> Result<(), Outcome> {
        Ok(())
    }

    async fn store(&self, _task: &Task, (): &()) -> Result<Outcome, Fault> {
        Err(Fault::Storage("down".to_owned()))
    }
}

/// A model whose steps take this long.
struct Slow {
    steps: u32,
    step: Duration,
}

impl Model for Slow {
    type Input = ();
    type Output = ();

    fn run(
        &mut self,
        _pool: &PoolId,
        rows: &[Row<'_, ()>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<(), Outcome>>, BatchFault> {
        for _ in 0..self.steps {
            std::thread::sleep(self.step);
            if on_step().is_break() {
                return Err(BatchFault::Interrupted);
            }
        }
        Ok(rows.iter().map(|_| Ok(())).collect())
    }

    fn device(&self) -> String {
        "none".to_owned()
    }

    fn device_class(&self) -> String {
        "none".to_owned()
    }
}

async fn start(queue: &Arc<MemoryQueue>, model: Slow) -> Handle {
    let options = Options {
        heartbeat: LEASE / 5,
        stall: LEASE / 2,
        grace: LEASE / 5,
        storage_patience: LEASE / 5,
        linger: Duration::ZERO,
        ..Options::new(
            WorkerId("w".to_owned()),
            "host",
            vec![Serve { pool: pool("base"), batch_cap: 1 }],
        )
    };
    let queue: Arc<MemoryQueue> = Arc::clone(queue);
    let made = move || Ok::<_, UserError>(model);
    stage_loop::start(options, queue, Arc::new(Unstorable), made, CancellationToken::new())
        .await
        .expect("starts")
}

async fn until_leased(queue: &MemoryQueue, count: usize) {
    let began = Instant::now();
    loop {
        let entries = queue.entries(&pool("base")).await.expect("entries");
        if entries.iter().filter(|entry| matches!(entry.state, EntryState::Leased(_))).count()
            == count
        {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "not leased in time");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_model_hangs_keeps_its_leases_for_ever() {
    red(Guard::StallStops, "a stalled worker keeps its lease", || async {
        let queue = Arc::new(MemoryQueue::default());
        let handle = start(&queue, Slow { steps: 1, step: LEASE * 5 }).await;
        queue.add(&pool("base"), vec![task(0)]).await.expect("added");
        until_leased(&queue, 1).await;
        sleep(LEASE * 3).await;
        let reaped = queue.reap(&pool("base"), LEASE).await.expect("reaps");
        handle.shutdown();
        handle.join().await.expect("ends");
        assert_eq!(reaped.len(), 1, "a stalled worker keeps its lease");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_charged_for_storage_that_was_away() {
    red(Guard::StorageInterrupts, "storage's fault counts against the image", || async {
        let queue = Arc::new(MemoryQueue::default());
        let handle = start(&queue, Slow { steps: 1, step: Duration::ZERO }).await;
        queue.add(&pool("base"), vec![task(0)]).await.expect("added");
        let results =
            queue.results(&pool("base"), "c", 1, Duration::from_secs(20)).await.expect("results");
        handle.shutdown();
        handle.join().await.expect("ends");
        let outcome = &results[0].result.outcome;
        let interrupted = matches!(outcome, Outcome::Interrupted { .. });
        assert!(interrupted, "storage's fault counts against the image: {outcome:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_takes_its_tasks_with_it() {
    red(Guard::DrainHandsBack, "not in line again", || async {
        let queue = Arc::new(MemoryQueue::default());
        let handle = start(&queue, Slow { steps: 1000, step: LEASE / 20 }).await;
        queue.add(&pool("base"), vec![task(0), task(1)]).await.expect("added");
        until_leased(&queue, 2).await;
        handle.shutdown();
        handle.join().await.expect("ends");
        let entries = queue.entries(&pool("base")).await.expect("entries");
        let waiting = entries.iter().filter(|entry| entry.state == EntryState::Waiting).count();
        assert_eq!(waiting, 2, "not in line again: {entries:?}");
    })
    .await;
}
