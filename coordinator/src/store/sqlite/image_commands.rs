//! Image rows that follow a user's commands to some images of a job.

use darkroom_core::{
    guard::{self, Guard},
    id::JobId,
    image_command::ImageCommand,
    image_filter::Window,
    image_state::ImageEvent,
    job_state::{JobEvent, transition},
};
use sqlx::{Database, Sqlite, query::QueryAs};

use super::{
    Error, SqliteStore, Tx,
    both::row_types::ProgressRow,
    both::{
        commands::lock,
        image_commands::{CommandRow, go_on, meant_ranges, next_command, pending, reopen},
        missing::forget_outputs,
        queries::read_job,
    },
    mix::stages_of,
    moves::{apply, finish, raise_versions, withdrawn},
    rows::{column, job_id, list, names, number, to_json},
    texts,
};
use crate::store::{
    change::Move,
    image_commands::{LostPicture, Pending, Rerendered, still_following},
    limits::NewDeadline,
    records::Committed,
    row::row,
};

row! {
    struct CommandedImage {
        encoded: bool,
        stages: i64,
        ..image: ProgressRow,
    }
}

/// First indices of ranges, and those after their last ones, as a JSON list of pairs.
pub(super) type Ranges = String;

pub(super) fn ranges(bounds: &[(i64, i64)]) -> Result<Ranges, Error> {
    to_json(bounds)
}

/// Binds ranges as the last parameter.
pub(super) fn bind_ranges<'q, O>(
    query: QueryAs<'q, Sqlite, O, <Sqlite as Database>::Arguments>,
    ranges: Ranges,
) -> QueryAs<'q, Sqlite, O, <Sqlite as Database>::Arguments> {
    query.bind(ranges)
}

pub(super) async fn commit(tx: Tx) -> Result<(), Error> {
    Ok(tx.commit().await?)
}

/// Runs done images again whose pictures are lost.
pub(super) async fn rerender_lost(
    store: &SqliteStore,
    job: JobId,
    lost: &[LostPicture],
    deadline: NewDeadline,
) -> Result<Rerendered, Error> {
    let mut tx = store.begin_write().await?;
    let (_, seq, state) = lock(&mut tx, job).await?;
    let next = transition(state, JobEvent::RetryImages)?;
    let following: bool = sqlx::query_scalar("SELECT follow IS NOT NULL FROM jobs WHERE seq = ?1")
        .bind(seq)
        .fetch_one(&mut *tx)
        .await?;
    if following || pending(&mut tx, seq).await? > 0 {
        return Err(still_following(job).into());
    }
    let rows = lost_images(&mut tx, seq, lost).await?;
    let mut moves = Vec::with_capacity(rows.len());
    for row in &rows {
        let event = ImageEvent::Lost { encoded: row.encoded };
        let from = row.image.progress()?;
        let stages = number(row.stages)?;
        moves.extend(Move::by((seq, row.image.idx), from, &event, stages));
    }
    if !moves.is_empty() {
        reopen(&mut tx, (job, seq), (state, next), deadline).await?;
        revive(&mut tx, seq, &rows).await?;
        let applied = apply(&mut tx, &moves).await?.applied;
        let moved = moves.iter().filter(|one| applied.contains(&(seq, one.idx)));
        let stale: Vec<_> = moved.map(|one| (one.job, one.idx, one.to.stage)).collect();
        forget_outputs(&mut tx, &stale).await?;
    }
    let record = read_job(&mut tx, job).await?;
    tx.commit().await?;
    Ok(Rerendered { job: record, images: moves.len() as u64 })
}

/// Lets image rows follow the oldest command to some images of a job whose own command has been
/// followed.
pub(super) async fn follow(tx: &mut Tx, limit: u64) -> Result<Committed, Error> {
    let Some(row) = next_command(tx).await? else { return Ok(Committed::default()) };
    let job = job_id(&row.job_id)?;
    let (mut changed, mut next, mut taken) = (0, None, Vec::new());
    if row.live()? {
        let pending = Pending::new(&row.command, &row.filter, row.next)?;
        let window = pending.window(limit);
        let images = commanded_images(tx, row.job, (&pending, &window), limit).await?;
        next = match images.last().filter(|_| images.len() as u64 >= limit) {
            Some(last) => Some(number::<u64>(last.image.idx)? + 1),
            None => window.next,
        };
        if pending.command == ImageCommand::Retry {
            revive(tx, row.job, &images).await?;
        }
        let mut moves = Vec::with_capacity(images.len());
        for image in &images {
            let event = pending.command.event(image.encoded);
            let at = (row.job, image.image.idx);
            moves.extend(Move::by(at, image.image.progress()?, &event, number(image.stages)?));
        }
        let applied = apply(tx, &moves).await?.applied;
        changed = applied.len() as u64;
        taken = withdrawn(tx, (job, row.job), &moves, &applied).await?;
    }
    let finished = advance(tx, &row, next).await?;
    Ok(Committed {
        changed,
        jobs: vec![job],
        finished,
        more: true,
        withdrawn: taken,
        ..Committed::default()
    })
}

