//! Image rows that follow a user's commands to some images of a job.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_core::{
    guard::{self, Guard, stands},
    id::JobId,
    image_command::ImageCommand,
    image_filter::Window,
    image_state::ImageEvent,
    job_state::{JobEvent, JobState, transition},
    text_state::TextState,
};
use sqlx::{Database, Postgres, query::QueryAs};

use super::{
    Error, PostgresStore, Tx,
    both::{
        image_commands::{CommandRow, go_on, meant_ranges, next_command, pending, reopen},
        missing::forget_outputs,
        queries::{find, read_job},
    },
    fault,
    following_images::{FollowingImage, lock_texts, moves_of, withdrawn},
    moves::{apply, finish},
    progress::{LockedJob, LockedJobs},
    rows::{column, column32, names, number, parse},
    texts,
};
use crate::store::{
    image_commands::{LostPicture, Pending, Rerendered, still_following},
    limits::NewDeadline,
    records::Committed,
};

/// First indices of ranges, and those after their last ones.
pub(super) struct Ranges(Vec<i64>, Vec<i64>);

pub(super) fn ranges(bounds: &[(i64, i64)]) -> Result<Ranges, Error> {
    let (first, stop) = bounds.iter().copied().unzip();
    Ok(Ranges(first, stop))
}

/// Binds ranges as the last two parameters.
pub(super) fn bind_ranges<'q, O>(
    query: QueryAs<'q, Postgres, O, <Postgres as Database>::Arguments>,
    Ranges(first, stop): Ranges,
) -> QueryAs<'q, Postgres, O, <Postgres as Database>::Arguments> {
    query.bind(first).bind(stop)
}

/// Runs done images again whose pictures are lost.
pub(super) async fn rerender_lost(
    store: &PostgresStore,
    job: JobId,
    lost: &[LostPicture],
    deadline: NewDeadline,
) -> Result<Rerendered, Error> {
    let mut tx = store.begin_write().await?;
    let seq = find(&mut tx, job).await?;
    let chunk = lost_images(&mut tx, seq, lost).await?;
    let unencoded = lock_texts(&mut tx, &chunk).await?;
    let mut jobs = lock_jobs(&mut tx, &unencoded, seq).await?;
    let (state, following): (String, bool) =
        sqlx::query_as("SELECT state, follow IS NOT NULL FROM jobs WHERE seq = $1")
            .bind(seq)
            .fetch_one(&mut *tx)
            .await?;
    let state: JobState = parse(&state)?;
    let next = transition(state, JobEvent::RetryImages)?;
    if following || pending(&mut tx, seq).await? > 0 {
        return Err(still_following(job).into());
    }
    let event = |encoded| ImageEvent::Lost { encoded };
    let mut moves = moves_of(&mut tx, seq, &chunk, &unencoded, event).await?;
    // Another one may have done it since the chunk was read.
    let found: BTreeSet<(i64, u32)> =
        lost.iter().map(|one| (column(one.index), one.generation)).collect();
    let is_found = |idx: i64, generation: u32| {
        found.contains(&(idx, generation)) || !stands(Guard::LostGeneration)
    };
    moves.retain(|one| is_found(one.idx, one.from.generation));
    if !moves.is_empty() {
        reopen(&mut tx, (job, seq), (state, next), deadline).await?;
        let applied = apply(&mut tx, &mut jobs, &moves).await?;
        moves.retain(|one| applied.contains(&(one.job, one.idx)));
        let stale: Vec<_> = moves.iter().map(|one| (one.job, one.idx, one.to.stage)).collect();
        forget_outputs(&mut tx, &stale).await?;
    }
    // Texts may be wanted again, though no image changed.
    jobs.save(&mut tx).await?;
    let record = read_job(&mut tx, job).await?;
    commit(tx).await?;
    Ok(Rerendered { job: record, images: moves.len() as u64 })
}

/// Commits a command. Where the answer is lost it can be given again: images that have followed it
/// are no longer in a state that it changes.
pub(super) async fn commit(tx: Tx) -> Result<(), Error> {
    match tx.commit().await {
        Err(error) if !fault::is_refused_commit(&error) => Err(Error::Unknown(error)),
        done => Ok(done?),
    }
}

/// Lets image rows follow the oldest command to some images of a job whose own command has been
/// followed.
pub(super) async fn follow(mut tx: Tx, limit: u64) -> Result<Committed, Error> {
    let Some(row) = next_command(&mut tx).await? else { return Ok(Committed::default()) };
    let again = Committed { more: true, ..Committed::default() };
    if !row.live()? {
        let mut jobs = LockedJobs::lock(&mut tx, [row.job]).await?;
        if !unchanged(&mut tx, &row).await? {
            return Ok(again);
        }
        let finished = advance(&mut tx, &mut jobs, &row, None).await?;
        jobs.save(&mut tx).await?;
        tx.commit().await?;
        return Ok(Committed { jobs: finished.clone(), finished, ..again });
    }
    let pending = Pending::new(&row.command, &row.filter, row.next)?;
    let window = pending.window(limit);
    let chunk = commanded_images(&mut tx, row.job, (&pending, &window), limit).await?;
    let next = match chunk.last().filter(|_| chunk.len() as u64 >= limit) {
        Some(last) => Some(number::<u64>(last.idx)? + 1),
        None => window.next,
    };
    // Texts before jobs; a cancel needs none.
    let unencoded = match pending.command {
        ImageCommand::Cancel => BTreeMap::new(),
        ImageCommand::Retry => lock_texts(&mut tx, &chunk).await?,
    };
    let mut jobs = lock_jobs(&mut tx, &unencoded, row.job).await?;
    if !unchanged(&mut tx, &row).await? {
        // Another coordinator was faster, or the user turned round.
        return Ok(again);
    }
    let event = |encoded| pending.command.event(encoded);
    let mut moves = moves_of(&mut tx, row.job, &chunk, &unencoded, event).await?;
    // Under the lock an image may be in another state than when the chunk was read.
    let states = pending.filter.states_among(pending.command.states());
    moves.retain(|one| states.contains(&one.from.state));
    let applied = apply(&mut tx, &mut jobs, &moves).await?;
    let job = JobId(row.job_id);
    let withdrawn = withdrawn(&mut tx, (job, row.job), &moves, &applied).await?;
    let finished = advance(&mut tx, &mut jobs, &row, next).await?;
    jobs.save(&mut tx).await?;
    tx.commit().await?;
    let changed = applied.len() as u64;
    Ok(Committed { changed, jobs: vec![job], finished, withdrawn, ..again })
}

