//! Finding images that may be dispatched, and marking them so with all that a worker needs.
//!
//! The search for ready images begins at the job's low-water mark for the stage and skips the
//! blocks that have none, so that it costs the same whatever was dispatched before, and whatever
//! dead rows are left of it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use darkroom_core::{
    fair_share::Pick,
    guard::{self, Guard},
    id::JobId,
    image_state::ImageEvent,
    settings::Settings,
    text_state::TextState,
};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, Tx,
    block_bits::BLOCK,
    both::{
        dispatching::NOTHING,
        input_row::{InputRow, ReadyRow, input_columns, input_joins},
        variants,
    },
    moves::{apply, save_and_finish},
    progress::{LockedJob, LockedJobs},
    rows::{column, from_json, number},
    texts,
};
use crate::store::{
    change::{Applied, Move},
    records::Dispatched,
    row::row,
    variants::{Known, of as variant_of},
};

row! {
    /// A job to dispatch from.
    struct Source {
        seq: i64,
        id: Uuid,
        settings: String,
        stage: i16,
        =count: u64,
    }
}

pub(super) async fn dispatch_images(
    tx: &mut Tx,
    pool: &PoolId,
    picks: &[Pick],
) -> Result<Vec<Dispatched>, Error> {
    let (mut jobs, sources) = lock_sources(tx, pool, picks).await?;
    let mut ready = ready_images(tx, &jobs, &sources).await?;
    ready.sort_unstable_by_key(|row| (row.image.job, row.image.idx));
    let (moves, unencoded) = judge(tx, &jobs, &ready).await?;
    let applied = apply(tx, &mut jobs, &moves).await?;
    let mut by_job: HashMap<i64, VecDeque<ReadyRow>> = HashMap::new();
    for row in ready {
        by_job.entry(row.image.job).or_default().push_back(row);
    }
    let mut settings: HashMap<JobId, (i64, Settings, Known)> = HashMap::new();
    for source in &sources {
        let rows = by_job.get(&source.seq);
        let wanted = rows.into_iter().flatten().map(|row| row.image.variant);
        let variants = variants::read(tx, source.seq, wanted).await?;
        let found = rows.map_or(0, VecDeque::len) as u64;
        let left =
            rows.into_iter().flatten().find(|row| !applied.contains(&(source.seq, row.image.idx)));
        // The blocks come in order, and of the last one perhaps not every image.
        let last = rows.into_iter().flatten().map(|row| row.image.idx).max();
        let low = match (left, last) {
            (Some(left), _) => left.image.idx,
            (None, Some(last)) if found >= source.count => last - last % BLOCK,
            _ => NOTHING,
        };
        if let Some(job) = jobs.get_mut(source.seq) {
            job.set_ready_from(number(source.stage)?, low);
        }
        settings.insert(JobId(source.id), (source.seq, from_json(&source.settings)?, variants));
    }
    save_and_finish(tx, &mut jobs).await?;
    let mut dispatched = Vec::with_capacity(applied.len());
    for pick in picks {
        let Some((seq, settings, variants)) = settings.get(&pick.job) else { continue };
        let Some(rows) = by_job.get_mut(seq) else { continue };
        let count = usize::try_from(pick.count).unwrap_or(usize::MAX).min(rows.len());
        for row in rows.drain(..count) {
            let key = (row.image.job, row.image.idx);
            if applied.contains(&key) && !unencoded.contains(&key) {
                let settings = match row.image.variant {
                    None => settings,
                    Some(variant) => variant_of(variants, variant.into())?,
                };
                dispatched.push(row.dispatched(pick.job, pool, settings)?);
            }
        }
    }
    Ok(dispatched)
}

