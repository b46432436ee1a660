//! The one place where image rows change: bulk moves from an expected state to the next, with
//! versions, counters and the job's end in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_core::{
    guard::{self, Guard},
    id::JobId,
};

use super::{
    Error, Tx,
    progress::LockedJobs,
    rows::{column, job_id, list, to_json},
};
use crate::store::{
    change::{Applied, LastError, Move},
    tally::{self, Counter},
};

/// Applies moves, and remembers their jobs. First raises the jobs' versions, then updates images,
/// then counts the rows that changed.
pub(super) async fn apply(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    moves: &[Move],
) -> Result<Applied, Error> {
    if moves.is_empty() {
        return Ok(Applied::new());
    }
    let touched: BTreeSet<i64> = moves.iter().map(|one| one.job).collect();
    jobs.moved(raise_versions(tx, &Vec::from_iter(touched)).await?);
    let applied = update_images(tx, moves).await?;
    count(tx, moves.iter().filter(|one| applied.contains(&(one.job, one.idx)))).await?;
    Ok(applied)
}

/// Raises the versions of jobs. Returns them with their ids.
pub(super) async fn raise_versions(tx: &mut Tx, seqs: &[i64]) -> Result<Vec<(i64, JobId)>, Error> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "UPDATE jobs SET version = version + 1
         WHERE seq IN (SELECT value FROM json_each(?1))
         RETURNING seq, id",
    )
    .bind(list(seqs)?)
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter().map(|(seq, id)| Ok((seq, job_id(&id)?))).collect()
}

async fn update_images(tx: &mut Tx, moves: &[Move]) -> Result<Applied, Error> {
    let rows: Vec<_> = moves.iter().map(columns).collect::<Result<_, _>>()?;
    let applied: Vec<(i64, i64)> = sqlx::query_as(
        "UPDATE images
         SET state = m.value ->> 6, stage = m.value ->> 7, generation = m.value ->> 8,
             dispatch = m.value ->> 9, failures = m.value ->> 10, hosts = m.value ->> 11,
             suspect = m.value ->> 12,
             error_code = CASE m.value ->> 13
                 WHEN 'keep' THEN error_code WHEN 'clear' THEN NULL ELSE m.value ->> 14 END,
             error = CASE m.value ->> 13
                 WHEN 'keep' THEN error WHEN 'clear' THEN NULL ELSE m.value ->> 15 END,
             version = (SELECT version FROM jobs WHERE jobs.seq = images.job)
         FROM json_each(?1) AS m
         WHERE images.job = m.value ->> 0 AND images.idx = m.value ->> 1
           AND images.state = m.value ->> 2 AND images.stage = m.value ->> 3
           AND images.generation = m.value ->> 4 AND images.dispatch = m.value ->> 5
         RETURNING images.job, images.idx",
    )
    .bind(to_json(&rows)?)
    .fetch_all(&mut **tx)
    .await?;
    Ok(applied.into_iter().collect())
}

fn columns(one: &Move) -> Result<serde_json::Value, Error> {
    let (from, to) = (&one.from, &one.to);
    let (error, code, message) = match &one.error {
        LastError::Keep => ("keep", "", ""),
        LastError::Clear => ("clear", "", ""),
        LastError::Set { code, message } => ("set", code.name(), message.as_str()),
    };
    Ok(serde_json::json!([
        one.job,
        one.idx,
        from.state.name(),
        from.stage,
        from.generation,
        from.dispatch,
        to.state.name(),
        to.stage,
        to.generation,
        to.dispatch,
        to.failures,
        to_json(&to.places)?,
        u8::from(to.suspect),
        error,
        code,
        message,
    ]))
}

#[derive(Default, PartialEq, Eq)]
struct StageDelta {
    ready: i64,
    dispatched: i64,
    passed: i64,
    stopped: i64,
}

#[derive(Default)]
struct JobDelta {
    done: i64,
    dead: i64,
    cancelled: i64,
    stages: BTreeMap<usize, StageDelta>,
}

