//! A user's commands to some images of a job, and image rows that follow them.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use darkroom_core::{
    guard::{self, Guard, stands},
    id::JobId,
    image_command::ImageCommand,
    image_filter::{ImageFilter, Window},
    image_state::ImageState,
    job_state::{JobEvent, JobState, transition},
};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    super::{
        following::{FollowingImage, lock_chunk, moves_of},
        moves::{apply, end_followed},
        progress::LockedJobs,
        texts::revive_of_images,
    },
    Error, Record, Tx,
    commands::{lock, raise},
    deleted_jobs::not_found,
    following_images::{Change, Chunk, following_images},
    limiting,
    metering::Before,
    missing::forget_outputs,
    queries::{find, read_job},
    retried,
    rows::{
        HashColumn, IdColumn, Int, Small, column, digest, job_id, names, number, parse, stage_name,
        to_json,
    },
};
use crate::store::{
    change::{self, Applied, Move},
    image_commands::{
        COUNTED_AT_ONCE, Counted, LostPicture, Pending, PromptRow, Rerendered, bounds,
        check_pending, meant, still_following,
    },
    limits::{NewDeadline, after_retry},
    missing::StaleOutputs,
    records::{Committed, JobRecord},
    roles::ImageCommands,
    row::row,
};

#[async_trait]
impl ImageCommands for Record {
    async fn count_images(
        &self,
        job: JobId,
        command: ImageCommand,
        filter: &ImageFilter,
        from: u64,
    ) -> Result<Counted, Error> {
        let mut tx = self.begin_read().await?;
        let seq = find(&mut tx, job).await?;
        count_step(&mut tx, seq, command, (filter, from)).await
    }

    async fn command_images(
        &self,
        job: JobId,
        command: ImageCommand,
        filter: &ImageFilter,
        deadline: NewDeadline,
    ) -> Result<JobRecord, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let (mut jobs, seq, state) = lock(&mut tx, job).await?;
            if command == ImageCommand::Cancel && state.terminal() {
                return read_job(&mut tx, job).await;
            }
            let next = transition(state, command.job_event())?;
            check_pending(job, pending(&mut tx, seq).await?)?;
            let waiting = Before::read(&mut tx, seq).await?;
            let images = if command == ImageCommand::Retry && waiting.is_limited() {
                count_all(&mut tx, seq, command, filter).await?
            } else {
                0
            };
            if command == ImageCommand::Retry {
                reopen(&mut tx, &Reopened { id: job, seq, state, next }, deadline).await?;
                raise(&mut tx, &mut jobs).await?;
            }
            sqlx::query(
                "INSERT INTO image_commands (job, generation, command, filter, next, images)
                 SELECT seq, generation, $2, $3, 0, $4 FROM jobs WHERE seq = $1",
            )
            .bind(seq)
            .bind(command.name())
            .bind(to_json(filter)?)
            .bind(column(images))
            .execute(&mut *tx)
            .await?;
            waiting.check(&mut tx).await?;
            let commanded = read_job(&mut tx, job).await?;
            self.commit_repeatable(tx).await?;
            Ok(commanded)
        })
        .await
    }

    async fn rerender_lost(
        &self,
        job: JobId,
        lost: &[LostPicture],
        deadline: NewDeadline,
    ) -> Result<Rerendered, Error> {
        retried(|| rerender_lost(self, job, lost, deadline)).await
    }
}

/// Counts the images that a command would change now, in one step from an index on.
async fn count_step(
    tx: &mut Tx,
    seq: i64,
    command: ImageCommand,
    (filter, from): (&ImageFilter, u64),
) -> Result<Counted, Error> {
    let window = filter.window(from, COUNTED_AT_ONCE);
    let ranges = meant_ranges(tx, seq, filter, &window).await?;
    let mut counted = Counted { next: window.next, ..Counted::default() };
    let changed = filter.states_among(command.states());
    let codes: Vec<_> = filter.codes().iter().map(String::as_str).collect();
    let counts = sqlx::query_as(sql!(
        sqlite:
            "SELECT i.state, count(*)
             FROM json_each($3) AS r
             CROSS JOIN images AS i ON i.job = $1 AND i.idx >= r.value ->> 0 AND i.idx < r.value ->> 1
             WHERE $2 = '[]' OR i.error_code IN (SELECT value FROM json_each($2))
             GROUP BY i.state",
        postgres:
            "SELECT i.state::text, count(*)
             FROM unnest($3::bigint[], $4::bigint[]) AS r (first, stop)
             CROSS JOIN LATERAL (SELECT * FROM images AS i
                                 WHERE i.job = $1 AND i.idx >= r.first AND i.idx < r.stop OFFSET 0) AS i
             WHERE cardinality($2::text[]) = 0 OR i.error_code = ANY ($2)
             GROUP BY i.state",
    ))
    .bind(seq)
    .bind(names(&codes)?);
    let counts = bind_rows!(counts, ranges, |(first, stop)| *first, *stop);
    let rows: Vec<(String, i64)> = counts.fetch_all(&mut **tx).await?;
    for (state, count) in rows {
        let (state, count) = (parse::<ImageState>(&state)?, number::<u64>(count)?);
        if changed.contains(&state) {
            counted.images += count;
        } else if state == ImageState::Done && filter.states().is_empty() {
            counted.done += count;
        }
    }
    Ok(counted)
}

