//! One process holds the state folder, so it leads, in the only term that there is.

use async_trait::async_trait;
use darkroom_core::guard::{Guard, stands};

use super::{Error, SqliteStore, Tx};
use crate::store::{records::Term, roles::Leading};

/// The only term of a record that one process holds.
const ONLY_TERM: Term = Term(1);

#[async_trait]
impl Leading for SqliteStore {
    async fn lead(&self, _holder: &str) -> Result<Option<Term>, Error> {
        Ok(Some(ONLY_TERM))
    }

    async fn resign(&self, _holder: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn tell_leader(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn told(&self) -> Result<(), Error> {
        // There is no other process to tell or to be told by.
        std::future::pending().await
    }
}

impl SqliteStore {
    /// Refuses a term that is none of this record's.
    pub(super) async fn check_term(&self, _: &mut Tx, term: Term) -> Result<(), Error> {
        if term == ONLY_TERM || !stands(Guard::TermChecked) {
            Ok(())
        } else {
            Err(Error::NotLeading(term.0))
        }
    }
}
