//! Do a job's counters equal the sums over its rows? (DESIGN invariant 10.)

use darkroom_core::id::JobId;

use super::{Error, Tx, rows::id_column};
use crate::store::row::row;

row! {
    #[derive(PartialEq, Eq, Debug)]
    struct Sums {
        images: i64,
        texts: i64,
        done: i64,
        dead: i64,
        cancelled: i64,
    }
}

row! {
    #[derive(PartialEq, Eq, Debug)]
    struct StageSums {
        stage: i64,
        ready: i64,
        dispatched: i64,
        passed: i64,
        stopped: i64,
    }
}

/// The differences between a job's counters and its rows, as of one moment.
pub(super) async fn audit(tx: &mut Tx, job: JobId) -> Result<Vec<String>, Error> {
    let seq: i64 = sqlx::query_scalar("SELECT seq FROM jobs WHERE id = $1")
        .bind(id_column(job))
        .fetch_one(&mut **tx)
        .await?;
    let counted: Sums = sqlx::query_as(COUNTED).bind(seq).fetch_one(&mut **tx).await?;
    let rows: Sums = sqlx::query_as(SUMMED).bind(seq).fetch_one(&mut **tx).await?;
    let mut wrong = Vec::new();
    if counted != rows {
        wrong.push(format!("the job counts {counted:?}, its rows are {rows:?}"));
    }
    let counted: Vec<StageSums> =
        sqlx::query_as(STAGES_COUNTED).bind(seq).fetch_all(&mut **tx).await?;
    let rows: Vec<StageSums> = sqlx::query_as(STAGES_SUMMED).bind(seq).fetch_all(&mut **tx).await?;
    for (counted, rows) in counted.iter().zip(&rows).filter(|(counted, rows)| counted != rows) {
        wrong.push(format!("a stage counts {counted:?}, its rows are {rows:?}"));
    }
    for (question, what) in CHECKS.iter().chain(OWN_CHECKS) {
        let found: i64 = sqlx::query_scalar(*question).bind(seq).fetch_one(&mut **tx).await?;
        if found > 0 {
            wrong.push(format!("{found} {what}"));
        }
    }
    Ok(wrong)
}

/// SQLite counts a job's texts in its stage `encode` only.
const COUNTED: &str = sql!(
    sqlite: "SELECT images, 0 AS texts, done, dead, cancelled FROM jobs WHERE seq = $1",
    postgres: "SELECT images, texts, done, dead, cancelled FROM job_progress WHERE job = $1",
);

const SUMMED: &str = sql!(
    sqlite:
        "SELECT count(*) AS images, 0 AS texts, coalesce(sum(state = 'done'), 0) AS done,
                coalesce(sum(state = 'dead'), 0) AS dead, coalesce(sum(state = 'cancelled'), 0) AS cancelled
         FROM images WHERE job = $1",
    postgres:
        "SELECT count(*) AS images, (SELECT count(*) FROM job_texts WHERE job = $1) AS texts,
                count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'dead') AS dead,
                count(*) FILTER (WHERE state = 'cancelled') AS cancelled
         FROM images WHERE job = $1",
);

/// In Postgres the list `stopped` stays empty until the first image stops.
const STAGES_COUNTED: &str = sql!(
    sqlite:
        "SELECT stage, ready, dispatched, passed, stopped FROM job_stages WHERE job = $1 ORDER BY stage",
    postgres:
        "SELECT s.stage::bigint AS stage, p.ready[s.stage + 2] AS ready, p.dispatched[s.stage + 2] AS dispatched,
                p.passed[s.stage + 2] AS passed, coalesce(p.stopped[s.stage + 2], 0) AS stopped
         FROM job_stages AS s JOIN job_progress AS p ON p.job = s.job
         WHERE s.job = $1 ORDER BY s.stage",
);

