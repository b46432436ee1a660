//! Applying results and losses to images.
//!
//! A success commits if generation and stage match and image and job are live; anything else only if the dispatch
//! matches too. What does not commit is discarded for a named reason, and nothing changes.

use std::collections::{HashMap, HashSet};

use darkroom_core::{
    id::ImageId,
    image_state::{ImageProgress, Producer, transition},
    job_state::JobState,
};
use darkroom_queue::task::{Outcome, PoolId, Subject, TaskKey, TaskResult};

use super::{
    Error, SqliteStore, Tx, conduct,
    dispatch::check_term,
    moves::apply,
    rows::{ProgressRow, column, number, parse, to_json},
    texts,
};
use crate::store::{
    cause::{Cause, Outcomes, reason},
    change::{LastError, Move},
    conduct::Conduct,
    records::{Committed, Fate, Release, Report, Term},
};

impl SqliteStore {
    pub(super) async fn commit_reports(&self, pool: &PoolId, reports: &[Report]) -> Result<Committed, Error> {
        let causes: Vec<_> = reports.iter().map(Cause::reported).collect();
        Self::settle(self.begin_write().await?, pool, &causes).await
    }

    pub(super) async fn release_tasks(
        &self,
        term: Term,
        pool: &PoolId,
        tasks: &[TaskKey],
        why: &Release,
    ) -> Result<Committed, Error> {
        check_term(term)?;
        let mut tx = self.begin_write().await?;
        let spared = match why {
            Release::HostDied(_) => conduct::spare(&mut tx, pool, tasks).await?,
            _ => HashSet::new(),
        };
        let causes: Vec<_> = tasks.iter().map(|key| Cause::released(*key, why, &spared)).collect();
        Self::settle(tx, pool, &causes).await
    }