/// Where a command goes on; after its last image its job may end.
async fn advance(tx: &mut Tx, row: &CommandRow, next: Option<u64>) -> Result<Vec<JobId>, Error> {
    go_on(tx, (row.id, row.next), next).await?;
    if next.is_some() {
        return Ok(Vec::new());
    }
    let seqs = list(&[row.job])?;
    let finished = finish(tx, &seqs).await?;
    if !finished.is_empty() {
        raise_versions(tx, &seqs).await?;
    }
    Ok(finished)
}

/// The next images of a window that a command changes.
async fn commanded_images(
    tx: &mut Tx,
    job: i64,
    (pending, window): (&Pending, &Window),
    limit: u64,
) -> Result<Vec<CommandedImage>, Error> {
    let ranges = meant_ranges(tx, job, &pending.filter, window).await?;
    let images = sqlx::query_as(concat!(
        "SELECT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect,
                p.encoded = 1 AS encoded, ",
        stages_of!("i"),
        " AS stages
         FROM json_each(?5) AS r
         CROSS JOIN images AS i ON i.job = ?1 AND i.idx >= r.value ->> 0 AND i.idx < r.value ->> 1
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         WHERE i.state IN (SELECT value FROM json_each(?2))
           AND (?3 = '[]' OR i.error_code IN (SELECT value FROM json_each(?3)))
         ORDER BY i.idx LIMIT ?4",
    ))
    .bind(job)
    .bind(names(&pending.states())?)
    .bind(names(&pending.codes())?)
    .bind(column(limit));
    Ok(bind_ranges(images, ranges).fetch_all(&mut **tx).await?)
}

/// Done images that are as they were when their pictures were found lost.
async fn lost_images(
    tx: &mut Tx,
    job: i64,
    lost: &[LostPicture],
) -> Result<Vec<CommandedImage>, Error> {
    let wanted: Vec<_> = lost.iter().map(|one| (column(one.index), one.generation)).collect();
    let images = concat!(
        "SELECT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect,
                p.encoded = 1 AS encoded, ",
        stages_of!("i"),
        " AS stages
         FROM json_each(?2) AS w
         CROSS JOIN images AS i ON i.job = ?1 AND i.idx = w.value ->> 0
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         WHERE i.state = 'done' AND i.generation = w.value ->> 1",
    );
    let (expected, any) = (" AND i.generation = w.value ->> 1", "");
    Ok(sqlx::query_as(guard::text(Guard::LostGeneration, images, expected, any))
        .bind(job)
        .bind(to_json(&wanted)?)
        .fetch_all(&mut **tx)
        .await?)
}

/// Texts that images need and that were given up are wanted again, by every job that waits for
/// them.
async fn revive(tx: &mut Tx, job: i64, images: &[CommandedImage]) -> Result<(), Error> {
    let mut prompts: Vec<i64> =
        images.iter().filter(|image| !image.encoded).map(|image| image.image.prompt).collect();
    prompts.dedup();
    if prompts.is_empty() {
        return Ok(());
    }
    let prompts = list(&prompts)?;
    sqlx::query(
        "UPDATE prompts SET encoded = 0
         WHERE job = ?1 AND encoded = 2 AND position IN (SELECT value FROM json_each(?2))",
    )
    .bind(job)
    .bind(&prompts)
    .execute(&mut **tx)
    .await?;
    let needed: Vec<(i64, String)> = sqlx::query_as(
        "SELECT DISTINCT e.id, e.state
         FROM json_each(?2) AS w
         CROSS JOIN prompts AS p ON p.job = ?1 AND p.position = w.value
         CROSS JOIN embeddings AS e ON e.id IN (p.text_embedding, p.negative_embedding, p.style_embedding)
         WHERE e.state IN ('dead', 'done')",
    )
    .bind(job)
    .bind(&prompts)
    .fetch_all(&mut **tx)
    .await?;
    let of = |state: &str| -> Vec<i64> {
        needed.iter().filter(|(_, of)| of == state).map(|(id, _)| *id).collect()
    };
    texts::revive(tx, &of("dead")).await?;
    // What was encoded meanwhile is told once more.
    sqlx::query(
        "UPDATE embeddings SET spread = 0
         WHERE state = 'done' AND id IN (SELECT value FROM json_each(?1))",
    )
    .bind(list(&of("done"))?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
