//! What is wrong with a store's URL or its environment.

use darkroom_core::error::UserError;

/// Name of the setting in errors.
pub(crate) const FIELD: &str = "artifacts";

/// An error about the setting.
pub(super) fn wrong(message: impl Into<String>) -> UserError {
    UserError::invalid(FIELD, message)
}
