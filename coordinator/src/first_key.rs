//! The first key of a farm: the one that makes the others.

use darkroom_core::{
    error::{Code, UserError},
    key::{Key, RANDOM_BYTES},
    scope::Scope,
};

use crate::{
    audit::note_own,
    error::Error,
    store::{
        Store,
        keys::{Expiry, KeyRecord, NewKey, Proof},
    },
};

/// A new key, of the system's random numbers.
///
/// # Errors
/// If the system has none.
pub fn fresh_key() -> Result<Key, UserError> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| {
        UserError::new(
            Code::Internal,
            "NO_RANDOM",
            format!("the system has no randomness: {error}"),
        )
    })?;
    Ok(Key::of_random(&bytes))
}

/// Adds `key` to the record, with scopes `admin` and `operate`, if the farm has no key that may
/// make others; `None` if it has one. Of several processes that do this at once, one adds its key.
///
/// # Errors
/// If the record cannot be written.
pub async fn add_first_key(store: &dyn Store, key: &Key) -> Result<Option<KeyRecord>, Error> {
    let new = NewKey {
        id: key.id().clone(),
        proof: Proof::Secret(key.hash()),
        tenant: None,
        scopes: [Scope::Operate, Scope::Admin].into(),
        label: "first key".to_owned(),
        expiry: Expiry::Never,
    };
    let Some(added) = store.add_first_key(&new).await? else { return Ok(None) };
    note_own(store, "key.create", added.id.to_string()).await;
    Ok(Some(added))
}
