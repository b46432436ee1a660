//! What ended jobs leave in storage beside their pictures.

use std::collections::BTreeSet;

use async_trait::async_trait;
use darkroom_core::{
    guard::{self, Guard},
    id::JobId,
};

use super::{
    super::progress::LockedJobs,
    Error, Record,
    candidates::suspect,
    clock::now,
    retention::note_pictures,
    retried,
    rows::{HashColumn, IdColumn, Small, artifact, column, id_column, job_id, number},
};
use crate::store::{
    leftovers::{End, EndedJob, Left, Leftover},
    records::Term,
    removal::Candidate,
    roles::Leftovers,
    row::row,
};

#[async_trait]
impl Leftovers for Record {
    async fn ended_after(&self, after: End, limit: u32) -> Result<Vec<EndedJob>, Error> {
        // In the order of an index, so that no more rows are read than are returned.
        let rows: Vec<EndedRow> = sqlx::query_as(sql!(
            sqlite:
                "SELECT id, seq, finished_ms AS ended FROM jobs
                 WHERE finished_ms IS NOT NULL AND deleted_ms IS NULL AND (finished_ms, seq) > ($1, $2)
                   AND state NOT IN ('receiving', 'active', 'paused') AND follow IS NULL AND manifest = 'written'
                 ORDER BY finished_ms, seq LIMIT $3",
            postgres:
                "SELECT id, seq, (extract(epoch FROM finished_at) * 1000000)::bigint AS ended FROM jobs
                 WHERE finished_at IS NOT NULL AND deleted_ms IS NULL
                   AND (finished_at, seq) > ('epoch'::timestamptz + $1::bigint * interval '1 microsecond', $2)
                   AND state NOT IN ('receiving', 'active', 'paused') AND follow IS NULL AND manifest = 'written'
                 ORDER BY finished_at, seq LIMIT $3",
        ))
        .bind(after.ended)
        .bind(after.seq)
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        let ended = |row: EndedRow| {
            let end = End { ended: row.ended, seq: row.seq };
            Ok(EndedJob { id: job_id(&row.id)?, end })
        };
        rows.into_iter().map(ended).collect()
    }

    async fn leftovers(
        &self,
        (job, left): (JobId, Left),
        after: Option<(u64, usize)>,
        limit: u32,
    ) -> Result<Vec<Leftover>, Error> {
        let (index, stage) =
            after.map_or((-1, -1), |(index, stage)| (column(index), column(stage)));
        // The last output of a done image is its picture.
        let rows: Vec<LeftoverRow> = sqlx::query_as(concat!(
            "SELECT o.idx, o.stage, o.key, o.sha256, o.size
             FROM jobs AS j
             JOIN outputs AS o ON o.job = j.seq
             JOIN images AS i ON i.job = o.job AND i.idx = o.idx
             WHERE j.id = $1 AND j.state IN ('done', 'failed', 'cancelled') AND j.deleted_ms IS NULL
               AND o.removed_ms IS NULL AND (o.idx > $2 OR (o.idx = $2 AND o.stage > $3))
               AND (i.state = 'done' AND NOT EXISTS
                        (SELECT 1 FROM outputs AS l
                         WHERE l.job = o.job AND l.idx = o.idx AND l.stage > o.stage)) = $5
               AND NOT EXISTS (SELECT 1 FROM outputs AS u JOIN jobs AS w ON w.seq = u.job
                               WHERE ",
            sql!(
                sqlite: "u.key = o.key",
                postgres: "hashtextextended(u.key, 0) = hashtextextended(o.key, 0) AND u.key = o.key",
            ),
            " AND w.state IN ('active', 'paused'))
             ORDER BY o.idx, o.stage LIMIT $4",
        ))
        .bind(id_column(job))
        .bind(index)
        .bind(stage)
        .bind(i64::from(limit))
        .bind(left == Left::Pictures)
        .fetch_all(self.reads())
        .await?;
        let leftover = |row: LeftoverRow| {
            let artifact = artifact(row.key, &row.sha256, row.size)?;
            Ok(Leftover { index: number(row.idx)?, stage: number(row.stage)?, artifact })
        };
        rows.into_iter().map(leftover).collect()
    }

    async fn take(
        &self,
        term: Term,
        (job, left): (JobId, Left),
        outputs: &[(u64, usize)],
        by: &str,
    ) -> Result<u64, Error> {
        retried(|| async {
            let mut tx = self.begin_referring().await?;
            self.check_term(&mut tx, term).await?;
            let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM jobs WHERE id = $1")
                .bind(id_column(job))
                .fetch_optional(&mut *tx)
                .await?;
            let mut jobs = LockedJobs::lock(&mut tx, seq).await?;
            // Under the lock: a retry that came first needs what the job has stored.
            let ended: Option<i64> = sqlx::query_scalar(guard::text(
                Guard::RetryKeeps,
                "SELECT seq FROM jobs
                 WHERE id = $1 AND state IN ('done', 'failed', 'cancelled') AND follow IS NULL
                   AND deleted_ms IS NULL",
                "AND state IN ('done', 'failed', 'cancelled') AND follow IS NULL",
                "",
            ))
            .bind(id_column(job))
            .fetch_optional(&mut *tx)
            .await?;
            let Some(seq) = ended else { return Ok(0) };
            let now = now(&mut tx).await?;
            let mut keys = BTreeSet::new();
            for (index, stage) in outputs {
                let key: Option<String> = sqlx::query_scalar(
                    "UPDATE outputs SET removed_ms = $4
                     WHERE job = $1 AND idx = $2 AND stage = $3 AND removed_ms IS NULL RETURNING key",
                )
                .bind(seq)
                .bind(column(*index))
                .bind(column(*stage))
                .bind(now)
                .fetch_optional(&mut *tx)
                .await?;
                keys.extend(key.map(Candidate::output));
            }
            let taken = keys.len() as u64;
            let keys: Vec<Candidate> = keys.into_iter().collect();
            suspect(&mut tx, (now, now), &keys).await?;
            if left == Left::Pictures && taken > 0 {
                note_pictures(&mut tx, &mut jobs, seq, (now, by)).await?;
            }
            tx.commit().await?;
            Ok(taken)
        })
        .await
    }
}

row! {
    struct EndedRow {
        id: IdColumn,
        seq: i64,
        ended: i64,
    }
}

row! {
    struct LeftoverRow {
        idx: i64,
        stage: Small,
        key: String,
        sha256: HashColumn,
        size: i64,
    }
}
