//! Spreads the outcome of a text to the images that wait for it, in chunks.
//!
//! If few images wait for a text, the transaction that commits the text moves them too. Otherwise
//! the text gets a row of `spreading_texts`, which records the last prompt that was handled. So a
//! text that a million prompts share is read through only once. Several coordinators may spread at
//! the same time: each takes rows that no other one has locked.

use std::collections::{BTreeSet, HashMap, HashSet};

use darkroom_core::text_state::Outlook;
use darkroom_queue::task::PoolId;

use super::{
    Error, Tx,
    both::input_row::{InputRow, input_columns, input_joins},
    both::row_types::ProgressRow,
    moves::apply,
    onward::{self, Inputs},
    plans::{KnownPlans, Plans},
    progress::{LockedJob, LockedJobs},
    rows::{column, outlook_of},
};
use crate::store::{
    change::{Applied, Move},
    records::{Dispatched, Onward},
    row::row,
};

/// Images that follow in the transaction that commits their texts.
const AT_ONCE: u64 = 2000;

row! {
    /// A text that is being spread, and the position after which to continue.
    pub(super) struct Spreading {
        pub(super) id: i64,
        pub(super) embedding: i64,
        pub(super) role: i16,
        pub(super) after_job: i64,
        pub(super) after_position: i64,
    }
}

row! {
    /// A prompt that has one of the texts. It follows when it waits for nothing else.
    pub(super) struct Told {
        spreading: i64,
        role: i16,
        pub(super) job: i64,
        position: i64,
        first_index: i64,
        images: i32,
        text: String,
        negative_text: Option<String>,
        style: Option<String>,
        error_code: Option<String>,
        error: Option<String>,
        =outlook: Outlook,
    }
}

impl Told {
    /// Its texts are settled: the images wait for nothing else.
    fn follows(&self) -> bool {
        self.outlook != Outlook::Waits
    }

    fn is_dead(&self) -> bool {
        self.outlook == Outlook::Dead
    }
}

/// Spreads the outcome of texts to their prompts. The caller has locked the texts by id, and then
/// every job that needs one. So of two texts of a prompt, the later transaction sees the earlier
/// one. What is too much for one transaction is left for later. Returns whether something was left,
/// and the tasks that were dispatched at once.
pub(super) async fn tell(
    tx: &mut Tx,
    plans: &KnownPlans,
    jobs: &mut LockedJobs,
    texts: &[i64],
    onward: &[Onward],
) -> Result<(bool, Vec<(PoolId, Dispatched)>), Error> {
    if texts.is_empty() {
        return Ok((false, Vec::new()));
    }
    let whole = |text: &i64| Spreading {
        id: *text,
        embedding: *text,
        role: 0,
        after_job: 0,
        after_position: 0,
    };
    let spreading: Vec<Spreading> = texts.iter().map(whole).collect();
    let mut prompts = prompts_of(tx, &spreading, AT_ONCE).await?;
    let cut = cut_at(&mut prompts, AT_ONCE);
    let (_, dispatched) = follow(tx, plans, jobs, &prompts, onward).await?;
    let Some(last) = prompts.last().filter(|_| cut) else { return Ok((false, dispatched)) };
    let left: Vec<i64> = texts.iter().copied().filter(|text| *text >= last.spreading).collect();
    sqlx::query(
        "INSERT INTO spreading_texts (embedding, role, after_job, after_position)
         SELECT t.id, CASE t.id WHEN $2 THEN $3 ELSE 0 END, CASE t.id WHEN $2 THEN $4 ELSE 0 END,
                CASE t.id WHEN $2 THEN $5 ELSE 0 END
         FROM unnest($1::bigint[]) AS t (id)",
    )
    .bind(left)
    .bind(last.spreading)
    .bind(last.role)
    .bind(last.job)
    .bind(last.position)
    .execute(&mut **tx)
    .await?;
    Ok((true, dispatched))
}