/// Locks a job and those that need the texts that were given up, which are wanted again.
async fn lock_jobs(
    tx: &mut Tx,
    unencoded: &BTreeMap<i64, TextState>,
    job: i64,
) -> Result<LockedJobs, Error> {
    let dead = unencoded.iter().filter(|(_, state)| **state == TextState::Dead);
    let revived = texts::revive(tx, &dead.map(|(id, _)| *id).collect::<Vec<_>>()).await?;
    let waiting = texts::jobs_of(tx, &revived).await?;
    let mut jobs = LockedJobs::lock(tx, waiting.iter().map(|(job, _)| *job).chain([job])).await?;
    texts::want_in_jobs(&mut jobs, &waiting);
    Ok(jobs)
}

/// Whether a command and its job, which is locked, are as they were read.
async fn unchanged(tx: &mut Tx, row: &CommandRow) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM image_commands AS c
                        CROSS JOIN LATERAL (SELECT * FROM jobs AS j WHERE j.seq = c.job OFFSET 0) AS j
                        WHERE c.id = $1 AND c.next = $2 AND j.state = $3 AND j.generation = $4
                          AND j.follow IS NULL)",
    )
    .bind(row.id)
    .bind(row.next)
    .bind(&row.state)
    .bind(row.job_generation)
    .fetch_one(&mut **tx)
    .await?)
}

/// Where a command goes on; after its last image its job may end.
async fn advance(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    row: &CommandRow,
    next: Option<u64>,
) -> Result<Vec<JobId>, Error> {
    go_on(tx, (row.id, row.next), next).await?;
    if next.is_some() || !jobs.get(row.job).is_some_and(LockedJob::complete) {
        return Ok(Vec::new());
    }
    let finished = finish(tx, jobs, &[row.job]).await?;
    if !finished.is_empty()
        && let Some(job) = jobs.get_mut(row.job)
    {
        job.raise();
    }
    Ok(finished)
}

/// Columns of a [`FollowingImage`] and their tables, behind the images `i` that are meant.
macro_rules! following_images {
    ($images:expr) => {
        concat!(
            "SELECT i.idx, p.text_embedding, p.negative_embedding, p.style_embedding,
                    t.state = 'done' AND coalesce(n.state = 'done', TRUE) AND coalesce(s.state = 'done', TRUE)
                        AS encoded
             FROM ",
            $images,
            " JOIN prompts AS p ON p.job = $1 AND p.position = i.prompt
             JOIN embeddings AS t ON t.id = p.text_embedding
             LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
             LEFT JOIN embeddings AS s ON s.id = p.style_embedding
             ORDER BY i.idx"
        )
    };
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
    let images = sqlx::query_as(following_images!(
        "(SELECT i.idx, i.prompt
          FROM unnest($5::bigint[], $6::bigint[]) AS r (first, stop)
          CROSS JOIN LATERAL (SELECT * FROM images AS i
                              WHERE i.job = $1 AND i.idx >= r.first AND i.idx < r.stop
                                AND i.state = ANY ($2::image_state[])
                                AND (cardinality($3::text[]) = 0 OR i.error_code = ANY ($3)) OFFSET 0) AS i
          ORDER BY i.idx LIMIT $4) AS i"
    ))
    .bind(job)
    .bind(names(&states)?)
    .bind(names(&codes)?)
    .bind(column(limit));
    Ok(bind_ranges(images, ranges).fetch_all(&mut **tx).await?)
}

/// Done images that are as they were when their pictures were found lost.
async fn lost_images(
    tx: &mut Tx,
    job: i64,
    lost: &[LostPicture],
) -> Result<Vec<FollowingImage>, Error> {
    let images = following_images!(
        "(SELECT i.idx, i.prompt
          FROM unnest($2::bigint[], $3::int[]) AS w (idx, generation)
          CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = w.idx OFFSET 0) AS i
          WHERE i.state = 'done' AND i.generation = w.generation) AS i"
    );
    let (expected, any) = (" AND i.generation = w.generation", "");
    Ok(sqlx::query_as(guard::text(Guard::LostGeneration, images, expected, any))
        .bind(job)
        .bind(lost.iter().map(|one| column(one.index)).collect::<Vec<_>>())
        .bind(lost.iter().map(|one| column32(one.generation)).collect::<Vec<_>>())
        .fetch_all(&mut **tx)
        .await?)
}
