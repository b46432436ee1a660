//! Submits of jobs: as a whole, or in chunks that one final UPDATE accepts.

use std::{collections::BTreeSet, time::Duration};

use darkroom_core::{
    digest::Digest,
    guard::{self, Guard},
    id::{JobId, StageName},
};

use super::{
    Error, SqliteStore, Tx,
    both::{
        abandoned::note_abandoned,
        history::log_reused,
        inputs::refuse_removed,
        mix::{self, At},
        notes::note_pictures,
        submits::bind_job,
        variants,
    },
    notes,
    rows::{column, seed_column, to_json},
    texts,
};
use crate::store::{
    custom_id,
    records::{NewJob, NewPrompt, PreparedText, compatibility},
    variants::Chunk,
};

/// Deletes a job that is still being received.
pub(super) async fn abandon(store: &SqliteStore, job: JobId) -> Result<(), Error> {
    let mut tx = store.begin_referring().await?;
    let found: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM jobs WHERE id = ?1 AND state = 'receiving'")
            .bind(job.to_string())
            .fetch_optional(&mut *tx)
            .await?;
    if let Some(seq) = found {
        forget(&mut tx, seq).await?;
    }
    Ok(tx.commit().await?)
}

/// Deletes jobs that got no chunk for a time. Returns how many.
pub(super) async fn sweep(store: &SqliteStore, idle: Duration) -> Result<u64, Error> {
    let mut tx = store.begin_referring().await?;
    let found: Vec<i64> = sqlx::query_scalar(guard::text(
        Guard::IdleOnly,
        "SELECT seq FROM jobs
         WHERE state = 'receiving'
           AND touched_ms < CAST(unixepoch('subsec') * 1000 AS INTEGER) - ?1",
        "AND touched_ms <",
        "AND 0 <",
    ))
    .bind(column(idle.as_millis()))
    .fetch_all(&mut *tx)
    .await?;
    for seq in &found {
        forget(&mut tx, *seq).await?;
    }
    tx.commit().await?;
    Ok(found.len() as u64)
}

/// Deletes a job that was not accepted, with all its rows.
async fn forget(tx: &mut Tx, seq: i64) -> Result<(), Error> {
    note_abandoned(tx, seq).await?;
    sqlx::query("DELETE FROM jobs WHERE seq = ?1 AND state = 'receiving'")
        .bind(seq)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Inserts the rows of a job and its stages.
pub(super) async fn insert_job(tx: &mut Tx, job: &NewJob) -> Result<i64, Error> {
    let inserted = sqlx::query_scalar(
        "INSERT INTO jobs (id, tenant, client_request_id, content, name, priority, state, cascade, encoder,
                           settings, requested, seed, deadline_ms, max_workers, max_failed, no_reuse, labels, sealed,
                           created_ms, touched_ms)
         SELECT ?1, ?2, ?3, '', ?4, ?5, 'receiving', ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
                now.ms, now.ms
         FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS ms) AS now
         RETURNING seq",
    );
    let seq = bind_job(inserted, job)?.fetch_one(&mut **tx).await?;
    let mut stages =
        vec![(-1, StageName::ENCODE.to_owned(), job.encoder.to_string(), String::new())];
    for (position, stage) in job.settings.stages.iter().enumerate() {
        stages.push((
            column(position),
            stage.stage.to_string(),
            job.cascade.to_string(),
            compatibility(&job.settings, position),
        ));
    }
    sqlx::query(
        "INSERT INTO job_stages (job, stage, name, pool, compatibility)
         SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?2)",
    )
    .bind(seq)
    .bind(to_json(&stages)?)
    .execute(&mut **tx)
    .await?;
    Ok(seq)
}

