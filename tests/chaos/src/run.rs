//! One run: jobs under faults, then the same jobs on a calm farm to compare with.

#![expect(clippy::print_stderr, reason = "an internal tool; nobody closes its output early")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use darkroom_proto::v1;
use darkroom_test_servers::{
    proxy::Proxy,
    s3::{
        self,
        faults::{Rule, Which},
    },
};
use fastrand::Rng;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Setup},
    load::{Client, Order},
    options::Options,
    past::Past,
    plan::{Fault, Party, Plan, Server, Step, Storage, StorageFault},
    recovery::Recoveries,
    rounds::Rounds,
    verdict::{self, Verdict},
};

/// Longest time without any progress after a fault was healed.
const STUCK: Duration = Duration::from_secs(60);
/// Longest time from a leader's death, stop or isolation to another one that leads.
const TAKEOVER: Duration = Duration::from_secs(10);
/// Longest time of the final comparison.
const JUDGING: Duration = Duration::from_secs(300);

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Faults injected, by name: how often, and the slowest recovery.
    pub faults: BTreeMap<String, (u32, Duration)>,
    /// Times to the next progress after a fault.
    pub recoveries: Recoveries,
    /// Times from a fault of the leader to another one that leads.
    pub takeovers: Recoveries,
    /// Number of processes whose clocks were an hour ahead, and an hour behind.
    pub clocks: (usize, usize),
    /// Submits whose reply was lost: in one message, streamed, and those of both kinds that the
    /// farm had accepted.
    pub lost_replies: (u64, u64, u64),
    /// Age of each snapshot that Redis was set back to.
    pub snapshot_ages: Vec<Duration>,
    /// Faults that came while a real job was active; `None` without real workers.
    pub while_rendering: Option<usize>,
    /// Faults that this machine cannot have, with the reason.
    pub skipped: Vec<String>,
    /// The comparison with the expected results.
    pub verdict: Verdict,
    /// Seconds that the jobs took, faults included.
    pub seconds: f64,
}

impl Report {
    /// Total number of injected faults.
    #[must_use]
    pub fn injected(&self) -> usize {
        self.faults.values().map(|(count, _)| *count as usize).sum()
    }

    /// The report as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text =
            String::from("| fault | injected | slowest recovery |\n| --- | --- | --- |\n");
        for (name, (count, slowest)) in &self.faults {
            let ages = if *name == Fault::OldRedis.name() { self.ages() } else { String::new() };
            let _ = writeln!(text, "| {name}{ages} | {count} | {:.1} s |", slowest.as_secs_f64());
        }
        let verdict = &self.verdict;
        let seconds = |time: Option<Duration>| {
            time.map_or_else(|| "-".to_owned(), |t| format!("{:.1} s", t.as_secs_f64()))
        };
        let _ = write!(
            text,
            "\n| | |\n| --- | --- |\n| jobs | {} |\n| images accepted | {} |\n| done | {} |\n| dead (planted) | {} |\n\
             | cancelled | {} |\n| jobs deleted | {} |\n| their pictures removed | {} |\n\
             | stored after they were removed | {} |\n| lost | {} |\n| doubled | {} |\n| other bytes | {} |\n| faults | {} |\n\
             | faults while a real job was active | {} |\n\
             | submit replies lost, unary / streamed / of accepted jobs | {} / {} / {} |\n\
             | clocks an hour ahead / behind | {} / {} |\n\
             | recovery p50 | {} |\n| recovery p99 | {} |\n\
             | takeover p50 / p99 / max of {} | {} / {} / {} |\n| time | {:.0} s |\n",
            verdict.jobs,
            verdict.images,
            verdict.done,
            verdict.dead,
            verdict.cancelled,
            verdict.deleted,
            verdict.removed,
            verdict.stored_late,
            verdict.lost,
            verdict.doubled,
            verdict.other_bytes,
            self.injected(),
            self.while_rendering.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            self.lost_replies.0,
            self.lost_replies.1,
            self.lost_replies.2,
            self.clocks.0,
            self.clocks.1,
            seconds(self.recoveries.quantile(0.5)),
            seconds(self.recoveries.quantile(0.99)),
            self.takeovers.count(),
            seconds(self.takeovers.quantile(0.5)),
            seconds(self.takeovers.quantile(0.99)),
            seconds(self.takeovers.quantile(1.0)),
            self.seconds,
        );
        for skipped in &self.skipped {
            let _ = writeln!(text, "skipped: {skipped}");
        }
        for problem in &verdict.problems {
            let _ = writeln!(text, "WRONG: {problem}");
        }
        text
    }

    /// The ages of the snapshots, in brackets.
    fn ages(&self) -> String {
        let ages: Vec<_> =
            self.snapshot_ages.iter().map(|age| format!("{:.0} s", age.as_secs_f64())).collect();
        format!(" ({} old)", ages.join(", "))
    }
}