impl JobDelta {
    fn add(&mut self, counter: Counter, count: i64) {
        match counter {
            Counter::Ready(stage) => self.stages.entry(stage).or_default().ready += count,
            Counter::Dispatched(stage) => self.stages.entry(stage).or_default().dispatched += count,
            Counter::Passed(stage) => self.stages.entry(stage).or_default().passed += count,
            Counter::Stopped(stage) => self.stages.entry(stage).or_default().stopped += count,
            Counter::Done => self.done += count,
            Counter::Dead => self.dead += count,
            Counter::Cancelled => self.cancelled += count,
        }
    }
}

async fn count(tx: &mut Tx, moves: impl Iterator<Item = &Move>) -> Result<(), Error> {
    let mut deltas: BTreeMap<i64, JobDelta> = BTreeMap::new();
    for one in moves {
        let delta = deltas.entry(one.job).or_default();
        let of = (&one.from, &one.to);
        tally::moved(of, one.stages, |counter, count| delta.add(counter, count));
    }
    let jobs: Vec<_> = deltas
        .iter()
        .filter(|(_, delta)| (delta.done, delta.dead, delta.cancelled) != (0, 0, 0))
        .map(|(job, delta)| (job, delta.done, delta.dead, delta.cancelled))
        .collect();
    if !jobs.is_empty() {
        sqlx::query(
            "UPDATE jobs
             SET done = done + (d.value ->> 1), dead = dead + (d.value ->> 2),
                 cancelled = cancelled + (d.value ->> 3)
             FROM json_each(?1) AS d
             WHERE jobs.seq = d.value ->> 0",
        )
        .bind(to_json(&jobs)?)
        .execute(&mut **tx)
        .await?;
    }
    let stages: Vec<_> = deltas
        .iter()
        .flat_map(|(job, delta)| delta.stages.iter().map(move |(stage, delta)| (job, stage, delta)))
        .filter(|(_, _, delta)| **delta != StageDelta::default())
        .map(|(job, stage, delta)| {
            (job, column(*stage), delta.ready, delta.dispatched, delta.passed, delta.stopped)
        })
        .collect();
    if !stages.is_empty() {
        sqlx::query(
            "UPDATE job_stages
             SET ready = ready + (d.value ->> 2), dispatched = dispatched + (d.value ->> 3),
                 passed = passed + (d.value ->> 4), stopped = stopped + (d.value ->> 5)
             FROM json_each(?1) AS d
             WHERE job_stages.job = d.value ->> 0 AND job_stages.stage = d.value ->> 1",
        )
        .bind(to_json(&stages)?)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Ends the jobs among `seqs` whose images are all terminal. While images still have to
/// follow a command, the job does not end, whatever its counters are. The state is the one that
/// [`JobEvent::Finish`](darkroom_core::job_state::JobEvent::Finish) leads to.
pub(super) async fn finish(tx: &mut Tx, _: &LockedJobs, seqs: &[i64]) -> Result<Vec<JobId>, Error> {
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = sqlx::query_scalar(guard::text(
        Guard::EndAfterCommands,
        "UPDATE jobs
         SET state = CASE WHEN dead > 0 THEN 'failed' WHEN done > 0 THEN 'done' ELSE 'cancelled' END,
             manifest = 'pending', manifest_key = NULL, manifest_sha256 = NULL,
             finished_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
         WHERE seq IN (SELECT value FROM json_each(?1))
           AND state IN ('active', 'paused') AND follow IS NULL
           AND images > 0 AND done + dead + cancelled = images
           AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = jobs.seq)
         RETURNING id",
        "AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = jobs.seq)",
        "",
    ))
    .bind(list(seqs)?)
    .fetch_all(&mut **tx)
    .await?;
    ids.iter().map(|id| job_id(id)).collect()
}

/// Ends a job whose images followed a command, if they are all terminal.
pub(super) async fn end_followed(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    seq: i64,
) -> Result<Vec<JobId>, Error> {
    let ended = finish(tx, jobs, &[seq]).await?;
    if !ended.is_empty() {
        raise_versions(tx, &[seq]).await?;
    }
    Ok(ended)
}

/// Ends jobs whose images are all terminal.
pub(super) async fn finish_complete(tx: &mut Tx, seqs: &[i64]) -> Result<Vec<JobId>, Error> {
    raise_versions(tx, seqs).await?;
    finish(tx, &LockedJobs::default(), seqs).await
}