/// Adds prompts with their texts and images. It never returns `None`, because nothing else can
/// change the job meanwhile.
pub(super) async fn insert_prompts(
    tx: &mut Tx,
    job: i64,
    encoder: Digest,
    prompts: &[NewPrompt],
) -> Result<Option<()>, Error> {
    let (Some(first), Some(last)) = (prompts.first(), prompts.last()) else {
        return Ok(Some(()));
    };
    let range = (column(first.position), column(last.position));
    insert_texts(tx, encoder, prompts).await?;
    let rows: Vec<_> = prompts
        .iter()
        .map(|prompt| {
            Ok((
                prompt.position,
                &prompt.text,
                &prompt.negative,
                prompt.first_index,
                prompt.images,
                seed_column(prompt.first_seed),
                prompt.text_embedding.digest,
                prompt.negative_embedding.as_ref().map(|text| text.digest),
                prompt.style_embedding.as_ref().map(|text| text.digest),
                prompt.extras_json()?,
                &prompt.naming.custom_id,
                prompt.labels_json()?,
                prompt.naming.line,
                prompt.variant.as_ref().map(|variant| variant.number),
            ))
        })
        .collect::<Result<_, Error>>()?;
    let inserted = sqlx::query(
        "INSERT INTO prompts (job, position, text, negative, first_index, images, first_seed, text_embedding,
                              negative_embedding, style_embedding, extras, custom_id, labels, line, variant,
                              encoded)
         SELECT ?1, p.value ->> 0, p.value ->> 1, p.value ->> 2, p.value ->> 3, p.value ->> 4, p.value ->> 5,
                t.id, n.id, s.id, p.value ->> 9, p.value ->> 10, p.value ->> 11, p.value ->> 12,
                p.value ->> 13,
                t.state = 'done' AND coalesce(n.state = 'done', TRUE) AND coalesce(s.state = 'done', TRUE)
         FROM json_each(?2) AS p
         JOIN embeddings AS t ON t.digest = p.value ->> 6
         LEFT JOIN embeddings AS n ON n.digest = p.value ->> 7
         LEFT JOIN embeddings AS s ON s.digest = p.value ->> 8
         WHERE TRUE
         ON CONFLICT (job, custom_id) WHERE custom_id IS NOT NULL DO NOTHING",
    )
    .bind(job)
    .bind(to_json(&rows)?)
    .execute(&mut **tx)
    .await?;
    if inserted.rows_affected() < prompts.len() as u64 {
        let ids: Vec<_> =
            prompts.iter().filter_map(|prompt| prompt.naming.custom_id.as_ref()).collect();
        let found = sqlx::query_as(
            "SELECT custom_id, position, line FROM prompts
             WHERE job = ?1 AND custom_id IN (SELECT value FROM json_each(?2))",
        );
        let found = found.bind(job).bind(to_json(&ids)?).fetch_all(&mut **tx).await?;
        return Err(custom_id::taken_of(prompts, found));
    }
    refuse_removed(tx, prompts).await?;
    let reused = insert_job_texts(tx, job, range).await?;
    log_reused(tx, encoder, reused).await?;
    let chunk = Chunk::of(prompts);
    variants::insert(tx, job, &chunk).await?;
    mix::count(tx, job, At::default(), &chunk).await?;
    notes::note_received(tx, job, range).await?;
    note_pictures(tx, job, prompts).await?;
    insert_images(tx, job, range, prompts).await?;
    Ok(Some(()))
}

async fn insert_texts(tx: &mut Tx, encoder: Digest, prompts: &[NewPrompt]) -> Result<(), Error> {
    // Negative texts first: they are shared by many prompts, so they should be encoded first.
    let mut seen = BTreeSet::new();
    let negatives = prompts.iter().filter_map(|prompt| prompt.negative_embedding.as_ref());
    let wanted: Vec<&PreparedText> = negatives
        .chain(prompts.iter().flat_map(NewPrompt::texts))
        .filter(|text| seen.insert(text.digest))
        .collect();
    let rows =
        to_json(&wanted.iter().map(|text| (text.digest, &text.prepared)).collect::<Vec<_>>())?;
    sqlx::query(
        "INSERT INTO embeddings (digest, encoder, prepared)
         SELECT t.value ->> 0, ?2, t.value ->> 1
         FROM json_each(?1) AS t WHERE TRUE
         ON CONFLICT (digest) DO NOTHING",
    )
    .bind(&rows)
    .bind(encoder.to_string())
    .execute(&mut **tx)
    .await?;
    let dead: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM embeddings
         WHERE state = 'dead' AND digest IN (SELECT value ->> 0 FROM json_each(?1))",
    )
    .bind(&rows)
    .fetch_all(&mut **tx)
    .await?;
    texts::revive(tx, &dead).await
}

