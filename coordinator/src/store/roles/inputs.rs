//! Pictures to start from.

use async_trait::async_trait;
use darkroom_core::digest::Digest;

use crate::store::{error::Error, records::Input};

/// Pictures to start from.
#[async_trait]
pub trait Inputs: Send + Sync + 'static {
    /// Where a picture with this content is to be stored: [`Input::mark`], which is 0 unless an
    /// earlier copy of it is on its way out of storage.
    async fn input_mark(&self, content: Digest) -> Result<u64, Error>;

    /// Records a picture in the object store as one that a tenant has uploaded now, and replaces
    /// that tenant's earlier record of it. False: its key is on its way out of storage, so it must
    /// be stored under another one first.
    async fn add_input(&self, tenant: &str, input: &Input) -> Result<bool, Error>;

    /// Records that a tenant has uploaded a picture again. False: the record does not have it (any
    /// more).
    async fn uploaded_again(&self, tenant: &str, input: &Input) -> Result<bool, Error>;

    /// Those of these pictures that a tenant has uploaded, each once, in no order. `None`: that any
    /// tenant has.
    async fn inputs(&self, tenant: Option<&str>, sha256: &[Digest]) -> Result<Vec<Input>, Error>;
}
