//! How fast the Postgres store is, alone: submit by chunks, encode, dispatch and commit; with
//! `--snapshot`, while somebody holds an old snapshot open all the time.
//!
//! `cargo run --release --example store_timings -- [--images 100000] [--bulk 512] [--snapshot]
//! [--url postgres://…]`

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use darkroom_coordinator::store::{
    postgres::{Options, PostgresStore},
    records::{Dispatched, ImageOrder, ImageQuery, Report, Seen, Term},
    roles::{Agreed, Dispatching, Following, Leading, Maintenance, Outcomes, Queries, Submits},
};
use darkroom_core::{
    artifact::ArtifactRef,
    cascade::Cascade,
    digest::Digest,
    fair_share::Pick,
    id::{JobId, WorkerId},
    image_state::ImageState,
};
use darkroom_queue::task::{Outcome, TaskResult};
use darkroom_suites::{cascade, store::samples};
use darkroom_test_servers::postgres::Postgres;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

struct Arguments {
    images: u64,
    bulk: u64,
    snapshot: bool,
    url: Option<String>,
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let mut arguments = Self { images: 100_000, bulk: 512, snapshot: false, url: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--images" => arguments.images = value()?.parse()?,
                "--bulk" => arguments.bulk = value()?.parse()?,
                "--url" => arguments.url = Some(value()?),
                "--snapshot" => arguments.snapshot = true,
                _ => return Err(format!("unknown argument {word}").into()),
            }
        }
        Ok(arguments)
    }
}

struct Bench {
    store: PostgresStore,
    statistics: PgConnection,
    cascade: Cascade,
    term: Term,
    job: JobId,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse()?;
    let server = arguments.url.is_none().then(Postgres::start);
    let url = match (&arguments.url, &server) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => server.create_database(),
        (None, None) => return Err("no server".into()),
    };
    let store = PostgresStore::connect(&url, Options::default()).await?;
    let cascade = cascade::without_files(cascade::STAGES.len());
    store.register_cascade(&cascade).await?;
    let term = store.lead("timings").await?.ok_or("somebody else leads")?;
    let statistics = PgConnection::connect(&url).await?;
    let mut bench = Bench { store, statistics, cascade, term, job: JobId(Uuid::now_v7()) };
    bench.submit(arguments.images).await?;
    let mut holder = PgConnection::connect(&url).await?;
    if arguments.snapshot {
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut holder).await?;
        sqlx::query("SELECT count(*) FROM jobs").execute(&mut holder).await?;
    }
    println!(
        "| stage | transitions | per second | first dispatches, ms | last dispatches, ms | commit, ms | dead tuples each |"
    );
    println!("|---|---|---|---|---|---|---|");
    for stage in ["encode"].into_iter().chain(cascade::STAGES) {
        bench.pass(stage, arguments.bulk).await?;
    }
    bench.read(arguments.images).await?;
    let wrong = bench.store.audit(bench.job).await;
    println!("audit: {wrong:?}");
    bench.store.close().await;
    Ok(())
}

impl Bench {
    async fn submit(&mut self, images: u64) -> Result<(), Failure> {
        let (encoder, job) = (self.cascade.encoder_digest(), samples::job(&self.cascade));
        let began = Instant::now();
        let mut building = Duration::ZERO;
        self.store.begin(&job).await?;
        for first in (0..images).step_by(1000) {
            let build = Instant::now();
            let prompts: Vec<_> = (first..images.min(first + 1000))
                .map(|index| {
                    let words = format!(
                        "a photograph of thing number {index}, in the style of nobody at all"
                    );
                    samples::prompt(&encoder, index, &words, 1)
                })
                .collect();
            building += build.elapsed();
            self.store.receive(job.id, &prompts).await?;
        }
        let accepting = Instant::now();
        self.store.accept(job.id, Digest::of(b"content")).await?;
        println!(
            "submit of {images} distinct prompts: {:.2} s ({:.2} s of them building prompts), accept {:.1} ms",
            began.elapsed().as_secs_f64(),
            building.as_secs_f64(),
            ms(accepting.elapsed()),
        );
        self.job = job.id;
        Ok(())
    }

