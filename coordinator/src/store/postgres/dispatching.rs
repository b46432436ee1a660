//! Finding images that may be dispatched, and marking them so with all that a worker needs.
//!
//! The search for ready images begins at the job's low-water mark for the stage and skips the
//! blocks that have none. So its cost does not depend on how many images were dispatched before, or
//! on the dead rows that those left.

use darkroom_core::text_state::TextState;

use super::{
    Error, Tx,
    block_bits::BLOCK,
    both::{
        dispatching::{NOTHING, Source},
        input_row::{ReadyRow, input_columns, input_joins},
    },
    progress::LockedJobs,
    rows::{column, number},
    texts,
};
use crate::store::change::Applied;

/// The next ready images of each job, with the inputs of their stage; an input that is not there is
/// NULL.
pub(super) async fn ready_images(
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
                 SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places,
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

/// The images whose texts are not encoded any more, and will not be until the transaction ends.
/// Rare: an embedding was lost after its images had become ready.
pub(super) async fn wait_for_texts(tx: &mut Tx, ready: &[ReadyRow]) -> Result<Applied, Error> {
    let doubtful = || ready.iter().filter(|row| !row.input.encoded());
    let needed: Vec<i64> = doubtful().flat_map(|row| row.input.texts()).collect();
    let lost = texts::lock_unencoded(tx, &needed).await?;
    let dead = lost.iter().filter(|(_, state)| **state == TextState::Dead);
    texts::spread_again(tx, &dead.map(|(text, _)| *text).collect::<Vec<_>>()).await?;
    let waiting = doubtful().filter(|row| row.input.texts().any(|text| lost.contains_key(&text)));
    Ok(waiting.map(|row| (row.image.job, row.image.idx)).collect())
}

/// Where the next search of a job begins: `seen` are the images that this one found, in order, and
/// whether they moved.
pub(super) fn mark_seen(
    jobs: &mut LockedJobs,
    source: &Source,
    seen: &[(i64, bool)],
) -> Result<(), Error> {
    // The blocks come in order, and of the last one perhaps not every image.
    let low = match (seen.iter().find(|(_, moved)| !moved), seen.last()) {
        (Some((left, _)), _) => *left,
        (None, Some((last, _))) if seen.len() as u64 >= source.count => last - last % BLOCK,
        _ => NOTHING,
    };
    if let Some(job) = jobs.get_mut(source.seq) {
        job.set_ready_from(number(source.stage)?, low);
    }
    Ok(())
}
