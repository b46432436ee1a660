//! Many workers in one process, for `make bench-farm`: each with connections, leases, heartbeats
//! and a model's thread of its own, as a worker process has them, and a renderer that sleeps its
//! stage's time.
//!
//! `simulated_workers REDIS FARM SECRET WORKERS BATCH STAGE@DIGEST=SECONDS…`: every worker serves
//! all the pools that are named, later ones first; a batch takes its stage's seconds, whatever its
//! size. A line on standard input is answered by one of JSON: microseconds since 1970, and the
//! seconds for which the models of all workers have run so far. With `HOLDS=1` in the environment
//! it also prints `stage microseconds` whenever a worker holds a task. Ends with its input.

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use darkroom_core::{digest::Digest, id::StageName, id::WorkerId};
use darkroom_queue::{
    redis::{Options as RedisOptions, RedisQueue},
    signing::{Credentials, FarmSecret, Holder, Signer},
    stage_loop::{
        self, BatchFault, Fault, Handle, Loaded, Model, Options, Row, Serve, Stage,
        noop::{NoopModel, NoopStage},
    },
    task::{Outcome, PoolId, Task},
};
use tokio_util::sync::CancellationToken;

/// Says when it holds a task, and does nothing else.
struct Told(bool);

#[async_trait]
impl Stage for Told {
    type Input = ();
    type Output = ();
    type File = ();

    async fn load(&self, pool: &PoolId, task: &Task) -> Result<Loaded<()>, Fault> {
        if self.0 {
            println!("{} {}", pool.stage, now());
        }
        NoopStage.load(pool, task).await
    }

    fn encode(&self, task: &Task, output: (), device_class: &str) -> Result<(), Outcome> {
        NoopStage.encode(task, output, device_class)
    }

    fn encodes_at_once(&self) -> bool {
        true
    }

    async fn store(&self, task: &Task, file: &()) -> Result<Outcome, Fault> {
        NoopStage.store(task, file).await
    }
}

/// Sleeps a batch's time, by pool.
struct Sleeps(HashMap<PoolId, Duration>);

impl Model for Sleeps {
    type Input = ();
    type Output = ();

    fn run(
        &mut self,
        pool: &PoolId,
        rows: &[Row<'_, ()>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<(), Outcome>>, BatchFault> {
        let batch = self.0.get(pool).copied().unwrap_or_default();
        NoopModel { batch, row: Duration::ZERO }.run(pool, rows, on_step)
    }

    fn device(&self) -> String {
        "none".to_owned()
    }

    fn device_class(&self) -> String {
        "none".to_owned()
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [redis, farm, secret, workers, batch, pools @ ..] = arguments.as_slice() else {
        panic!("usage: simulated_workers REDIS FARM SECRET WORKERS BATCH STAGE@DIGEST=SECONDS…");
    };
    let (workers, batch) =
        (workers.parse().expect("workers"), batch.parse().expect("a batch's size"));
    let times: Vec<(PoolId, Duration)> = pools.iter().map(|pool| parse_pool(pool)).collect();
    let secret: Digest = secret.parse().expect("the farm's secret");
    let secret = FarmSecret::from_bytes(&secret.0).expect("32 bytes");
    let told = std::env::var_os("HOLDS").is_some();
    let mut handles: Vec<Handle> = Vec::with_capacity(workers);
    for number in 0..workers {
        // A host of its own, as in a farm of machines with a device each.
        let host = format!("host{number}");
        let serve = |(pool, _): &(PoolId, Duration)| Serve { pool: pool.clone(), batch_cap: batch };
        let pools: Vec<Serve> = times.iter().rev().map(serve).collect();
        let options = Options::signing(signer(&secret, &host, &pools), &host, pools);
        let queue =
            RedisQueue::connect(redis, farm, RedisOptions::default()).await.expect("connects");
        let model = Sleeps(times.iter().cloned().collect());
        let started = stage_loop::start(
            options,
            Arc::new(queue),
            Arc::new(Told(told)),
            move || Ok(model),
            CancellationToken::new(),
        );
        handles.push(started.await.expect("starts"));
    }
    let answers = std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_err() {
                break;
            }
            let busy: f64 = handles.iter().map(|handle| handle.busy().busy_seconds).sum();
            println!("{{\"micros\": {}, \"busy\": {busy}}}", now());
        }
    });
    tokio::task::spawn_blocking(move || answers.join()).await.expect("a thread").expect("no panic");
    // What they hold is handed back by the lease's end; the farm of a benchmark ends with it.
    std::process::exit(0);
}

/// What a coordinator gives a worker that joins. The benchmark has the farm's database, so it makes
/// the keys itself.
fn signer(secret: &FarmSecret, host: &str, pools: &[Serve]) -> Signer {
    let holder =
        Holder { worker: WorkerId::fresh(host), key: String::new(), expires: u64::MAX / 2 };
    let keys = |serve: &Serve| (serve.pool.clone(), secret.member_keys(&holder, &serve.pool));
    Signer::new(Credentials { pools: pools.iter().map(keys).collect(), holder })
}

fn parse_pool(text: &str) -> (PoolId, Duration) {
    let (pool, seconds) = text.split_once('=').expect("STAGE@DIGEST=SECONDS");
    let (stage, digest) = pool.split_once('@').expect("STAGE@DIGEST=SECONDS");
    let stage = StageName::try_from(stage.to_owned()).expect("a stage's name");
    let digest: Digest = digest.parse().expect("a digest");
    (PoolId { stage, digest }, Duration::from_secs_f64(seconds.parse().expect("seconds")))
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros()
}