    /// Dispatches and commits until the stage is through, one after the other as one job's
    /// transactions are anyway.
    async fn pass(&mut self, stage: &str, bulk: u64) -> Result<(), Failure> {
        let pool = cascade::pool(&self.cascade, stage);
        let dead = self.dead_tuples().await?;
        let (began, mut count) = (Instant::now(), 0);
        let (mut dispatches, mut commits) = (Vec::new(), Vec::new());
        loop {
            let asked = Instant::now();
            self.store.dispatched_count(&pool).await?;
            self.store.candidates(&pool).await?;
            let pick = [Pick { job: self.job, count: bulk }];
            let tasks = self.store.dispatch(self.term, &pool, &pick).await?;
            dispatches.push(ms(asked.elapsed()));
            if tasks.is_empty() {
                break;
            }
            count += tasks.len();
            let reports: Vec<_> = tasks.iter().map(report).collect();
            let asked = Instant::now();
            self.store.commit(&pool, &reports).await?;
            if pool.stage.is_encode() {
                while self.store.spread(2000).await?.more {}
            }
            commits.push(ms(asked.elapsed()));
        }
        let seconds = began.elapsed().as_secs_f64();
        let dead = self.dead_tuples().await? - dead;
        let tenth = (dispatches.len() / 10).max(1);
        println!(
            "| {} | {count} | {:.0} | {:.2} | {:.2} | {:.2} | {:.3} |",
            pool.stage,
            count as f64 / seconds,
            mean(&dispatches[..tenth]),
            mean(&dispatches[dispatches.len() - tenth..]),
            mean(&commits),
            dead as f64 / count as f64,
        );
        Ok(())
    }

    async fn read(&self, images: u64) -> Result<(), Failure> {
        let (mut gets, mut pages, mut by_state, mut changes) = (vec![], vec![], vec![], vec![]);
        for round in 0..200 {
            let asked = Instant::now();
            self.store.job(self.job).await?;
            gets.push(ms(asked.elapsed()));
            let after = round * images / 200;
            for (states, times) in [(vec![], &mut pages), (vec![ImageState::Dead], &mut by_state)] {
                let order = ImageOrder::Index(Some(after));
                let asked = Instant::now();
                let query = ImageQuery { states, ..ImageQuery::all(self.job, order, 100) };
                self.store.images(&query).await?;
                times.push(ms(asked.elapsed()));
            }
            let version = self.store.job(self.job).await?.version;
            let asked = Instant::now();
            let seen = Seen { version: version * round / 200, index: None };
            self.store.changes(self.job, seen, 100).await?;
            changes.push(ms(asked.elapsed()));
        }
        for (name, times) in [
            ("GetJob", &mut gets),
            ("ListImages, 100", &mut pages),
            ("ListImages, dead", &mut by_state),
            ("changes, 100", &mut changes),
        ] {
            times.sort_unstable_by(f64::total_cmp);
            println!(
                "{name}: p50 {:.2} ms, p99 {:.2} ms",
                times[times.len() / 2],
                times[times.len() * 99 / 100]
            );
        }
        Ok(())
    }

    /// Row versions that updates and deletes have left so far.
    async fn dead_tuples(&mut self) -> Result<i64, Failure> {
        // Sessions report what they did within a second of being idle.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(sqlx::query_scalar("SELECT sum(n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables")
            .fetch_one(&mut self.statistics)
            .await?)
    }
}

fn report(task: &Dispatched) -> Report {
    let key = format!(
        "tasks/{}/{}.safetensors",
        "0123456789abcdef".repeat(4),
        "0123456789abcdef".repeat(4)
    );
    let artifact = ArtifactRef { key, sha256: Digest::of(b"bytes"), size: 12_345 };
    let result = TaskResult {
        key: task.key,
        worker: WorkerId("worker-0123456789abcdef0123456789abcdef".to_owned()),
        place: "worker".to_owned(),
        device_class: "fake".to_owned(),
        alone: false,
        seconds: 0.5,
        batch: 8,
        outcome: Outcome::Done { artifact, notes: Vec::new() },
        warrant: None,
        signature: None,
    };
    Report { result, live_places: 4 }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len().max(1) as f64
}
