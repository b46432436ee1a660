//! Measures how fast tasks pass through Redis: `cargo run --release -p darkroom-queue --example
//! throughput [tasks] [batch] [url]`.
//!
//! Without a URL it starts its own server. It prints tasks per second of each call alone and of all
//! calls together, the size of a task, and how long an idle worker waits for one.

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::{StageName, WorkerId},
    output::Output,
    sampling::{Sampler, Sampling},
    settings::StageSettings,
};
use darkroom_queue::{
    TaskQueue as _,
    redis::{Options, RedisQueue},
    task::{Lease, PoolId, RenderBody, ResultEntry, Task, TaskBody},
};
use darkroom_suites::queue::{done, pool, task};
use darkroom_test_servers::redis::{self, Redis};

/// Tasks added and results read per call, as in the coordinator.
const BULK: usize = 512;
/// Workers of the measured farm.
const WORKERS: usize = 16;
/// Rounds of the idle worker.
const ROUNDS: u64 = 500;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let tasks: u64 = arguments.next().map_or(50_000, |n| n.parse().expect("a number of tasks"));
    let batch: usize = arguments.next().map_or(8, |n| n.parse().expect("a batch's size"));
    let (server, url) = match arguments.next() {
        Some(url) => (None, url),
        None => {
            let server = Redis::start_with(&redis::Redis::EVERY_SECOND);
            let url = server.url();
            (Some(server), url)
        }
    };
    let options = Options { pool_limit: usize::MAX >> 1, ..Options::default() };
    let farm = format!("throughput-{}", std::process::id());
    let connect = || RedisQueue::connect(&url, &farm, options.clone());
    let (queue, other) = (connect().await.expect("connects"), connect().await.expect("connects"));
    let (queue, other) = (Arc::new(queue), Arc::new(other));

    let before = queue.health().await.expect("health").used_memory;
    println!("{tasks} tasks, batches of {batch}, bulks of {BULK}\n");
    println!("{:<28}{:>12}", "call", "tasks/s");
    one_by_one(&queue, tasks, batch, before).await;
    side_by_side(&queue, &other, tasks, batch).await;
    idle(&queue, &other).await;
    let after = queue.health().await.expect("health").used_memory;
    println!("{:<28}{:>12}", "memory kept, bytes", after.saturating_sub(before));
    drop(server);
}

/// Each call alone, one after the other.
async fn one_by_one(queue: &RedisQueue, tasks: u64, batch: usize, before: u64) {
    let (pool, name) = (pool("base"), WorkerId("worker".to_owned()));
    let all: Vec<Task> = (0..tasks).map(render).collect();
    let start = Instant::now();
    for bulk in all.chunks(BULK) {
        queue.add(&pool, bulk.to_vec()).await.expect("added");
    }
    rate("add", tasks, start);
    let used = queue.health().await.expect("health").used_memory.saturating_sub(before);

    let mut leases: Vec<Lease> = Vec::new();
    let start = Instant::now();
    while leases.len() < all.len() {
        leases.extend(queue.lease(&pool, &name, batch, Duration::ZERO).await.expect("leased"));
        // As a worker does; the time of a long pending list is not measured here.
        if leases.len().is_multiple_of(BULK) {
            complete(queue, &pool, &leases[leases.len() - BULK..]).await;
        }
    }
    complete(queue, &pool, &leases[leases.len() / BULK * BULK..]).await;
    rate("lease, complete in bulks", tasks, start);

    let (mut read, mut acknowledging) = (0, Duration::ZERO);
    let start = Instant::now();
    while read < all.len() {
        let results =
            queue.results(&pool, "committer", BULK, Duration::ZERO).await.expect("results");
        read += results.len();
        let begin = Instant::now();
        acknowledge(queue, &pool, results).await;
        acknowledging += begin.elapsed();
    }
    let reading = start.elapsed() - acknowledging;
    println!("{:<28}{:>12.0}", "results", tasks as f64 / reading.as_secs_f64());
    println!("{:<28}{:>12.0}", "acknowledge", tasks as f64 / acknowledging.as_secs_f64());
    println!("{:<28}{:>12}", "bytes of a waiting task", used / tasks);
}

