//! One run: jobs under faults, then the same jobs on a calm farm to compare with.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context, Result};
use darkroom_proto::v1;
use darkroom_test_servers::s3::{
    self,
    faults::{Rule, Which},
};
use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    cluster::{Cluster, Setup},
    load::{Client, Mood, Order},
    plan::{Fault, Party, Plan, Step, StorageFault},
    recovery::Recoveries,
    verdict::{self, Verdict},
};

/// Longest time without any progress after a fault was healed.
const STUCK: Duration = Duration::from_secs(60);
/// Longest time that looking at everything may take.
const JUDGING: Duration = Duration::from_secs(300);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides faults, moods and pauses.
    pub seed: u64,
    /// Jobs of a round; another round begins when all have ended before the last fault.
    pub jobs: u32,
    /// Images of each.
    pub images: u32,
    /// Faults to choose from; all if empty.
    pub faults: Vec<Fault>,
    /// Most faults.
    pub most_faults: usize,
    /// Longest pause between two faults.
    pub pause: Duration,
    /// Longest time for the jobs to end, faults included.
    pub limit: Duration,
    /// The farm.
    pub setup: Setup,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Faults injected, by name: how often, and the slowest recovery.
    pub faults: BTreeMap<String, (u32, Duration)>,
    /// Times to the next progress after a fault.
    pub recoveries: Recoveries,
    /// The comparison with what should be.
    pub verdict: Verdict,
    /// Seconds that the jobs took, faults included.
    pub seconds: f64,
}

impl Report {
    /// Faults injected in all.
    #[must_use]
    pub fn injected(&self) -> usize {
        self.faults.values().map(|(count, _)| *count as usize).sum()
    }

    /// The report as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::from("| fault | injected | slowest recovery |\n| --- | --- | --- |\n");
        for (name, (count, slowest)) in &self.faults {
            let _ = writeln!(text, "| {name} | {count} | {:.1} s |", slowest.as_secs_f64());
        }
        let verdict = &self.verdict;
        let seconds = |time: Option<Duration>| {
            time.map_or_else(|| "-".to_owned(), |t| format!("{:.1} s", t.as_secs_f64()))
        };
        let _ = write!(
            text,
            "\n| | |\n| --- | --- |\n| jobs | {} |\n| images accepted | {} |\n| done | {} |\n| dead (planted) | {} |\n\
             | cancelled | {} |\n| lost | {} |\n| doubled | {} |\n| other bytes | {} |\n| faults | {} |\n\
             | recovery p50 | {} |\n| recovery p99 | {} |\n| time | {:.0} s |\n",
            verdict.jobs,
            verdict.images,
            verdict.done,
            verdict.dead,
            verdict.cancelled,
            verdict.lost,
            verdict.doubled,
            verdict.other_bytes,
            self.injected(),
            seconds(self.recoveries.quantile(0.5)),
            seconds(self.recoveries.quantile(0.99)),
            self.seconds,
        );
        for problem in &verdict.problems {
            let _ = writeln!(text, "WRONG: {problem}");
        }
        text
    }
}

