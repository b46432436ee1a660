//! Do a job's counters equal the sums over its rows? (DESIGN invariant 10.)

use super::{Error, Tx};
use crate::store::row::row;

row! {
    /// What a job's row of progress says, and what its rows say, in the same order.
    #[derive(PartialEq, Eq, Debug)]
    struct Sums {
        images: i64,
        texts: i64,
        done: i64,
        dead: i64,
        cancelled: i64,
        ready: Vec<i64>,
        dispatched: Vec<i64>,
        passed: Vec<i64>,
        stopped: Vec<i64>,
    }
}

/// Which of a job's counters disagree with its rows, as of one moment.
pub(super) async fn counters(tx: &mut Tx, seq: i64) -> Result<Vec<String>, Error> {
    let (counted, summed) = (counted(tx, seq).await?, summed(tx, seq).await?);
    let wrong = || format!("the job counts {counted:?}, its rows are {summed:?}");
    Ok(Vec::from_iter((counted != summed).then(wrong)))
}

async fn counted(tx: &mut Tx, seq: i64) -> Result<Sums, Error> {
    let mut sums: Sums = sqlx::query_as("SELECT * FROM job_progress WHERE job = $1")
        .bind(seq)
        .fetch_one(&mut **tx)
        .await?;
    sums.stopped.resize(sums.ready.len(), 0);
    Ok(sums)
}

async fn summed(tx: &mut Tx, seq: i64) -> Result<Sums, Error> {
    Ok(sqlx::query_as(
        "SELECT (SELECT count(*) FROM images WHERE job = $1) AS images,
                (SELECT count(*) FROM job_texts WHERE job = $1) AS texts,
                (SELECT count(*) FROM images WHERE job = $1 AND state = 'done') AS done,
                (SELECT count(*) FROM images WHERE job = $1 AND state = 'dead') AS dead,
                (SELECT count(*) FROM images WHERE job = $1 AND state = 'cancelled') AS cancelled,
                array_agg((SELECT count(*) FROM images AS i
                           WHERE i.job = $1 AND i.state = 'ready' AND i.stage = s.stage) ORDER BY s.stage) AS ready,
                array_agg((SELECT count(*) FROM images AS i
                           WHERE i.job = $1 AND i.state = 'dispatched' AND i.stage = s.stage) ORDER BY s.stage)
                    AS dispatched,
                array_agg(CASE s.stage
                          WHEN -1 THEN (SELECT count(*) FROM job_texts AS t
                                        JOIN embeddings AS e ON e.id = t.embedding AND e.state = 'done'
                                        WHERE t.job = $1)
                          ELSE (SELECT count(*) FROM images AS i
                                WHERE i.job = $1 AND i.stage + (i.state = 'done')::int > s.stage) END
                          ORDER BY s.stage) AS passed,
                array_agg((SELECT count(*) FROM images AS i
                           LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
                           WHERE i.job = $1 AND i.state IN ('dead', 'cancelled') AND i.stage <= s.stage
                             AND s.stage < coalesce(v.stages, (SELECT json_array_length(j.settings::json -> 'stages')
                                                               FROM jobs AS j WHERE j.seq = $1)))
                          ORDER BY s.stage) AS stopped
         FROM job_stages AS s WHERE s.job = $1",
    )
    .bind(seq)
    .fetch_one(&mut **tx)
    .await?)
}

/// Counts of what must not be, each with what it is.
pub(super) const CHECKS: &[(&str, &str)] = &[
    (
        "SELECT count(*) FROM images AS i
         WHERE i.job = $1 AND (SELECT count(*) FROM outputs AS o WHERE o.job = i.job AND o.idx = i.idx)
                              <> i.stage + (i.state = 'done')::int",
        "images have not the outputs of the stages they have passed",
    ),
    (
        "SELECT count(*)
         FROM (SELECT idx / 256 AS block,
                      count(*) FILTER (WHERE state = 'waiting') AS waiting,
                      count(*) FILTER (WHERE state = 'ready') AS ready,
                      count(*) FILTER (WHERE state = 'dispatched') AS dispatched,
                      count(*) FILTER (WHERE state = 'done') AS done,
                      count(*) FILTER (WHERE state = 'dead') AS dead,
                      count(*) FILTER (WHERE state = 'cancelled') AS cancelled
               FROM images WHERE job = $1 GROUP BY 1) AS r
         LEFT JOIN image_blocks AS b ON b.job = $1 AND b.block = r.block
         WHERE (r.waiting, r.ready, r.dispatched, r.done, r.dead, r.cancelled)
               IS DISTINCT FROM (b.waiting, b.ready, b.dispatched, b.done, b.dead, b.cancelled)",
        "blocks count other images than they have",
    ),
    (
        "SELECT count(*) FROM images AS i
         JOIN image_blocks AS b ON b.job = i.job AND b.block = i.idx / 256
         WHERE i.job = $1 AND b.waiting_bits IS NOT NULL
           AND (get_bit(b.waiting_bits, (i.idx % 256)::int), get_bit(b.ready_bits, (i.idx % 256)::int),
                get_bit(b.dispatched_bits, (i.idx % 256)::int), get_bit(b.done_bits, (i.idx % 256)::int),
                get_bit(b.dead_bits, (i.idx % 256)::int), get_bit(b.cancelled_bits, (i.idx % 256)::int))
               IS DISTINCT FROM
               ((i.state = 'waiting')::int, (i.state = 'ready')::int, (i.state = 'dispatched')::int,
                (i.state = 'done')::int, (i.state = 'dead')::int, (i.state = 'cancelled')::int)",
        "images have the bits of another state in their block",
    ),
    (
        "SELECT count(*) FROM images AS i
         JOIN job_progress AS p ON p.job = i.job
         WHERE i.job = $1 AND i.state = 'ready' AND i.idx < p.low[i.stage + 2]",
        "images are ready below their stage's low-water mark",
    ),
    (
        "SELECT count(*) FROM job_texts AS t
         JOIN embeddings AS e ON e.id = t.embedding
         JOIN job_progress AS p ON p.job = t.job
         WHERE t.job = $1 AND e.state = 'wanted' AND t.embedding < p.low[1]
           AND NOT EXISTS (SELECT FROM dispatched_texts AS d
                           WHERE d.encoder = e.encoder AND d.embedding = e.id)",
        "texts are wanted below the low-water mark",
    ),
    (
        "SELECT count(*) FROM images AS i
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         JOIN jobs AS j ON j.seq = i.job
         LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
         WHERE i.job = $1
           AND (i.variant IS DISTINCT FROM p.variant OR i.variant IS NOT NULL AND v.job IS NULL
                OR i.stage >= coalesce(v.stages, json_array_length(j.settings::json -> 'stages')))",
        "images have other settings than their prompt, or go beyond theirs",
    ),
    (
        "SELECT count(*) FROM (SELECT FROM attempts WHERE job = $1 GROUP BY idx HAVING count(*) > 20) AS a",
        "images have more attempts than are kept",
    ),
    (
        "SELECT count(*) FROM images AS i
         WHERE i.job = $1 AND NOT EXISTS (SELECT FROM image_changes AS c
                                          WHERE c.job = i.job AND c.version = i.version AND i.idx = ANY (c.images))",
        "images are missing in the changes of their version",
    ),
];