/// Counts all images that a command would change now.
async fn count_all(
    tx: &mut Tx,
    seq: i64,
    command: ImageCommand,
    filter: &ImageFilter,
) -> Result<u64, Error> {
    let (mut images, mut next) = (0, Some(0));
    while let Some(from) = next {
        let counted = count_step(tx, seq, command, (filter, from)).await?;
        images += counted.images;
        next = counted.next;
    }
    Ok(images)
}

/// Runs done images again whose pictures are lost.
async fn rerender_lost(
    store: &Record,
    job: JobId,
    lost: &[LostPicture],
    deadline: NewDeadline,
) -> Result<Rerendered, Error> {
    let mut tx = store.begin_referring().await?;
    let seq = find(&mut tx, job).await?;
    let images = lost_images(&mut tx, seq, lost).await?;
    let chunk = Chunk { seq, change: Change::Rerender, images };
    let (mut jobs, unencoded) = lock_chunk(&mut tx, &chunk).await?;
    let waiting = Before::read(&mut tx, seq).await?;
    let found: Option<(String, bool)> = sqlx::query_as(
        "SELECT state, follow IS NOT NULL FROM jobs WHERE seq = $1 AND deleted_ms IS NULL",
    )
    .bind(seq)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((state, following)) = found else { return Err(not_found(&mut tx, job).await) };
    let state: JobState = parse(&state)?;
    let next = transition(state, JobEvent::RetryImages)?;
    if following || pending(&mut tx, seq).await? > 0 {
        return Err(still_following(job).into());
    }
    let mut moves = moves_of(&mut tx, &chunk, &unencoded).await?;
    // Another coordinator may have done it since the chunk was read.
    let found: BTreeSet<(i64, u32)> =
        lost.iter().map(|one| (column(one.index), one.generation)).collect();
    let is_found = |idx: i64, generation: u32| {
        found.contains(&(idx, generation)) || !stands(Guard::LostGeneration)
    };
    moves.retain(|one| is_found(one.idx, one.from.generation));
    if !moves.is_empty() {
        reopen(&mut tx, &Reopened { id: job, seq, state, next }, deadline).await?;
        revive_of_images(&mut tx, &chunk).await?;
        let applied = apply(&mut tx, &mut jobs, &moves).await?;
        moves.retain(|one| applied.contains(&(one.job, one.idx)));
        let stale =
            |one: &Move| StaleOutputs { job: one.job, idx: one.idx, first_stage: one.to.stage };
        forget_outputs(&mut tx, &moves.iter().map(stale).collect::<Vec<_>>()).await?;
    }
    // Texts may be wanted again, though no image changed.
    jobs.save(&mut tx).await?;
    waiting.check(&mut tx).await?;
    let record = read_job(&mut tx, job).await?;
    store.commit_repeatable(tx).await?;
    Ok(Rerendered { job: record, images: moves.len() as u64 })
}

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

/// Commands to images of a job that are still being followed.
async fn pending(tx: &mut Tx, job: i64) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM image_commands WHERE job = $1")
        .bind(job)
        .fetch_one(&mut **tx)
        .await?)
}

/// A locked job that is made live.
struct Reopened {
    id: JobId,
    seq: i64,
    state: JobState,
    /// The state that it gets.
    next: JobState,
}

