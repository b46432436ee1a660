//! How long pages of a large job's images take, on both databases: p50 and p99 of each kind of
//! page.
//!
//! The rows are made by SQL: prompts of ten images, a million images in all, seven tenths of them
//! done, one in a thousand dead, some with workers, the rest ready or waiting. On Postgres, forty
//! thousand changes are stale: their images have changed again. SQLite keeps no such changes.
//!
//! `cargo run --release --example page_timings -- [--images 1000000] [--rounds 500] [--url
//! postgres://…]`

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

use std::{
    collections::BTreeMap,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_coordinator::store::{
    Store,
    postgres::{Options, PostgresStore},
    records::{ImageOrder, ImageQuery, NewPrompt},
    roles::Maintenance as _,
    sqlite::SqliteStore,
};
use darkroom_core::{
    digest::Digest, id::JobId, image_state::ImageState as S, label::Naming,
    prompt_filter::PromptFilter,
};
use darkroom_suites::{cascade, store::samples};
use darkroom_test_servers::postgres::Postgres;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

type Failure = Box<dyn Error + Send + Sync>;

const IMAGES_OF_PROMPT: u32 = 10;
const PAGE: u32 = 100;
/// Versions of which all changes are stale: a thousand in each. They begin with version 3.
const STALE: u64 = 40;
/// The first version with current changes.
const CURRENT: u64 = 3 + STALE;

struct Arguments {
    images: u64,
    rounds: u64,
    url: Option<String>,
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let mut arguments = Self { images: 1_000_000, rounds: 500, url: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--images" => arguments.images = value()?.parse()?,
                "--rounds" => arguments.rounds = value()?.parse()?,
                "--url" => arguments.url = Some(value()?),
                _ => return Err(format!("unknown argument {word}").into()),
            }
        }
        Ok(arguments)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse()?;
    println!("| database | page of {PAGE} images | p50, ms | p99, ms |");
    println!("|---|---|---|---|");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("farm.sqlite");
    let store = Arc::new(SqliteStore::open(&path).await?);
    let job = submit(store.as_ref(), arguments.images).await?;
    let mut connection =
        SqliteConnection::connect(&format!("sqlite://{}", path.to_str().expect("UTF-8"))).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("{} {SQLITE}", states(""))))
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    time("SQLite", store.as_ref(), job, &arguments).await?;

    let server = arguments.url.is_none().then(Postgres::start);
    let url = match (&arguments.url, &server) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => server.create_database(),
        (None, None) => return Err("no server".into()),
    };
    let store = Arc::new(PostgresStore::connect(&url, Options::default()).await?);
    let job = submit(store.as_ref(), arguments.images).await?;
    let mut connection = PgConnection::connect(&url).await?;
    let made = format!("{}; {POSTGRES}; {}", states("::image_state"), stale());
    sqlx::raw_sql(AssertSqlSafe(made)).execute(&mut connection).await?;
    sqlx::raw_sql("VACUUM ANALYZE images").execute(&mut connection).await?;
    time("Postgres", store.as_ref(), job, &arguments).await?;
    store.close().await;
    Ok(())
}

async fn submit(store: &dyn Store, images: u64) -> Result<JobId, Failure> {
    let cascade = cascade::without_files(2);
    store.register_cascade(&cascade).await?;
    store.lead("timings").await?.ok_or("somebody else leads")?;
    let encoder = cascade.encoder_digest();
    let job = samples::job(&cascade);
    let prompt = |position: u64| {
        let words = format!("a photograph of thing number {position}, in nobody's style");
        let labels = BTreeMap::from([("set".to_owned(), (position % 20).to_string())]);
        NewPrompt {
            naming: Naming { labels, ..Naming::default() },
            ..samples::prompt(&encoder, position, &words, IMAGES_OF_PROMPT)
        }
    };
    store.begin(&job).await?;
    let prompts = images / u64::from(IMAGES_OF_PROMPT);
    for first in (0..prompts).step_by(2000) {
        let chunk: Vec<_> = (first..prompts.min(first + 2000)).map(prompt).collect();
        store.receive(job.id, &chunk).await?;
    }
    store.accept(job.id, Digest::of(b"content")).await?;
    Ok(job.id)
}