/// The next prompts of the texts, in order of text, role and position.
pub(super) async fn prompts_of(
    tx: &mut Tx,
    spreading: &[Spreading],
    limit: u64,
) -> Result<Vec<Told>, Error> {
    let mut prompts: Vec<Told> = sqlx::query_as(
        "SELECT w.spreading, w.role, p.job, p.position, p.first_index, p.images,
                t.state AS text, n.state AS negative_text, s.state AS style,
                CASE 'dead' WHEN t.state THEN t.error_code WHEN n.state THEN n.error_code ELSE s.error_code END AS error_code,
                CASE 'dead' WHEN t.state THEN t.error WHEN n.state THEN n.error ELSE s.error END AS error
         FROM (SELECT s.id AS spreading, r.role, next.job, next.position
               FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[])
                        AS s (id, embedding, role, after_job, after_position)
               CROSS JOIN LATERAL (VALUES (0::smallint), (1::smallint), (2::smallint)) AS r (role)
               CROSS JOIN LATERAL (
                   (SELECT p.job, p.position FROM prompts AS p
                    WHERE r.role = 0 AND s.role = 0 AND p.text_embedding = s.embedding
                      AND (p.job, p.position) > (s.after_job, s.after_position)
                    ORDER BY p.job, p.position LIMIT $6)
                   UNION ALL
                   (SELECT p.job, p.position FROM prompts AS p
                    WHERE r.role = 1 AND s.role <= 1 AND p.negative_embedding = s.embedding
                      AND (p.job, p.position) > (CASE s.role WHEN 1 THEN s.after_job ELSE 0 END,
                                                 CASE s.role WHEN 1 THEN s.after_position ELSE 0 END)
                    ORDER BY p.job, p.position LIMIT $6)
                   UNION ALL
                   (SELECT p.job, p.position FROM prompts AS p
                    WHERE r.role = 2 AND p.style_embedding = s.embedding
                      AND (p.job, p.position) > (CASE s.role WHEN 2 THEN s.after_job ELSE 0 END,
                                                 CASE s.role WHEN 2 THEN s.after_position ELSE 0 END)
                    ORDER BY p.job, p.position LIMIT $6)) AS next
               ORDER BY s.id, r.role, next.job, next.position LIMIT $6) AS w
         CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                             WHERE p.job = w.job AND p.position = w.position OFFSET 0) AS p
         JOIN embeddings AS t ON t.id = p.text_embedding
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding
         ORDER BY w.spreading, w.role, w.job, w.position",
    )
    .bind(spreading.iter().map(|text| text.id).collect::<Vec<_>>())
    .bind(spreading.iter().map(|text| text.embedding).collect::<Vec<_>>())
    .bind(spreading.iter().map(|text| text.role).collect::<Vec<_>>())
    .bind(spreading.iter().map(|text| text.after_job).collect::<Vec<_>>())
    .bind(spreading.iter().map(|text| text.after_position).collect::<Vec<_>>())
    .bind(column(limit))
    .fetch_all(&mut **tx)
    .await?;
    for prompt in &mut prompts {
        let states =
            [Some(&*prompt.text), prompt.negative_text.as_deref(), prompt.style.as_deref()];
        prompt.outlook = outlook_of(states)?;
    }
    Ok(prompts)
}

/// Keeps the first prompts, with about `limit` following images together. Returns whether there may
/// be others.
pub(super) fn cut_at(prompts: &mut Vec<Told>, limit: u64) -> bool {
    let mut images = 0;
    let fits = prompts
        .iter()
        .take_while(|prompt| {
            let before = images;
            images += if prompt.follows() { i64::from(prompt.images) } else { 0 };
            before < column(limit)
        })
        .count();
    let cut = fits < prompts.len() || column(prompts.len()) >= column(limit);
    prompts.truncate(fits);
    cut
}

/// Those that wait for nothing else.
pub(super) fn following(prompts: &[Told]) -> impl Iterator<Item = &Told> {
    prompts.iter().filter(|prompt| prompt.follows())
}

/// Moves the images that wait for nothing else. Their jobs are locked; the caller saves them.
pub(super) async fn follow(
    tx: &mut Tx,
    known: &KnownPlans,
    jobs: &mut LockedJobs,
    prompts: &[Told],
    onward: &[Onward],
) -> Result<(Applied, Vec<(PoolId, Dispatched)>), Error> {
    let mut by_position: HashMap<(i64, i64), &Told> =
        following(prompts).map(|prompt| ((prompt.job, prompt.position), prompt)).collect();
    let revived = revived(tx, prompts).await?;
    by_position.retain(|prompt, _| !revived.contains(prompt));
    if by_position.is_empty() {
        return Ok((Applied::default(), Vec::new()));
    }
    let images = waiting(tx, by_position.values().copied(), !onward.is_empty()).await?;
    // Images of a text that was given up fail before their first stage.
    let given_up = by_position.values().any(|prompt| prompt.outlook == Outlook::Dead);
    let plans = if onward.is_empty() && !given_up {
        Plans::new()
    } else {
        known.by_id(tx, &jobs.ids()).await?
    };
    let mut inputs = Inputs::new();
    let mut moves = Vec::with_capacity(images.len());
    for (row, input) in images {
        let Some(prompt) = by_position.get(&(row.job, row.prompt)) else { continue };
        let failure = (prompt.error_code.as_deref(), prompt.error.as_deref());
        let stages = match plans.get(&row.job) {
            Some(plan) => plan.settings(row.variant)?.stages.len(),
            None => jobs.get(row.job).map_or(0, LockedJob::stages),
        };
        let at = (row.job, row.idx);
        let Some(moved) = Move::by_texts(at, row.progress()?, prompt.outlook, failure, stages)
        else {
            continue;
        };
        inputs.extend(input.map(|input| (at, input)));
        moves.push(moved);
    }
    let dispatched = onward::hand_on(&plans, &mut moves, inputs, onward)?;
    let applied = apply(tx, jobs, &moves).await?;
    if applied.len() != moves.len() {
        return Err(Error::Corrupt("an image changed while its job was locked".to_owned()));
    }
    Ok((applied, dispatched))
}

