//! Images that a transaction makes ready are dispatched by it too, where the leader has given leave: nothing else waits for
//! their next pool and it has room. Their rows are written once for two steps, and the log of changes too.
//!
//! What has no leave, is a suspect or lacks an input stays ready and goes the usual way.

use std::collections::{BTreeSet, HashMap};

use darkroom_core::{
    id::{JobId, StageName},
    image_state::{ImageEvent, ImageState, transition},
    settings::Settings,
};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, Tx,
    dispatch::{InputRow, dispatched_image},
    progress::{LockedJob, LockedJobs},
    rows::{digest, from_json, number, stage_column},
};
use crate::store::{
    change::Move,
    records::{Dispatched, Onward},
};

/// A stage of an active job that may be handed on to.
#[derive(sqlx::FromRow)]
struct NextRow {
    seq: i64,
    id: Uuid,
    settings: String,
    stage: i16,
    name: String,
    pool: Vec<u8>,
}

/// As [`NextRow`], in the domain's words.
struct Next {
    job: JobId,
    settings: Settings,
    pool: PoolId,
}

/// Changes moves to ready, of locked jobs and not yet written, to moves to dispatched; returns what they dispatch.
pub(super) async fn hand_on(
    tx: &mut Tx,
    jobs: &LockedJobs,
    moves: &mut [Move],
    onward: &[Onward],
) -> Result<Vec<(PoolId, Dispatched)>, Error> {
    if onward.is_empty() {
        return Ok(Vec::new());
    }
    moves.sort_unstable_by_key(|one| (one.job, one.idx));
    let next = next_stages(tx, moves).await?;
    let mut room: HashMap<&PoolId, u64> = onward.iter().map(|leave| (&leave.pool, leave.room)).collect();
    let mut chosen = Vec::new();
    for (position, one) in moves.iter().enumerate().filter(|(_, one)| may_go_on(one)) {
        let next = next.get(&(one.job, one.to.stage));
        let Some(room) = next.and_then(|next| room.get_mut(&next.pool)).filter(|room| **room > 0) else {
            continue;
        };
        *room -= 1;
        chosen.push(position);
    }
    let mut inputs = read_inputs(tx, moves, &chosen).await?;
    let mut dispatched = Vec::with_capacity(chosen.len());
    for position in chosen {
        let one = &mut moves[position];
        let Some(next) = next.get(&(one.job, one.to.stage)) else { continue };
        let Some(row) = inputs.remove(&(one.job, one.idx)).filter(InputRow::encoded) else { continue };
        let stages = jobs.get(one.job).map_or(0, LockedJob::stages);
        let Ok(to) = transition(&one.to, &ImageEvent::Dispatch, stages) else { continue };
        one.to = to;
        let task = dispatched_image(next.job, &next.pool, &next.settings, (one.idx, &one.to), row)?;
        dispatched.push((next.pool.clone(), task));
    }
    Ok(dispatched)
}

fn may_go_on(one: &Move) -> bool {
    one.to.state == ImageState::Ready && !one.to.suspect
}

/// The stages that jobs' images go on to; only of active jobs without a limit of their own.
async fn next_stages(tx: &mut Tx, moves: &[Move]) -> Result<HashMap<(i64, usize), Next>, Error> {
    let wanted: BTreeSet<(i64, usize)> =
        moves.iter().filter(|one| may_go_on(one)).map(|one| (one.job, one.to.stage)).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<NextRow> = sqlx::query_as(
        "SELECT j.seq, j.id, j.settings, s.stage, s.name, s.pool
         FROM unnest($1::bigint[], $2::smallint[]) AS w (job, stage)
         JOIN jobs AS j ON j.seq = w.job
         JOIN job_stages AS s ON s.job = w.job AND s.stage = w.stage
         WHERE j.state = 'active' AND j.max_workers IS NULL",
    )
    .bind(wanted.iter().map(|(job, _)| *job).collect::<Vec<_>>())
    .bind(wanted.iter().map(|(_, stage)| stage_column(*stage)).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let stage = StageName::try_from(row.name).map_err(|_| Error::Corrupt("stage name".to_owned()))?;
            let pool = PoolId { stage, digest: digest(&row.pool)? };
            let next = Next { job: JobId(row.id), settings: from_json(&row.settings)?, pool };
            Ok(((row.seq, number(row.stage)?), next))
        })
        .collect()
}

/// What the next stage of the chosen images needs; what their last one stored is among it.
async fn read_inputs(
    tx: &mut Tx,
    moves: &[Move],
    chosen: &[usize],
) -> Result<HashMap<(i64, i64), InputRow>, Error> {
    if chosen.is_empty() {
        return Ok(HashMap::new());
    }
    let of = |position: &usize| &moves[*position];
    let rows: Vec<InputRow> = sqlx::query_as(
        "SELECT w.job, w.idx, p.text, p.negative, p.first_index, p.first_seed, p.text_embedding,
                p.negative_embedding, p.style_embedding, p.extras,
                t.key AS text_key, t.sha256 AS text_sha256, t.size AS text_size,
                n.key AS negative_key, n.sha256 AS negative_sha256, n.size AS negative_size,
                s.key AS style_key, s.sha256 AS style_sha256, s.size AS style_size,
                o.key AS low_res_key, o.sha256 AS low_res_sha256, o.size AS low_res_size
         FROM unnest($1::bigint[], $2::bigint[], $3::smallint[]) AS w (job, idx, stage)
         CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = w.job AND i.idx = w.idx OFFSET 0) AS i
         CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                             WHERE p.job = w.job AND p.position = i.prompt OFFSET 0) AS p
         LEFT JOIN embeddings AS t ON t.id = p.text_embedding AND t.state = 'done'
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding AND n.state = 'done'
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding AND s.state = 'done'
         LEFT JOIN outputs AS o ON o.job = w.job AND o.idx = w.idx AND o.stage = w.stage - 1",
    )
    .bind(chosen.iter().map(|position| of(position).job).collect::<Vec<_>>())
    .bind(chosen.iter().map(|position| of(position).idx).collect::<Vec<_>>())
    .bind(chosen.iter().map(|position| stage_column(of(position).to.stage)).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.job, row.idx), row)).collect())
}
