//! The one place where image rows change: bulk moves from an expected state to the next, with
//! versions, counters and the job's end in the same transaction.

use darkroom_core::{
    guard::{self, Guard, stands},
    id::JobId,
    image_state::ImageProgress,
};
use uuid::Uuid;

use sqlx::FromRow as _;

use super::{
    Error, Tx,
    both::moves::save_and_finish,
    outputs::{self, Query, store_outputs},
    progress::{LockedJob, LockedJobs},
    rows::{column, column32, stage_column, text_column, to_json},
};
use crate::store::{
    change::{Applied, LastError, Move},
    judged_images::NewOutput,
};

/// Writes moves of images whose jobs are locked, and counts what was written. The caller saves the
/// jobs.
pub(super) async fn apply(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    moves: &[Move],
) -> Result<Applied, Error> {
    apply_with(tx, jobs, moves, &[]).await
}

/// As [`apply`], and stores the outputs of the stages that they have passed.
pub(super) async fn apply_with(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    moves: &[Move],
    outputs: &[NewOutput<'_>],
) -> Result<Applied, Error> {
    let outputs = outputs::Columns::of(outputs);
    // Most moves do not change failures and errors. A shorter statement writes them.
    let (full, plain): (Vec<&Move>, Vec<&Move>) = moves.iter().partition(|one| {
        let (from, to) = (&one.from, &one.to);
        let failures =
            (from.failures, from.suspect) != (to.failures, to.suspect) || from.places != to.places;
        failures || matches!(one.error, LastError::Set { .. }) || from.suspect || from.failures > 0
    });
    let mut applied = Applied::with_capacity(moves.len());
    if plain.is_empty() {
        outputs::store(tx, outputs).await?;
    } else {
        applied.extend(update_plain(tx, jobs, &plain, outputs).await?);
    }
    if !full.is_empty() {
        applied.extend(update_full(tx, jobs, &full).await?);
    }
    for one in moves
        .iter()
        .filter(|one| applied.contains(&(one.job, one.idx)) || !stands(Guard::CountersFromRows))
    {
        jobs.moved(one);
    }
    Ok(applied)
}

/// The columns of moves: the row, its expected state, and its new state.
struct Columns {
    job: Vec<i64>,
    idx: Vec<i64>,
    was_state: Vec<&'static str>,
    was_stage: Vec<i16>,
    was_generation: Vec<i32>,
    was_dispatch: Vec<i64>,
    state: Vec<&'static str>,
    stage: Vec<i16>,
    generation: Vec<i32>,
    dispatch: Vec<i64>,
    version: Vec<i64>,
}

impl Columns {
    fn of(jobs: &LockedJobs, moves: &[&Move]) -> Self {
        fn all<T>(moves: &[&Move], value: impl Fn(&Move) -> T) -> Vec<T> {
            moves.iter().map(|one| value(one)).collect()
        }
        let version = |job: i64| jobs.get(job).map_or(0, LockedJob::next_version);
        let stage = |image: &ImageProgress| stage_column(image.stage);
        Self {
            job: all(moves, |one| one.job),
            idx: all(moves, |one| one.idx),
            was_state: all(moves, |one| one.from.state.name()),
            was_stage: all(moves, |one| stage(&one.from)),
            was_generation: all(moves, |one| column32(one.from.generation)),
            was_dispatch: all(moves, |one| column(one.from.dispatch)),
            state: all(moves, |one| one.to.state.name()),
            stage: all(moves, |one| stage(&one.to)),
            generation: all(moves, |one| column32(one.to.generation)),
            dispatch: all(moves, |one| column(one.to.dispatch)),
            version: all(moves, |one| version(one.job)),
        }
    }

    /// Binds the eleven arrays.
    fn bind(self, query: Query<'_>) -> Query<'_> {
        query
            .bind(self.job)
            .bind(self.idx)
            .bind(self.was_state)
            .bind(self.was_stage)
            .bind(self.was_generation)
            .bind(self.was_dispatch)
            .bind(self.state)
            .bind(self.stage)
            .bind(self.generation)
            .bind(self.dispatch)
            .bind(self.version)
    }
}

/// The statement of [`update_plain`]; `$before` is a `WITH` clause or nothing.
macro_rules! update_plain {
    ($before:expr) => {
        concat!(
            $before,
            "UPDATE images AS i
             SET state = m.state::image_state, stage = m.stage, generation = m.generation, dispatch = m.dispatch,
                 version = m.version,
                 error_code = CASE WHEN m.clear THEN NULL ELSE i.error_code END,
                 error = CASE WHEN m.clear THEN NULL ELSE i.error END
             FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::int[], $6::bigint[], $7::text[],
                         $8::smallint[], $9::int[], $10::bigint[], $11::bigint[], $12::boolean[])
                 AS m (job, idx, was_state, was_stage, was_generation, was_dispatch, state, stage, generation, dispatch,
                       version, clear)
             WHERE i.job = m.job AND i.idx = m.idx AND i.state = m.was_state::image_state AND i.stage = m.was_stage
               AND i.generation = m.was_generation AND i.dispatch = m.was_dispatch
             RETURNING i.job, i.idx"
        )
    };
}

/// Also stores the outputs in the same statement. The job is locked meanwhile, and others wait
/// during each round trip.
async fn update_plain(
    tx: &mut Tx,
    jobs: &LockedJobs,
    moves: &[&Move],
    outputs: outputs::Columns,
) -> Result<Vec<(i64, i64)>, Error> {
    let columns = Columns::of(jobs, moves);
    let clear: Vec<bool> = moves.iter().map(|one| one.error == LastError::Clear).collect();
    let statement = if outputs.is_empty() {
        update_plain!("")
    } else {
        update_plain!(concat!(
            "WITH stored AS (",
            store_outputs!(
                "$13", "$14", "$15", "$16", "$17", "$18", "$19", "$20", "$21", "$22", "$23"
            ),
            ") "
        ))
    };
    let (expected, anything) = ("i.state = m.was_state::image_state AND", "");
    let query = sqlx::query(guard::text(Guard::ImageExpected, statement, expected, anything));
    let mut query = columns.bind(query).bind(clear);
    if !outputs.is_empty() {
        query = outputs::bind(query, outputs);
    }
    written(tx, query).await
}

/// Runs a statement that returns the images that it wrote.
async fn written(tx: &mut Tx, query: Query<'_>) -> Result<Vec<(i64, i64)>, Error> {
    let rows = query.fetch_all(&mut **tx).await?;
    Ok(rows.iter().map(<(i64, i64)>::from_row).collect::<Result<_, _>>()?)
}

async fn update_full(
    tx: &mut Tx,
    jobs: &LockedJobs,
    moves: &[&Move],
) -> Result<Vec<(i64, i64)>, Error> {
    let columns = Columns::of(jobs, moves);
    let mut places = Vec::with_capacity(moves.len());
    let (mut errors, mut codes, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    for one in moves {
        let of: Vec<String> = one.to.places.iter().map(|place| text_column(place)).collect();
        places.push(if of.is_empty() { None } else { Some(to_json(&of)?) });
        let (error, code, message) = match &one.error {
            LastError::Keep => ("keep", None, None),
            LastError::Clear => ("clear", None, None),
            LastError::Set { code, message } => {
                ("set", Some(text_column(code.name())), Some(text_column(message)))
            }
        };
        errors.push(error);
        codes.push(code);
        messages.push(message);
    }
    let query = sqlx::query(guard::text(
        Guard::ImageExpected,
        "UPDATE images AS i
         SET state = m.state::image_state, stage = m.stage, generation = m.generation, dispatch = m.dispatch,
             version = m.version, failures = m.failures, suspect = m.suspect,
             hosts = CASE WHEN m.places IS NULL THEN NULL
                          ELSE ARRAY (SELECT jsonb_array_elements_text(m.places::jsonb)) END,
             error_code = CASE m.error WHEN 'keep' THEN i.error_code ELSE m.code END,
             error = CASE m.error WHEN 'keep' THEN i.error ELSE m.message END
         FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::int[], $6::bigint[], $7::text[],
                     $8::smallint[], $9::int[], $10::bigint[], $11::bigint[], $12::int[], $13::boolean[],
                     $14::text[], $15::text[], $16::text[], $17::text[])
             AS m (job, idx, was_state, was_stage, was_generation, was_dispatch, state, stage, generation, dispatch,
                   version, failures, suspect, places, error, code, message)
         WHERE i.job = m.job AND i.idx = m.idx AND i.state = m.was_state::image_state AND i.stage = m.was_stage
           AND i.generation = m.was_generation AND i.dispatch = m.was_dispatch
         RETURNING i.job, i.idx",
        "i.state = m.was_state::image_state AND",
        "",
    ));
    let query = columns
        .bind(query)
        .bind(moves.iter().map(|one| column32(one.to.failures)).collect::<Vec<_>>())
        .bind(moves.iter().map(|one| one.to.suspect).collect::<Vec<_>>())
        .bind(places)
        .bind(errors)
        .bind(codes)
        .bind(messages);
    written(tx, query).await
}

/// Ends the locked jobs among `seqs`, whose images are all terminal. While images still have
/// to follow a command, the job does not end, whatever its counters are.
pub(super) async fn finish(
    tx: &mut Tx,
    jobs: &LockedJobs,
    seqs: &[i64],
) -> Result<Vec<JobId>, Error> {
    let seqs: Vec<i64> = seqs.iter().copied().filter(|seq| jobs.get(*seq).is_some()).collect();
    if seqs.is_empty() {
        return Ok(Vec::new());
    }
    let ends: Vec<&str> = seqs
        .iter()
        .filter_map(|seq| jobs.get(*seq))
        .map(|job| Ok(job.end()?.name()))
        .collect::<Result<_, Error>>()?;
    let ended = guard::text(
        Guard::EndExpected,
        "UPDATE jobs AS j
         SET state = e.state,
             manifest = 'pending', manifest_key = NULL, manifest_sha256 = NULL, manifest_writer = NULL,
             finished_at = clock_timestamp()
         FROM unnest($1::bigint[], $2::text[]) AS e (job, state)
         WHERE j.seq = e.job AND j.state IN ('active', 'paused') AND j.follow IS NULL
           AND NOT EXISTS (SELECT FROM image_commands AS c WHERE c.job = j.seq)
         RETURNING j.id",
        "j.state IN ('active', 'paused') AND",
        "",
    );
    let ids: Vec<Uuid> = sqlx::query_scalar(guard::text(
        Guard::EndAfterCommands,
        ended,
        "AND NOT EXISTS (SELECT FROM image_commands AS c WHERE c.job = j.seq)",
        "",
    ))
    .bind(&seqs)
    .bind(ends)
    .fetch_all(&mut **tx)
    .await?;
    Ok(ids.into_iter().map(JobId).collect())
}

/// Ends a locked job whose images followed a command, if they are all terminal.
pub(super) async fn end_followed(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    seq: i64,
) -> Result<Vec<JobId>, Error> {
    if !jobs.get(seq).is_some_and(LockedJob::complete) {
        return Ok(Vec::new());
    }
    let ended = finish(tx, jobs, &[seq]).await?;
    if let Some(job) = jobs.get_mut(seq).filter(|_| !ended.is_empty()) {
        job.raise();
    }
    Ok(ended)
}

/// Ends jobs whose images are all terminal, if under their lock they still are.
pub(super) async fn finish_complete(tx: &mut Tx, seqs: &[i64]) -> Result<Vec<JobId>, Error> {
    let mut jobs = LockedJobs::lock(tx, seqs.iter().copied()).await?;
    for job in jobs.iter_mut().filter(|job| job.complete()) {
        job.raise();
    }
    Ok(save_and_finish(tx, &mut jobs).await?.1)
}
