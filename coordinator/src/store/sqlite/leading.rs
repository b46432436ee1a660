//! Only one process can hold the state folder, so it is always the leader, with one fixed term.

use async_trait::async_trait;
use darkroom_core::guard::{Guard, stands};

use super::{Error, SqliteStore, Tx};
use crate::store::{
    records::{RunningCoordinator, Term},
    roles::Leading,
};

/// The term of that process.
const ONLY_TERM: Term = Term(1);

#[async_trait]
impl Leading for SqliteStore {
    async fn lead(&self, _holder: &str) -> Result<Option<Term>, Error> {
        Ok(Some(ONLY_TERM))
    }

    async fn resign(&self, _holder: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn coordinators(&self, own: &str) -> Result<Vec<RunningCoordinator>, Error> {
        let seen_ms = sqlx::query_scalar("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)")
            .fetch_one(self.reads())
            .await?;
        Ok(vec![RunningCoordinator { holder: own.to_owned(), leads: true, seen_ms }])
    }

    async fn tell_leader(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn told(&self) -> Result<(), Error> {
        // No other process can send a hint.
        std::future::pending().await
    }
}

impl SqliteStore {
    /// Refuses any other term.
    pub(super) async fn check_term(&self, _: &mut Tx, term: Term) -> Result<(), Error> {
        if term == ONLY_TERM || !stands(Guard::TermChecked) {
            Ok(())
        } else {
            Err(Error::NotLeading(term.0))
        }
    }
}
