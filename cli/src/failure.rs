//! Errors as a user sees them: one sentence, and the exit code.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use darkroom_core::{
    error::{Code, UserError},
    shown::{shown, shown_json},
};
use darkroom_runtime::terminal::{self, shown_path};
use nix::errno::Errno;

/// The result of every command.
pub(crate) type Result<T> = std::result::Result<T, UserError>;

/// A file or folder that the user named cannot be read or written; `field` is the flag.
pub(crate) fn file(field: &str, doing: &str, path: &Path, error: &io::Error) -> UserError {
    let path = shown_path(path);
    let (code, reason, advice) = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            (Code::ResourceExhausted, "DISK_FULL", "; free some space and run the command again")
        }
        ErrorKind::NotFound => (Code::NotFound, "NO_SUCH_FILE", ""),
        // Not a file (a folder, a pipe, a device), or too large a file. The error itself says what
        // is accepted.
        ErrorKind::InvalidInput => (Code::InvalidArgument, "UNUSABLE_PATH", ""),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            (Code::InvalidArgument, "UNUSABLE_PATH", "; accepted: a place that you can use")
        }
        // The name is too long, or no file can have it.
        ErrorKind::InvalidFilename => {
            (Code::InvalidArgument, "UNUSABLE_PATH", "; accepted: the name of a file")
        }
        _ if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            (Code::InvalidArgument, "UNUSABLE_PATH", "; accepted: a link that leads to a file")
        }
        _ => (Code::Internal, "IO", ""),
    };
    let mut failure =
        UserError::new(code, reason, format!("cannot {doing} {path}: {}{advice}", sentence(error)));
    failure.field = Some(field.to_owned());
    failure
}

/// The system's text of an error, without Rust's "(os error 28)".
fn sentence(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// An internal error, or one without a better kind.
pub(crate) fn internal(error: impl std::fmt::Display) -> UserError {
    UserError::new(Code::Internal, "INTERNAL", error.to_string())
}

/// What no farm answers: what it says cannot be believed.
pub(crate) fn unbelievable(message: String) -> UserError {
    UserError::new(Code::Internal, "FARM_ANSWERS_NONSENSE", message)
}

/// An error with its causes, without repetitions.
#[cfg(feature = "embedded")]
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Prints an error to standard error, for people or machines.
pub(crate) fn print(failure: &UserError, json: bool) {
    if json {
        let mut document = serde_json::json!({
            "error": {
                "code": failure.code.name(),
                "reason": failure.reason,
                "field": failure.field,
                "message": failure.message,
            }
        });
        // Only where a script can use it: other errors have passed in a second, or never pass.
        if let (Code::ResourceExhausted, Some(wait)) = (failure.code, failure.retry_after) {
            document["error"]["retry_after_seconds"] = wait.as_secs_f64().into();
        }
        terminal::tell_raw(&shown_json(&document.to_string()));
    } else {
        terminal::tell_raw(&format!("error: {}", shown(&failure.message)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_so_with_its_exit_code() {
        let error = io::Error::from(ErrorKind::StorageFull);
        let failure = file("out", "write", Path::new("renders/000000.png"), &error);
        assert_eq!(failure.code.exit_code(), 4);
        assert!(failure.message.starts_with("cannot write renders/000000.png: "), "{failure}");
        assert!(failure.message.ends_with("run the command again"), "{failure}");
    }

    #[test]
    fn the_systems_error_number_is_not_shown() {
        let failure = file("out", "make", Path::new("x"), &io::Error::from_raw_os_error(13));
        assert_eq!(
            failure.message,
            "cannot make x: permission denied; accepted: a place that you can use"
        );
    }

    #[test]
    fn a_name_that_leads_nowhere_is_the_users_mistake_and_not_ours() {
        let folder = tempfile::tempdir().expect("folder");
        let looped = folder.path().join("loop");
        std::os::unix::fs::symlink("loop", &looped).expect("a link");
        for path in [looped, folder.path().join("x".repeat(300))] {
            let error = std::fs::metadata(&path).expect_err("nothing is there");
            let failure = file("image", "read", &path, &error);
            assert_eq!(
                (failure.code, failure.reason.as_str()),
                (Code::InvalidArgument, "UNUSABLE_PATH")
            );
        }
    }
}