/// Runs rounds of jobs until the last fault, then the same jobs without faults, and compares.
///
/// # Errors
/// When the farm could not be run or asked at all. Wrong results are in the report's verdict.
pub async fn run(options: &Options) -> Result<Report> {
    let mut report = Report::default();
    let mut cluster = Cluster::start(options.setup.clone())?;
    // A coordinator that cannot reach its servers at its start ends with a message, as intended. So
    // faults begin only when the farm runs.
    cluster.leader().await.context("at the start")?;
    let begun = Instant::now();
    let client = Client::new(cluster.ports(), begun + options.limit)?;
    let faults: Vec<Fault> =
        options.faults.iter().copied().filter(|fault| can(&cluster, *fault)).collect();
    report.clocks = cluster.wrong_clocks();
    report.skipped = skipped(&cluster, options);
    report.while_rendering = options.setup.real.as_ref().map(|_| 0);
    let mut rounds = Rounds::new(client.clone(), options);
    let mut past = Past::default();
    let mut rng = Rng::with_seed(options.seed.rotate_left(17));
    let mut stuck = Vec::new();
    for Step { pause, fault } in
        Plan::new(options.seed, &faults, options.pause).take(options.most_faults)
    {
        if begun.elapsed() > options.limit {
            stuck.push(format!(
                "only {} of {} faults came within the limit",
                report.injected(),
                options.most_faults
            ));
            break;
        }
        rounds.keep_up();
        rounds.keep_rendering();
        rest(&mut cluster, &mut past, pause).await?;
        if let (Some(count), Some(real)) = (&mut report.while_rendering, &options.setup.real) {
            *count += usize::from(renders(&client, &real.name).await);
        }
        let outcome = inject(&mut cluster, fault, &options.setup, &mut past, &mut rng).await?;
        report.snapshot_ages.extend(outcome.snapshot_age);
        if let Some(takeover) = outcome.takeover {
            report.takeovers.add(takeover);
            if takeover > TAKEOVER {
                eprintln!("{}", cluster.logs(40));
                stuck.push(format!("nobody else led within {TAKEOVER:?} after {}", fault.name()));
            }
        }
        let healed = Instant::now();
        let mut before = progress(&client).await;
        let mut has_passed = false;
        while !has_passed && healed.elapsed() < STUCK {
            rounds.keep_up();
            cluster.tend()?;
            past.keep_up(&cluster);
            sleep(Duration::from_millis(50)).await;
            let now = progress(&client).await;
            // The first answer is the starting point, not progress.
            has_passed = now.zip(before).is_some_and(|(now, before)| now != before);
            before = before.or(now);
        }
        let time = healed.elapsed();
        if !has_passed {
            stuck.push(format!("no progress within {time:?} after {}", fault.name()));
        }
        report.recoveries.add(time);
        let told = report.faults.entry(fault.name()).or_default();
        *told = (told.0 + 1, told.1.max(time));
    }
    while !rounds.is_over() {
        cluster.tend()?;
        sleep(Duration::from_millis(200)).await;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    let lost = client.lost();
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    report.lost_replies = (count(&lost.unary), count(&lost.streamed), count(&lost.accepted));
    let (orders, ended) = rounds.into_parts();
    let deleted = client.deleted();
    let expected = calm(options, &orders).await.context("the calm run")?;
    // A hung farm has used up the other client's time.
    let client = Client::new(cluster.ports(), Instant::now() + JUDGING)?;
    let judged = verdict::judge(&cluster, &client, &orders, ended, &deleted, &expected).await;
    report.verdict = judged.inspect_err(|_| eprintln!("{}", cluster.logs(40)))?;
    report.verdict.problems.extend(stuck);
    if !report.verdict.problems.is_empty() {
        eprintln!("{}", cluster.logs(40));
    }
    Ok(report)
}

/// Whether this farm on this machine can have the fault.
fn can(cluster: &Cluster, fault: Fault) -> bool {
    fault != Fault::FullDisk || cluster.disk().is_some()
}

fn skipped(cluster: &Cluster, options: &Options) -> Vec<String> {
    let mut skipped = Vec::new();
    if options.setup.storage == Storage::Folder {
        if cluster.disk().is_none() && options.faults.contains(&Fault::FullDisk) {
            skipped.push("a full disk: only root may mount a small disk".to_owned());
        }
        if cluster.wrong_clocks() == (0, 0) {
            skipped.push("wrong clocks: Debian's package faketime is not installed".to_owned());
        }
    }
    skipped
}

/// The expected bytes of every image, by prompt and seed, from a farm without faults.
async fn calm(options: &Options, orders: &[Order]) -> Result<verdict::Expected> {
    let setup = Setup { step_ms: 0.0, ..options.setup.clone() };
    let cluster = Cluster::start(setup)?;
    let client = Client::new(cluster.ports(), Instant::now() + options.limit)?;
    let mut expected = verdict::Expected::new();
    for order in orders {
        // No poison here.
        let mut request = order.request();
        request.prompts.retain(|prompt| prompt.seed != Some(crate::load::POISON));
        let key = |prompt: &v1::Prompt| (prompt.text.clone(), prompt.seed.unwrap_or_default());
        if request.prompts.iter().all(|prompt| expected.contains_key(&key(prompt))) {
            continue;
        }
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

/// Waits, and restarts processes that end meanwhile.
async fn rest(cluster: &mut Cluster, past: &mut Past, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        cluster.tend()?;
        past.keep_up(cluster);
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The progress of all jobs, which changes with each commit; `None` if the farm does not answer.
async fn progress(client: &Client) -> Option<u64> {
    let passed =
        |job: &v1::Job| job.stages.iter().map(|stage| stage.done).sum::<u64>() + job.images_done;
    Some(jobs(client, Vec::new()).await?.iter().map(passed).sum())
}

/// Whether a job of this cascade is active; false if the farm does not answer.
async fn renders(client: &Client, cascade: &str) -> bool {
    let of_it = |job: &v1::Job| job.spec.as_ref().is_some_and(|spec| spec.cascade == cascade);
    jobs(client, vec![v1::JobState::Active]).await.is_some_and(|jobs| jobs.iter().any(of_it))
}

/// The jobs in these states, or all if there are none; `None` if the farm does not answer.
async fn jobs(client: &Client, states: Vec<v1::JobState>) -> Option<Vec<v1::Job>> {
    let states: Vec<i32> = states.into_iter().map(i32::from).collect();
    let listed = client.call("list jobs", |mut farm| {
        let states = states.clone();
        async move {
            let request =
                v1::ListJobsRequest { page_size: 1000, states, ..v1::ListJobsRequest::default() };
            farm.list_jobs(request).await
        }
    });
    // Shorter than the client's own limit, because the caller must keep restarting processes.
    let listed = tokio::time::timeout(Duration::from_secs(5), listed).await.ok()?;
    Some(listed.ok()?.jobs)
}

/// What to report about a fault beside its recovery.
#[derive(Default)]
struct Outcome {
    /// For a fault of the leader: how long it took until another one led.
    takeover: Option<Duration>,
    /// Age of the snapshot that Redis was set back to.
    snapshot_age: Option<Duration>,
}

/// Injects one fault and ends it.
async fn inject(
    cluster: &mut Cluster,
    fault: Fault,
    setup: &Setup,
    past: &mut Past,
    rng: &mut Rng,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let past_the_lease = setup.lease + Duration::from_secs(1);
    match fault {
        Fault::Kill(party) => cluster.kill(party, rng.usize(0..cluster.count(party)))?,
        Fault::Freeze(party) => {
            freeze(cluster, party, rng.usize(0..cluster.count(party)), past_the_lease).await;
        }
        Fault::FreezeLeader => {
            let leader = cluster.leader().await?;
            let holder = cluster.holder();
            cluster.signal(Party::Coordinators, leader, Signal::SIGSTOP);
            let took = takeover(cluster, &holder).await;
            sleep(Duration::from_secs(1)).await;
            cluster.signal(Party::Coordinators, leader, Signal::SIGCONT);
            outcome.takeover = Some(took);
        }
        Fault::KillLeader => {
            let leader = cluster.leader().await?;
            let holder = cluster.holder();
            cluster.kill(Party::Coordinators, leader)?;
            outcome.takeover = Some(takeover(cluster, &holder).await);
        }
        Fault::IsolateLeader(server) => {
            let leader = cluster.leader().await?;
            let holder = cluster.holder();
            cluster.proxies(Party::Coordinators, server)[leader].cut();
            let took = takeover(cluster, &holder).await;
            cluster.proxies(Party::Coordinators, server)[leader].heal();
            outcome.takeover = Some(took);
        }
        Fault::FullDisk => {
            if let Some(disk) = cluster.disk() {
                disk.fill()?;
                sleep(Duration::from_millis(rng.u64(1000..4000))).await;
                disk.free()?;
            }
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
            cluster.restart_redis();
        }
        Fault::OldRedis => {
            let (snapshot, age) = past.oldest(cluster).await;
            cluster.redis.restart_from_snapshot(snapshot);
            outcome.snapshot_age = Some(age);
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
                StorageFault::ShortBodies => {
                    Rule::always(s3::faults::Fault::CutBody).on(Which::Reads)
                }
                StorageFault::Full => {
                    Rule::always(s3::faults::Fault::Status(507)).on(Which::Writes)
                }
            };
            cluster.storage.faults().set([rule]);
            sleep(Duration::from_millis(rng.u64(1000..4000))).await;
            cluster.storage.faults().clear();
        }
        Fault::Cut(party, server) => {
            cluster.proxies(party, server).iter().for_each(Proxy::cut);
            join_anew(cluster, party, server, rng)?;
            sleep(Duration::from_millis(rng.u64(500..6000))).await;
            cluster.proxies(party, server).iter().for_each(Proxy::heal);
        }
        Fault::Stall(party, server) => {
            cluster.proxies(party, server).iter().for_each(Proxy::stall);
            join_anew(cluster, party, server, rng)?;
            sleep(Duration::from_millis(rng.u64(500..6000))).await;
            cluster.proxies(party, server).iter().for_each(Proxy::heal);
        }
    }
    Ok(outcome)
}

/// Members ask coordinators only when they join. So if that connection is cut, one member must join
/// again.
fn join_anew(cluster: &mut Cluster, party: Party, server: Server, rng: &mut Rng) -> Result<()> {
    if server == Server::Coordinators {
        cluster.kill(party, rng.usize(0..cluster.count(party)))?;
    }
    Ok(())
}

/// Waits until another one leads, at most twice the limit, and returns how long that took.
async fn takeover(cluster: &mut Cluster, before: &str) -> Duration {
    let began = Instant::now();
    while began.elapsed() < 2 * TAKEOVER {
        let holder = cluster.holder();
        if !holder.is_empty() && holder != before {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

async fn freeze(cluster: &mut Cluster, party: Party, number: usize, time: Duration) {
    cluster.signal(party, number, Signal::SIGSTOP);
    sleep(time).await;
    cluster.signal(party, number, Signal::SIGCONT);
}