/// Runs jobs under faults, as many rounds of them as the faults last; then the same jobs calmly, and compares.
///
/// # Errors
/// When the farm could not be run or asked at all; what it did wrong is in the report's verdict.
pub async fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut cluster = Cluster::start(options.setup.clone())?;
    let begun = Instant::now();
    let client = Client::new(&cluster.coordinators(), begun + options.limit)?;
    let mut load = Load {
        client: client.clone(),
        options,
        orders: Vec::new(),
        lives: JoinSet::new(),
        ended: BTreeMap::new(),
    };
    let mut rng = Rng::with_seed(options.seed.rotate_left(17));
    let mut stuck = Vec::new();
    for Step { pause, fault } in
        Plan::new(options.seed, &options.faults, options.pause).take(options.most_faults)
    {
        if begun.elapsed() > options.limit {
            stuck.push(format!(
                "only {} of {} faults came within the limit",
                report.injected(),
                options.most_faults
            ));
            break;
        }
        load.keep_up();
        rest(&mut cluster, pause).await?;
        inject(&mut cluster, fault, &options.setup, &mut rng).await?;
        let healed = Instant::now();
        let before = progress(&client).await;
        let mut now = before;
        while now == before && healed.elapsed() < STUCK {
            load.keep_up();
            cluster.tend()?;
            sleep(Duration::from_millis(50)).await;
            now = progress(&client).await.or(before);
        }
        let time = healed.elapsed();
        if now == before {
            stuck.push(format!("no progress within {time:?} after {}", fault.name()));
        }
        report.recoveries.add(time);
        let told = report.faults.entry(fault.name()).or_default();
        *told = (told.0 + 1, told.1.max(time));
    }
    while !load.is_over() {
        cluster.tend()?;
        sleep(Duration::from_millis(200)).await;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    let (orders, ended) = (load.orders, load.ended);
    let expected = calm(options, &orders).await.context("the calm run")?;
    // What hung has used up the other client's time.
    let client = Client::new(&cluster.coordinators(), Instant::now() + JUDGING)?;
    let judged = verdict::judge(&cluster, &client, &orders, ended, &expected).await;
    report.verdict = judged.inspect_err(|_| eprintln!("{}", cluster.logs(40)))?;
    report.verdict.problems.extend(stuck);
    if !report.verdict.problems.is_empty() {
        eprintln!("{}", cluster.logs(40));
    }
    Ok(report)
}

/// The jobs that run meanwhile.
struct Load<'a> {
    client: Client,
    options: &'a Options,
    orders: Vec<Order>,
    lives: JoinSet<(String, Result<v1::Job>)>,
    ended: BTreeMap<String, Result<v1::Job>>,
}

impl Load<'_> {
    /// Starts another round of jobs when all have ended, so that no fault meets an idle farm.
    fn keep_up(&mut self) {
        if self.is_over() {
            let round = orders(self.options, self.orders.len() as u32);
            for (number, order) in (self.orders.len() as u64..).zip(round) {
                let (client, rng) = (self.client.clone(), Rng::with_seed(self.options.seed ^ (number + 1)));
                self.orders.push(order.clone());
                self.lives.spawn(async move { (order.request_id.clone(), client.live(&order, rng).await) });
            }
        }
    }

    /// Whether every job has ended, or been given up.
    fn is_over(&mut self) -> bool {
        while let Some(life) = self.lives.try_join_next() {
            let (id, job) = life.expect("a client does not panic");
            self.ended.insert(id, job);
        }
        self.lives.is_empty()
    }
}

/// A round of jobs of every mood, in turn, of two tenants; numbered on from `first`.
fn orders(options: &Options, first: u32) -> Vec<Order> {
    let moods = [Mood::Steady, Mood::Wavering, Mood::Repenting, Mood::Poisoned, Mood::Cancelled];
    let order = |number: u32| Order {
        request_id: format!("job {number}"),
        tenant: format!("tenant {}", number % 2),
        prompts: (options.images / 4).max(1),
        images_per_prompt: 4,
        seed: u64::from(number) * 1_000_000,
        mood: moods[number as usize % moods.len()],
    };
    (first..first + options.jobs).map(order).collect()
}

/// The bytes that every image should have, by prompt and seed: from a farm where nothing happens.
async fn calm(options: &Options, orders: &[Order]) -> Result<verdict::Expected> {
    let setup = Setup { step_ms: 0.0, ..options.setup.clone() };
    let cluster = Cluster::start(setup)?;
    let client = Client::new(&cluster.coordinators(), Instant::now() + options.limit)?;
    let mut expected = verdict::Expected::new();
    for order in orders {
        // Nothing is planted here.
        let mut request = order.request();
        request.prompts.retain(|prompt| prompt.seed != Some(crate::load::POISON));
        let job = client.call("submit", |mut farm| {
            let request = request.clone();
            async move { farm.submit_job(request).await }
        });
        let id = job.await?.job.context("a job")?.id;
        client.ended(&id).await.inspect_err(|_| eprintln!("{}", cluster.logs(40)))?;
        for image in client.images(&id).await?.into_values() {
            expected.insert((image.prompt, image.seed), image.sha256);
        }
    }
    Ok(expected)
}

