//! The outcomes of the attempts at an image.

use async_trait::async_trait;
use darkroom_core::{
    guard::{Guard, stands},
    id::JobId,
};

use super::{
    Error, Record, Tx,
    rows::{column, id_column, text_column},
};
use crate::store::{
    attempt::{Attempt, AttemptRow, KEPT, NewAttempt, in_order},
    missing::StaleOutputs,
    roles::Attempts,
};

#[async_trait]
impl Attempts for Record {
    async fn attempts(&self, job: JobId, index: u64) -> Result<Vec<Attempt>, Error> {
        let rows: Vec<AttemptRow> = sqlx::query_as(sql!(
            sqlite:
                "SELECT o.stage, coalesce(o.generation, 0) AS generation, coalesce(o.dispatch, 0) AS dispatch,
                        'done' AS outcome, 0 AS counted, o.worker, '' AS place, o.device_class, o.seconds,
                        o.at_ms AS ended_ms, '' AS reason, '' AS message
                 FROM jobs AS j CROSS JOIN outputs AS o ON o.job = j.seq AND o.idx = $2
                 WHERE j.id = $1 AND j.state <> 'receiving' AND j.deleted_ms IS NULL
                 UNION ALL
                 SELECT a.stage, a.generation, a.dispatch, a.outcome, a.counted, a.worker, a.place, a.device_class,
                        a.seconds, a.at_ms, a.reason, a.message
                 FROM jobs AS j CROSS JOIN attempts AS a ON a.job = j.seq AND a.idx = $2
                 WHERE j.id = $1 AND j.state <> 'receiving' AND j.deleted_ms IS NULL
                 ORDER BY dispatch DESC, stage DESC LIMIT $3",
            postgres:
                "SELECT o.stage::bigint AS stage, coalesce(o.generation, 0)::bigint AS generation,
                        coalesce(o.dispatch, 0) AS dispatch, 'done' AS outcome, FALSE AS counted, o.worker, '' AS place,
                        o.device_class, o.seconds, (extract(epoch FROM o.at) * 1000)::bigint AS ended_ms,
                        '' AS reason, '' AS message
                 FROM (SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving' AND deleted_ms IS NULL) AS j
                 CROSS JOIN LATERAL (SELECT * FROM outputs AS o WHERE o.job = j.seq AND o.idx = $2 OFFSET 0) AS o
                 UNION ALL
                 SELECT a.stage::bigint, a.generation::bigint, a.dispatch, a.outcome, a.counted, a.worker, a.place,
                        a.device_class, a.seconds, (extract(epoch FROM a.at) * 1000)::bigint, a.reason, a.message
                 FROM (SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving' AND deleted_ms IS NULL) AS j
                 CROSS JOIN LATERAL (SELECT * FROM attempts AS a WHERE a.job = j.seq AND a.idx = $2 OFFSET 0) AS a
                 ORDER BY dispatch DESC, stage DESC LIMIT $3",
        ))
        .bind(id_column(job))
        .bind(column(index))
        .bind(i64::from(KEPT))
        .fetch_all(self.reads())
        .await?;
        in_order(rows)
    }
}

/// Writes unsuccessful attempts, and deletes those that are too old. The images' jobs are locked.
pub(in super::super) async fn write(tx: &mut Tx, attempts: &[NewAttempt<'_>]) -> Result<(), Error> {
    if attempts.is_empty() {
        return Ok(());
    }
    // A dispatch has one outcome, so a second one would say nothing new.
    let written = sqlx::query(sql!(
        sqlite:
            "INSERT INTO attempts (job, idx, dispatch, generation, stage, counted, seconds, outcome, worker, place,
                                   device_class, reason, message, at_ms)
             SELECT a.value ->> 0, a.value ->> 1, a.value ->> 2, a.value ->> 3, a.value ->> 4, a.value ->> 5,
                    a.value ->> 6, a.value ->> 7, a.value ->> 8, a.value ->> 9, a.value ->> 10, a.value ->> 11,
                    a.value ->> 12, CAST(unixepoch('subsec') * 1000 AS INTEGER)
             FROM json_each($1) AS a WHERE TRUE
             ON CONFLICT (job, idx, dispatch) DO NOTHING",
        postgres:
            "INSERT INTO attempts (job, idx, dispatch, generation, stage, counted, seconds, outcome, worker, place,
                                   device_class, reason, message)
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::smallint[], $6::boolean[],
                                  $7::float8[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
             ON CONFLICT (job, idx, dispatch) DO NOTHING",
    ));
    bind_rows!(
        written,
        attempts,
        |attempt| attempt.row.0,
        attempt.row.1,
        column(attempt.dispatch),
        column(attempt.generation),
        column(attempt.stage),
        attempt.counted,
        attempt.ended.finite_seconds(),
        attempt.ended.outcome.name(),
        text_column(attempt.ended.worker),
        text_column(attempt.ended.place),
        text_column(attempt.ended.device_class),
        text_column(attempt.ended.reason),
        text_column(attempt.ended.kept_message()),
    )
    .execute(&mut **tx)
    .await?;
    let many = attempts.iter().filter(|attempt| attempt.may_be_one_too_many());
    let many: Vec<_> = many.map(|attempt| attempt.row).collect();
    prune(tx, &many).await
}

/// Deletes all but the latest attempts of images.
async fn prune(tx: &mut Tx, images: &[(i64, i64)]) -> Result<(), Error> {
    if images.is_empty() || !stands(Guard::AttemptsBounded) {
        return Ok(());
    }
    let pruned = sqlx::query(sql!(
        sqlite:
            "DELETE FROM attempts
             WHERE (job, idx, dispatch) IN
                   (SELECT a.job, a.idx, a.dispatch
                    FROM json_each($2) AS m
                    CROSS JOIN attempts AS a ON a.job = m.value ->> 0 AND a.idx = m.value ->> 1
                    WHERE a.dispatch < (SELECT n.dispatch FROM attempts AS n
                                        WHERE n.job = a.job AND n.idx = a.idx
                                        ORDER BY n.dispatch DESC LIMIT 1 OFFSET $1))",
        postgres:
            "DELETE FROM attempts AS a
             USING (SELECT m.job, m.idx,
                           (SELECT n.dispatch FROM attempts AS n WHERE n.job = m.job AND n.idx = m.idx
                            ORDER BY n.dispatch DESC LIMIT 1 OFFSET $1) AS oldest
                    FROM unnest($2::bigint[], $3::bigint[]) AS m (job, idx)) AS k
             WHERE a.job = k.job AND a.idx = k.idx AND a.dispatch < k.oldest",
    ))
    .bind(i64::from(KEPT - 1));
    bind_rows!(pruned, images, |(job, idx)| *job, *idx).execute(&mut **tx).await?;
    Ok(())
}

/// Keeps stale outputs as attempts before their rows are deleted.
pub(in super::super) async fn keep_outputs(
    tx: &mut Tx,
    stale: &[StaleOutputs],
) -> Result<(), Error> {
    let kept = sqlx::query(sql!(
        sqlite:
            "INSERT INTO attempts (job, idx, dispatch, at_ms, seconds, generation, stage, counted, outcome, worker, place,
                                   device_class, reason, message)
             SELECT o.job, o.idx, o.dispatch, o.at_ms, o.seconds, o.generation, o.stage, 0, 'done', o.worker, '',
                    o.device_class, '', ''
             FROM json_each($1) AS s
             CROSS JOIN outputs AS o ON o.job = s.value ->> 0 AND o.idx = s.value ->> 1 AND o.stage >= s.value ->> 2
             WHERE o.dispatch IS NOT NULL
             ON CONFLICT (job, idx, dispatch) DO NOTHING",
        postgres:
            "INSERT INTO attempts (job, idx, dispatch, at, seconds, generation, stage, counted, outcome, worker, place,
                                   device_class, reason, message)
             SELECT o.job, o.idx, o.dispatch, coalesce(o.at, clock_timestamp()), o.seconds, o.generation, o.stage, FALSE,
                    'done', o.worker, '', o.device_class, '', ''
             FROM unnest($1::bigint[], $2::bigint[], $3::smallint[]) AS s (job, idx, stage)
             CROSS JOIN LATERAL (SELECT * FROM outputs AS o
                                 WHERE o.job = s.job AND o.idx = s.idx AND o.stage >= s.stage OFFSET 0) AS o
             WHERE o.dispatch IS NOT NULL
             ON CONFLICT (job, idx, dispatch) DO NOTHING",
    ));
    bind_rows!(kept, stale, |outputs| outputs.job, outputs.idx, column(outputs.first_stage))
        .execute(&mut **tx)
        .await?;
    let images: Vec<_> = stale.iter().map(|outputs| (outputs.job, outputs.idx)).collect();
    prune(tx, &images).await
}
