//! Facts that all coordinators of a farm share.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::cascade::Cascade;
use darkroom_queue::signing::FarmSecret;
use uuid::Uuid;

use crate::store::error::Error;

/// Facts that all coordinators of a farm share.
#[async_trait]
pub trait Agreed: Send + Sync + 'static {
    /// Identity of the farm, chosen when the record was created. It is part of every key in a
    /// shared queue.
    async fn farm_id(&self) -> Result<Uuid, Error>;

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
}
