//! Whether it is time to note how far jobs have come.

use darkroom_core::forecast::PACE_SECONDS;

use super::{Error, SqliteStore};

impl SqliteStore {
    /// Asked by a reader, so that the one writer is left alone while nothing is due.
    pub(super) async fn paces_due(&self) -> Result<bool, Error> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM jobs AS j LEFT JOIN job_paces AS r ON r.job = j.seq
                            WHERE j.state = 'active'
                              AND (r.job IS NULL OR r.latest_ms < CAST((unixepoch('subsec') - ?1) * 1000 AS INTEGER)))
                 OR EXISTS (SELECT 1 FROM job_paces AS r JOIN jobs AS j ON j.seq = r.job
                            WHERE j.state NOT IN ('active', 'paused'))",
        )
        .bind(PACE_SECONDS)
        .fetch_one(&self.readers)
        .await?)
    }
}