/// Lets time pass, and starts again what ended meanwhile.
async fn rest(cluster: &mut Cluster, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        cluster.tend()?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Everything that every job has passed so far, which changes with each commit; `None` when the farm does not say.
async fn progress(client: &Client) -> Option<u64> {
    let listed = client.call("list jobs", |mut farm| async move {
        farm.list_jobs(v1::ListJobsRequest { page_size: 1000, ..v1::ListJobsRequest::default() }).await
    });
    let passed = |job: &v1::Job| job.stages.iter().map(|stage| stage.done).sum::<u64>() + job.images_done;
    Some(listed.await.ok()?.jobs.iter().map(passed).sum())
}

/// Injects one fault and ends it.
async fn inject(cluster: &mut Cluster, fault: Fault, setup: &Setup, rng: &mut Rng) -> Result<()> {
    let past_the_lease = setup.lease + Duration::from_secs(1);
    match fault {
        Fault::Kill(party) => cluster.kill(party, rng.usize(0..cluster.count(party)))?,
        Fault::Freeze(party) => {
            freeze(cluster, party, rng.usize(0..cluster.count(party)), past_the_lease).await;
        }
        Fault::FreezeLeader => {
            let leader = cluster.leader().await?;
            freeze(cluster, Party::Coordinators, leader, Duration::from_secs(10)).await;
        }
        Fault::TermStorm => {
            for _ in 0..3 {
                for party in [Party::Workers, Party::Encoders] {
                    for number in 0..cluster.count(party) {
                        cluster.signal(party, number, Signal::SIGTERM);
                    }
                }
                sleep(Duration::from_millis(300)).await;
                cluster.tend()?;
            }
        }
        Fault::FlushRedis => cluster.redis.flush(),
        Fault::KillRedis => {
            cluster.redis.kill();
            sleep(Duration::from_millis(rng.u64(0..3000))).await;
            cluster.redis.restart();
        }
        Fault::OldRedis => {
            let snapshot = cluster.redis.snapshot();
            sleep(Duration::from_secs(3)).await;
            cluster.redis.restart_from_snapshot(&snapshot);
        }
        Fault::KillPostgres => {
            cluster.postgres.kill();
            sleep(Duration::from_millis(rng.u64(0..3000))).await;
            cluster.postgres.restart();
        }
        Fault::Storage(fault) => {
            let rule = match fault {
                StorageFault::Errors => Rule::always(s3::faults::Fault::Status(503)),
                StorageFault::Silence => Rule::always(s3::faults::Fault::Silence),
                StorageFault::ShortBodies => Rule::always(s3::faults::Fault::CutBody).on(Which::Reads),
                StorageFault::Full => Rule::always(s3::faults::Fault::Status(507)).on(Which::Writes),
            };
            cluster.storage.faults().set([rule]);
            sleep(Duration::from_millis(rng.u64(1000..4000))).await;
            cluster.storage.faults().clear();
        }
        Fault::Cut(party, server) => {
            cluster.proxy(party, server).cut();
            sleep(Duration::from_millis(rng.u64(500..6000))).await;
            cluster.proxy(party, server).heal();
        }
        Fault::Stall(party, server) => {
            cluster.proxy(party, server).stall();
            sleep(Duration::from_millis(rng.u64(500..6000))).await;
            cluster.proxy(party, server).heal();
        }
    }
    Ok(())
}

async fn freeze(cluster: &mut Cluster, party: Party, number: usize, time: Duration) {
    cluster.signal(party, number, Signal::SIGSTOP);
    sleep(time).await;
    cluster.signal(party, number, Signal::SIGCONT);
}
