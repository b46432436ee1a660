//! Facts that all coordinators of a farm share.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{cascade::Cascade, sharing::Sharing};
use darkroom_queue::signing::FarmSecret;
use uuid::Uuid;

use crate::store::error::Error;

/// Facts that all coordinators of a farm share.
#[async_trait]
pub trait Agreed: Send + Sync + 'static {
    /// Identity of the farm, chosen when the record was created. It is part of every key in a
    /// shared queue.
    async fn farm_id(&self) -> Result<Uuid, Error>;

    /// Which database has the record, the same on every copy that replication keeps; empty: not
    /// known.
    async fn database_identity(&self) -> Result<String, Error>;

    /// What the farm signs with. The first call of the farm makes it.
    async fn secret(&self) -> Result<FarmSecret, Error>;

    /// Says whether the farm's workers make up what they store, if nobody has said it yet. Returns
    /// what the farm says, for ever.
    async fn set_makes_up(&self, makes_up: bool) -> Result<bool, Error>;

    /// Registers a cascade, for jobs to refer to. Idempotent.
    async fn register_cascade(&self, cascade: &Cascade) -> Result<(), Error>;

    /// How long a lease lasts in this farm; `None` until it is set. The reaper asks here, so that
    /// all coordinators use the same value.
    async fn lease(&self) -> Result<Option<Duration>, Error>;

    /// Sets the farm's lease to `to` if it is `from` and nobody leads; without `from`, if it is not
    /// set yet. Returns the farm's lease afterwards.
    async fn set_lease(&self, from: Option<Duration>, to: Duration) -> Result<Duration, Error>;

    /// What an operator or a second tenant has decided about sharing; `None`: nothing yet.
    async fn sharing(&self) -> Result<Option<Sharing>, Error>;

    /// Decides how jobs that are submitted from now on share. Returns whether the farm had decided
    /// otherwise, or not at all.
    async fn set_sharing(&self, sharing: Sharing) -> Result<bool, Error>;

    /// How a new job of this tenant shares: as the tenant's own setting says, else as the farm has
    /// decided. While nothing is decided, the first tenant that submits
    /// is the farm's only one, and its jobs are shared. The first submit of another tenant seals
    /// the farm.
    async fn sharing_of_new(&self, tenant: &str) -> Result<Sharing, Error>;

    /// The secret behind the tokens of listings. `fresh` becomes the secret if there is none yet.
    async fn token_secret(&self, fresh: [u8; 32]) -> Result<[u8; 32], Error>;
}
