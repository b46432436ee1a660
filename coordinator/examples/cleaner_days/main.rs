//! Whether the cleaner keeps up, and whether record and storage stay as large as they are, when so
//! many jobs of ten images end each day, on both databases.
//!
//! The rows are copies of one job that the store made itself: two stages, a text of its own, a text
//! that all jobs of the day share, and a negative text of all jobs. One job in ten has outputs that
//! other jobs of the day name too. The clock is moved through the days; an object store counts
//! objects and holds equal contents once. At the end of each day every object that a row names must
//! be there.
//!
//! `cargo run --release --example cleaner_days -- [--days 40] [--jobs 100000] [--rounds 24]
//! [--sqlite | --url postgres://…]`

#![expect(clippy::print_stdout, reason = "an internal tool; nobody closes its output early")]

mod bucket;
mod rows;

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use darkroom_artifacts::{ArtifactStore, tensor::FloatTensor};
use darkroom_coordinator::{
    Coordinator, Handle,
    store::{
        Store,
        keys::TenantChange,
        postgres::{Options, PostgresStore},
        sqlite::SqliteStore,
    },
};
use darkroom_core::{
    artifact::ArtifactRef,
    cascade::Cascade,
    digest::Digest,
    job_state::JobState,
    retention::{Policy, Scope, Subject},
};
use darkroom_queue::{memory::MemoryQueue, task::Outcome};
use darkroom_suites::{
    cascade,
    store::{Bench, Fresh, STAGES},
};
use darkroom_test_servers::postgres::Postgres;
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use bucket::{Bucket, Counts};
use rows::{Batch, Names, Record, TENANT, Template};

type Failure = Box<dyn Error + Send + Sync>;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long new rows wait for the cleaner's transaction.
const BUSY: Duration = Duration::from_secs(60);
const IMAGES: u32 = 10;
/// One picture in so many has a preview.
const PREVIEWED: usize = 10;

#[derive(Clone, Debug)]
struct Arguments {
    days: i64,
    jobs: i64,
    /// How often the cleaner runs each day.
    rounds: i64,
    sqlite: bool,
    postgres: bool,
    url: Option<String>,
    /// How long jobs, intermediates and embeddings are kept.
    keep: [Duration; 3],
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut arguments = Self {
            days: 40,
            jobs: 100_000,
            rounds: 24,
            sqlite: true,
            postgres: true,
            url: None,
            keep: [3 * DAY, DAY, 7 * DAY],
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--days" => arguments.days = value()?.parse()?,
                "--jobs" => arguments.jobs = value()?.parse()?,
                "--rounds" => arguments.rounds = value()?.parse()?,
                "--sqlite" => arguments.postgres = false,
                "--url" => (arguments.sqlite, arguments.url) = (false, Some(value()?)),
                _ => return Err(format!("unknown argument {word}").into()),
            }
        }
        Ok(arguments)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores; {} jobs a day, {IMAGES} images each\n", arguments.jobs);
    if arguments.sqlite {
        let folder = tempfile::tempdir()?;
        sqlite(folder.path(), &arguments).await?;
    }
    if arguments.postgres {
        let server = arguments.url.is_none().then(Postgres::start);
        let url = match (&arguments.url, &server) {
            (Some(url), _) => url.clone(),
            (None, Some(server)) => server.create_database(),
            (None, None) => return Err("no server".into()),
        };
        postgres(&url, &arguments).await?;
    }
    Ok(())
}

async fn sqlite(folder: &Path, arguments: &Arguments) -> Result<Vec<Day>, Failure> {
    let path = folder.join("farm.sqlite");
    let store = Arc::new(SqliteStore::open(&path).await?);
    let options = SqliteConnectOptions::new().filename(&path).busy_timeout(BUSY);
    let record = Record::Sqlite(SqliteConnection::connect_with(&options).await?, path);
    println!("SQLite:\n");
    days(store, record, arguments).await
}

async fn postgres(url: &str, arguments: &Arguments) -> Result<Vec<Day>, Failure> {
    let store = Arc::new(PostgresStore::connect(url, Options::default()).await?);
    let record = Record::Postgres(PgConnection::connect(url).await?);
    println!("\nPostgres:\n");
    days(store, record, arguments).await
}

/// The result of a day.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the benchmark prints it as it goes on"))]
struct Day {
    removed: u64,
    objects: u64,
    /// Rows of each table.
    rows: BTreeMap<String, i64>,
}

/// A farm whose jobs are copies.
struct Farm {
    handle: Handle,
    record: Record,
    template: Template,
    names: Names,
    contents: Contents,
    bucket: Bucket,
    /// The number of the next job.
    next: i64,
    /// The record's clock when the first day begins, milliseconds.
    began_ms: i64,
}

/// What the objects have in them.
struct Contents {
    intermediate: Bytes,
    other: Bytes,
}

