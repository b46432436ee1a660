//! Stores the notes about a job's texts. [`crate::store::notes`] makes sentences from them.

use std::collections::HashMap;

use super::{Error, Tx, rows::list};
use crate::store::notes::{COUNTED, NOTES};

/// Adds the notes of texts that were encoded before a chunk of a job's prompts came.
pub(super) async fn note_received(tx: &mut Tx, job: i64, range: (i64, i64)) -> Result<(), Error> {
    sqlx::query(
        "WITH used (embedding, role, first_index, line, images) AS (
             SELECT text_embedding, 0, first_index, line, images FROM prompts
             WHERE job = ?1 AND position BETWEEN ?2 AND ?3
             UNION ALL
             SELECT negative_embedding, 1, first_index, line, images FROM prompts
             WHERE job = ?1 AND position BETWEEN ?2 AND ?3 AND negative_embedding IS NOT NULL
             UNION ALL
             SELECT style_embedding, 2, first_index, line, images FROM prompts
             WHERE job = ?1 AND position BETWEEN ?2 AND ?3 AND style_embedding IS NOT NULL),
         found (embedding, role, ord, note, first_index, line, images) AS (
             -- The line is that of the row with the lowest index.
             SELECT u.embedding, u.role, n.key, n.value, min(u.first_index), u.line, sum(u.images)
             FROM used AS u
             JOIN embeddings AS e ON e.id = u.embedding AND e.state = 'done' AND e.notes <> '[]'
             JOIN json_each(e.notes) AS n
             GROUP BY u.embedding, u.role, n.key),
         fresh AS (
             SELECT f.*, NOT EXISTS (SELECT 1 FROM text_notes AS k
                                     WHERE k.job = ?1 AND k.embedding = f.embedding AND k.role = f.role
                                       AND k.ord = f.ord) AS is_fresh
             FROM found AS f),
         placed AS (
             SELECT f.*, sum(f.is_fresh) OVER (ORDER BY f.first_index, f.role, f.embedding, f.ord) AS place
             FROM fresh AS f)
         INSERT INTO text_notes (job, embedding, role, ord, first_index, line, images, note)
         SELECT ?1, embedding, role, ord, first_index, line, images, note FROM placed
         WHERE NOT is_fresh OR place + (SELECT count(*) FROM text_notes AS k WHERE k.job = ?1) <= ?4
         ON CONFLICT (job, embedding, role, ord) DO UPDATE
         SET images = images + excluded.images, first_index = min(first_index, excluded.first_index),
             line = CASE WHEN excluded.first_index < first_index THEN excluded.line ELSE line END",
    )
    .bind(job)
    .bind(range.0)
    .bind(range.1)
    .bind(NOTES)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Adds the notes of texts that have just been encoded to the jobs that need them. Counts the
/// images of the prompts that wait for them.
pub(super) async fn note_encoded(
    tx: &mut Tx,
    jobs: &[i64],
    embeddings: &[i64],
) -> Result<(), Error> {
    let noted: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT t.job, e.id
         FROM json_each(?1) AS wanted
         JOIN embeddings AS e ON e.id = wanted.value AND e.notes <> '[]'
         JOIN job_texts AS t ON t.embedding = e.id AND t.job IN (SELECT value FROM json_each(?2))
         WHERE (SELECT count(*) FROM text_notes AS k WHERE k.job = t.job) < ?3",
    )
    .bind(list(embeddings)?)
    .bind(list(jobs)?)
    .bind(NOTES)
    .fetch_all(&mut **tx)
    .await?;
    let mut added: HashMap<i64, i64> = HashMap::new();
    for (job, embedding) in noted {
        let added = added.entry(job).or_default();
        if *added < NOTES {
            *added += note_text(tx, job, embedding).await?;
        }
    }
    Ok(())
}

/// Adds the notes of one text in all its roles, until the job has as many as it may have. Returns
/// how many rows it wrote.
async fn note_text(tx: &mut Tx, job: i64, embedding: i64) -> Result<i64, Error> {
    let done = sqlx::query(
        "WITH used (role, first_index, line, images) AS (
             SELECT * FROM (SELECT 0, first_index, line, images FROM prompts
                            WHERE encoded = 0 AND text_embedding = ?2 AND job = ?1 ORDER BY position LIMIT ?4)
             UNION ALL
             SELECT * FROM (SELECT 1, first_index, line, images FROM prompts
                            WHERE encoded = 0 AND negative_embedding = ?2 AND job = ?1 ORDER BY position LIMIT ?4)
             UNION ALL
             SELECT * FROM (SELECT 2, first_index, line, images FROM prompts
                            WHERE encoded = 0 AND style_embedding = ?2 AND job = ?1 ORDER BY position LIMIT ?4)),
         counted (role, first_index, line, images) AS (
             SELECT role, min(first_index), line, sum(images) FROM used GROUP BY role)
         INSERT INTO text_notes (job, embedding, role, ord, first_index, line, images, note)
         SELECT ?1, ?2, role, ord, first_index, line, images, note
         FROM (SELECT c.*, n.key AS ord, n.value AS note, row_number() OVER (ORDER BY c.role, n.key) AS place
               FROM counted AS c
               JOIN embeddings AS e ON e.id = ?2
               JOIN json_each(e.notes) AS n)
         WHERE place + (SELECT count(*) FROM text_notes AS k WHERE k.job = ?1) <= ?3
         ON CONFLICT (job, embedding, role, ord) DO UPDATE
         SET images = max(images, excluded.images), first_index = min(first_index, excluded.first_index),
             line = CASE WHEN excluded.first_index < first_index THEN excluded.line ELSE line END",
    )
    .bind(job)
    .bind(embedding)
    .bind(NOTES)
    .bind(COUNTED)
    .execute(&mut **tx)
    .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}
