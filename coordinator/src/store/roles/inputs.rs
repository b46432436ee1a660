//! Pictures to start from.

use async_trait::async_trait;
use darkroom_core::digest::Digest;

use crate::store::{error::Error, records::Input};

/// Pictures to start from.
#[async_trait]
pub trait Inputs: Send + Sync + 'static {
    /// Records a picture in the object store, and replaces an earlier record of it.
    async fn add_input(&self, input: &Input) -> Result<(), Error>;

    /// The known ones of these pictures, in no order.
    async fn inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error>;
}