/// A coordinator that adds and commits, and workers that lease and complete, all at the same time.
async fn side_by_side(queue: &Arc<RedisQueue>, other: &Arc<RedisQueue>, tasks: u64, batch: usize) {
    let pool = pool("sr256");
    let in_flight = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (queue, pool) = (Arc::clone(queue), pool.clone());
            let name = WorkerId(format!("worker-{number}"));
            tokio::spawn(async move {
                loop {
                    let leases = queue
                        .lease(&pool, &name, batch, Duration::from_secs(1))
                        .await
                        .expect("leased");
                    if leases.is_empty() {
                        return;
                    }
                    complete(&queue, &pool, &leases).await;
                }
            })
        })
        .collect();
    let adding = async {
        let room = (2 * WORKERS * batch) as u64;
        let mut next = 0;
        while next < tasks {
            let free = room.saturating_sub(in_flight.load(Ordering::Relaxed)).min(tasks - next);
            if free == 0 {
                tokio::time::sleep(Duration::from_micros(200)).await;
                continue;
            }
            in_flight.fetch_add(free, Ordering::Relaxed);
            other.add(&pool, (next..next + free).map(render).collect()).await.expect("added");
            next += free;
        }
    };
    let committing = async {
        let mut read = 0;
        while read < tasks {
            let wait = Duration::from_secs(1);
            let results = other.results(&pool, "committer", BULK, wait).await.expect("results");
            read += results.len() as u64;
            in_flight.fetch_sub(results.len() as u64, Ordering::Relaxed);
            acknowledge(other, &pool, results).await;
        }
    };
    tokio::join!(adding, committing);
    rate("all side by side", tasks, start);
    for worker in workers {
        worker.await.expect("no panic");
    }
}

/// The time from `add` until a waiting worker has the lease.
async fn idle(queue: &Arc<RedisQueue>, other: &Arc<RedisQueue>) {
    let pool = pool("sr1024");
    let mut waits: Vec<Duration> = Vec::new();
    for round in 0..ROUNDS {
        let leasing = {
            let (queue, pool) = (Arc::clone(queue), pool.clone());
            tokio::spawn(async move {
                let name = WorkerId("idle".to_owned());
                let leases =
                    queue.lease(&pool, &name, 1, Duration::from_secs(5)).await.expect("leased");
                (leases, Instant::now())
            })
        };
        tokio::time::sleep(Duration::from_millis(3)).await;
        let start = Instant::now();
        other.add(&pool, vec![render(round)]).await.expect("added");
        let (leases, at) = leasing.await.expect("no panic");
        waits.push(at - start);
        complete(queue, &pool, &leases).await;
    }
    waits.sort_unstable();
    for (name, share) in [("idle worker, p50 ms", 50), ("idle worker, p99 ms", 99)] {
        let wait = waits[waits.len() * share / 100];
        println!("{name:<28}{:>12.2}", wait.as_secs_f64() * 1000.0);
    }
}

fn rate(name: &str, tasks: u64, start: Instant) {
    println!("{name:<28}{:>12.0}", tasks as f64 / start.elapsed().as_secs_f64());
}

async fn complete(queue: &RedisQueue, pool: &PoolId, leases: &[Lease]) {
    let Some(first) = leases.first() else { return };
    let results = leases.iter().map(|lease| (lease.id.clone(), done(lease))).collect();
    queue.complete(pool, &first.worker, results).await.expect("completed");
}

async fn acknowledge(queue: &RedisQueue, pool: &PoolId, results: Vec<ResultEntry>) {
    let ids: Vec<_> = results.into_iter().map(|entry| entry.id).collect();
    queue.acknowledge(pool, &ids).await.expect("acknowledged");
}

/// A super-resolution task like those of the coordinator.
fn render(index: u64) -> Task {
    let artifact = |what: &str| {
        let digest = Digest::of(format!("{what} {index}").as_bytes());
        ArtifactRef {
            key: format!("tasks/{digest}/{digest}.safetensors"),
            sha256: digest,
            size: 49_152,
        }
    };
    let settings = StageSettings {
        stage: StageName::try_from("sr256".to_owned()).expect("a stage's name"),
        size: 256,
        extent: None,
        sampling: Sampling {
            guidance_scale: 4.0,
            noise_level: Some(250),
            ..Sampling::plain(Sampler::Ddim, 50)
        },
    };
    let body = RenderBody {
        settings,
        seed: index,
        text: artifact("text"),
        negative: Some(artifact("negative")),
        low_res: Some(artifact("low")),
        image: None,
        mask: None,
        fit: None,
        prefix: format!("tasks/{}/", Digest::of(&index.to_le_bytes())),
        picture: None,
        output: Output::default(),
    };
    Task { body: TaskBody::Render(Box::new(body)), ..task(index) }
}
