//! Results that are ready together are reported together; a single one is reported at once.

use std::sync::Arc;

use async_trait::async_trait;
use darkroom_core::{error::UserError, id::WorkerId};
use darkroom_queue::{
    TaskQueue,
    stage_loop::{self, BatchFault, Fault, Loaded, Model, Options, Row, Serve, Stage},
    task::{Outcome, PoolId, Task},
};
use darkroom_suites::queue::{Watch, Watched, pool, task};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Delays each answer to `complete` until the test permits it, and reports how many results each
/// call had.
struct Gate {
    permits: Semaphore,
    sizes: mpsc::UnboundedSender<usize>,
}

#[async_trait]
impl Watch for Gate {
    async fn completing(&self, results: usize) {
        self.sizes.send(results).expect("the test listens");
        self.permits.acquire().await.expect("open").forget();
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
    let queue = Arc::new(Watched::new(Gate { permits: Semaphore::new(0), sizes }));
    let pool = pool("base");
    let serve = Serve { pool: pool.clone(), batch_cap: 8 };
    let options = Options::new(WorkerId("w".to_owned()), "host", vec![serve]);
    let shared = Arc::clone(&queue) as Arc<dyn TaskQueue>;
    let running =
        stage_loop::start(options, shared, Arc::new(Ends), || Ok(Idle), CancellationToken::new())
            .await?;

    queue.add(&pool, vec![task(0)]).await.expect("added");
    assert_eq!(told.recv().await, Some(1), "a single result does not wait");
    queue.watch.permits.add_permits(1);
    queue.add(&pool, (1..9).map(task).collect()).await.expect("added");
    assert_eq!(told.recv().await, Some(8));
    queue.watch.permits.add_permits(1);

    running.shutdown();
    running.join().await
}