row! {
    /// An image that waits for its texts, with what its first stage needs.
    struct WaitingRow {
        /// The job is active and has no limit of its own.
        free: bool,
        ..image: ProgressRow,
        ..input: InputRow,
    }
}

/// The images of the prompts that still wait; if `going`, with the inputs of those that may be
/// dispatched at once.
async fn waiting(
    tx: &mut Tx,
    prompts: impl Iterator<Item = &Told> + Clone,
    going: bool,
) -> Result<Vec<(ProgressRow, Option<InputRow>)>, Error> {
    macro_rules! statement {
        ($columns:expr, $joins:expr) => {
            concat!(
                "SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places,
                        i.suspect",
                $columns,
                " FROM unnest($1::bigint[], $2::bigint[], $3::int[]) AS f (job, first_index, images)
                  CROSS JOIN LATERAL (
                      SELECT * FROM images AS i
                      WHERE i.job = f.job AND i.idx >= f.first_index AND i.idx < f.first_index + f.images OFFSET 0) AS i ",
                $joins,
                "WHERE i.state = 'waiting'"
            )
        };
    }
    let jobs: Vec<i64> = prompts.clone().map(|prompt| prompt.job).collect();
    let firsts: Vec<i64> = prompts.clone().map(|prompt| prompt.first_index).collect();
    let images: Vec<i32> = prompts.map(|prompt| prompt.images).collect();
    if !going {
        let rows: Vec<ProgressRow> = sqlx::query_as(statement!("", ""))
            .bind(jobs)
            .bind(firsts)
            .bind(images)
            .fetch_all(&mut **tx)
            .await?;
        return Ok(rows.into_iter().map(|row| (row, None)).collect());
    }
    let rows: Vec<WaitingRow> = sqlx::query_as(statement!(
        concat!(
            ", j.state = 'active' AND j.max_workers IS NULL
               AND NOT EXISTS (SELECT FROM tenants AS t
                               WHERE t.name = j.tenant COLLATE \"C\"
                                 AND (t.workers IS NOT NULL OR t.device_seconds_per_day IS NOT NULL))
                   AS free, ",
            input_columns!()
        ),
        concat!(
            "JOIN jobs AS j ON j.seq = i.job
             CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                 WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p ",
            input_joins!()
        )
    ))
    .bind(jobs)
    .bind(firsts)
    .bind(images)
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.image, Some(row.input).filter(|_| row.free))).collect())
}

/// The prompts that would fail with a text, but whose texts were retried before the jobs were
/// locked. They wait again.
async fn revived(tx: &mut Tx, prompts: &[Told]) -> Result<HashSet<(i64, i64)>, Error> {
    let doomed: Vec<&Told> = prompts.iter().filter(|prompt| prompt.is_dead()).collect();
    if doomed.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT p.job, p.position
         FROM unnest($1::bigint[], $2::bigint[]) AS doomed (job, position)
         JOIN prompts AS p ON p.job = doomed.job AND p.position = doomed.position
         JOIN embeddings AS t ON t.id = p.text_embedding
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding
         WHERE t.state <> 'dead' AND coalesce(n.state <> 'dead', TRUE) AND coalesce(s.state <> 'dead', TRUE)",
    )
    .bind(doomed.iter().map(|prompt| prompt.job).collect::<Vec<_>>())
    .bind(doomed.iter().map(|prompt| prompt.position).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Deletes the rows of texts whose prompts were all handled: all rows, or those before the last
/// prompt's.
pub(super) async fn remember(
    tx: &mut Tx,
    spreading: &[Spreading],
    last: Option<&Told>,
) -> Result<(), Error> {
    let whole: BTreeSet<i64> = spreading
        .iter()
        .map(|text| text.id)
        .filter(|id| last.is_none_or(|last| *id < last.spreading))
        .collect();
    sqlx::query("DELETE FROM spreading_texts WHERE id = ANY ($1)")
        .bind(whole.into_iter().collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    if let Some(last) = last {
        sqlx::query(
            "UPDATE spreading_texts SET role = $2, after_job = $3, after_position = $4 WHERE id = $1",
        )
        .bind(last.spreading)
        .bind(last.role)
        .bind(last.job)
        .bind(last.position)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
