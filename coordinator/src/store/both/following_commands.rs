//! Image rows that follow a user's command to some images of a job.

use std::collections::BTreeMap;

use darkroom_core::{
    guard::{Guard, stands},
    id::JobId,
    image_command::ImageCommand,
    image_filter::Window,
    job_state::JobState,
};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    super::{
        following::{FollowingImage, lock_chunk, moves_of},
        moves::{apply, end_followed},
        progress::LockedJobs,
        texts::revive_of_images,
    },
    Error, Tx,
    following_images::{Change, Chunk, following_images},
    image_commands::meant_ranges,
    rows::{
        HashColumn, IdColumn, Int, Small, column, digest, job_id, names, number, parse, stage_name,
    },
};
use crate::store::{
    change::{self, Applied, Move},
    image_commands::Pending,
    records::Committed,
    row::row,
};

/// Lets image rows follow the oldest command to some images of a job whose own command has been
/// followed.
pub(in super::super) async fn follow(mut tx: Tx, limit: u64) -> Result<Committed, Error> {
    let Some(row) = next_command(&mut tx).await? else { return Ok(Committed::default()) };
    let again = Committed { more: true, ..Committed::default() };
    if !row.live()? {
        let change = Change::Follow(ImageCommand::Cancel);
        let nothing = Chunk { seq: row.job, change, images: Vec::new() };
        let (mut jobs, _) = lock_chunk(&mut tx, &nothing).await?;
        if !unchanged(&mut tx, &row).await? {
            return Ok(again);
        }
        let finished = advance(&mut tx, &mut jobs, &row, Step { next: None, changed: 0 }).await?;
        jobs.save(&mut tx).await?;
        tx.commit().await?;
        return Ok(Committed { jobs: finished.clone(), finished, ..again });
    }
    let pending = Pending::new(&row.command, &row.filter, row.next)?;
    let window = pending.window(limit);
    let images = commanded_images(&mut tx, row.job, (&pending, &window), limit).await?;
    let next = match images.last().filter(|_| images.len() as u64 >= limit) {
        Some(last) => Some(number::<u64>(last.idx())? + 1),
        None => window.next,
    };
    let chunk = Chunk { seq: row.job, change: Change::Follow(pending.command), images };
    let (mut jobs, unencoded) = lock_chunk(&mut tx, &chunk).await?;
    if !unchanged(&mut tx, &row).await? {
        // Another coordinator was faster, or the user gave another command.
        return Ok(again);
    }
    if pending.command == ImageCommand::Retry {
        revive_of_images(&mut tx, &chunk).await?;
    }
    let mut moves = moves_of(&mut tx, &chunk, &unencoded).await?;
    // Under the lock an image may be in another state than when the chunk was read.
    let states = pending.filter.states_among(pending.command.states());
    moves.retain(|one| states.contains(&one.from.state));
    let applied = apply(&mut tx, &mut jobs, &moves).await?;
    let job = job_id(&row.job_id)?;
    let withdrawn = withdrawn(&mut tx, (job, row.job), &moves, &applied).await?;
    let changed = applied.len() as u64;
    let finished = advance(&mut tx, &mut jobs, &row, Step { next, changed }).await?;
    jobs.save(&mut tx).await?;
    tx.commit().await?;
    Ok(Committed { changed, jobs: vec![job], finished, withdrawn, ..again })
}

/// What a command has done in one transaction.
#[derive(Clone, Copy)]
struct Step {
    /// Index of the first image that has yet to follow; `None`: all have followed.
    next: Option<u64>,
    /// Number of images that have changed.
    changed: u64,
}

/// Records a step of a command. After its last image its job may end.
async fn advance(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    row: &CommandRow,
    step: Step,
) -> Result<Vec<JobId>, Error> {
    go_on(tx, row, step).await?;
    if step.next.is_some() { Ok(Vec::new()) } else { end_followed(tx, jobs, row.job).await }
}

row! {
    /// A command that images have yet to follow, and its job.
    struct CommandRow {
        id: i64,
        job: i64,
        job_id: IdColumn,
        state: String,
        job_generation: Int,
        generation: Int,
        command: String,
        filter: String,
        next: i64,
    }
}

impl CommandRow {
    /// Whether it still applies: its job is live and was not retried since.
    fn live(&self) -> Result<bool, Error> {
        let is_current =
            self.generation == self.job_generation || !stands(Guard::CommandGeneration);
        Ok(is_current && parse::<JobState>(&self.state)?.live())
    }
}

