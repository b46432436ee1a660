//! A user's commands to some images of a job, and image rows that follow them.

use async_trait::async_trait;
use darkroom_core::{
    guard::{self, Guard, stands},
    id::JobId,
    image_command::ImageCommand,
    image_filter::{ImageFilter, Window},
    image_state::ImageState,
    job_state::{JobState, transition},
};

use super::{
    super::image_commands::{Ranges, bind_ranges, commit, ranges, rerender_lost},
    Error, Record, Tx,
    commands::{lock, raise},
    limiting,
    queries::{find, read_job},
    retried,
    rows::{IdColumn, Int, column, names, number, parse, to_json},
};
use crate::store::{
    image_commands::{
        COUNTED_AT_ONCE, Counted, LostPicture, PromptRow, Rerendered, bounds, check_pending, meant,
    },
    limits::{NewDeadline, after_retry},
    records::JobRecord,
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
        let window = filter.window(from, COUNTED_AT_ONCE);
        let mut tx = self.begin_read().await?;
        let seq = find(&mut tx, job).await?;
        let ranges = meant_ranges(&mut tx, seq, filter, &window).await?;
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
        let rows: Vec<(String, i64)> = bind_ranges(counts, ranges).fetch_all(&mut *tx).await?;
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
            if command == ImageCommand::Retry {
                reopen(&mut tx, (job, seq), (state, next), deadline).await?;
                raise(&mut tx, &mut jobs).await?;
            }
            sqlx::query(
                "INSERT INTO image_commands (job, generation, command, filter, next)
                 SELECT seq, generation, $2, $3, 0 FROM jobs WHERE seq = $1",
            )
            .bind(seq)
            .bind(command.name())
            .bind(to_json(filter)?)
            .execute(&mut *tx)
            .await?;
            let commanded = read_job(&mut tx, job).await?;
            commit(tx).await?;
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

row! {
    /// A command that images have yet to follow, and its job.
    pub(in super::super) struct CommandRow {
        pub(in super::super) id: i64,
        pub(in super::super) job: i64,
        pub(in super::super) job_id: IdColumn,
        pub(in super::super) state: String,
        pub(in super::super) job_generation: Int,
        generation: Int,
        pub(in super::super) command: String,
        pub(in super::super) filter: String,
        pub(in super::super) next: i64,
    }
}

impl CommandRow {
    /// Whether it still means something to its job.
    pub(in super::super) fn live(&self) -> Result<bool, Error> {
        let is_current =
            self.generation == self.job_generation || !stands(Guard::CommandGeneration);
        Ok(is_current && parse::<JobState>(&self.state)?.live())
    }
}

/// The oldest command to some images of a job whose own command has been followed.
pub(in super::super) async fn next_command(tx: &mut Tx) -> Result<Option<CommandRow>, Error> {
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

/// Moves a command on to an index, or removes it after its last image.
pub(in super::super) async fn go_on(
    tx: &mut Tx,
    (id, at): (i64, i64),
    next: Option<u64>,
) -> Result<(), Error> {
    let written = match next {
        Some(next) => {
            sqlx::query("UPDATE image_commands SET next = $3 WHERE id = $1 AND next = $2")
                .bind(id)
                .bind(at)
                .bind(column(next))
        }
        None => {
            sqlx::query("DELETE FROM image_commands WHERE id = $1 AND next = $2").bind(id).bind(at)
        }
    };
    if written.execute(&mut **tx).await?.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Corrupt("a command changed within a transaction".to_owned()))
    }
}

/// Commands to images of a job that are still being followed.
pub(in super::super) async fn pending(tx: &mut Tx, job: i64) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM image_commands WHERE job = $1")
        .bind(job)
        .fetch_one(&mut **tx)
        .await?)
}

/// Makes a locked job live again, if it ended, and sets its deadline. The caller raises its
/// version, where that is not done here.
pub(in super::super) async fn reopen(
    tx: &mut Tx,
    (job, seq): (JobId, i64),
    (state, next): (JobState, JobState),
    deadline: NewDeadline,
) -> Result<(), Error> {
    let (limits, now_ms) = limiting::read(tx, seq).await?;
    let deadline = after_retry(job, limits, deadline, now_ms)?;
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

/// The indices of a window whose prompts are meant.
pub(in super::super) async fn meant_ranges(
    tx: &mut Tx,
    job: i64,
    filter: &ImageFilter,
    window: &Window,
) -> Result<Ranges, Error> {
    let looked_at = ranges(&bounds(&window.ranges))?;
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
    let prompts: Vec<PromptRow> = bind_ranges(prompts, looked_at).fetch_all(&mut **tx).await?;
    ranges(&bounds(&meant(filter, &prompts)?))
}