/// Adds the texts that are new to the job. Returns how many of them are encoded.
async fn insert_job_texts(tx: &mut Tx, job: i64, range: (i64, i64)) -> Result<usize, Error> {
    let encoded: Vec<bool> = sqlx::query_scalar(
        "INSERT INTO job_texts (job, embedding, encoded)
         SELECT ?1, e.id, e.state = 'done'
         FROM (SELECT text_embedding AS id FROM prompts
               WHERE job = ?1 AND position BETWEEN ?2 AND ?3
               UNION
               SELECT negative_embedding FROM prompts
               WHERE job = ?1 AND position BETWEEN ?2 AND ?3 AND negative_embedding IS NOT NULL
               UNION
               SELECT style_embedding FROM prompts
               WHERE job = ?1 AND position BETWEEN ?2 AND ?3 AND style_embedding IS NOT NULL) AS wanted
         JOIN embeddings AS e ON e.id = wanted.id
         WHERE TRUE
         ON CONFLICT (job, embedding) DO NOTHING
         RETURNING encoded",
    )
    .bind(job)
    .bind(range.0)
    .bind(range.1)
    .fetch_all(&mut **tx)
    .await?;
    Ok(encoded.into_iter().filter(|is| *is).count())
}

async fn insert_images(
    tx: &mut Tx,
    job: i64,
    range: (i64, i64),
    prompts: &[NewPrompt],
) -> Result<(), Error> {
    let mut images = 0;
    // One statement per distinct number of images. Usually all prompts have the same number.
    for count in prompts.iter().map(|prompt| prompt.images).collect::<BTreeSet<_>>() {
        images += sqlx::query(
            "WITH RECURSIVE k (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM k WHERE n + 1 < ?4)
             INSERT INTO images (job, idx, prompt, variant, state, version)
             SELECT p.job, p.first_index + k.n, p.position, p.variant, CASE p.encoded WHEN 1 THEN 'ready' ELSE 'waiting' END,
                    (SELECT version FROM jobs WHERE seq = ?1)
             FROM prompts AS p CROSS JOIN k
             WHERE p.job = ?1 AND p.position BETWEEN ?2 AND ?3 AND p.images = ?4",
        )
        .bind(job)
        .bind(range.0)
        .bind(range.1)
        .bind(count)
        .execute(&mut **tx)
        .await?
        .rows_affected();
    }
    sqlx::query("UPDATE jobs SET images = images + ?2 WHERE seq = ?1")
        .bind(job)
        .bind(column(images))
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "UPDATE job_stages
         SET ready = ready + (SELECT coalesce(sum(images), 0) FROM prompts
                              WHERE job = ?1 AND position BETWEEN ?2 AND ?3 AND encoded = 1)
         WHERE job = ?1 AND stage = 0",
    )
    .bind(job)
    .bind(range.0)
    .bind(range.1)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Accepts a job that was received; false when another job with its request id was accepted first.
pub(super) async fn set_active(tx: &mut Tx, seq: i64, content: Digest) -> Result<bool, Error> {
    let repeated: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM jobs AS j
                        JOIN jobs AS o ON o.tenant = j.tenant AND o.client_request_id = j.client_request_id
                        WHERE j.seq = ?1 AND o.state <> 'receiving')",
    )
    .bind(seq)
    .fetch_one(&mut **tx)
    .await?;
    if repeated {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE job_stages
         SET total = (SELECT count(*) FROM job_texts WHERE job = ?1),
             passed = (SELECT count(*) FROM job_texts WHERE job = ?1 AND encoded = 1)
         WHERE job = ?1 AND stage = -1",
    )
    .bind(seq)
    .execute(&mut **tx)
    .await?;
    let accepted = sqlx::query(
        "UPDATE jobs
         SET state = 'active', content = ?2, version = version + 1,
             created_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
         WHERE seq = ?1 AND state = 'receiving'",
    )
    .bind(seq)
    .bind(content.to_string())
    .execute(&mut **tx)
    .await?;
    if accepted.rows_affected() == 1 {
        Ok(true)
    } else {
        Err(Error::NotFound("the submit was given up; submit it again".to_owned()))
    }
}
