//! Stores the notes about a job's texts. [`crate::store::notes`] makes sentences from them.
//!
//! The transaction has locked the texts: a chunk of prompts with a shared lock, the result of a
//! text with an exclusive one. So no image is counted twice, and no deadlock is possible.

use std::collections::BTreeMap;

use super::{Error, Tx, rows::column};
use crate::store::notes::{COUNTED, NOTES};

/// Images of a chunk that have a text in a role.
#[derive(Clone, Copy)]
pub(super) struct Use {
    first_index: i64,
    line: Option<i64>,
    images: i64,
}

/// The uses of texts in a chunk, by text and role.
#[derive(Default)]
pub(super) struct Uses(BTreeMap<(i64, i16), Use>);

impl Uses {
    /// Counts a prompt's images. Prompts come in order, so the first one sets the index and the
    /// line that the note names.
    pub(super) fn add(
        &mut self,
        (text, role): (i64, i16),
        first_index: u64,
        line: Option<u64>,
        images: u32,
    ) {
        let first = Use { first_index: column(first_index), line: line.map(column), images: 0 };
        self.0.entry((text, role)).or_insert(first).images += i64::from(images);
    }
}

/// Adds the notes of texts that were encoded before a chunk of a job's prompts came.
pub(super) async fn note_received(tx: &mut Tx, job: i64, uses: &Uses) -> Result<(), Error> {
    if uses.0.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO text_notes AS kept (job, embedding, role, ord, first_index, line, images, note)
         SELECT $1, f.embedding, f.role, f.ord, f.first_index, f.line, f.images, f.note
         FROM (SELECT used.*, note.ord::smallint AS ord, note.note, known.job IS NOT NULL AS known,
                      count(*) FILTER (WHERE known.job IS NULL)
                          OVER (ORDER BY used.first_index, used.role, used.embedding, note.ord) AS place
               FROM unnest($2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[])
                   AS used (embedding, role, first_index, line, images)
               CROSS JOIN LATERAL (SELECT notes FROM embeddings WHERE id = used.embedding OFFSET 0) AS e
               CROSS JOIN LATERAL unnest(e.notes) WITH ORDINALITY AS note (note, ord)
               LEFT JOIN text_notes AS known ON known.job = $1 AND known.embedding = used.embedding
                                            AND known.role = used.role AND known.ord = note.ord) AS f
         WHERE f.known OR f.place + (SELECT count(*) FROM text_notes AS kept WHERE kept.job = $1) <= $7
         ORDER BY f.embedding, f.role, f.ord
         ON CONFLICT (job, embedding, role, ord) DO UPDATE
         SET images = kept.images + excluded.images, first_index = least(kept.first_index, excluded.first_index),
             line = CASE WHEN excluded.first_index < kept.first_index THEN excluded.line ELSE kept.line END",
    )
    .bind(job)
    .bind(uses.0.keys().map(|(text, _)| *text).collect::<Vec<_>>())
    .bind(uses.0.keys().map(|(_, role)| *role).collect::<Vec<_>>())
    .bind(uses.0.values().map(|used| used.first_index).collect::<Vec<_>>())
    .bind(uses.0.values().map(|used| used.line).collect::<Vec<_>>())
    .bind(uses.0.values().map(|used| used.images).collect::<Vec<_>>())
    .bind(NOTES)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Adds the notes of texts that have just been encoded to the jobs that need them. Counts the
/// images of all prompts received so far.
pub(super) async fn note_encoded(
    tx: &mut Tx,
    jobs: &[i64],
    embeddings: &[i64],
) -> Result<(), Error> {
    if embeddings.is_empty() {
        return Ok(());
    }
    let open: Vec<i64> = sqlx::query_scalar(
        "SELECT j.job FROM unnest($1::bigint[]) AS j (job)
         WHERE (SELECT count(*) FROM text_notes AS kept WHERE kept.job = j.job) < $2",
    )
    .bind(jobs)
    .bind(NOTES)
    .fetch_all(&mut **tx)
    .await?;
    if open.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO text_notes AS kept (job, embedding, role, ord, first_index, line, images, note)
         SELECT f.job, f.embedding, f.role, f.ord, f.first_index, f.line, f.images, f.note
         FROM (SELECT t.job, e.id AS embedding, used.*, note.ord::smallint AS ord, note.note,
                      row_number() OVER (PARTITION BY t.job ORDER BY used.first_index, used.role, e.id, note.ord) AS place
               FROM unnest($2::bigint[]) AS wanted (id)
               CROSS JOIN LATERAL (SELECT id, notes FROM embeddings WHERE id = wanted.id OFFSET 0) AS e
               CROSS JOIN LATERAL unnest(e.notes) WITH ORDINALITY AS note (note, ord)
               CROSS JOIN LATERAL (SELECT t.job FROM job_texts AS t
                                   WHERE t.embedding = e.id AND t.job = ANY ($1) OFFSET 0) AS t
               CROSS JOIN LATERAL (
                   SELECT 0::smallint AS role, min(p.first_index) AS first_index,
                          (array_agg(p.line ORDER BY p.position))[1] AS line, sum(p.images) AS images
                   FROM (SELECT * FROM prompts AS p WHERE p.text_embedding = e.id AND p.job = t.job
                         ORDER BY p.position LIMIT $4) AS p
                   UNION ALL
                   SELECT 1::smallint, min(p.first_index), (array_agg(p.line ORDER BY p.position))[1], sum(p.images)
                   FROM (SELECT * FROM prompts AS p WHERE p.negative_embedding = e.id AND p.job = t.job
                         ORDER BY p.position LIMIT $4) AS p
                   UNION ALL
                   SELECT 2::smallint, min(p.first_index), (array_agg(p.line ORDER BY p.position))[1], sum(p.images)
                   FROM (SELECT * FROM prompts AS p WHERE p.style_embedding = e.id AND p.job = t.job
                         ORDER BY p.position LIMIT $4) AS p) AS used
               WHERE used.images > 0) AS f
         WHERE f.place + (SELECT count(*) FROM text_notes AS kept WHERE kept.job = f.job) <= $3
         ORDER BY f.job, f.embedding, f.role, f.ord
         ON CONFLICT (job, embedding, role, ord) DO UPDATE
         SET first_index = excluded.first_index, line = excluded.line, images = excluded.images, note = excluded.note",
    )
    .bind(open)
    .bind(embeddings)
    .bind(NOTES)
    .bind(COUNTED)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
