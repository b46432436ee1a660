//! Applying results and losses to images.
//!
//! A success commits if generation and stage match and image and job are live; anything else only if the dispatch
//! matches too. What does not commit is discarded for a named reason, and nothing changes.

use std::collections::{HashMap, HashSet};

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
    dispatch::{InputRow, input_columns, input_joins},
    missing::Missing,
    moves::{apply_with, save_and_finish},
    onward::{self, Inputs},
    outputs::NewOutput,
    plans::{KnownPlans, Plans},
    progress::{LockedJob, LockedJobs},
    rows::{ProgressRow, column, number, parse, stage_column},
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
        let mut outcomes = self.settle(&mut tx, pool, &causes, onward).await?;
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
        let mut tx = self.begin_write().await?;
        self.check_term(&mut tx, term).await?;
        let spared = match why {
            Release::HostDied(_) => conduct::spare(&mut tx, pool, tasks).await?,
            _ => HashSet::new(),
        };
        let causes: Vec<_> = tasks.iter().map(|key| Cause::released(*key, why, &spared)).collect();
        let outcomes = self.settle(&mut tx, pool, &causes, &[]).await?;
        tx.commit().await?;
        Ok(outcomes.into())
    }

    async fn settle(
        &self,
        tx: &mut Tx,
        pool: &PoolId,
        causes: &[Cause<'_>],
        onward: &[Onward],
    ) -> Result<Outcomes, Error> {
        if pool.stage.is_encode() {
            texts::settle(tx, &self.plans, (pool, causes), onward).await
        } else {
            settle_images(tx, &self.plans, (pool, causes), onward).await
        }
    }
}

#[derive(sqlx::FromRow)]
struct ImageRow {
    #[sqlx(flatten)]
    image: ProgressRow,
    job_state: String,
    /// The job is active and has no limit of its own.
    free: bool,
}

/// With what a next stage needs.
#[derive(sqlx::FromRow)]
struct GoingRow {
    #[sqlx(flatten)]
    row: ImageRow,
    #[sqlx(flatten)]
    input: InputRow,
}

/// An image while a bulk is judged: as read, and as it will be.
struct Judged {
    row: ImageRow,
    /// What its next stage needs, where it may go straight on.
    input: Option<InputRow>,
    live: bool,
    /// The pool's place among its job's stages, and how many these are.
    stage: Option<usize>,
    stages: usize,
    from: ImageProgress,
    to: ImageProgress,
    error: LastError,
    moved: bool,
}

async fn settle_images(
    tx: &mut Tx,
    known: &KnownPlans,
    (pool, causes): (&PoolId, &[Cause<'_>]),
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
    let plans = known.by_id(tx, &uuids).await?;
    let needing = missing.jobs.iter().map(|(job, _)| *job);
    let mut jobs = LockedJobs::lock(tx, plans.keys().copied().chain(needing)).await?;
    let mut images = read_images(tx, (pool, &plans), &jobs, &ids, !onward.is_empty()).await?;
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
    conduct::write(tx, &conduct).await?;
    let (mut moves, mut inputs) = (Vec::with_capacity(images.len()), Inputs::new());
    for image in images.into_values().filter(|image| image.moved) {
        let (job, idx) = (image.row.image.job, image.row.image.idx);
        inputs.extend(image.input.filter(|_| image.row.free).map(|input| ((job, idx), input)));
        moves.push(Move { job, idx, from: image.from, to: image.to, error: image.error });
    }
    outcomes.dispatched = onward::hand_on(&jobs, &plans, &mut moves, inputs, onward)?;
    let applied = apply_with(tx, &mut jobs, &moves, &outputs).await?;
    if applied.len() != moves.len() {
        return Err(Error::Corrupt("an image changed while its job was locked".to_owned()));
    }
    missing.forget(tx, &mut jobs).await?;
    outcomes.changed = applied.len() as u64;
    (outcomes.jobs, outcomes.finished) = save_and_finish(tx, &mut jobs).await?;
    Ok(outcomes)
}

/// The images as they are under the lock of their jobs; if `going`, with what a next stage needs.
async fn read_images(
    tx: &mut Tx,
    (pool, plans): (&PoolId, &Plans),
    jobs: &LockedJobs,
    ids: &[ImageId],
    going: bool,
) -> Result<HashMap<ImageId, Judged>, Error> {
    let seqs: HashMap<JobId, i64> = plans.values().map(|plan| (plan.id, plan.seq)).collect();
    let (job, idx): (Vec<i64>, Vec<i64>) =
        ids.iter().filter_map(|id| Some((*seqs.get(&id.job)?, column(id.index)))).unzip();
    macro_rules! statement {
        ($columns:expr, $joins:expr) => {
            concat!(
                "SELECT i.job, i.idx, i.prompt, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                        i.suspect, j.state AS job_state, j.state = 'active' AND j.max_workers IS NULL AS free",
                $columns,
                " FROM unnest($1::bigint[], $2::bigint[]) AS r (job, idx)
                  CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = r.job AND i.idx = r.idx OFFSET 0) AS i
                  JOIN jobs AS j ON j.seq = i.job ",
                $joins
            )
        };
    }
    let rows: Vec<(ImageRow, Option<InputRow>)> = if going {
        let rows: Vec<GoingRow> = sqlx::query_as(statement!(
            concat!(", ", input_columns!()),
            concat!(
                "CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                     WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p ",
                input_joins!()
            )
        ))
        .bind(job)
        .bind(idx)
        .fetch_all(&mut **tx)
        .await?;
        rows.into_iter().map(|going| (going.row, Some(going.input))).collect()
    } else {
        let rows: Vec<ImageRow> =
            sqlx::query_as(statement!("", "")).bind(job).bind(idx).fetch_all(&mut **tx).await?;
        rows.into_iter().map(|row| (row, None)).collect()
    };
    rows.into_iter()
        .filter_map(|(row, input)| Some((plans.get(&row.image.job)?, row, input)))
        .map(|(plan, row, input)| {
            let id = ImageId { job: plan.id, index: number(row.image.idx)? };
            let from = row.image.progress()?;
            let to = from.clone();
            let live = parse::<JobState>(&row.job_state)?.live();
            let stages = jobs.get(row.image.job).map_or(0, LockedJob::stages);
            let (stage, error) = (plan.stage(pool), LastError::Keep);
            Ok((id, Judged { row, input, live, stage, stages, from, to, error, moved: false }))
        })
        .collect()
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
    let Some(stage) = image.stage else { return Ok(Fate::Discarded("wrong_pool")) };
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
    let input = image.input.take();
    if let Some(result @ TaskResult { outcome: Outcome::Done { artifact, .. }, .. }) = cause.result() {
        // Only who has just finished a stage goes straight on: what it stored is what the next one takes.
        image.input = input.map(|input| input.after(artifact));
        outputs.push(NewOutput { job: row.0, idx: row.1, stage: stage_column(stage), result });
    }
    if let Some((producer, key)) = missed {
        missing.rewind(producer, (id, key), row, image.to.stage);
    }
    Ok(Fate::Applied)
}
