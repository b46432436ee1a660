//! Pictures of a job that cannot be fetched. Each is reported with its reason, and the others are
//! still fetched.

use std::collections::BTreeMap;

use darkroom_core::{
    error::{Code, UserError},
    shown::shown,
};
use serde_json::{Value, json};

use crate::{failure::Result, output, pictures};

/// The pictures that could not be fetched, each with its reason.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    by_index: BTreeMap<u64, UserError>,
    /// Whether the storage could not be reached for the last picture.
    out_of_reach: bool,
}

impl Lost {
    /// Records why a picture cannot be fetched. Returns the failure if it is not about this picture
    /// alone: a farm, a storage or a disk that cannot be used now.
    pub(crate) fn note(&mut self, index: u64, failure: UserError) -> Result<()> {
        let again = std::mem::take(&mut self.out_of_reach);
        match failure.code {
            Code::AlreadyExists if pictures::is_taken(&failure) => {}
            // If this one cannot be written here, no other picture can.
            _ if failure.field.as_deref() == Some("out") => return Err(failure),
            Code::NotFound | Code::FailedPrecondition | Code::Unknown | Code::Internal => {}
            // A damaged disk fails for one picture, a storage that is away for all.
            Code::Unavailable if failure.reason.starts_with("ARTIFACTS") && !again => {
                self.out_of_reach = true
            }
            _ => return Err(failure),
        }
        self.by_index.insert(index, failure);
        Ok(())
    }

    /// A picture was fetched.
    pub(crate) fn found(&mut self) {
        self.out_of_reach = false;
    }

    /// For machines.
    pub(crate) fn documents(&self) -> Vec<Value> {
        let document = |(index, failure): (&u64, &UserError)| json!({"index": index, "reason": failure.reason, "message": failure.message});
        self.by_index.iter().map(document).collect()
    }

    /// For people, on standard error.
    pub(crate) fn tell(&self) {
        for (index, failure) in &self.by_index {
            output::tell(&format!("missing: image {index}: {}", shown(&failure.message)));
        }
    }

    /// The result of a command: an error if a picture is missing.
    pub(crate) fn end(self, job: &str) -> Result<()> {
        let count = self.by_index.len();
        let taken = self.by_index.values().all(pictures::is_taken);
        match self.by_index.into_values().next() {
            None => Ok(()),
            Some(only) if count == 1 && taken => Err(only),
            Some(first) if taken => Err(UserError {
                message: format!("{}; the same is true of {} more", first.message, count - 1),
                ..first
            }),
            Some(_) => Err(UserError::new(
                Code::Internal,
                "PICTURES_MISSING",
                format!(
                    "{count} pictures of job {job} could not be fetched, for the reasons above; \
                     the others are here"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code, reason: &str) -> UserError {
        UserError::new(code, reason, "why")
    }

    #[test]
    fn only_what_is_about_one_picture_is_passed_over() {
        let mut lost = Lost::default();
        lost.note(3, failure(Code::NotFound, "ARTIFACT_MISSING")).expect("noted");
        lost.note(4, failure(Code::FailedPrecondition, "ARTIFACT_CORRUPT")).expect("noted");
        lost.note(5, failure(Code::Unavailable, "FARM_UNREACHABLE"))
            .expect_err("no picture can be fetched");
        let folder_gone =
            UserError { field: Some("out".to_owned()), ..failure(Code::NotFound, "NO_SUCH_FILE") };
        lost.note(6, folder_gone).expect_err("none can be written");
        lost.note(6, failure(Code::ResourceExhausted, "DISK_FULL"))
            .expect_err("none can be written");
        lost.note(7, failure(Code::Unavailable, "ARTIFACTS_UNREACHABLE")).expect("a damaged disk");
        lost.found();
        lost.note(8, failure(Code::Unavailable, "ARTIFACTS_UNREACHABLE")).expect("a damaged disk");
        lost.note(9, failure(Code::Unavailable, "ARTIFACTS_UNREACHABLE"))
            .expect_err("the storage is away");
        let indices: Vec<_> =
            lost.documents().iter().map(|document| document["index"].clone()).collect();
        assert_eq!(indices, [3, 4, 7, 8]);
        let end = lost.end("J").expect_err("missing");
        assert_eq!((end.code.exit_code(), end.reason.as_str()), (1, "PICTURES_MISSING"));
    }

    #[test]
    fn files_in_the_way_keep_their_own_exit_code() {
        let mut lost = Lost::default();
        for index in [1, 2] {
            lost.note(index, failure(Code::AlreadyExists, "FILE_EXISTS")).expect("noted");
        }
        assert_eq!(lost.end("J").expect_err("in the way").code.exit_code(), 3);
        assert_eq!(Lost::default().end("J"), Ok(()));
    }
}
