//! The own key of a farm on this machine: in the state folder for commands that find the farm
//! there, and in the record like every other key.

use std::path::Path;

use darkroom_coordinator::{
    fresh_key, note_own,
    store::{
        Error,
        keys::{Expiry, FoundKey, KeyQuery, NewKey, Proof},
        roles::{Audit, Keys},
    },
};
use darkroom_core::{error::UserError, key::Key, scope::Scope};
use darkroom_runtime::credential::StateKey;

use crate::failure::Result;

/// By this label the record knows the farm's own keys.
const LABEL: &str = "farm.key";
/// Entries of a page.
const PAGE: u32 = 1000;

/// The key in the folder; a new one if there is none, or if that one was revoked. Call this while
/// the folder's lock is held.
pub(super) async fn own_key(state: &Path, keys: &(impl Keys + Audit)) -> Result<Key> {
    let file = StateKey::of(state);
    if let Some(key) = file.read()? {
        match keys.find_key(key.id()).await.map_err(told)? {
            Some(found) if works(&found, &key) => return Ok(key),
            Some(_) => {}
            // The record is newer than the file, or an earlier start ended before it had the key.
            None => return added(keys, key).await,
        }
    }
    // Somebody removed the file, and so wants the key in it to stop working.
    revoke_old(keys).await?;
    let key = fresh_key()?;
    file.write(&key)?;
    added(keys, key).await
}

fn works(found: &FoundKey, key: &Key) -> bool {
    let shows = matches!(found.key.proof, Proof::Secret(hash) if hash.is_of(key));
    shows && found.key.revoked_ms.is_none() && !found.key.expired(found.now_ms)
}

/// Adds a key that may do everything that a client can ask for.
async fn added(keys: &(impl Keys + Audit), key: Key) -> Result<Key> {
    let new = NewKey {
        id: key.id().clone(),
        proof: Proof::Secret(key.hash()),
        tenant: None,
        scopes: [Scope::Operate, Scope::Admin].into(),
        label: LABEL.to_owned(),
        expiry: Expiry::Never,
    };
    let added = keys.add_key(&new).await.map_err(told)?;
    note_own(keys, "key.create", added.id.to_string()).await;
    Ok(key)
}

async fn revoke_old(keys: &(impl Keys + Audit)) -> Result<()> {
    let mut query = KeyQuery { limit: PAGE, ..KeyQuery::default() };
    loop {
        let page = keys.list_keys(&query).await.map_err(told)?;
        for key in page.iter().filter(|key| key.label == LABEL && key.tenant.is_none()) {
            keys.revoke_key(&key.id).await.map_err(told)?;
            note_own(keys, "key.revoke", key.id.to_string()).await;
        }
        match page.last() {
            Some(last) => query.after = last.seq,
            None => return Ok(()),
        }
    }
}

fn told(error: Error) -> UserError {
    error.to_user()
}

#[cfg(test)]
mod tests {
    use darkroom_coordinator::store::{keys::AuditQuery, sqlite::SqliteStore};

    use super::*;

    async fn record(folder: &Path) -> SqliteStore {
        SqliteStore::open(&folder.join("farm.sqlite")).await.expect("a record")
    }

    #[tokio::test]
    async fn the_key_stays_until_it_is_removed_or_revoked_and_the_old_one_works_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let store = record(path).await;
        let first = own_key(path, &store).await.expect("made");
        let again = own_key(path, &store).await.expect("read");
        assert_eq!(first.expose(), again.expose());

        std::fs::remove_file(StateKey::of(path).path()).expect("removed");
        let second = own_key(path, &store).await.expect("made");
        let found = async |key: &Key| store.find_key(key.id()).await.expect("asks").expect("there");
        assert!(works(&found(&second).await, &second) && !works(&found(&first).await, &first));

        store.revoke_key(second.id()).await.expect("revoked");
        let third = own_key(path, &store).await.expect("made");
        assert_ne!(third.id(), second.id());
        assert!(works(&found(&third).await, &third));
        let read = StateKey::of(path).read().expect("read").expect("there");
        assert_eq!(read.expose(), third.expose());

        // The audit has each change, oldest first here; the second key was revoked by somebody
        // else.
        let all = AuditQuery { tenant: None, key: None, since_ms: 0, before: i64::MAX, limit: 10 };
        let rows = store.list_audit(&all).await.expect("lists");
        let noted: Vec<_> =
            rows.iter().rev().map(|row| (row.action.as_str(), row.target.as_str())).collect();
        let expected = [
            ("key.create", first.id()),
            ("key.revoke", first.id()),
            ("key.create", second.id()),
            ("key.create", third.id()),
        ];
        assert_eq!(noted, expected.map(|(action, id)| (action, id.as_str())));
    }

    #[tokio::test]
    async fn a_record_that_lost_the_key_gets_it_again_and_the_keys_of_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let first = own_key(path, &record(path).await).await.expect("made");
        for name in ["farm.sqlite", "farm.sqlite-wal", "farm.sqlite-shm"] {
            let _ = std::fs::remove_file(path.join(name));
        }
        let store = record(path).await;
        let again = own_key(path, &store).await.expect("read");
        assert_eq!(first.expose(), again.expose());
        assert!(works(&store.find_key(first.id()).await.expect("asks").expect("there"), &first));

        let other = fresh_key().expect("random");
        let new = NewKey {
            id: other.id().clone(),
            proof: Proof::Secret(other.hash()),
            tenant: Some("studio".to_owned()),
            scopes: [Scope::Submit].into(),
            label: LABEL.to_owned(),
            expiry: Expiry::Never,
        };
        store.add_key(&new).await.expect("added");
        std::fs::remove_file(StateKey::of(path).path()).expect("removed");
        own_key(path, &store).await.expect("made");
        assert!(works(&store.find_key(other.id()).await.expect("asks").expect("there"), &other));
    }
}
