//! Keys: who may call.

use async_trait::async_trait;
use darkroom_core::key::KeyId;

use crate::store::{
    error::Error,
    keys::{FoundKey, KeyQuery, KeyRecord, NewKey, Rotation},
};

/// Keys: who may call.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// Adds a key, and its tenant if the record does not have it. An end that is not later than now
    /// is refused, and so is a certificate that stands for another live key.
    async fn add_key(&self, new: &NewKey) -> Result<KeyRecord, Error>;

    /// Adds the key if no live key has scope `admin`; `None` if one has. Of several processes that
    /// call this at once, one adds its key.
    async fn add_first_key(&self, new: &NewKey) -> Result<Option<KeyRecord>, Error>;

    /// Whether a live key has scope `admin`.
    async fn has_admin_key(&self) -> Result<bool, Error>;

    /// The key with this id, whatever its state; `None` if there is none.
    async fn find_key(&self, id: &KeyId) -> Result<Option<FoundKey>, Error>;

    /// The key that a client certificate with this subject stands for, unless it is revoked.
    async fn find_certificate(&self, subject: &str) -> Result<Option<FoundKey>, Error>;

    /// Keys in the order in which they were made.
    async fn list_keys(&self, query: &KeyQuery) -> Result<Vec<KeyRecord>, Error>;

    /// Ends a key, now. Returns it, and whether this call ended it: a key that is revoked stays as it
    /// is.
    async fn revoke_key(&self, id: &KeyId) -> Result<(KeyRecord, bool), Error>;

    /// Adds a key with the tenant, scopes and label of another, and gives that one an end. Returns
    /// the new key and the old one. A key that has ended is refused.
    async fn rotate_key(
        &self,
        id: &KeyId,
        rotation: &Rotation,
    ) -> Result<(KeyRecord, KeyRecord), Error>;

    /// Records that a key is used, unless that was recorded within the last minute. Returns whether
    /// it was recorded now.
    async fn note_key_used(&self, id: &KeyId) -> Result<bool, Error>;
}