/// Makes a locked job live again if it ended, and sets its deadline. In Postgres the caller raises
/// its version.
async fn reopen(tx: &mut Tx, job: &Reopened, deadline: NewDeadline) -> Result<(), Error> {
    let Reopened { id, seq, state, next } = *job;
    let (limits, now_ms) = limiting::read(tx, seq).await?;
    let deadline = after_retry(id, limits, deadline, now_ms)?;
    let statement = if state.terminal() {
        sql!(
            sqlite:
                "UPDATE jobs
                 SET state = $3, version = version + 1, generation = generation + 1, finished_ms = NULL,
                     end_code = NULL, end_reason = NULL, deadline_ms = $4,
                     manifest = NULL, manifest_key = NULL, manifest_sha256 = NULL
                 WHERE seq = $1 AND state = $2",
            postgres:
                "UPDATE jobs
                 SET state = $3, generation = generation + 1, finished_at = NULL,
                     end_code = NULL, end_reason = NULL, deadline = to_timestamp($4::float8 / 1000),
                     manifest = NULL, manifest_key = NULL, manifest_sha256 = NULL, manifest_writer = NULL,
                     prune_from = 0
                 WHERE seq = $1 AND state = $2",
        )
    } else {
        sql!(
            sqlite:
                "UPDATE jobs SET state = $3, version = version + 1, deadline_ms = $4
                 WHERE seq = $1 AND state = $2",
            postgres:
                "UPDATE jobs SET state = $3, deadline = to_timestamp($4::float8 / 1000)
                 WHERE seq = $1 AND state = $2",
        )
    };
    sqlx::query(guard::text(Guard::JobExpected, statement, "state = $2", "$2 <> ''"))
        .bind(seq)
        .bind(state.name())
        .bind(next.name())
        .bind(deadline)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The indices in a window whose prompts match the filter, as ranges: the first index, and the one
/// after the last.
async fn meant_ranges(
    tx: &mut Tx,
    job: i64,
    filter: &ImageFilter,
    window: &Window,
) -> Result<Vec<(i64, i64)>, Error> {
    let looked_at = bounds(&window.ranges);
    if filter.prompts().is_empty() {
        return Ok(looked_at);
    }
    let prompts = sqlx::query_as(sql!(
        sqlite:
            "SELECT p.text, p.custom_id, p.labels, p.first_index, p.images, r.value ->> 0 AS range_start,
                    r.value ->> 1 AS range_end
             FROM json_each($2) AS r
             CROSS JOIN images AS a ON a.job = $1 AND a.idx = r.value ->> 0
             CROSS JOIN images AS z ON z.job = $1 AND z.idx = (r.value ->> 1) - 1
             CROSS JOIN prompts AS p ON p.job = $1 AND p.position BETWEEN a.prompt AND z.prompt
             ORDER BY range_start, p.position",
        postgres:
            "SELECT p.text, p.custom_id, p.labels, p.first_index, p.images::bigint AS images,
                    r.first AS range_start, r.stop AS range_end
             FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS r (first, stop, number)
             CROSS JOIN LATERAL (SELECT prompt FROM images AS i WHERE i.job = $1 AND i.idx = r.first OFFSET 0) AS f
             CROSS JOIN LATERAL (SELECT prompt FROM images AS i WHERE i.job = $1 AND i.idx = r.stop - 1 OFFSET 0) AS l
             CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                 WHERE p.job = $1 AND p.position BETWEEN f.prompt AND l.prompt OFFSET 0) AS p
             ORDER BY r.number, p.position",
    ))
    .bind(job);
    let prompts = bind_rows!(prompts, looked_at, |(first, stop)| *first, *stop);
    let prompts: Vec<PromptRow> = prompts.fetch_all(&mut **tx).await?;
    Ok(bounds(&meant(filter, &prompts)?))
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

/// Done images that have not changed since their pictures were found to be lost.
async fn lost_images(
    tx: &mut Tx,
    job: i64,
    lost: &[LostPicture],
) -> Result<Vec<FollowingImage>, Error> {
    let (images, expected) = sql!(
        sqlite: (
            following_images!(
                "json_each($2) AS w CROSS JOIN images AS i ON i.job = $1 AND i.idx = w.value ->> 0",
                "WHERE i.state = 'done' AND i.generation = w.value ->> 1"
            ),
            " AND i.generation = w.value ->> 1",
        ),
        postgres: (
            following_images!(
                "(SELECT i.idx, i.prompt
                  FROM unnest($2::bigint[], $3::int[]) AS w (idx, generation)
                  CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = w.idx OFFSET 0) AS i
                  WHERE i.state = 'done' AND i.generation = w.generation) AS i",
                "ORDER BY i.idx"
            ),
            " AND i.generation = w.generation",
        ),
    );
    let images = sqlx::query_as(guard::text(Guard::LostGeneration, images, expected, "")).bind(job);
    let images = bind_rows!(images, lost, |one| column(one.index), column(one.generation));
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
