//! Finds out whether a COMMIT succeeded if its answer was lost. It asks the server until the
//! outcome is known, so that an accepted change is never reported as refused.

use std::time::Duration;

use darkroom_core::id::JobId;
use tokio::time::{sleep, timeout};

use super::{Error, PostgresStore, Tx, fault};
use crate::store::{records::JobRecord, roles::Queries as _};

/// Time between two questions.
const AGAIN: Duration = Duration::from_millis(100);

impl PostgresStore {
    /// Commits a change of one job. `made` checks the job afterwards: whether it has the
    /// change.
    ///
    /// # Errors
    /// [`Error::Unknown`] only if the server could not be asked in time. Any other error means that
    /// nothing was changed.
    pub(super) async fn commit_job(
        &self,
        mut tx: Tx,
        job: JobId,
        made: impl Fn(&JobRecord) -> bool,
    ) -> Result<(), Error> {
        let transaction: String =
            sqlx::query_scalar("SELECT pg_current_xact_id()::text").fetch_one(&mut *tx).await?;
        let Err(error) = tx.commit().await else { return Ok(()) };
        if fault::is_refused_commit(&error) {
            return Err(error.into());
        }
        tracing::warn!(job.id = %job, %error, "the answer to a commit was lost; the server is asked what became of it");
        match timeout(self.settle, self.settled(&transaction, job, made)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Unavailable(error)),
            Err(_) => Err(Error::Unknown(error)),
        }
    }

    /// Commits a command that may be given again if its answer is lost: images that have followed
    /// it are no longer in a state that it changes.
    pub(super) async fn commit_repeatable(&self, tx: Tx) -> Result<(), Error> {
        match tx.commit().await {
            Err(error) if !fault::is_refused_commit(&error) => Err(Error::Unknown(error)),
            done => Ok(done?),
        }
    }

    async fn settled(
        &self,
        transaction: &str,
        job: JobId,
        made: impl Fn(&JobRecord) -> bool,
    ) -> bool {
        loop {
            if let Ok(Some(settled)) = self.look_at(transaction, job, &made).await {
                return settled;
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether the change was made; `None` while its transaction still runs. The row decides, not
    /// the transaction's number: a server that crashed before the commit was on disk reuses the
    /// number.
    async fn look_at(
        &self,
        transaction: &str,
        job: JobId,
        made: &impl Fn(&JobRecord) -> bool,
    ) -> Result<Option<bool>, Error> {
        let status: Result<Option<String>, sqlx::Error> =
            sqlx::query_scalar("SELECT pg_xact_status($1::xid8)")
                .bind(transaction)
                .fetch_one(&self.pool)
                .await;
        match status {
            Ok(Some(status)) if status == "in progress" => return Ok(None),
            Ok(_) => {}
            // The server does not know the number: it lost the transaction with all its changes.
            Err(error) if fault::state(&error).as_deref() == Some("22023") => {}
            Err(error) => return Err(error.into()),
        }
        match self.job(job).await {
            Ok(record) => Ok(Some(made(&record))),
            Err(Error::NotFound(_)) => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }
}
