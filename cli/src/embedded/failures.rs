//! Why a farm cannot use its state folder or its storage.

use std::path::Path;

use darkroom_core::error::{Code, UserError};
use darkroom_runtime::{state_dir, terminal::shown_path};

use crate::failure;

pub(super) fn state_failure(error: state_dir::Error) -> UserError {
    let mut failure = match &error {
        state_dir::Error::InUse { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_IN_USE", error.to_string())
        }
        state_dir::Error::NoLocks { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_NO_LOCKS", error.to_string())
        }
        state_dir::Error::Elsewhere { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_ELSEWHERE", error.to_string())
        }
        state_dir::Error::Foreign { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_FOREIGN", error.to_string())
        }
        state_dir::Error::Full { .. } => {
            UserError::new(Code::ResourceExhausted, "DISK_FULL", error.to_string())
        }
        state_dir::Error::Io { path, source } => {
            failure::file("state", "use the state folder", path, source)
        }
    };
    failure.field = Some("state".to_owned());
    failure
}

pub(super) fn storage_failure(error: &darkroom_artifacts::Error) -> UserError {
    let code = match error {
        darkroom_artifacts::Error::NoSpace { .. } => Code::ResourceExhausted,
        darkroom_artifacts::Error::Unusable { .. } => Code::FailedPrecondition,
        error if error.retryable() => Code::Unavailable,
        _ => Code::Internal,
    };
    UserError::new(code, "ARTIFACTS_UNUSABLE", failure::with_causes(error))
}

/// The error of a command whose farm cannot begin.
pub(super) fn full_at_start(full: &str) -> UserError {
    let message = format!(
        "{full}; free some space, name another folder with --state, or let less stay free with \
         --disk-floor"
    );
    let mut failure = UserError::new(Code::ResourceExhausted, "DISK_FULL", message);
    failure.field = Some("state".to_owned());
    failure
}

/// The error of a command whose farm waits for room.
pub(super) fn full(full: String) -> UserError {
    UserError::new(Code::ResourceExhausted, "DISK_FULL", full)
}

/// An error about something in the state folder; its message names the folder.
pub(super) fn in_folder(state: &Path, failure: UserError) -> UserError {
    let message = if failure.message.contains(&shown_path(state)) {
        failure.message
    } else {
        format!("state folder {}: {}", shown_path(state), failure.message)
    };
    UserError { message, ..failure }
}