async fn days(
    store: Arc<dyn Store>,
    record: Record,
    arguments: &Arguments,
) -> Result<Vec<Day>, Failure> {
    let mut farm = Farm::start(store, record, arguments).await?;
    println!(
        "| day | jobs made | removed | outputs removed | objects | calls of storage | record, MiB | its log, MiB | cleaner, s | longest run, s | it keeps up with |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut all = Vec::new();
    for day in 0..arguments.days {
        all.push(farm.day(day, arguments).await?);
    }
    farm.handle.shutdown().await;
    Ok(all)
}

impl Farm {
    async fn start(
        store: Arc<dyn Store>,
        mut record: Record,
        arguments: &Arguments,
    ) -> Result<Self, Failure> {
        let tensor = FloatTensor { shape: vec![3, 8, 8], data: vec![0.25; 3 * 64] };
        let contents = Contents {
            intermediate: Bytes::from(tensor.to_bytes(&BTreeMap::new())?),
            other: Bytes::from_static(b"a picture, or something else that nobody reads"),
        };
        let named = |content: &Bytes, extension: &str| {
            format!("{}.{extension}", Digest::of(content.as_ref()))
        };
        let names = Names {
            intermediate: named(&contents.intermediate, "safetensors"),
            picture: named(&contents.other, "png"),
            embedding: named(&contents.other, "safetensors"),
            manifest: named(&contents.other, "jsonl"),
        };
        let bucket = Bucket::default();
        let cascade = template(&store, &contents, &bucket).await?;
        let keep = arguments.keep;
        store.set_tenant(TENANT, &TenantChange::default()).await?;
        for (tenant, subject, outcome, keep) in [
            ("", Subject::Jobs, Some(JobState::Done), Some(keep[0])),
            ("", Subject::Intermediates, Some(JobState::Done), Some(keep[1])),
            ("", Subject::Embeddings, None, Some(keep[2])),
            // The job that is copied stays.
            ("t", Subject::Jobs, Some(JobState::Done), None),
            ("t", Subject::Intermediates, Some(JobState::Done), None),
        ] {
            let scope = Scope { tenant: tenant.to_owned(), subject, outcome };
            store.set_retention(&Policy { scope, keep }).await?;
        }
        let template = record.template().await?;
        let began_ms = store.clock_ms().await?;
        let handle = Coordinator::start(
            darkroom_coordinator::Options::default(),
            store,
            Arc::new(MemoryQueue::default()),
            ArtifactStore::over(Arc::new(bucket.clone())),
            vec![cascade],
        )
        .await?;
        let farm = Self { handle, record, template, names, contents, bucket, next: 1, began_ms };
        Ok(farm)
    }

    /// Makes a day's jobs, with the cleaner in between, and prints what came of it.
    async fn day(&mut self, day: i64, arguments: &Arguments) -> Result<Day, Failure> {
        let before = self.bucket.counts();
        let (mut cleaner, mut longest) = (Duration::ZERO, Duration::ZERO);
        let (mut removed, mut outputs) = (0, 0);
        let round = DAY / u32::try_from(arguments.rounds)?;
        let first = self.next;
        for number in 0..arguments.rounds {
            let since = DAY * u32::try_from(day)? + round * u32::try_from(number)?;
            // The rest of a division goes to the last rounds.
            let jobs = arguments.jobs * (number + 1) / arguments.rounds
                - arguments.jobs * number / arguments.rounds;
            self.make(day, jobs, (since, round)).await?;
            let asked = Instant::now();
            let cleaned = self.handle.clean(since + round).await?;
            let took = asked.elapsed();
            (cleaner, longest) = (cleaner + took, longest.max(took));
            removed += cleaned.jobs;
            outputs += cleaned.outputs;
            if cleaned.failed > 0 {
                return Err("the bucket failed".into());
            }
        }
        self.check().await?;
        self.record.tidy().await?;
        let made = self.next - first;
        let counts = self.bucket.counts();
        let (bytes, log) = self.record.bytes().await?;
        let seconds = cleaner.as_secs_f64();
        println!(
            "| {} | {made} | {removed} | {outputs} | {} | {} | {:.1} | {:.1} | {seconds:.2} | {:.2} | {:.0} times as many |",
            day + 1,
            counts.live,
            calls(&before, &counts),
            mib(bytes),
            mib(log),
            longest.as_secs_f64(),
            DAY.as_secs_f64() / seconds,
        );
        let rows = self.record.rows().await?.into_iter().collect();
        Ok(Day { removed, objects: counts.live, rows })
    }

    /// Makes jobs that end within a time of the clock that is moved, and their objects.
    async fn make(
        &mut self,
        day: i64,
        jobs: i64,
        (since, within): (Duration, Duration),
    ) -> Result<(), Failure> {
        let at_ms = self.began_ms + i64::try_from(since.as_millis())?;
        let within_ms = i64::try_from(within.as_millis())?;
        let batch = Batch { first: self.next, jobs, day, at_ms, within_ms };
        self.next += jobs;
        self.record.make(&self.template, &batch, &self.names).await?;
        let record = &mut self.record;
        let keys =
            record.column("SELECT key FROM outputs WHERE job IN (SELECT seq FROM copies)").await?;
        let mut pictures = 0;
        for key in &keys {
            let is_picture = key.ends_with("png");
            let Contents { intermediate, other } = &self.contents;
            self.bucket.add(key, if is_picture { other } else { intermediate });
            pictures += usize::from(is_picture);
            if is_picture && pictures % PREVIEWED == 0 {
                let preview = format!("previews/3/{key}/64/{}", self.names.picture);
                self.bucket.add(&preview, other);
            }
        }
        let rest = record
            .column(
                "SELECT manifest_key FROM jobs WHERE seq IN (SELECT seq FROM copies)
                 UNION ALL
                 SELECT key FROM embeddings WHERE id IN (SELECT own FROM copies UNION SELECT shared FROM copies)",
            )
            .await?;
        for key in rest {
            self.bucket.add(&key, &self.contents.other);
        }
        Ok(())
    }
}

impl Farm {
    /// Every object that a row names must be there.
    async fn check(&mut self) -> Result<(), Failure> {
        for named in [
            "SELECT DISTINCT key FROM outputs WHERE removed_ms IS NULL AND job IN (SELECT seq FROM jobs WHERE deleted_ms IS NULL)",
            "SELECT manifest_key FROM jobs WHERE deleted_ms IS NULL AND manifest_key IS NOT NULL",
            "SELECT key FROM embeddings WHERE key LIKE 'embeddings/%'",
        ] {
            let bucket = &self.bucket;
            let mut gone = None;
            let look = |key: String| {
                if !bucket.has(&key) {
                    gone = Some(key);
                }
            };
            self.record.each(named, look).await?;
            if let Some(key) = gone {
                return Err(format!("a row names {key}, which is gone").into());
            }
        }
        Ok(())
    }
}

fn calls(before: &Counts, after: &Counts) -> u64 {
    let all = |counts: &Counts| counts.puts + counts.gets + counts.lists + counts.deletes;
    all(after) - all(before)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Makes the job that is copied: it ends as jobs do. Then nobody leads.
async fn template(
    store: &Arc<dyn Store>,
    contents: &Contents,
    bucket: &Bucket,
) -> Result<Cascade, Failure> {
    let cascade = cascade::without_files(STAGES.len());
    let bench = Bench::new(Fresh::one(Arc::clone(store), ())).await;
    let job = bench.submit(&["a text of its own", "a text of the day"], IMAGES / 2).await;
    bench.encode(job).await;
    for (stage, content) in STAGES.into_iter().zip([&contents.intermediate, &contents.other]) {
        for task in bench.dispatch(stage, job, u64::from(IMAGES)).await {
            let sha256 = Digest::of(content.as_ref());
            let key = format!("tasks/{stage}/of-the-template");
            bucket.add(&key, content);
            let artifact = ArtifactRef { key, sha256, size: content.len() as u64 };
            bench.commit(stage, task.key, Outcome::Done { artifact, notes: Vec::new() }).await;
        }
    }
    bench.audit(job).await;
    store.resign("bench").await?;
    Ok(cascade)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of them names outputs of others, so that all days are alike.
    const JOBS: i64 = rows::REUSING;

    /// Days that are few, and terms that are short.
    fn small() -> Arguments {
        Arguments {
            days: 8,
            jobs: JOBS,
            rounds: 3,
            sqlite: true,
            postgres: true,
            url: None,
            keep: [DAY, DAY * 3 / 4, DAY],
        }
    }

    /// Jobs go after a day, their objects' last rows two days later, and their texts' a day after
    /// the jobs. From the sixth day on as much goes as comes.
    fn check(days: &[Day]) {
        let [.., before, last] = days else { panic!("too few days") };
        let jobs = JOBS.unsigned_abs();
        assert_eq!((before.removed, last.removed), (jobs, jobs), "{days:?}");
        assert_eq!(before.objects, last.objects, "{days:?}");
        let others = |day: &Day| {
            let mut rows = day.rows.clone();
            // The first two stay for a month or longer. The others go by the minute of the farm's
            // own clock.
            for table in ["deleted_jobs", "deleted_usage", "history", "usage_log"] {
                rows.remove(table);
            }
            rows
        };
        assert_eq!(others(before), others(last), "{days:?}");
    }

    #[tokio::test]
    async fn what_sqlite_and_the_bucket_hold_stays_the_same_from_day_to_day() {
        let folder = tempfile::tempdir().expect("a folder");
        check(&sqlite(folder.path(), &small()).await.expect("eight days"));
    }

    #[tokio::test]
    async fn what_postgres_and_the_bucket_hold_stays_the_same_from_day_to_day() {
        let server = Postgres::shared();
        check(&postgres(&server.create_database(), &small()).await.expect("eight days"));
    }
}