/// The oldest command to some images of a job whose own command has been followed.
async fn next_command(tx: &mut Tx) -> Result<Option<CommandRow>, Error> {
    Ok(sqlx::query_as(sql!(
        sqlite:
            "SELECT c.id, c.job, j.id AS job_id, j.state, j.generation AS job_generation, c.generation,
                    c.command, c.filter, c.next
             FROM image_commands AS c JOIN jobs AS j ON j.seq = c.job
             WHERE j.follow IS NULL ORDER BY c.id LIMIT 1",
        postgres:
            "SELECT c.id, c.job, j.id AS job_id, j.state, j.generation AS job_generation, c.generation,
                    c.command, c.filter, c.next
             FROM image_commands AS c
             CROSS JOIN LATERAL (SELECT * FROM jobs AS j WHERE j.seq = c.job OFFSET 0) AS j
             WHERE j.follow IS NULL ORDER BY c.id LIMIT 1",
    ))
    .fetch_optional(&mut **tx)
    .await?)
}

/// Whether a command and its job, which is locked, are as they were read.
async fn unchanged(tx: &mut Tx, row: &CommandRow) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(sql!(
        sqlite:
            "SELECT EXISTS (SELECT 1 FROM image_commands AS c JOIN jobs AS j ON j.seq = c.job
                            WHERE c.id = $1 AND c.next = $2 AND j.state = $3 AND j.generation = $4
                              AND j.follow IS NULL)",
        postgres:
            "SELECT EXISTS (SELECT FROM image_commands AS c
                            CROSS JOIN LATERAL (SELECT * FROM jobs AS j WHERE j.seq = c.job OFFSET 0) AS j
                            WHERE c.id = $1 AND c.next = $2 AND j.state = $3 AND j.generation = $4
                              AND j.follow IS NULL)",
    ))
    .bind(row.id)
    .bind(row.next)
    .bind(&row.state)
    .bind(row.job_generation)
    .fetch_one(&mut **tx)
    .await?)
}

/// Lets a command continue at an index, or removes it after its last image.
async fn go_on(tx: &mut Tx, row: &CommandRow, step: Step) -> Result<(), Error> {
    let written = match step.next {
        Some(next) => sqlx::query(sql!(
            sqlite:
                "UPDATE image_commands SET next = $3, images = max(images - $4, 0)
                 WHERE id = $1 AND next = $2",
            postgres:
                "UPDATE image_commands SET next = $3, images = greatest(images - $4, 0)
                 WHERE id = $1 AND next = $2",
        ))
        .bind(row.id)
        .bind(row.next)
        .bind(column(next))
        .bind(column(step.changed)),
        None => sqlx::query("DELETE FROM image_commands WHERE id = $1 AND next = $2")
            .bind(row.id)
            .bind(row.next),
    };
    if written.execute(&mut **tx).await?.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Corrupt("a command changed within a transaction".to_owned()))
    }
}

/// The next images of a window that a command changes.
async fn commanded_images(
    tx: &mut Tx,
    job: i64,
    (pending, window): (&Pending, &Window),
    limit: u64,
) -> Result<Vec<FollowingImage>, Error> {
    let ranges = meant_ranges(tx, job, &pending.filter, window).await?;
    let (states, codes) = (pending.states(), pending.codes());
    let images = sqlx::query_as(sql!(
        sqlite: following_images!(
            "json_each($5) AS r
             CROSS JOIN images AS i ON i.job = $1 AND i.idx >= r.value ->> 0 AND i.idx < r.value ->> 1",
            "WHERE i.state IN (SELECT value FROM json_each($2))
               AND ($3 = '[]' OR i.error_code IN (SELECT value FROM json_each($3)))
             ORDER BY i.idx LIMIT $4"
        ),
        postgres: following_images!(
            "(SELECT i.idx, i.prompt
              FROM unnest($5::bigint[], $6::bigint[]) AS r (first, stop)
              CROSS JOIN LATERAL (SELECT * FROM images AS i
                                  WHERE i.job = $1 AND i.idx >= r.first AND i.idx < r.stop
                                    AND i.state = ANY ($2::image_state[])
                                    AND (cardinality($3::text[]) = 0 OR i.error_code = ANY ($3)) OFFSET 0) AS i
              ORDER BY i.idx LIMIT $4) AS i",
            "ORDER BY i.idx"
        ),
    ))
    .bind(job)
    .bind(names(&states)?)
    .bind(names(&codes)?)
    .bind(column(limit));
    let images = bind_rows!(images, ranges, |(first, stop)| *first, *stop);
    Ok(images.fetch_all(&mut **tx).await?)
}

/// The tasks of dispatched images of a job that applied moves cancelled.
async fn withdrawn(
    tx: &mut Tx,
    (job, seq): (JobId, i64),
    moves: &[Move],
    applied: &Applied,
) -> Result<Vec<(PoolId, TaskKey)>, Error> {
    let tasks = change::withdrawn(job, moves, applied)?;
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(Small, String, HashColumn)> =
        sqlx::query_as("SELECT stage, name, pool FROM job_stages WHERE job = $1 AND stage >= 0")
            .bind(seq)
            .fetch_all(&mut **tx)
            .await?;
    let mut pools = BTreeMap::new();
    for (stage, name, pool) in rows {
        let pool = PoolId { stage: stage_name(name)?, digest: digest(&pool)? };
        pools.insert(number::<usize>(stage)?, pool);
    }
    change::with_pools(tasks, &pools)
}
