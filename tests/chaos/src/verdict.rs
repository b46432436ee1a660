//! Compares the farm's results with the expected ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use darkroom_artifacts::{
    ArtifactStore, Error,
    manifest::{self, ImageOutcome},
    verify,
};
use darkroom_coordinator::store::{
    postgres::{self, PostgresStore},
    roles::{Maintenance as _, Metering as _},
};
use darkroom_core::{artifact::ArtifactRef, id::JobId};
use darkroom_proto::v1::{self, ImageState, JobState};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::Cluster,
    load::{Client, Mood, Order, POISON},
};

/// Expected SHA-256 (hex) of each picture, by prompt and seed.
pub type Expected = BTreeMap<(String, u64), String>;

/// Most problems in the report.
const MOST_PROBLEMS: usize = 50;
/// Longest time until the cleaner has removed what deleted jobs have left.
const CLEANING: Duration = Duration::from_secs(120);
/// Images of deleted jobs that still have rows, and objects that the cleaner still has to look at
/// or to delete.
const LEFT_TO_CLEAN: &str = "SELECT \
    (SELECT count(*) FROM images AS i JOIN jobs AS j ON j.seq = i.job AND j.deleted_ms IS NOT NULL) + \
    (SELECT count(*) FROM removals WHERE state IN ('candidate', 'marked') AND kind = 'output')";
/// The log message when a sweep has ended a job that a commit should have ended.
const OVERLOOKED: &str = "jobs should have been finished";

/// The comparison. Nothing is wrong when `problems` is empty.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Jobs accepted.
    pub jobs: u64,
    /// Images accepted.
    pub images: u64,
    /// Images done.
    pub done: u64,
    /// Images dead, all planted.
    pub dead: u64,
    /// Images cancelled, as requested.
    pub cancelled: u64,
    /// Images that are missing or have not ended as they should.
    pub lost: u64,
    /// Images or jobs that exist twice.
    pub doubled: u64,
    /// Jobs that were deleted, as requested.
    pub deleted: u64,
    /// Objects that were removed from storage.
    pub removed: u64,
    /// Objects that are there although nothing names them: stored after they were removed.
    pub stored_late: u64,
    /// Pictures with other bytes than on the calm farm.
    pub other_bytes: u64,
    /// One sentence each.
    pub problems: Vec<String>,
}

