//! What ended jobs leave in storage beside their pictures.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use super::{
    Error, Record,
    rows::{IdColumn, Small, column, id_column, job_id, number},
};
use crate::store::{
    leftovers::{End, EndedJob, Leftover},
    roles::Leftovers,
    row::row,
};

/// When a job ended, milliseconds since 1970.
macro_rules! finished_ms {
    () => {
        sql!(
            sqlite: "finished_ms",
            postgres: "(extract(epoch FROM finished_at) * 1000)::bigint",
        )
    };
}

#[async_trait]
impl Leftovers for Record {
    async fn ended_after(&self, after: End, limit: u32) -> Result<Vec<EndedJob>, Error> {
        let rows: Vec<EndedRow> = sqlx::query_as(concat!(
            "SELECT id, seq, ",
            finished_ms!(),
            " AS ended_ms FROM jobs
             WHERE state IN ('done', 'failed', 'cancelled') AND follow IS NULL AND manifest = 'written'
               AND (",
            finished_ms!(),
            " > $1 OR (",
            finished_ms!(),
            " = $1 AND seq > $2)) ORDER BY ended_ms, seq LIMIT $3",
        ))
        .bind(after.finished_ms)
        .bind(after.seq)
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        let ended = |row: EndedRow| {
            let end = End { finished_ms: row.ended_ms, seq: row.seq };
            Ok(EndedJob { id: job_id(&row.id)?, end })
        };
        rows.into_iter().map(ended).collect()
    }

    async fn leftovers(
        &self,
        job: JobId,
        after: Option<(u64, usize)>,
        limit: u32,
    ) -> Result<Vec<Leftover>, Error> {
        let (index, stage) =
            after.map_or((-1, -1), |(index, stage)| (column(index), column(stage)));
        // The last output of a done image is its picture.
        let rows: Vec<LeftoverRow> = sqlx::query_as(
            "SELECT o.idx, o.stage, o.key
             FROM jobs AS j
             JOIN outputs AS o ON o.job = j.seq
             JOIN images AS i ON i.job = o.job AND i.idx = o.idx
             WHERE j.id = $1 AND j.state IN ('done', 'failed', 'cancelled')
               AND (o.idx > $2 OR (o.idx = $2 AND o.stage > $3))
               AND NOT (i.state = 'done' AND NOT EXISTS
                        (SELECT 1 FROM outputs AS l
                         WHERE l.job = o.job AND l.idx = o.idx AND l.stage > o.stage))
               AND o.key NOT IN (SELECT u.key FROM jobs AS w JOIN outputs AS u ON u.job = w.seq
                                 WHERE w.state IN ('active', 'paused'))
             ORDER BY o.idx, o.stage LIMIT $4",
        )
        .bind(id_column(job))
        .bind(index)
        .bind(stage)
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        let leftover = |row: LeftoverRow| {
            Ok(Leftover { index: number(row.idx)?, stage: number(row.stage)?, key: row.key })
        };
        rows.into_iter().map(leftover).collect()
    }
}

row! {
    struct EndedRow {
        id: IdColumn,
        seq: i64,
        ended_ms: i64,
    }
}

row! {
    struct LeftoverRow {
        idx: i64,
        stage: Small,
        key: String,
    }
}