/// Gives images their states, and the versions in which they changed: a thousand in each.
fn states(cast: &str) -> String {
    format!(
        "UPDATE images
         SET version = {CURRENT} + idx / 1000,
             stage = CASE WHEN idx % 1000 <> 7 AND idx < 7 * (SELECT max(idx) FROM images) / 10 THEN 1 ELSE 0 END,
             error_code = CASE WHEN idx % 1000 = 7 THEN 'out_of_memory' END,
             error = CASE WHEN idx % 1000 = 7 THEN 'the device has no memory left' END,
             state = (CASE WHEN idx % 1000 = 7 THEN 'dead'
                           WHEN idx < 7 * (SELECT max(idx) FROM images) / 10 THEN 'done'
                           WHEN idx % 5000 = 11 THEN 'dispatched'
                           WHEN idx < 8 * (SELECT max(idx) FROM images) / 10 THEN 'ready'
                           ELSE 'waiting' END){cast}"
    )
}

const SQLITE: &str = "
    ;INSERT INTO outputs (job, idx, stage, key, sha256, size, seconds, worker, device_class)
     SELECT job, idx, 1, 'tasks/0123456789abcdef/0123456789abcdef.png', printf('%064d', idx), 12345, 0.5, 'worker',
            'class'
     FROM images WHERE state = 'done';
     UPDATE jobs SET version = 44 + images / 1000";

const POSTGRES: &str = "
    INSERT INTO outputs (job, idx, size, seconds, stage, sha256, key, worker, device_class)
    SELECT job, idx, 12345, 0.5, 1, decode(lpad(idx::text, 64, '0'), 'hex'),
           'tasks/0123456789abcdef/0123456789abcdef.png', 'worker', 'class'
    FROM images WHERE state = 'done';
    DELETE FROM image_changes;
    INSERT INTO image_changes (job, version, first, last, images)
    SELECT job, version, min(idx), max(idx), array_agg(idx ORDER BY idx) FROM images GROUP BY job, version;
    UPDATE job_progress SET version = 44 + images / 1000;
    UPDATE image_blocks AS b
    SET waiting = r.waiting, ready = r.ready, dispatched = r.dispatched, done = r.done, dead = r.dead, cancelled = 0,
        waiting_bits = rpad(r.waiting_bits, 256, '0')::bit(256), ready_bits = rpad(r.ready_bits, 256, '0')::bit(256),
        dispatched_bits = rpad(r.dispatched_bits, 256, '0')::bit(256),
        done_bits = rpad(r.done_bits, 256, '0')::bit(256), dead_bits = rpad(r.dead_bits, 256, '0')::bit(256)
    FROM (SELECT job, idx / 256 AS block,
                 count(*) FILTER (WHERE state = 'waiting') AS waiting,
                 count(*) FILTER (WHERE state = 'ready') AS ready,
                 count(*) FILTER (WHERE state = 'dispatched') AS dispatched,
                 count(*) FILTER (WHERE state = 'done') AS done,
                 count(*) FILTER (WHERE state = 'dead') AS dead,
                 string_agg((state = 'waiting')::int::text, '' ORDER BY idx) AS waiting_bits,
                 string_agg((state = 'ready')::int::text, '' ORDER BY idx) AS ready_bits,
                 string_agg((state = 'dispatched')::int::text, '' ORDER BY idx) AS dispatched_bits,
                 string_agg((state = 'done')::int::text, '' ORDER BY idx) AS done_bits,
                 string_agg((state = 'dead')::int::text, '' ORDER BY idx) AS dead_bits
          FROM images GROUP BY 1, 2) AS r
    WHERE b.job = r.job AND b.block = r.block";

