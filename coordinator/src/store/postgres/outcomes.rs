//! Applying results and losses to images.

use std::collections::HashMap;

use darkroom_core::{
    id::{ImageId, JobId},
    job_state::JobState,
};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, PostgresStore, Tx,
    both::{
        input_row::{InputRow, input_columns, input_joins},
        moves::save_and_finish,
        outcomes::judge,
        row_types::ProgressRow,
    },
    missing,
    moves::apply_with,
    onward::{self, Inputs},
    plans::Plans,
    progress::LockedJobs,
    rows::{column, number, parse},
};
use crate::store::{
    cause::{Bulk, Settled},
    judged_images::{self, JudgedImage},
    row::row,
};

row! {
    struct ImageRow {
        job_state: String,
        /// The job is active, has no limit of its own, and its tenant none that holds it back.
        free: bool,
        ..image: ProgressRow,
    }
}

row! {
    /// With the inputs of the next stage.
    struct GoingRow {
        ..row: ImageRow,
        ..input: InputRow,
    }
}

/// The inputs of the next stage, for images that may be dispatched at once.
type Going = HashMap<ImageId, InputRow>;

/// Applies what happened to tasks of a pool.
pub(super) async fn settle_images(
    store: &PostgresStore,
    tx: &mut Tx,
    Bulk { pool, causes, onward }: Bulk<'_>,
) -> Result<Settled, Error> {
    let (mut missing, needed) = missing::find(tx, causes).await?;
    let ids = judged_images::images_of(causes);
    let mut uuids: Vec<Uuid> = ids.iter().map(|id| id.job.0).collect();
    uuids.sort_unstable();
    uuids.dedup();
    let plans = store.plans.by_id(tx, &uuids).await?;
    let needing = needed.iter().map(|(job, _)| *job);
    let mut jobs = LockedJobs::lock(tx, plans.keys().copied().chain(needing)).await?;
    let (mut images, mut going) = read_images(tx, (pool, &plans), &ids, !onward.is_empty()).await?;
    let (judgement, spent) = judge(tx, &mut images, causes, &mut missing).await?;
    jobs.spend(pool, spent);
    let (mut moves, mut inputs) = (Vec::with_capacity(images.len()), Inputs::new());
    for (id, image) in images {
        // Only an image that has just finished a stage can be dispatched at once: the stage's
        // output is the input of the next one.
        if let Some((stored, input)) = image.stored().zip(going.remove(&id)) {
            inputs.insert(image.row, input.after(stored));
        }
        moves.extend(image.into_move());
    }
    let dispatched = onward::hand_on(&plans, &mut moves, inputs, onward)?;
    let applied = apply_with(tx, &mut jobs, &moves, &judgement.outputs).await?;
    if applied.len() != moves.len() {
        return Err(Error::Corrupt("an image changed while its job was locked".to_owned()));
    }
    missing::forget(tx, (&missing, &needed), &mut jobs).await?;
    let (jobs, finished) = save_and_finish(tx, &mut jobs).await?;
    let (fates, changed) = (judgement.fates, applied.len() as u64);
    Ok(Settled { fates, jobs, finished, changed, dispatched, more: false })
}

/// The images as they are under the lock of their jobs; if `going`, with the inputs of their next
/// stage.
async fn read_images<'a>(
    tx: &mut Tx,
    (pool, plans): (&PoolId, &Plans),
    ids: &[ImageId],
    going: bool,
) -> Result<(HashMap<ImageId, JudgedImage<'a>>, Going), Error> {
    let seqs: HashMap<JobId, i64> = plans.values().map(|plan| (plan.id, plan.seq)).collect();
    let (job, idx): (Vec<i64>, Vec<i64>) =
        ids.iter().filter_map(|id| Some((*seqs.get(&id.job)?, column(id.index)))).unzip();
    macro_rules! statement {
        ($columns:expr, $joins:expr) => {
            concat!(
                "SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places,
                        i.suspect, j.state AS job_state,
                        j.state = 'active' AND j.max_workers IS NULL
                        AND NOT EXISTS (SELECT FROM tenants AS t
                                        WHERE t.name = j.tenant COLLATE \"C\"
                                          AND (t.workers IS NOT NULL OR t.device_seconds_per_day IS NOT NULL))
                            AS free",
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
    let (mut images, mut inputs) = (HashMap::with_capacity(rows.len()), Going::new());
    for (ImageRow { image, job_state, free }, input) in rows {
        let Some(plan) = plans.get(&image.job) else { continue };
        let id = ImageId { job: plan.id, index: number(image.idx)? };
        let live = parse::<JobState>(&job_state)?.live();
        let place = (plan.stage(pool), plan.settings(image.variant)?.stages.len());
        images.insert(id, JudgedImage::new((image.job, image.idx), image.progress()?, live, place));
        inputs.extend(input.filter(|_| free).map(|input| (id, input)));
    }
    Ok((images, inputs))
}