const STAGES_SUMMED: &str = sql!(
    sqlite:
        "SELECT s.stage,
                CASE s.stage WHEN -1 THEN 0 ELSE
                    (SELECT count(*) FROM images AS i
                     WHERE i.job = s.job AND i.state = 'ready' AND i.stage = s.stage) END AS ready,
                CASE s.stage WHEN -1 THEN 0 ELSE
                    (SELECT count(*) FROM images AS i
                     WHERE i.job = s.job AND i.state = 'dispatched' AND i.stage = s.stage) END AS dispatched,
                CASE s.stage WHEN -1 THEN
                    (SELECT count(*) FROM job_texts AS t WHERE t.job = s.job AND t.encoded = 1)
                ELSE
                    (SELECT count(*) FROM images AS i
                     WHERE i.job = s.job AND i.stage + (i.state = 'done') > s.stage) END AS passed,
                (SELECT count(*) FROM images AS i
                 LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
                 WHERE i.job = s.job AND i.state IN ('dead', 'cancelled') AND i.stage <= s.stage
                   AND s.stage < coalesce(v.stages, (SELECT count(*) FROM job_stages AS o
                                                     WHERE o.job = s.job AND o.stage >= 0 AND o.own))) AS stopped
         FROM job_stages AS s WHERE s.job = $1 ORDER BY s.stage",
    postgres:
        "SELECT s.stage::bigint AS stage,
                (SELECT count(*) FROM images AS i
                 WHERE i.job = $1 AND i.state = 'ready' AND i.stage = s.stage) AS ready,
                (SELECT count(*) FROM images AS i
                 WHERE i.job = $1 AND i.state = 'dispatched' AND i.stage = s.stage) AS dispatched,
                CASE s.stage
                WHEN -1 THEN (SELECT count(*) FROM job_texts AS t
                              JOIN embeddings AS e ON e.id = t.embedding AND e.state = 'done'
                              WHERE t.job = $1)
                ELSE (SELECT count(*) FROM images AS i
                      WHERE i.job = $1 AND i.stage + (i.state = 'done')::int > s.stage) END AS passed,
                (SELECT count(*) FROM images AS i
                 LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
                 WHERE i.job = $1 AND i.state IN ('dead', 'cancelled') AND i.stage <= s.stage
                   AND s.stage < coalesce(v.stages, (SELECT json_array_length(j.settings::json -> 'stages')
                                                     FROM jobs AS j WHERE j.seq = $1))) AS stopped
         FROM job_stages AS s WHERE s.job = $1 ORDER BY s.stage",
);

/// Queries that count rows which must not exist, each with a description.
const CHECKS: &[(&str, &str)] = &[
    (
        sql!(
            sqlite:
                "SELECT count(*) FROM images AS i
                 WHERE i.job = $1 AND (SELECT count(*) FROM outputs AS o WHERE o.job = i.job AND o.idx = i.idx)
                                      <> i.stage + (i.state = 'done')",
            postgres:
                "SELECT count(*) FROM images AS i
                 WHERE i.job = $1 AND (SELECT count(*) FROM outputs AS o WHERE o.job = i.job AND o.idx = i.idx)
                                      <> i.stage + (i.state = 'done')::int",
        ),
        "images lack outputs of stages that they have passed",
    ),
    (
        sql!(
            sqlite:
                "SELECT count(*) FROM images AS i
                 JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
                 LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
                 WHERE i.job = $1
                   AND (i.variant IS DISTINCT FROM p.variant OR i.variant IS NOT NULL AND v.job IS NULL
                        OR i.stage >= coalesce(v.stages, (SELECT count(*) FROM job_stages AS s
                                                          WHERE s.job = i.job AND s.stage >= 0 AND s.own)))",
            postgres:
                "SELECT count(*) FROM images AS i
                 JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
                 JOIN jobs AS j ON j.seq = i.job
                 LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
                 WHERE i.job = $1
                   AND (i.variant IS DISTINCT FROM p.variant OR i.variant IS NOT NULL AND v.job IS NULL
                        OR i.stage >= coalesce(v.stages, json_array_length(j.settings::json -> 'stages')))",
        ),
        "images have other settings than their prompt, or have passed more stages than it asks for",
    ),
    (
        sql!(
            sqlite:
                "SELECT count(*) FROM (SELECT idx FROM attempts WHERE job = $1 GROUP BY idx HAVING count(*) > 20)",
            postgres:
                "SELECT count(*) FROM (SELECT FROM attempts WHERE job = $1 GROUP BY idx HAVING count(*) > 20) AS a",
        ),
        "images have more attempts than are kept",
    ),
];

/// The same for tables that only one backend has.
const OWN_CHECKS: &[(&str, &str)] = sql!(
    sqlite: &[],
    postgres: &[
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
            "the counts of blocks differ from their images",
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
             WHERE i.job = $1 AND NOT EXISTS (SELECT FROM image_changes AS c
                                              WHERE c.job = i.job AND c.version = i.version AND i.idx = ANY (c.images))",
            "images are missing in the changes of their version",
        ),
    ],
);
