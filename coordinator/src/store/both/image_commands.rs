//! A user's commands to some images of a job.

use std::collections::BTreeSet;

use async_trait::async_trait;
use darkroom_core::{
    guard::{self, Guard, stands},
    id::JobId,
    image_command::ImageCommand,
    image_filter::{ImageFilter, Window},
    image_state::ImageState,
    job_state::{JobEvent, JobState, transition},
};

use super::{
    super::{
        following::{FollowingImage, lock_chunk, moves_of},
        moves::apply,
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
    rows::{column, names, number, parse, to_json},
};
use crate::store::{
    change::Move,
    image_commands::{
        COUNTED_AT_ONCE, Counted, LostPicture, PromptRow, Rerendered, bounds, check_pending, meant,
        still_following,
    },
    limits::{NewDeadline, after_retry},
    missing::StaleOutputs,
    records::JobRecord,
    roles::ImageCommands,
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
pub(super) async fn meant_ranges(
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
