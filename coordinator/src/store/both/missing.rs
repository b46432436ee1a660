//! Inputs that a worker did not find: finds out what produced them, and deletes their rows.

use super::{
    Error, Tx, attempts,
    candidates::suspect_forgotten,
    rows::{Small, column, id_column, number},
};
use crate::store::{
    cause::Cause,
    missing::{Missing, StaleOutputs, missed},
};

/// Finds the missing inputs that causes report; usually there are none.
pub(in super::super) async fn find(tx: &mut Tx, causes: &[Cause<'_>]) -> Result<Missing, Error> {
    let mut missing = Missing::default();
    let missed = missed(causes);
    if missed.is_empty() {
        return Ok(missing);
    }
    let found = sqlx::query_as(sql!(
        sqlite:
            "SELECT m.key, e.id, o.stage
             FROM json_each($1) AS m
             CROSS JOIN jobs AS j ON j.id = m.value ->> 0
             CROSS JOIN images AS i ON i.job = j.seq AND i.idx = m.value ->> 1
             JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
             LEFT JOIN embeddings AS e ON e.id IN (p.text_embedding, p.negative_embedding, p.style_embedding)
                                      AND e.key = m.value ->> 2
             LEFT JOIN outputs AS o ON o.job = i.job AND o.idx = i.idx AND o.key = m.value ->> 2",
        postgres:
            "SELECT m.number - 1, e.id, o.stage
             FROM unnest($1::uuid[], $2::bigint[], $3::text[]) WITH ORDINALITY AS m (job, idx, key, number)
             JOIN jobs AS j ON j.id = m.job
             CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = j.seq AND i.idx = m.idx OFFSET 0) AS i
             CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                 WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p
             LEFT JOIN embeddings AS e ON e.id IN (p.text_embedding, p.negative_embedding, p.style_embedding) AND e.key = m.key
             LEFT JOIN outputs AS o ON o.job = i.job AND o.idx = i.idx AND o.key = m.key",
    ));
    let found =
        bind_rows!(found, missed, |(image, key)| id_column(image.job), column(image.index), *key,);
    let rows: Vec<(i64, Option<i64>, Option<Small>)> = found.fetch_all(&mut **tx).await?;
    for (position, text, stage) in rows {
        let Some((image, key)) = missed.get(number::<usize>(position)?).copied() else { continue };
        if let Some(text) = text {
            missing.found_text(image, key, text);
        }
        if let Some(stage) = stage {
            missing.found_output(image, key, number(stage)?);
        }
    }
    Ok(missing)
}

/// Deletes stale outputs. They stay in the list of attempts. What they stored may be superfluous
/// now.
pub(in super::super) async fn forget_outputs(
    tx: &mut Tx,
    stale: &[StaleOutputs],
) -> Result<(), Error> {
    if stale.is_empty() {
        return Ok(());
    }
    attempts::keep_outputs(tx, stale).await?;
    let forgotten = sqlx::query_scalar(sql!(
        sqlite:
            "DELETE FROM outputs
             WHERE (job, idx, stage) IN
                   (SELECT o.job, o.idx, o.stage FROM json_each($1) AS s
                    CROSS JOIN outputs AS o ON o.job = s.value ->> 0 AND o.idx = s.value ->> 1 AND o.stage >= s.value ->> 2)
             RETURNING key",
        postgres:
            "DELETE FROM outputs AS o
             USING unnest($1::bigint[], $2::bigint[], $3::smallint[]) AS s (job, idx, stage)
             WHERE o.job = s.job AND o.idx = s.idx AND o.stage >= s.stage
             RETURNING o.key",
    ));
    let forgotten = bind_rows!(
        forgotten,
        stale,
        |outputs| outputs.job,
        outputs.idx,
        column(outputs.first_stage)
    );
    let keys: Vec<String> = forgotten.fetch_all(&mut **tx).await?;
    suspect_forgotten(tx, keys).await
}
