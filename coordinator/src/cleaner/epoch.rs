//! The mark in storage: which record removes objects from it, and how often it did.
//!
//! It is compared before anything is marked and once more before anything is deleted. If it is
//! ahead of the record, or of another record, nothing is done until an operator accepts that.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use darkroom_core::{
    error::{Code, UserError},
    guard::{Guard, stands},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    shared::Shared,
    store::{
        self,
        records::Term,
        roles::{Agreed, Removal},
    },
};

/// Its key.
const MARK: &str = "cleaner/epoch.json";

/// What the mark says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Epoch {
    farm: String,
    database: String,
    removals: u64,
}

/// The result of comparing storage with the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// Storage belongs to this record. It knows of this many removals, and the record of no fewer.
    Reached(u64),
    /// It does now, because an operator has accepted the record. What was marked is to be looked up
    /// again first.
    Accepted,
}

/// Makes sure that storage belongs to this record and knows of no later removals.
///
/// An older copy of the record must not mark anything before it is recognised: each mark raises its
/// count, until it is no longer behind storage and looks like the record that storage knows.
pub(super) async fn agree<S>(shared: &Shared, store: &S, term: Term) -> Result<Agreement, Error>
where
    S: Agreed + Removal + ?Sized,
{
    let (epoch, own) = both(shared, store).await?;
    let Some(epoch) = epoch else {
        shared.restored.store(false, Ordering::Relaxed);
        return Ok(Agreement::Reached(0));
    };
    if epoch.is_followed_by(&own) || !stands(Guard::RemovalsAgreed) {
        // An acceptance that was not needed must not accept another record later.
        shared.restored.store(false, Ordering::Relaxed);
        return Ok(Agreement::Reached(epoch.removals));
    }
    if !shared.restored.load(Ordering::Relaxed) {
        return Err(Error::Store(store::Error::Refused(foreign(&epoch, &own))));
    }
    tracing::warn!(
        storage = epoch.removals,
        record = own.removals,
        "the record was restored; what is to be removed is looked up again"
    );
    // Beyond what the other record may have counted since.
    store.accept_restored(term, epoch.removals.max(own.removals) + 1).await?;
    write(shared, &own_epoch(store).await?).await?;
    // Only now: if one of the two failed, the next pass accepts it again.
    shared.restored.store(false, Ordering::Relaxed);
    Ok(Agreement::Accepted)
}

/// Takes this coordinator's acceptance back if the leader has accepted the record already. Otherwise
/// it would accept another record when this coordinator leads later.
pub(super) async fn settle<S>(shared: &Shared, store: &S) -> Result<(), Error>
where
    S: Agreed + Removal + ?Sized,
{
    let (epoch, own) = both(shared, store).await?;
    if epoch.is_none_or(|epoch| epoch.is_followed_by(&own)) {
        shared.restored.store(false, Ordering::Relaxed);
    }
    Ok(())
}

/// Does what [`agree`] does, and then notes in storage all removals that the record knows of.
/// Returns which of them storage knows of: not all, if it has no room to note more.
pub(super) async fn raise<S>(shared: &Shared, store: &S, term: Term) -> Result<Raised, Error>
where
    S: Agreed + Removal + ?Sized,
{
    let Agreement::Reached(known) = agree(shared, store, term).await? else {
        return Ok(Raised::LookAgain);
    };
    let own = own_epoch(store).await?;
    if known == own.removals && known > 0 {
        return Ok(Raised::All);
    }
    match write(shared, &own).await {
        Ok(()) => Ok(Raised::All),
        Err(error @ Error::Artifacts(darkroom_artifacts::Error::NoSpace { .. })) => {
            tracing::warn!(%error, "storage is full, so the number of removals is not noted there yet");
            shared.disks.note(&error);
            Ok(Raised::UpTo(known))
        }
        Err(error) => Err(error),
    }
}

/// Which removals storage knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raised {
    /// All that the record knows of.
    All,
    /// Only so many of them: it has no room to note more.
    UpTo(u64),
    /// What is marked is to be looked up again.
    LookAgain,
}

