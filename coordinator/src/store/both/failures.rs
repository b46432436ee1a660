//! How a job's images failed, by code.

use super::{Connection, Error};
use crate::store::{
    failures::{self, CodeRow},
    records::Failures,
};

/// Counts a job's failures with one index scan per code.
pub(in super::super) async fn count(tx: &mut Connection, seq: i64) -> Result<Failures, Error> {
    let codes: Vec<String> = sqlx::query_scalar(sql!(
        sqlite:
            "WITH RECURSIVE codes (code, place) AS (
                 SELECT min(error_code), 1 FROM images WHERE job = $1 AND error_code IS NOT NULL
                 UNION ALL
                 SELECT (SELECT min(error_code) FROM images WHERE job = $1 AND error_code > codes.code),
                        codes.place + 1
                 FROM codes WHERE codes.code IS NOT NULL AND codes.place < $2)
             SELECT code FROM codes WHERE code IS NOT NULL",
        postgres:
            "WITH RECURSIVE codes (code, place) AS (
                 (SELECT error_code, 1 FROM images WHERE job = $1 AND error_code IS NOT NULL
                  ORDER BY error_code LIMIT 1)
                 UNION ALL
                 SELECT next.error_code, codes.place + 1
                 FROM codes
                 CROSS JOIN LATERAL (SELECT error_code FROM images
                                     WHERE job = $1 AND error_code IS NOT NULL AND error_code > codes.code
                                     ORDER BY error_code LIMIT 1) AS next
                 WHERE codes.place < $2)
             SELECT code FROM codes",
    ))
    .bind(seq)
    .bind(i64::from(failures::CODES_READ))
    .fetch_all(&mut *tx)
    .await?;
    let mut rows: Vec<CodeRow> = Vec::new();
    for code in failures::told(&codes) {
        let row = sqlx::query_as(sql!(
            sqlite:
                "WITH counted AS MATERIALIZED (
                     SELECT idx, state FROM images WHERE job = $1 AND error_code = $2 ORDER BY idx LIMIT $3),
                 example AS (SELECT min(idx) AS idx FROM counted WHERE state = 'dead')
                 SELECT $2 AS code, count(*) AS images, coalesce(sum(state = 'dead'), 0) AS dead, min(idx) AS first,
                        (SELECT max(idx) FROM images WHERE job = $1 AND error_code = $2) AS last,
                        coalesce((SELECT idx FROM example), min(idx)) AS example,
                        (SELECT error FROM images WHERE job = $1 AND idx =
                             coalesce((SELECT idx FROM example), (SELECT min(idx) FROM counted))) AS sentence
                 FROM counted",
            postgres:
                "WITH counted AS MATERIALIZED (
                     SELECT idx, state, error FROM images
                     WHERE job = $1 AND error_code IS NOT NULL AND error_code = $2 ORDER BY idx LIMIT $3)
                 SELECT $2 AS code, count(*) AS images, count(*) FILTER (WHERE state = 'dead') AS dead, min(idx) AS first,
                        (SELECT idx FROM images WHERE job = $1 AND error_code IS NOT NULL AND error_code = $2
                         ORDER BY idx DESC LIMIT 1) AS last,
                        coalesce(min(idx) FILTER (WHERE state = 'dead'), min(idx)) AS example,
                        (SELECT error FROM counted ORDER BY state <> 'dead', idx LIMIT 1) AS sentence
                 FROM counted",
        ));
        let row = row.bind(seq).bind(code).bind(failures::counted_of_each(&codes));
        rows.push(row.fetch_one(&mut *tx).await?);
    }
    failures::summary(&codes, rows)
}
