//! What is wrong with the folders that were given.

use darkroom_core::error::{Code, UserError};
use darkroom_diffusion::LoadError;

use crate::failure;

/// An error about the model's files.
pub(super) fn refused(error: &LoadError) -> UserError {
    let mut refusal =
        UserError::new(Code::FailedPrecondition, "BROKEN_MODEL", failure::with_causes(error));
    refusal.field = Some("dir".to_owned());
    refusal
}

/// An error about a given folder.
pub(super) fn wrong(message: String) -> UserError {
    UserError {
        field: Some("dir".to_owned()),
        ..UserError::new(Code::FailedPrecondition, "BROKEN_MODEL", message)
    }
}
