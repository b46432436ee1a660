//! Applying results and losses to images.

use std::collections::HashMap;

use darkroom_core::{id::ImageId, job_state::JobState};
use darkroom_queue::task::PoolId;

use super::{
    Error, SqliteStore, Tx,
    both::{missing as found, moves::save_and_finish, outcomes::judge, row_types::ProgressRow},
    history, missing,
    moves::apply,
    progress::LockedJobs,
    rows::{Prompts, column, number, parse, to_json},
};
use crate::store::{
    cause::{Bulk, Cause, Settled},
    judged_images::{self, JudgedImage, NewOutput},
    row::row,
};

row! {
    struct ImageRow {
        job_id: String,
        job_state: String,
        stages: i64,
        pool_stage: Option<i64>,
        ..image: ProgressRow,
    }
}

/// Applies what happened to tasks of a pool. It dispatches nothing at once, because the queue is in
/// this process.
pub(super) async fn settle_images(
    _: &SqliteStore,
    tx: &mut Tx,
    Bulk { pool, causes, .. }: Bulk<'_>,
) -> Result<Settled, Error> {
    let mut missing = found::find(tx, causes).await?;
    let (mut images, prompts) = read_images(tx, pool, causes).await?;
    let (judgement, spent) = judge(tx, &mut images, causes, &mut missing).await?;
    history::log_images(tx, pool, &spent).await?;
    store_outputs(tx, &judgement.outputs).await?;
    let moves: Vec<_> = images.into_values().filter_map(JudgedImage::into_move).collect();
    let mut jobs = LockedJobs::default();
    let applied = apply(tx, &mut jobs, &moves).await?;
    if applied.len() != moves.len() {
        return Err(Error::Corrupt("an image changed under a write transaction".to_owned()));
    }
    missing::forget(tx, &missing, &prompts).await?;
    let (jobs, finished) = save_and_finish(tx, &mut jobs).await?;
    let (fates, changed) = (judgement.fates, applied.len() as u64);
    Ok(Settled { fates, jobs, finished, changed, ..Settled::default() })
}

async fn read_images<'a>(
    tx: &mut Tx,
    pool: &PoolId,
    causes: &[Cause<'_>],
) -> Result<(HashMap<ImageId, JudgedImage<'a>>, Prompts), Error> {
    let ids: Vec<_> =
        judged_images::images_of(causes).iter().map(|id| (id.job, id.index)).collect();
    let rows: Vec<ImageRow> = sqlx::query_as(
        "SELECT DISTINCT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places,
                i.suspect, j.id AS job_id, j.state AS job_state,
                coalesce((SELECT v.stages FROM job_variants AS v WHERE v.job = i.job AND v.variant = i.variant),
                         (SELECT count(*) FROM job_stages AS s WHERE s.job = j.seq AND s.stage >= 0 AND s.own))
                    AS stages,
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
    let (mut images, mut prompts) = (HashMap::with_capacity(rows.len()), Prompts::new());
    for ImageRow { image, job_id, job_state, stages, pool_stage } in rows {
        let id = ImageId { job: parse(&job_id)?, index: number(image.idx)? };
        let live = parse::<JobState>(&job_state)?.live();
        let stage = pool_stage.map(number).transpose()?;
        let judged = JudgedImage::new(
            (image.job, image.idx),
            image.progress()?,
            live,
            (stage, number(stages)?),
        );
        images.insert(id, judged);
        prompts.insert(id, (image.job, image.prompt));
    }
    Ok((images, prompts))
}

async fn store_outputs(tx: &mut Tx, outputs: &[NewOutput<'_>]) -> Result<(), Error> {
    if outputs.is_empty() {
        return Ok(());
    }
    let row = |output: &NewOutput<'_>| {
        let NewOutput { row: (job, idx), stage, artifact, result } = output;
        serde_json::json!([
            job,
            idx,
            stage,
            artifact.key,
            artifact.sha256,
            column(artifact.size),
            output.seconds(),
            result.worker,
            result.device_class,
            result.key.generation,
            column(result.key.dispatch),
        ])
    };
    let rows: Vec<_> = outputs.iter().map(row).collect();
    sqlx::query(
        "INSERT INTO outputs (job, idx, stage, key, sha256, size, seconds, worker, device_class, generation,
                              dispatch, at_ms)
         SELECT o.value ->> 0, o.value ->> 1, o.value ->> 2, o.value ->> 3, o.value ->> 4, o.value ->> 5,
                o.value ->> 6, o.value ->> 7, o.value ->> 8, o.value ->> 9, o.value ->> 10,
                CAST(unixepoch('subsec') * 1000 AS INTEGER)
         FROM json_each(?1) AS o WHERE TRUE
         ON CONFLICT (job, idx, stage) DO UPDATE
         SET key = excluded.key, sha256 = excluded.sha256, size = excluded.size, seconds = excluded.seconds,
             worker = excluded.worker, device_class = excluded.device_class, generation = excluded.generation,
             dispatch = excluded.dispatch, at_ms = excluded.at_ms, removed_ms = NULL",
    )
    .bind(to_json(&rows)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