    async fn settle(mut tx: Tx, pool: &PoolId, causes: &[Cause<'_>]) -> Result<Committed, Error> {
        let outcomes = if pool.stage.is_encode() {
            texts::settle(&mut tx, pool, causes).await?
        } else {
            settle_images(&mut tx, pool, causes).await?
        };
        tx.commit().await?;
        Ok(outcomes.into())
    }
}

#[derive(sqlx::FromRow)]
struct ImageRow {
    #[sqlx(flatten)]
    image: ProgressRow,
    job_id: String,
    job_state: String,
    stages: i64,
    pool_stage: Option<i64>,
}

/// An image while a bulk is judged: as read, and as it will be.
struct Judged {
    row: ImageRow,
    from: ImageProgress,
    to: ImageProgress,
    error: LastError,
    moved: bool,
}

async fn settle_images(tx: &mut Tx, pool: &PoolId, causes: &[Cause<'_>]) -> Result<Outcomes, Error> {
    let mut images = read_images(tx, pool, causes).await?;
    let mut outcomes = Outcomes::default();
    let (mut outputs, mut conduct) = (Vec::new(), Conduct::default());
    for cause in causes {
        let Subject::Image(id) = cause.key.subject else {
            outcomes.fates.push(Fate::Discarded("wrong_pool"));
            continue;
        };
        let fate = match images.get_mut(&id) {
            Some(image) => judge(tx, image, cause, (&mut outputs, &mut conduct)).await?,
            None => Fate::Discarded("unknown_image"),
        };
        outcomes.fates.push(fate);
    }
    store_outputs(tx, &outputs).await?;
    conduct::write(tx, &conduct).await?;
    let moves: Vec<_> = images
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
    let moved = apply(tx, &moves).await?;
    if moved.applied.len() != moves.len() {
        return Err(Error::Corrupt("an image changed under a write transaction".to_owned()));
    }
    outcomes.changed = moved.applied.len() as u64;
    (outcomes.jobs, outcomes.finished) = (moved.jobs, moved.finished);
    Ok(outcomes)
}

async fn read_images(
    tx: &mut Tx,
    pool: &PoolId,
    causes: &[Cause<'_>],
) -> Result<HashMap<ImageId, Judged>, Error> {
    let ids: Vec<_> = causes
        .iter()
        .filter_map(|cause| match cause.key.subject {
            Subject::Image(id) => Some((id.job, id.index)),
            Subject::Text(_) => None,
        })
        .collect();
    let rows: Vec<ImageRow> = sqlx::query_as(
        "SELECT DISTINCT i.job, i.idx, i.prompt, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                i.suspect, j.id AS job_id, j.state AS job_state,
                (SELECT count(*) FROM job_stages AS s WHERE s.job = j.seq AND s.stage >= 0) AS stages,
                (SELECT s.stage FROM job_stages AS s
                 WHERE s.job = j.seq AND s.stage >= 0 AND s.pool = ?2 AND s.name = ?3) AS pool_stage
         FROM json_each(?1) AS r
         CROSS JOIN jobs AS j ON j.id = r.value ->> 0
         CROSS JOIN images AS i ON i.job = j.seq AND i.idx = r.value ->> 1",
    )
    .bind(to_json(&ids)?)
    .bind(pool.digest.to_string())
    .bind(pool.stage.as_str())
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let id = ImageId { job: parse(&row.job_id)?, index: number(row.image.idx)? };
            let from = row.image.progress()?;
            let to = from.clone();
            Ok((id, Judged { row, from, to, error: LastError::Keep, moved: false }))
        })
        .collect()
}

/// A stage's output as columns of `outputs`.
type OutputRow = (i64, i64, i64, String, String, i64, f64, String, String);

async fn judge(
    tx: &mut Tx,
    image: &mut Judged,
    cause: &Cause<'_>,
    (outputs, conduct): (&mut Vec<OutputRow>, &mut Conduct),
) -> Result<Fate, Error> {
    if !parse::<JobState>(&image.row.job_state)?.live() {
        return Ok(Fate::Discarded("job_not_live"));
    }
    let Some(stage) = image.row.pool_stage else { return Ok(Fate::Discarded("wrong_pool")) };
    let missing = match cause.missing() {
        Some(key) => producer(tx, image, stage, key).await?.map(|producer| (producer, key)),
        None => None,
    };
    let producer = missing.map(|(producer, _)| producer);
    let (event, error) = cause.event(number(stage)?, image.to.suspect, producer);
    match transition(&image.to, &event, number(image.row.stages)?) {
        Ok(next) => image.to = next,
        Err(refusal) => return Ok(Fate::Discarded(reason(refusal))),
    }
    (image.error, image.moved) = (error, true);
    if let Some(result) = cause.result() {
        conduct.note((image.row.image.job, image.row.image.idx), stage, &image.to, result);
    }
    if let Some(result @ TaskResult { outcome: Outcome::Done { artifact, .. }, .. }) = cause.result() {
        outputs.push((
            image.row.image.job,
            image.row.image.idx,
            stage,
            artifact.key.clone(),
            artifact.sha256.to_string(),
            column(artifact.size),
            if result.seconds.is_finite() { result.seconds } else { 0.0 },
            result.worker.to_string(),
            result.device_class.clone(),
        ));
    }
    if let Some((producer, key)) = missing {
        rewind(tx, image, producer, key).await?;
    }
    Ok(Fate::Applied)
}

/// Whose output the missing key was; `None` if it is no input of the image (any more).
async fn producer(tx: &mut Tx, image: &Judged, stage: i64, key: &str) -> Result<Option<Producer>, Error> {
    let row = &image.row.image;
    let before: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM outputs WHERE job = ?1 AND idx = ?2 AND stage = ?3 AND key = ?4)",
    )
    .bind(row.job)
    .bind(row.idx)
    .bind(stage - 1)
    .bind(key)
    .fetch_one(&mut **tx)
    .await?;
    if before {
        return Ok(Some(Producer::StageBefore));
    }
    let encoder: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM prompts AS p
                        JOIN embeddings AS e ON e.id IN (p.text_embedding, p.negative_embedding, p.style_embedding)
                        WHERE p.job = ?1 AND p.position = ?2 AND e.key = ?3)",
    )
    .bind(row.job)
    .bind(row.prompt)
    .bind(key)
    .fetch_one(&mut **tx)
    .await?;
    Ok(encoder.then_some(Producer::Encoder))
}

async fn rewind(tx: &mut Tx, image: &Judged, producer: Producer, key: &str) -> Result<(), Error> {
    let row = &image.row.image;
    match producer {
        Producer::Encoder => {
            texts::lose(tx, row.job, row.prompt, key).await?;
            texts::want_again(tx, row.job, &[row.prompt]).await
        }
        Producer::StageBefore => {
            sqlx::query("DELETE FROM outputs WHERE job = ?1 AND idx = ?2 AND stage >= ?3")
                .bind(row.job)
                .bind(row.idx)
                .bind(column(image.to.stage))
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
    }
}

async fn store_outputs(tx: &mut Tx, outputs: &[OutputRow]) -> Result<(), Error> {
    if outputs.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO outputs (job, idx, stage, key, sha256, size, seconds, worker, device_class)
         SELECT o.value ->> 0, o.value ->> 1, o.value ->> 2, o.value ->> 3, o.value ->> 4, o.value ->> 5,
                o.value ->> 6, o.value ->> 7, o.value ->> 8
         FROM json_each(?1) AS o WHERE TRUE
         ON CONFLICT (job, idx, stage) DO UPDATE
         SET key = excluded.key, sha256 = excluded.sha256, size = excluded.size, seconds = excluded.seconds,
             worker = excluded.worker, device_class = excluded.device_class",
    )
    .bind(to_json(outputs)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
