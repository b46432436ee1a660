//! Pictures to start from.

use async_trait::async_trait;
use darkroom_core::digest::Digest;

use crate::store::{error::Error, records::Input};

/// Pictures to start from.
#[async_trait]
pub trait Inputs: Send + Sync + 'static {
    /// Records a picture in the object store as one that a tenant has uploaded, and replaces that
    /// tenant's earlier record of it.
    async fn add_input(&self, tenant: &str, input: &Input) -> Result<(), Error>;

    /// Those of these pictures that a tenant has uploaded, each once, in no order. `None`: that any
    /// tenant has.
    async fn inputs(&self, tenant: Option<&str>, sha256: &[Digest]) -> Result<Vec<Input>, Error>;
}