impl Verdict {
    fn wrong(&mut self, problem: String) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// Checks every job, image, manifest and counter, and that the queue is empty.
///
/// # Errors
/// When the farm does not answer at all.
pub async fn judge(
    cluster: &Cluster,
    client: &Client,
    orders: &[Order],
    ended: BTreeMap<String, Result<v1::Job>>,
    deleted: &BTreeMap<String, Vec<String>>,
    expected: &Expected,
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let store =
        PostgresStore::connect(&cluster.postgres.url(), postgres::Options::default()).await?;
    let artifacts = cluster.open_storage()?;
    let mut ids = BTreeSet::new();
    for order in orders {
        verdict.jobs += 1;
        verdict.images +=
            order.request().prompts.iter().map(|prompt| u64::from(prompt.images)).sum::<u64>();
        let job = match &ended[&order.request_id] {
            Ok(job) => job,
            Err(error) => {
                verdict.lost += order.images();
                verdict.wrong(format!("{}: {error:#}", order.request_id));
                continue;
            }
        };
        if !ids.insert(job.id.clone()) {
            verdict.doubled += 1;
            verdict.wrong(format!("{} has the job of another request", order.request_id));
        }
        judge_job(&mut verdict, order, job);
        if order.mood == Mood::Deleted {
            verdict.deleted += 1;
            continue;
        }
        let images = client.images(&job.id).await?;
        judge_images(&mut verdict, order, &images, expected);
        judge_manifest(&mut verdict, order, job, &images, &artifacts).await?;
        let depth = verify::Options { depth: verify::Depth::Hashes, ..verify::Options::default() };
        let found = verify::job(&artifacts, &job.manifest_key, &depth, |_| {}).await?;
        for problem in &found.problems {
            verdict.wrong(format!("{}: manifest: {}", order.request_id, problem.message));
        }
        let id: JobId = job.id.parse()?;
        for problem in store.audit(id).await? {
            verdict.wrong(format!("{}: {problem}", order.request_id));
        }
    }
    for problem in store.audit_usage().await? {
        verdict.wrong(format!("usage differs from the rows: {problem}"));
    }
    let listed = client
        .call("list jobs", |mut farm| async move {
            farm.list_jobs(v1::ListJobsRequest {
                page_size: 1000,
                ..v1::ListJobsRequest::default()
            })
            .await
        })
        .await?;
    let kept = ids.len() - usize::try_from(verdict.deleted)?;
    if listed.jobs.len() != kept {
        verdict.doubled += listed.jobs.len().abs_diff(kept) as u64;
        verdict.wrong(format!(
            "{} jobs are listed where {} were submitted and {} of them deleted",
            listed.jobs.len(),
            ids.len(),
            verdict.deleted
        ));
    }
    judge_deleted(&mut verdict, cluster, client, deleted, &artifacts).await?;
    for left in cluster.left_in_queue()? {
        verdict.wrong(format!("left in the queue: {left}"));
    }
    for log in cluster.coordinator_logs() {
        for line in overlooked(&log) {
            verdict.wrong(format!("a sweep ended what a commit should have: {line}"));
        }
    }
    store.close().await;
    Ok(verdict)
}

/// Checks that deleted jobs look as if they were gone, that their rows are removed, and that of
/// their objects those are left that other jobs name, and no others.
async fn judge_deleted(
    verdict: &mut Verdict,
    cluster: &Cluster,
    client: &Client,
    deleted: &BTreeMap<String, Vec<String>>,
    artifacts: &ArtifactStore,
) -> Result<()> {
    for id in deleted.keys() {
        match client.job(id).await {
            Ok(job) => verdict.wrong(format!("deleted job {id} is still {:?}", job.state())),
            Err(error) => {
                let code = error.downcast_ref::<tonic::Status>().map(tonic::Status::code);
                if code != Some(tonic::Code::NotFound) {
                    verdict.wrong(format!("deleted job {id}: {error:#}"));
                }
            }
        }
    }
    let begun = Instant::now();
    loop {
        let left = cluster.postgres.sql("postgres", LEFT_TO_CLEAN);
        if left == "0" {
            break;
        }
        if begun.elapsed() > CLEANING {
            verdict.wrong(format!("{left} rows and objects are not cleaned after {CLEANING:?}"));
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let keys: BTreeSet<&String> = deleted.values().flatten().collect();
    for key in keys {
        let named = format!("SELECT count(*) FROM outputs WHERE key = '{key}'");
        let is_named = cluster.postgres.sql("postgres", &named) != "0";
        let is_stored = match artifacts.size_of(key).await {
            Ok(_) => true,
            Err(Error::Missing { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        match (is_named, is_stored) {
            (true, false) => {
                verdict.lost += 1;
                verdict.wrong(format!("{key} is removed, and a job that stays names it"));
            }
            // A worker that was stopped may store its output late. It is deleted once more a day
            // later, so it is counted and not wrong.
            (false, true) => verdict.stored_late += 1,
            (false, false) => verdict.removed += 1,
            (true, true) => {}
        }
    }
    Ok(())
}

/// The lines of a coordinator's log about jobs that no commit ended.
fn overlooked(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| line.contains(OVERLOOKED))
}

/// Checks that the manifest is the recorded one, has this generation, and agrees with the farm on
/// every image.
async fn judge_manifest(
    verdict: &mut Verdict,
    order: &Order,
    job: &v1::Job,
    images: &BTreeMap<u64, v1::Image>,
    artifacts: &ArtifactStore,
) -> Result<()> {
    let size = artifacts.size_of(&job.manifest_key).await?;
    let artifact =
        ArtifactRef { key: job.manifest_key.clone(), sha256: job.manifest_sha256.parse()?, size };
    let bytes = artifacts.get(&artifact).await?;
    let mut lines = BTreeMap::new();
    let (header, _) = manifest::verify(bytes.as_ref(), |line| {
        lines.insert(
            line.index,
            (line.seed, line.state, line.sha256.map(|sha256| sha256.to_string())),
        );
    })?;
    let state = |image: &v1::Image| match image.state() {
        ImageState::Done => ImageOutcome::Done,
        ImageState::Dead => ImageOutcome::Dead,
        _ => ImageOutcome::Cancelled,
    };
    let sha256 = |image: &v1::Image| {
        Some(image.sha256.clone()).filter(|_| image.state() == ImageState::Done)
    };
    let listed: BTreeMap<_, _> = images
        .iter()
        .map(|(index, image)| (*index, (image.seed, state(image), sha256(image))))
        .collect();
    if header.job != job.id || header.generation != job.generation || lines != listed {
        verdict.wrong(format!(
            "{}: the manifest is of job {} generation {}, {} of its lines are as the farm's {} \
            images",
            order.request_id,
            header.job,
            header.generation,
            lines.iter().filter(|(index, line)| listed.get(index) == Some(line)).count(),
            listed.len(),
        ));
    }
    Ok(())
}

fn judge_job(verdict: &mut Verdict, order: &Order, job: &v1::Job) {
    let wanted = match order.mood {
        Mood::Steady | Mood::Wavering | Mood::Repenting | Mood::Deleted => JobState::Done,
        Mood::Poisoned => JobState::Failed,
        Mood::Cancelled => JobState::Cancelled,
    };
    // A command may come after everything is done.
    let late = order.mood == Mood::Cancelled && job.state() == JobState::Done;
    if job.state() != wanted && !late {
        verdict.wrong(format!("{} ({:?}) ended {:?}", order.request_id, order.mood, job.state()));
    }
}

fn judge_images(
    verdict: &mut Verdict,
    order: &Order,
    images: &BTreeMap<u64, v1::Image>,
    expected: &Expected,
) {
    let mut wanted: BTreeSet<(String, u64)> = BTreeSet::new();
    for prompt in order.request().prompts {
        let first = prompt.seed.unwrap_or_default();
        wanted.extend((0..u64::from(prompt.images)).map(|k| (prompt.text.clone(), first + k)));
    }
    if images.keys().copied().ne(0..wanted.len() as u64) {
        verdict.wrong(format!(
            "{} has {} images where {} were accepted",
            order.request_id,
            images.len(),
            wanted.len()
        ));
    }
    for (index, image) in images {
        let key = (image.prompt.clone(), image.seed);
        if !wanted.remove(&key) {
            verdict.doubled += 1;
            verdict.wrong(format!(
                "{} image {index} was not requested, or exists twice",
                order.request_id
            ));
        }
        let planted = image.seed == POISON;
        match image.state() {
            ImageState::Done if !planted => {
                verdict.done += 1;
                if expected.get(&key) != Some(&image.sha256) {
                    verdict.other_bytes += 1;
                    verdict.wrong(format!(
                        "{} image {index} has other bytes than on a calm farm",
                        order.request_id
                    ));
                }
            }
            ImageState::Dead if planted => verdict.dead += 1,
            ImageState::Cancelled if order.mood == Mood::Cancelled => verdict.cancelled += 1,
            state => {
                verdict.lost += 1;
                verdict.wrong(format!(
                    "{} image {index} (seed {}) ended {state:?}: {} {}",
                    order.request_id, image.seed, image.error_code, image.error
                ));
            }
        }
    }
    verdict.lost += wanted.len() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_of_jobs_that_no_commit_ended_in_the_words_that_the_sweep_uses() {
        assert!(include_str!("../../../coordinator/src/reaper.rs").contains(OVERLOOKED));
        let log =
            "INFO leads\nERROR jobs should have been finished and were not jobs=1\nINFO done\n";
        assert_eq!(overlooked(log).count(), 1);
        assert_eq!(overlooked("INFO leads\n").count(), 0);
    }
}
