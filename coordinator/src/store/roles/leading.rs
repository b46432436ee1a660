//! Leadership of the farm, and hints to the leader.

use async_trait::async_trait;

use crate::store::{
    error::Error,
    records::{RunningCoordinator, Term},
};

/// Leadership of the farm, and hints to the leader.
#[async_trait]
pub trait Leading: Send + Sync + 'static {
    /// Takes or renews leadership for `holder`; `None` while another one leads. Cheap to call
    /// often, because a backend renews only when needed.
    async fn lead(&self, holder: &str) -> Result<Option<Term>, Error>;

    /// Gives leadership up, if `holder` has it, so that another one need not wait for the term's
    /// end.
    async fn resign(&self, holder: &str) -> Result<(), Error>;

    /// The coordinators that ran in the last 30 seconds, by name. `own`: the name of this one.
    async fn coordinators(&self, own: &str) -> Result<Vec<RunningCoordinator>, Error>;

    /// Tells the leader, if it is another process, that a task may be ready for dispatch. It is a
    /// hint that may be lost, because the leader also polls.
    async fn tell_leader(&self) -> Result<(), Error>;

    /// Waits until [`tell_leader`](Self::tell_leader) is called, here or by another process. May
    /// wait for ever.
    async fn told(&self) -> Result<(), Error>;
}