impl Epoch {
    /// Whether the other one is of the same record, and counts no fewer removals.
    fn is_followed_by(&self, other: &Self) -> bool {
        (&self.farm, &self.database) == (&other.farm, &other.database)
            && self.removals <= other.removals
    }
}

/// What storage and the record say. Storage is asked first: the record counts a removal before
/// storage knows of it, so a removal that comes between the two questions does not make storage
/// look ahead.
async fn both<S>(shared: &Shared, store: &S) -> Result<(Option<Epoch>, Epoch), Error>
where
    S: Agreed + Removal + ?Sized,
{
    let epoch = match shared.artifacts.read_mark(MARK).await {
        Ok(None) => None,
        Ok(Some(bytes)) => {
            Some(serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?)
        }
        Err(error @ darkroom_artifacts::Error::Corrupt { .. }) => return Err(unreadable(&error)),
        Err(error) => return Err(error.into()),
    };
    Ok((epoch, own_epoch(store).await?))
}

async fn own_epoch<S: Agreed + Removal + ?Sized>(store: &S) -> Result<Epoch, Error> {
    Ok(Epoch {
        farm: store.farm_id().await?.to_string(),
        database: store.database_identity().await?,
        removals: store.removal_count().await?,
    })
}

async fn write(shared: &Shared, epoch: &Epoch) -> Result<(), Error> {
    let bytes = serde_json::to_vec(epoch).map_err(Error::other)?;
    Ok(shared.artifacts.write_mark(MARK, Bytes::from(bytes)).await?)
}

fn unreadable(error: &dyn std::error::Error) -> Error {
    let message = format!(
        "{MARK} in storage cannot be read ({error}), so nothing is removed; delete it if this farm alone uses the storage"
    );
    let refusal = UserError::new(Code::FailedPrecondition, "CLEANER_MARK", message);
    Error::Store(store::Error::Refused(refusal))
}

fn foreign(epoch: &Epoch, own: &Epoch) -> UserError {
    let why = if epoch.farm != own.farm {
        format!("another farm ({}) removes objects from this storage", epoch.farm)
    } else if epoch.database != own.database {
        "another database of this farm removes objects from this storage".to_owned()
    } else {
        format!(
            "storage knows of {} removals and the record of {}, so the record is an older copy",
            epoch.removals, own.removals
        )
    };
    let message = format!(
        "nothing is removed: {why}; if this record is the right one, start its coordinators with --restored"
    );
    UserError::new(Code::FailedPrecondition, "RECORD_RESTORED", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_storage_and_record_differ_in() {
        let own = Epoch { farm: "a".to_owned(), database: "d".to_owned(), removals: 3 };
        let said = |epoch: Epoch| foreign(&epoch, &own).message;
        let older = said(Epoch { removals: 9, ..own.clone() });
        assert!(older.contains("knows of 9 removals and the record of 3"), "{older}");
        let farm = said(Epoch { farm: "b".to_owned(), ..own.clone() });
        assert!(farm.contains("another farm (b)"), "{farm}");
        let copy = said(Epoch { database: "e".to_owned(), ..own.clone() });
        assert!(copy.contains("another database") && copy.ends_with("--restored"), "{copy}");
    }

    #[test]
    fn a_record_follows_a_mark_of_its_own_that_is_not_ahead() {
        let own = Epoch { farm: "a".to_owned(), database: "d".to_owned(), removals: 3 };
        for (epoch, follows) in [
            (own.clone(), true),
            (Epoch { removals: 2, ..own.clone() }, true),
            (Epoch { removals: 4, ..own.clone() }, false),
            (Epoch { database: "e".to_owned(), removals: 1, ..own.clone() }, false),
            (Epoch { farm: "b".to_owned(), removals: 1, ..own.clone() }, false),
        ] {
            assert_eq!(epoch.is_followed_by(&own), follows, "{epoch:?}");
        }
    }
}