/// Locks the picked jobs that are active and have the pool's stage. A job may be picked more than
/// once.
async fn lock_sources(
    tx: &mut Tx,
    pool: &PoolId,
    picks: &[Pick],
) -> Result<(LockedJobs, Vec<Source>), Error> {
    let mut counts: BTreeMap<Uuid, u64> = BTreeMap::new();
    for pick in picks {
        *counts.entry(pick.job.0).or_default() += pick.count;
    }
    let ids: Vec<Uuid> = counts.keys().copied().collect();
    let seqs = super::progress::seqs_of(tx, &ids).await?;
    let jobs = LockedJobs::lock(tx, seqs.into_values()).await?;
    let mut sources: Vec<Source> = sqlx::query_as(guard::text(
        Guard::ActiveOnly,
        "SELECT j.seq, j.id, j.settings, s.stage
         FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq
         WHERE j.id = ANY ($1) AND j.state = 'active' AND s.stage >= 0 AND s.name = $2 AND s.pool = $3",
        "AND j.state = 'active'",
        "",
    ))
    .bind(&ids)
    .bind(pool.stage.as_str())
    .bind(pool.digest.0)
    .fetch_all(&mut **tx)
    .await?;
    for source in &mut sources {
        source.count = counts.get(&source.id).copied().unwrap_or(0);
    }
    sources.retain(|source| jobs.get(source.seq).is_some());
    Ok((jobs, sources))
}

/// The next ready images of each job, with the inputs of their stage; an input that is not there is
/// NULL.
async fn ready_images(
    tx: &mut Tx,
    jobs: &LockedJobs,
    sources: &[Source],
) -> Result<Vec<ReadyRow>, Error> {
    let low = |source: &Source| {
        jobs.get(source.seq)
            .map_or(0, |job| job.ready_from(usize::try_from(source.stage).unwrap_or(0)))
    };
    Ok(sqlx::query_as(
        concat!(
            "SELECT next.*, ",
            input_columns!(),
            ", o.key AS low_res_key, o.sha256 AS low_res_sha256, o.size AS low_res_size
         FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[]) AS w (job, stage, low, count)
         CROSS JOIN LATERAL (
             SELECT i.*
             FROM image_blocks AS b
             CROSS JOIN LATERAL (
                 SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                        i.suspect
                 FROM images AS i
                 WHERE i.job = w.job AND i.idx >= greatest(b.block * 256, w.low) AND i.idx < (b.block + 1) * 256
                   AND i.state = 'ready' AND i.stage = w.stage
                 ORDER BY i.idx LIMIT 256) AS i
             WHERE b.job = w.job AND b.block >= w.low / 256 AND b.ready > 0
             ORDER BY b.block LIMIT w.count) AS next
         JOIN prompts AS p ON p.job = next.job AND p.position = next.prompt
        ",
            input_joins!(),
            "LEFT JOIN outputs AS o ON o.job = next.job AND o.idx = next.idx AND o.stage = next.stage - 1"
        ),
    )
    .bind(sources.iter().map(|source| source.seq).collect::<Vec<_>>())
    .bind(sources.iter().map(|source| source.stage).collect::<Vec<_>>())
    .bind(sources.iter().map(low).collect::<Vec<_>>())
    .bind(sources.iter().map(|source| column(source.count)).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?)
}

/// Dispatches every image whose texts are encoded; the others (their rows come second) wait for
/// them again.
async fn judge(
    tx: &mut Tx,
    jobs: &LockedJobs,
    ready: &[ReadyRow],
) -> Result<(Vec<Move>, Applied), Error> {
    // Rare: an embedding was lost after its images had become ready.
    let doubtful = ready.iter().map(|row| &row.input).filter(|row| !row.encoded());
    let doubtful: Vec<i64> = doubtful.flat_map(InputRow::texts).collect();
    let lost = texts::lock_unencoded(tx, &doubtful).await?;
    let dead: Vec<i64> = lost
        .iter()
        .filter(|(_, state)| **state == TextState::Dead)
        .map(|(text, _)| *text)
        .collect();
    texts::spread_again(tx, &dead).await?;
    let (mut moves, mut unencoded) = (Vec::with_capacity(ready.len()), Applied::new());
    for row in ready {
        let stages = jobs.get(row.image.job).map_or(0, LockedJob::stages);
        let event = if row.input.encoded() {
            ImageEvent::Dispatch
        } else {
            unencoded.insert((row.image.job, row.image.idx));
            if !row.input.texts().any(|text| lost.contains_key(&text)) {
                // Encoded again just now.
                continue;
            }
            ImageEvent::TextsLost
        };
        moves.extend(Move::by(
            (row.image.job, row.image.idx),
            row.image.progress()?,
            &event,
            stages,
        ));
    }
    Ok((moves, unencoded))
}
