//! Embeddings: only this file changes their rows. It writes results of stage `encode`, and marks
//! the texts in the jobs that wait for them.

use std::collections::BTreeMap;

use darkroom_core::{
    id::JobId,
    text_state::{Outlook, TextEvent, TextState, transition},
};

use super::{
    Error, SqliteStore, Tx,
    both::{following_images::Chunk, row_types::TextRow},
    following::FollowingImage,
    moves::raise_versions,
    notes,
    rows::{column, list, outlook_column, to_json},
};
use crate::store::{
    cause::{Bulk, Settled},
    judged_texts::JudgedText,
};

/// Writes changed texts, and tells the jobs that wait for them.
pub(super) async fn tell(
    _: &SqliteStore,
    tx: &mut Tx,
    _: Bulk<'_>,
    changed: &[JudgedText<'_>],
) -> Result<Settled, Error> {
    write(tx, changed).await?;
    let mut jobs = Vec::new();
    for (state, outlook) in [(TextState::Done, Outlook::Encoded), (TextState::Dead, Outlook::Dead)]
    {
        let of = changed.iter().filter(|text| text.to.state == state);
        let texts: Vec<i64> = of.map(|text| text.id).collect();
        jobs.extend(tell_jobs(tx, &texts, outlook).await?);
    }
    Ok(Settled { jobs, ..Settled::default() })
}

/// Applies an event to the texts whose state allows it. Returns those texts.
pub(super) async fn change(
    tx: &mut Tx,
    ids: &[i64],
    event: &TextEvent<'_>,
) -> Result<Vec<i64>, Error> {
    let rows: Vec<TextRow> = sqlx::query_as(
        "SELECT id, state, dispatch, failures, hosts AS places, suspect FROM embeddings
         WHERE id IN (SELECT value FROM json_each(?1))",
    )
    .bind(list(ids)?)
    .fetch_all(&mut **tx)
    .await?;
    let mut changed = Vec::with_capacity(rows.len());
    for row in rows {
        let from = row.progress()?;
        if let Ok(to) = transition(&from, event) {
            changed.push(JudgedText { id: row.id, from, to, end: None });
        }
    }
    write(tx, &changed).await?;
    Ok(changed.into_iter().map(|text| text.id).collect())
}

/// Writes texts that have not changed since they were read.
async fn write(tx: &mut Tx, changed: &[JudgedText<'_>]) -> Result<(), Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = changed.iter().map(columns).collect::<Result<_, _>>()?;
    let written = sqlx::query(
        "UPDATE embeddings
         SET state = t.value ->> 3, dispatch = t.value ->> 4, failures = t.value ->> 5, hosts = t.value ->> 6,
             suspect = t.value ->> 7, spread = t.value ->> 8,
             key = coalesce(t.value ->> 9, embeddings.key), sha256 = coalesce(t.value ->> 10, sha256),
             size = coalesce(t.value ->> 11, size), notes = coalesce(t.value ->> 12, notes),
             error_code = coalesce(t.value ->> 13, error_code), error = coalesce(t.value ->> 14, error)
         FROM json_each(?1) AS t
         WHERE embeddings.id = t.value ->> 0 AND embeddings.state = t.value ->> 1
           AND embeddings.dispatch = t.value ->> 2",
    )
    .bind(to_json(&rows)?)
    .execute(&mut **tx)
    .await?;
    if written.rows_affected() == changed.len() as u64 {
        Ok(())
    } else {
        Err(Error::Corrupt("a text changed under a write transaction".to_owned()))
    }
}

fn columns(text: &JudgedText<'_>) -> Result<serde_json::Value, Error> {
    let (from, to) = (&text.from, &text.to);
    let (artifact, notes) = text.encoded().unzip();
    let (code, message) = text.failure().unzip();
    Ok(serde_json::json!([
        text.id,
        from.state.name(),
        from.dispatch,
        to.state.name(),
        to.dispatch,
        to.failures,
        to_json(&to.places)?,
        u8::from(to.suspect),
        // A settled text still has to be spread to its prompts.
        u8::from(!to.state.settled()),
        artifact.map(|artifact| &artifact.key),
        artifact.map(|artifact| artifact.sha256),
        artifact.map(|artifact| artifact.size),
        notes.map(to_json).transpose()?,
        code,
        message,
    ]))
}

/// Marks texts as encoded or dead in every job that waits for them, and counts the encoded ones.
async fn tell_jobs(tx: &mut Tx, texts: &[i64], outlook: Outlook) -> Result<Vec<JobId>, Error> {
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
    .bind(outlook_column(outlook))
    .fetch_all(&mut **tx)
    .await?;
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for job in told {
        *counts.entry(job).or_default() += 1;
    }
    let jobs: Vec<i64> = counts.keys().copied().collect();
    let raised = raise_versions(tx, &jobs).await?;
    if outlook == Outlook::Encoded {
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
    Ok(raised.into_iter().map(|(_, id)| id).collect())
}

/// Those of the texts that were given up are wanted again, by every job that waits for them.
pub(super) async fn revive(tx: &mut Tx, texts: &[i64]) -> Result<(), Error> {
    let revived = change(tx, texts, &TextEvent::Revived).await?;
    if revived.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE job_texts SET encoded = 0
         WHERE encoded = 2 AND embedding IN (SELECT value FROM json_each(?1))",
    )
    .bind(list(&revived)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
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

/// Texts of a job that were given up are wanted again, by every job that waits for them.
pub(super) async fn revive_of_job(tx: &mut Tx, job: i64) -> Result<(), Error> {
    sqlx::query("UPDATE prompts SET encoded = 0 WHERE job = ?1 AND encoded = 2")
        .bind(job)
        .execute(&mut **tx)
        .await?;
    let dead: Vec<i64> =
        sqlx::query_scalar("SELECT embedding FROM job_texts WHERE job = ?1 AND encoded = 2")
            .bind(job)
            .fetch_all(&mut **tx)
            .await?;
    revive(tx, &dead).await?;
    // Texts that were encoded meanwhile because another job needed them.
    sqlx::query(
        "UPDATE embeddings SET spread = 0
         WHERE state = 'done' AND id IN
               (SELECT text_embedding FROM prompts WHERE job = ?1 AND encoded = 0
                UNION
                SELECT negative_embedding FROM prompts WHERE job = ?1 AND encoded = 0
                UNION
                SELECT style_embedding FROM prompts WHERE job = ?1 AND encoded = 0)",
    )
    .bind(job)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Texts that images need and that were given up are wanted again, by every job that waits for
/// them.
pub(super) async fn revive_of_images(tx: &mut Tx, chunk: &Chunk) -> Result<(), Error> {
    let Chunk { seq: job, ref images, .. } = *chunk;
    let mut prompts: Vec<i64> =
        images.iter().filter_map(FollowingImage::unencoded_prompt).collect();
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
    revive(tx, &of("dead")).await?;
    // Texts that were encoded meanwhile are spread again.
    sqlx::query(
        "UPDATE embeddings SET spread = 0
         WHERE state = 'done' AND id IN (SELECT value FROM json_each(?1))",
    )
    .bind(list(&of("done"))?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
