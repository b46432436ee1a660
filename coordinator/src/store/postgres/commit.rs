//! Applying results and losses to images.
//!
//! A success commits if generation and stage match and image and job are live; anything else only if the dispatch
//! matches too. What does not commit is discarded for a named reason, and nothing changes.

use std::collections::HashMap;

use darkroom_core::{
    guard::{Guard, stands},
    id::{ImageId, JobId},
    image_state::{ImageProgress, transition},
    job_state::JobState,
};
use darkroom_queue::task::{Outcome, PoolId, Subject, TaskKey, TaskResult};
use uuid::Uuid;

use super::{
    Error, PostgresStore, Tx, conduct,
    missing::Missing,
    moves::{apply, save_and_finish},
    onward,
    progress::{LockedJob, LockedJobs, seqs_of},
    rows::{ProgressRow, column, number, parse, stage_column, text_column},
    texts,
};
use crate::store::{
    cause::{Cause, Outcomes, reason},
    change::{LastError, Move},
    conduct::Conduct,
    records::{Committed, Dispatched, Fate, Onward, Release, Report, Term},
};

impl PostgresStore {
    pub(super) async fn commit_reports(
        &self,
        pool: &PoolId,
        reports: &[Report],
        onward: &[Onward],
    ) -> Result<(Committed, Vec<(PoolId, Dispatched)>), Error> {
        let causes: Vec<_> = reports.iter().map(Cause::reported).collect();
        let mut tx = self.begin_write().await?;
        if let Some(Onward { term, .. }) = onward.first() {
            self.check_term(&mut tx, *term).await?;
        }
        let mut outcomes = settle(&mut tx, pool, &causes, onward).await?;
        tx.commit().await?;
        let dispatched = std::mem::take(&mut outcomes.dispatched);
        Ok((outcomes.into(), dispatched))
    }

    pub(super) async fn release_tasks(
        &self,
        term: Term,
        pool: &PoolId,
        tasks: &[TaskKey],
        why: &Release,
    ) -> Result<Committed, Error> {
        let causes: Vec<_> = tasks.iter().map(|key| Cause::released(*key, why)).collect();
        let mut tx = self.begin_write().await?;
        self.check_term(&mut tx, term).await?;
        let outcomes = settle(&mut tx, pool, &causes, &[]).await?;
        tx.commit().await?;
        Ok(outcomes.into())
    }
}

async fn settle(
    tx: &mut Tx,
    pool: &PoolId,
    causes: &[Cause<'_>],
    onward: &[Onward],
) -> Result<Outcomes, Error> {
    if pool.stage.is_encode() {
        texts::settle(tx, pool, causes, onward).await
    } else {
        settle_images(tx, pool, causes, onward).await
    }
}

#[derive(sqlx::FromRow)]
struct ImageRow {
    #[sqlx(flatten)]
    image: ProgressRow,
    job_id: Uuid,
    job_state: String,
    pool_stage: Option<i16>,
}

/// An image while a bulk is judged: as read, and as it will be.
struct Judged {
    row: ImageRow,
    live: bool,
    stages: usize,
    from: ImageProgress,
    to: ImageProgress,
    error: LastError,
    moved: bool,
}

async fn settle_images(
    tx: &mut Tx,
    pool: &PoolId,
    causes: &[Cause<'_>],
    onward: &[Onward],
) -> Result<Outcomes, Error> {
    let mut missing = Missing::find(tx, causes).await?;
    let ids: Vec<ImageId> = causes
        .iter()
        .filter_map(|cause| match cause.key.subject {
            Subject::Image(id) => Some(id),
            Subject::Text(_) => None,
        })
        .collect();
    let mut uuids: Vec<Uuid> = ids.iter().map(|id| id.job.0).collect();
    uuids.sort_unstable();
    uuids.dedup();
    let seqs = seqs_of(tx, &uuids).await?;
    let needing = missing.jobs.iter().map(|(job, _)| *job);
    let mut jobs = LockedJobs::lock(tx, seqs.values().copied().chain(needing)).await?;
    let mut images = read_images(tx, pool, &jobs, &seqs, &ids).await?;
    let mut outcomes = Outcomes::default();
    let (mut outputs, mut conduct) = (Vec::new(), Conduct::default());
    for cause in causes {
        let Subject::Image(id) = cause.key.subject else {
            outcomes.fates.push(Fate::Discarded("wrong_pool"));
            continue;
        };
        let fate = match images.get_mut(&id) {
            Some(image) => judge(image, (id, cause), &mut missing, &mut outputs, &mut conduct)?,
            None => Fate::Discarded("unknown_image"),
        };
        outcomes.fates.push(fate);
    }
    store_outputs(tx, &outputs).await?;
    conduct::write(tx, &conduct).await?;
    let mut moves: Vec<_> = images
        .into_values()
        .filter(|image| image.moved)
        .map(|image| Move {
            job: image.row.image.job,
            idx: image.row.image.idx,
            from: image.from,
            to: image.to,
            error: image.error,
        })
        .collect();
    outcomes.dispatched = onward::hand_on(tx, &jobs, &mut moves, onward).await?;
    let applied = apply(tx, &mut jobs, &moves).await?;
    if applied.len() != moves.len() {
        return Err(Error::Corrupt("an image changed while its job was locked".to_owned()));
    }
    missing.forget(tx, &mut jobs).await?;
    outcomes.changed = applied.len() as u64;
    (outcomes.jobs, outcomes.finished) = save_and_finish(tx, &mut jobs).await?;
    Ok(outcomes)
}

/// The images as they are under the lock of their jobs.
async fn read_images(
    tx: &mut Tx,
    pool: &PoolId,
    jobs: &LockedJobs,
    seqs: &std::collections::BTreeMap<Uuid, i64>,
    ids: &[ImageId],
) -> Result<HashMap<ImageId, Judged>, Error> {
    let known: Vec<(i64, i64)> =
        ids.iter().filter_map(|id| Some((*seqs.get(&id.job.0)?, column(id.index)))).collect();
    let rows: Vec<ImageRow> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                i.suspect, j.id AS job_id, j.state AS job_state, s.stage AS pool_stage
         FROM unnest($1::bigint[], $2::bigint[]) AS r (job, idx)
         CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = r.job AND i.idx = r.idx OFFSET 0) AS i
         JOIN jobs AS j ON j.seq = i.job
         LEFT JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0 AND s.pool = $3 AND s.name = $4",
    )
    .bind(known.iter().map(|(job, _)| *job).collect::<Vec<_>>())
    .bind(known.iter().map(|(_, idx)| *idx).collect::<Vec<_>>())
    .bind(pool.digest.0)
    .bind(pool.stage.as_str())
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let id = ImageId { job: JobId(row.job_id), index: number(row.image.idx)? };
            let from = row.image.progress()?;
            let to = from.clone();
            let live = parse::<JobState>(&row.job_state)?.live();
            let stages = jobs.get(row.image.job).map_or(0, LockedJob::stages);
            Ok((id, Judged { row, live, stages, from, to, error: LastError::Keep, moved: false }))
        })
        .collect()
}

