//! Noting how far jobs have come.

use darkroom_core::forecast::PACE_SECONDS;

use super::{Error, PostgresStore};

/// Two notes of each active job, the older one between one and two periods old.
pub(super) async fn note_paces(store: &PostgresStore, limit: i64) -> Result<(), Error> {
    // Only rows that are due are touched, so that a job's row has a new version once a period.
    sqlx::query(
        "INSERT INTO job_paces AS r (job, before_at, before, latest_at, latest)
         SELECT j.seq, clock_timestamp(), p.passed, clock_timestamp(), p.passed
         FROM jobs AS j
         CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                             ORDER BY newest.version DESC LIMIT 1) AS p
         LEFT JOIN job_paces AS known ON known.job = j.seq
         WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state = 'active'
           AND (known.job IS NULL OR known.latest_at < statement_timestamp() - $2 * interval '1 second')
         ORDER BY j.seq LIMIT $1
         ON CONFLICT (job) DO UPDATE
         SET before_at = r.latest_at, before = r.latest, latest_at = excluded.latest_at, latest = excluded.latest",
    )
    .bind(limit)
    .bind(PACE_SECONDS)
    .execute(&store.pool)
    .await?;
    sqlx::query(
        "DELETE FROM job_paces AS r
         WHERE NOT EXISTS (SELECT FROM jobs AS j WHERE j.seq = r.job AND j.state IN ('active', 'paused'))",
    )
    .execute(&store.pool)
    .await?;
    Ok(())
}
