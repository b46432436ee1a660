//! Embeddings: results of stage `encode`, and letting the images that wait for a text follow it.

use std::collections::BTreeMap;

use darkroom_core::{
    digest::Digest,
    id::JobId,
    image_state::{ImageEvent, transition},
    retry::{self, Failure, History, Verdict},
};
use darkroom_queue::task::{Outcome, PoolId, Subject};

use super::{
    Error, SqliteStore, Tx,
    dispatch::list,
    moves::{apply, raise_versions},
    notes,
    rows::{ProgressRow, column, from_json, number, to_json},
};
use crate::store::{
    cause::{Cause, Outcomes},
    change::{LastError, Move},
    records::{Committed, Fate},
};

#[derive(sqlx::FromRow)]
struct TextRow {
    id: i64,
    state: String,
    dispatch: i64,
    failures: i64,
    hosts: String,
    suspect: bool,
}

/// Texts of a bulk that are encoded, or given up.
#[derive(Default)]
struct Ended {
    done: Vec<i64>,
    dead: Vec<i64>,
}

/// Applies what happened to texts of an encoder's pool.
pub(super) async fn settle(tx: &mut Tx, pool: &PoolId, causes: &[Cause<'_>]) -> Result<Outcomes, Error> {
    let (mut outcomes, mut ended) = (Outcomes::default(), Ended::default());
    for cause in causes {
        let fate = match cause.key.subject {
            Subject::Text(digest) => settle_one(tx, pool, digest, cause, &mut ended).await?,
            Subject::Image(_) => Fate::Discarded("wrong_pool"),
        };
        outcomes.changed += u64::from(fate == Fate::Applied);
        outcomes.fates.push(fate);
    }
    for (embeddings, encoded) in [(&ended.done, 1), (&ended.dead, 2)] {
        outcomes.jobs.extend(tell_jobs(tx, embeddings, encoded).await?);
    }
    Ok(outcomes)
}

async fn settle_one(
    tx: &mut Tx,
    pool: &PoolId,
    digest: Digest,
    cause: &Cause<'_>,
    ended: &mut Ended,
) -> Result<Fate, Error> {
    let found: Option<TextRow> = sqlx::query_as(
        "SELECT id, state, dispatch, failures, hosts, suspect FROM embeddings WHERE digest = ?1 AND encoder = ?2",
    )
    .bind(digest.to_string())
    .bind(pool.digest.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = found else { return Ok(Fate::Discarded("unknown_text")) };
    if let Some(Outcome::Done { artifact, notes }) = cause.outcome() {
        if !matches!(row.state.as_str(), "wanted" | "dispatched") {
            return Ok(Fate::Discarded("already_encoded"));
        }
        sqlx::query(
            "UPDATE embeddings
             SET state = 'done', spread = 0, key = ?2, sha256 = ?3, size = ?4, notes = ?5, suspect = 0
             WHERE id = ?1 AND state IN ('wanted', 'dispatched')",
        )
        .bind(row.id)
        .bind(&artifact.key)
        .bind(artifact.sha256.to_string())
        .bind(column(artifact.size))
        .bind(to_json(notes)?)
        .execute(&mut **tx)
        .await?;
        ended.done.push(row.id);
        return Ok(Fate::Applied);
    }
    if row.state != "dispatched" || number::<u64>(row.dispatch)? != cause.key.dispatch {
        return Ok(Fate::Discarded("stale_dispatch"));
    }
    let (code, message, failure) = match cause.failure(row.suspect) {
        Some((code, message, failure)) => (code, message, failure),
        None => {
            sqlx::query(
                "UPDATE embeddings SET state = 'wanted' WHERE id = ?1 AND state = 'dispatched' AND dispatch = ?2",
            )
            .bind(row.id)
            .bind(row.dispatch)
            .execute(&mut **tx)
            .await?;
            return Ok(Fate::Applied);
        }
    };
    fail(tx, &row, (code, message), failure, ended).await?;
    Ok(Fate::Applied)
}

async fn fail(
    tx: &mut Tx,
    row: &TextRow,
    (code, message): (&str, &str),
    failure: Failure<'_>,
    ended: &mut Ended,
) -> Result<(), Error> {
    let mut hosts: Vec<String> = from_json(&row.hosts)?;
    let failures = number(row.failures)?;
    let verdict = retry::judge(History { failures, hosts: &hosts }, failure);
    let counted = u32::from(verdict != Verdict::Suspect);
    if counted == 1 && !hosts.iter().any(|host| host == failure.host) {
        hosts.push(failure.host.to_owned());
    }
    let dead = verdict == Verdict::Dead;
    sqlx::query(
        "UPDATE embeddings
         SET state = ?3, spread = ?4, failures = ?5, hosts = ?6, suspect = 1, error_code = ?7, error = ?8
         WHERE id = ?1 AND state = 'dispatched' AND dispatch = ?2",
    )
    .bind(row.id)
    .bind(row.dispatch)
    .bind(if dead { "dead" } else { "wanted" })
    .bind(!dead)
    .bind(failures + counted)
    .bind(to_json(&hosts)?)
    .bind(code)
    .bind(message)
    .execute(&mut **tx)
    .await?;
    if dead {
        ended.dead.push(row.id);
    }
    Ok(())
}

/// Marks texts as encoded (1) or dead (2) in every job that waits for them, and counts the encoded ones.
async fn tell_jobs(tx: &mut Tx, texts: &[i64], encoded: i64) -> Result<Vec<JobId>, Error> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let embeddings = list(texts)?;
    let told: Vec<i64> = sqlx::query_scalar(
        "UPDATE job_texts SET encoded = ?2
         WHERE embedding IN (SELECT value FROM json_each(?1)) AND encoded = 0
         RETURNING job",
    )
    .bind(&embeddings)
    .bind(encoded)
    .fetch_all(&mut **tx)
    .await?;
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for job in told {
        *counts.entry(job).or_default() += 1;
    }
    let jobs = to_json(&counts.keys().collect::<Vec<_>>())?;
    let ids = raise_versions(tx, &jobs).await?;
    if encoded == 1 {
        sqlx::query(
            "UPDATE job_stages SET passed = passed + (d.value ->> 1)
             FROM json_each(?1) AS d
             WHERE job_stages.job = d.value ->> 0 AND job_stages.stage = -1",
        )
        .bind(to_json(&counts.into_iter().collect::<Vec<_>>())?)
        .execute(&mut **tx)
        .await?;
        notes::note_encoded(tx, &jobs, texts).await?;
    }
    Ok(ids)
}

/// Prompts of a job whose texts turned out not to be encoded wait for them again.
pub(super) async fn want_again(tx: &mut Tx, job: i64, prompts: &[i64]) -> Result<(), Error> {
    if prompts.is_empty() {
        return Ok(());
    }
    let prompts = list(prompts)?;
    sqlx::query(
        "UPDATE prompts SET encoded = 0
         WHERE job = ?1 AND encoded = 1 AND position IN (SELECT value FROM json_each(?2))",
    )
    .bind(job)
    .bind(&prompts)
    .execute(&mut **tx)
    .await?;
    let forgotten: Vec<i64> = sqlx::query_scalar(
        "UPDATE job_texts SET encoded = 0
         WHERE job = ?1 AND encoded = 1 AND embedding IN
               (SELECT e.id FROM prompts AS p
                JOIN embeddings AS e ON e.id IN (p.text_embedding, p.negative_embedding, p.style_embedding) AND e.state <> 'done'
                WHERE p.job = ?1 AND p.position IN (SELECT value FROM json_each(?2)))
         RETURNING embedding",
    )
    .bind(job)
    .bind(&prompts)
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query("UPDATE job_stages SET passed = passed - ?2 WHERE job = ?1 AND stage = -1")
        .bind(job)
        .bind(column(forgotten.len()))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The embedding of a prompt whose artifact is gone is wanted again.
pub(super) async fn lose(tx: &mut Tx, job: i64, prompt: i64, key: &str) -> Result<(), Error> {
    sqlx::query(
        "UPDATE embeddings SET state = 'wanted', spread = 1
         WHERE key = ?3 AND state = 'done' AND id IN
               (SELECT text_embedding FROM prompts WHERE job = ?1 AND position = ?2
                UNION ALL
                SELECT negative_embedding FROM prompts WHERE job = ?1 AND position = ?2
                UNION ALL
                SELECT style_embedding FROM prompts WHERE job = ?1 AND position = ?2)",
    )
    .bind(job)
    .bind(prompt)
    .bind(key)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Texts looked at in one transaction.
const TEXTS_AT_ONCE: i64 = 256;

#[derive(sqlx::FromRow)]
struct FollowingPrompt {
    job: i64,
    position: i64,
    first_index: i64,
    images: i64,
    dead: bool,
    stages: i64,
    error_code: Option<String>,
    error: Option<String>,
}

impl SqliteStore {
    pub(super) async fn spread_texts(&self, limit: u64) -> Result<Committed, Error> {
        let mut tx = self.begin_write().await?;
        let texts: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM embeddings WHERE spread = 0 AND state IN ('done', 'dead') ORDER BY id LIMIT ?1",
        )
        .bind(TEXTS_AT_ONCE)
        .fetch_all(&mut *tx)
        .await?;
        if texts.is_empty() {
            return Ok(Committed::default());
        }
        let mut more = column(texts.len()) == TEXTS_AT_ONCE;
        let ids = list(&texts)?;
        let mut prompts = following_prompts(&mut tx, &ids, limit).await?;
        let complete = column(prompts.len()) < column(limit);
        let enough = cut_at(&mut prompts, limit);
        if complete && !enough {
            sqlx::query("UPDATE embeddings SET spread = 1 WHERE id IN (SELECT value FROM json_each(?1))")
                .bind(&ids)
                .execute(&mut *tx)
                .await?;
        } else {
            more = true;
        }
        let moved = move_images(&mut tx, &prompts).await?;
        tx.commit().await?;
        Ok(Committed {
            changed: moved.applied.len() as u64,
            jobs: moved.jobs,
            finished: moved.finished,
            more,
            ..Committed::default()
        })
    }
}

/// Prompts that wait for one of the texts and for nothing else any more.
async fn following_prompts(tx: &mut Tx, ids: &str, limit: u64) -> Result<Vec<FollowingPrompt>, Error> {
    Ok(sqlx::query_as(
        "WITH waiting (job, position) AS (
             SELECT job, position FROM prompts
             WHERE encoded = 0 AND text_embedding IN (SELECT value FROM json_each(?1))
             UNION
             SELECT job, position FROM prompts
             WHERE encoded = 0 AND negative_embedding IN (SELECT value FROM json_each(?1))
             UNION
             SELECT job, position FROM prompts
             WHERE encoded = 0 AND style_embedding IN (SELECT value FROM json_each(?1)))
         SELECT p.job, p.position, p.first_index, p.images,
                'dead' IN (t.state, coalesce(n.state, ''), coalesce(s.state, '')) AS dead,
                (SELECT count(*) FROM job_stages AS s WHERE s.job = p.job AND s.stage >= 0) AS stages,
                CASE 'dead' WHEN t.state THEN t.error_code WHEN n.state THEN n.error_code ELSE s.error_code END AS error_code,
                CASE 'dead' WHEN t.state THEN t.error WHEN n.state THEN n.error ELSE s.error END AS error
         FROM waiting AS w
         JOIN prompts AS p ON p.job = w.job AND p.position = w.position
         JOIN embeddings AS t ON t.id = p.text_embedding
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding
         WHERE t.state = 'dead' OR n.state = 'dead' OR s.state = 'dead'
            OR (t.state = 'done' AND coalesce(n.state = 'done', TRUE) AND coalesce(s.state = 'done', TRUE))
         LIMIT ?2",
    )
    .bind(ids)
    .bind(column(limit))
    .fetch_all(&mut **tx)
    .await?)
}

/// Keeps as many prompts as have about `limit` images; whether some were cut.
fn cut_at(prompts: &mut Vec<FollowingPrompt>, limit: u64) -> bool {
    let mut images = 0;
    let fits = prompts
        .iter()
        .take_while(|prompt| {
            let before = images;
            images += prompt.images;
            before < column(limit)
        })
        .count();
    let cut = fits < prompts.len();
    prompts.truncate(fits);
    cut
}

async fn move_images(tx: &mut Tx, prompts: &[FollowingPrompt]) -> Result<super::moves::Moved, Error> {
    let rows: Vec<_> = prompts
        .iter()
        .map(|p| (p.job, p.position, if p.dead { 2 } else { 1 }, p.first_index, p.first_index + p.images))
        .collect();
    let rows = to_json(&rows)?;
    sqlx::query(
        "UPDATE prompts SET encoded = f.value ->> 2
         FROM json_each(?1) AS f
         WHERE prompts.job = f.value ->> 0 AND prompts.position = f.value ->> 1 AND prompts.encoded = 0",
    )
    .bind(&rows)
    .execute(&mut **tx)
    .await?;
    let images: Vec<ProgressRow> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect
         FROM json_each(?1) AS f
         CROSS JOIN images AS i ON i.job = f.value ->> 0 AND i.idx >= f.value ->> 3 AND i.idx < f.value ->> 4
         WHERE i.state = 'waiting'",
    )
    .bind(&rows)
    .fetch_all(&mut **tx)
    .await?;
    let by_position: std::collections::HashMap<(i64, i64), &FollowingPrompt> =
        prompts.iter().map(|prompt| ((prompt.job, prompt.position), prompt)).collect();
    let mut moves = Vec::with_capacity(images.len());
    for row in images {
        let Some(prompt) = by_position.get(&(row.job, row.prompt)) else { continue };
        let event = if prompt.dead { ImageEvent::TextsDead } else { ImageEvent::TextsEncoded };
        let from = row.progress()?;
        let Ok(to) = transition(&from, &event, number(prompt.stages)?) else { continue };
        let error = if prompt.dead {
            LastError::Set {
                code: prompt.error_code.clone().unwrap_or_default(),
                message: prompt.error.clone().unwrap_or_default(),
            }
        } else {
            LastError::Keep
        };
        moves.push(Move { job: row.job, idx: row.idx, from, to, error });
    }
    apply(tx, &moves).await
}