/// A stage's output to be stored.
struct NewOutput<'a> {
    job: i64,
    idx: i64,
    stage: i16,
    result: &'a TaskResult,
}

fn judge<'a>(
    image: &mut Judged,
    (id, cause): (ImageId, &Cause<'a>),
    missing: &mut Missing,
    outputs: &mut Vec<NewOutput<'a>>,
    conduct: &mut Conduct,
) -> Result<Fate, Error> {
    if !image.live && stands(Guard::JobLive) {
        return Ok(Fate::Discarded("job_not_live"));
    }
    let Some(stage) = image.row.pool_stage else { return Ok(Fate::Discarded("wrong_pool")) };
    let stage: usize = number(stage)?;
    let missed = cause.missing().and_then(|key| Some((missing.producer(id, stage, key)?, key)));
    let (event, error) = cause.event(stage, image.to.suspect, missed.map(|(producer, _)| producer));
    match transition(&image.to, &event, image.stages) {
        Ok(next) => image.to = next,
        Err(refusal) => return Ok(Fate::Discarded(reason(refusal))),
    }
    (image.error, image.moved) = (error, true);
    let row = (image.row.image.job, image.row.image.idx);
    if let Some(result) = cause.result() {
        conduct.note(row, column(stage), &image.to, result);
    }
    if let Some(result @ TaskResult { outcome: Outcome::Done { .. }, .. }) = cause.result() {
        outputs.push(NewOutput { job: row.0, idx: row.1, stage: stage_column(stage), result });
    }
    if let Some((producer, key)) = missed {
        missing.rewind(producer, (id, key), row, image.to.stage);
    }
    Ok(Fate::Applied)
}

async fn store_outputs(tx: &mut Tx, outputs: &[NewOutput<'_>]) -> Result<(), Error> {
    let artifacts: Vec<_> = outputs
        .iter()
        .filter_map(|output| match &output.result.outcome {
            Outcome::Done { artifact, .. } => Some((output, artifact)),
            _ => None,
        })
        .collect();
    if artifacts.is_empty() {
        return Ok(());
    }
    let seconds = |seconds: f64| if seconds.is_finite() { seconds } else { 0.0 };
    sqlx::query(
        "INSERT INTO outputs AS o (job, idx, stage, key, sha256, size, seconds, worker, device_class)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::bytea[], $6::bigint[],
                              $7::float8[], $8::text[], $9::text[])
         ON CONFLICT (job, idx, stage) DO UPDATE
         SET key = excluded.key, sha256 = excluded.sha256, size = excluded.size, seconds = excluded.seconds,
             worker = excluded.worker, device_class = excluded.device_class",
    )
    .bind(artifacts.iter().map(|(output, _)| output.job).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(output, _)| output.idx).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(output, _)| output.stage).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(_, artifact)| text_column(&artifact.key)).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(_, artifact)| artifact.sha256.0).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(_, artifact)| column(artifact.size)).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(output, _)| seconds(output.result.seconds)).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(output, _)| text_column(&output.result.worker.0)).collect::<Vec<_>>())
    .bind(artifacts.iter().map(|(output, _)| text_column(&output.result.device_class)).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