/// Adds changes of a thousand images each, everywhere in the job, that have changed again since.
fn stale() -> String {
    format!(
        "INSERT INTO image_changes (job, version, first, last, images)
         SELECT j.seq, v.version, min(c.idx), max(c.idx), array_agg(c.idx ORDER BY c.idx)
         FROM (SELECT job AS seq, max(images) AS images FROM job_progress GROUP BY job) AS j
         CROSS JOIN generate_series(3, {CURRENT} - 1) AS v (version)
         CROSS JOIN LATERAL (SELECT DISTINCT ((v.version * 1000 + n) * 7919) % j.images AS idx
                             FROM generate_series(0, 999) AS n (n)) AS c
         GROUP BY j.seq, v.version"
    )
}

/// Where the pages of a kind begin.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// Anywhere in the job.
    Index,
    /// After any version whose changes are current.
    Version,
    /// After a version that is followed by twenty thousand stale changes or more.
    Stale,
}

impl Start {
    /// The start of page number `place` of `rounds`.
    fn order(self, place: u64, rounds: u64, images: u64, last: u64) -> ImageOrder {
        match self {
            Self::Index => ImageOrder::Index(Some(place * images / rounds)),
            Self::Version => {
                ImageOrder::Version(CURRENT + place * (last - 1 - CURRENT) / rounds, None)
            }
            Self::Stale => ImageOrder::Version(2 + place * (STALE / 2) / rounds, None),
        }
    }
}

/// Prints how long each kind of page takes.
async fn time(
    database: &str,
    store: &dyn Store,
    job: JobId,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let versions = store.job(job).await?.version;
    let label =
        |value: &str| PromptFilter::new(BTreeMap::from([("set".to_owned(), value.to_owned())]), "");
    let text = |text: &str| PromptFilter::new(BTreeMap::new(), text);
    let all = PromptFilter::default;
    let every = vec![S::Waiting, S::Ready, S::Dispatched, S::Done, S::Dead, S::Cancelled];
    let kinds = [
        ("from an index", vec![], all(), Start::Index),
        ("done", vec![S::Done], all(), Start::Index),
        ("dead, one in a thousand", vec![S::Dead], all(), Start::Index),
        ("cancelled, of which there are none", vec![S::Cancelled], all(), Start::Index),
        ("dead or dispatched", vec![S::Dead, S::Dispatched], all(), Start::Index),
        ("all six states", every, all(), Start::Index),
        ("changed since a version", vec![], all(), Start::Version),
        ("changed since, cancelled", vec![S::Cancelled], all(), Start::Version),
        ("changed since, stale at first", vec![], all(), Start::Stale),
        ("with a label, one in twenty", vec![], label("7")?, Start::Index),
        ("dead with a label", vec![S::Dead], label("0")?, Start::Index),
        ("with a text that none has", vec![], text("nowhere")?, Start::Index),
    ];
    for (name, states, filter, start) in kinds {
        let mut times = Vec::new();
        for round in 0..arguments.rounds {
            // A stride that is prime to most sizes, so that the pages are everywhere.
            let place = round * 7919 % arguments.rounds;
            let order = start.order(place, arguments.rounds, arguments.images, versions);
            let query = ImageQuery {
                states: states.clone(),
                filter: filter.clone(),
                ..ImageQuery::all(job, order, PAGE)
            };
            let asked = Instant::now();
            store.images(&query).await?;
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        let at = |share: usize| ms(times[(times.len() * share / 100).min(times.len() - 1)]);
        println!("| {database} | {name} | {:.2} | {:.2} |", at(50), at(99));
    }
    let asked = Instant::now();
    let codes = store.failures(job).await?.counts.len();
    println!("| {database} | failures by code ({codes}) | {:.2} | |", ms(asked.elapsed()));
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
