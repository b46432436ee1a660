//! Stores the notes about a job's pictures. [`crate::store::notes`] makes sentences from them.

use super::{Error, Tx, rows::column};
use crate::store::{
    notes::{PICTURE, PICTURE_NOTES, of_pictures},
    records::NewPrompt,
};

/// Adds notes about the pictures in a chunk of a job's prompts. Rows of pictures are locked after
/// rows of texts, always in the same order.
pub(in super::super) async fn note_pictures(
    tx: &mut Tx,
    job: i64,
    prompts: &[NewPrompt],
) -> Result<(), Error> {
    let notes = of_pictures(prompts);
    if notes.is_empty() {
        return Ok(());
    }
    let noted = sqlx::query(sql!(
        sqlite:
            "WITH found (words, role, first_index, line, images, note) AS (
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each($4)),
             fresh AS (
                 SELECT f.*, NOT EXISTS (SELECT 1 FROM text_notes AS k
                                         WHERE k.job = $1 AND k.embedding = f.words AND k.role = f.role
                                           AND k.ord = 0) AS is_fresh
                 FROM found AS f),
             placed AS (
                 SELECT f.*, sum(f.is_fresh) OVER (ORDER BY f.first_index, f.role, f.words) AS place FROM fresh AS f)
             INSERT INTO text_notes (job, embedding, role, ord, first_index, line, images, note)
             SELECT $1, words, role, 0, first_index, line, images, note FROM placed
             WHERE NOT is_fresh
                OR place + (SELECT count(*) FROM text_notes AS k WHERE k.job = $1 AND k.role >= $3) <= $2
             ON CONFLICT (job, embedding, role, ord) DO UPDATE
             SET images = images + excluded.images, first_index = min(first_index, excluded.first_index),
                 line = CASE WHEN excluded.first_index < first_index THEN excluded.line ELSE line END",
        postgres:
            "INSERT INTO text_notes AS kept (job, embedding, role, ord, first_index, line, images, note)
             SELECT $1, f.words, f.role, 0, f.first_index, f.line, f.images, f.note
             FROM (SELECT said.*, known.job IS NOT NULL AS known,
                          count(*) FILTER (WHERE known.job IS NULL)
                              OVER (ORDER BY said.first_index, said.role, said.words) AS place
                   FROM unnest($4::bigint[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[])
                       AS said (words, role, first_index, line, images, note)
                   LEFT JOIN text_notes AS known ON known.job = $1 AND known.embedding = said.words
                                                AND known.role = said.role AND known.ord = 0) AS f
             WHERE f.known
                OR f.place + (SELECT count(*) FROM text_notes AS kept WHERE kept.job = $1 AND kept.role >= $3) <= $2
             ORDER BY f.words, f.role
             ON CONFLICT (job, embedding, role, ord) DO UPDATE
             SET images = kept.images + excluded.images, first_index = least(kept.first_index, excluded.first_index),
                 line = CASE WHEN excluded.first_index < kept.first_index THEN excluded.line ELSE kept.line END",
    ))
    .bind(job)
    .bind(PICTURE_NOTES)
    .bind(PICTURE);
    bind_rows!(
        noted,
        notes,
        |note| note.words,
        note.role,
        column(note.first_index),
        note.line.map(column),
        note.images,
        note.note.as_str(),
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}
