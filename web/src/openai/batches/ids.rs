//! How files and batches are named: `file-` or `batch_`, and 32 hex digits.

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{
    Answer,
    batches::{shown_batch, shown_file},
};
use uuid::Uuid;

use crate::words::told;

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    File,
    Batch,
}

impl Named {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Batch => "batch",
        }
    }

    /// A new id. Later ones are greater.
    pub(super) fn fresh() -> Uuid {
        Uuid::now_v7()
    }

    /// An id as clients see it.
    pub(super) fn show(self, id: Uuid) -> String {
        match self {
            Self::File => shown_file(id),
            Self::Batch => shown_batch(id),
        }
    }

    /// Reads an id as [`show`](Self::show) writes it. Any other text names nothing.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub(super) fn read(self, text: &str) -> Answer<Uuid> {
        let digits = text.len().checked_sub(32).and_then(|at| text.get(at..));
        let id = digits.and_then(|digits| Uuid::try_parse(digits).ok());
        id.filter(|id| self.show(*id) == text).ok_or_else(|| self.none(text))
    }

    /// The error of an id that names nothing which the caller may see.
    fn none(self, text: &str) -> UserError {
        let message = format!("there is no {} {}", self.word(), told(text));
        UserError::new(Code::NotFound, "NOT_FOUND", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown_and_in_no_other_way() {
        for named in [Named::File, Named::Batch] {
            let id = Named::fresh();
            let shown = named.show(id);
            assert_eq!(named.read(&shown), Ok(id));
            let upper = shown.to_uppercase();
            let hyphens = shown.replace(&id.simple().to_string(), &id.to_string());
            let braces = shown.replace(&id.simple().to_string(), &format!("{{{}}}", id.simple()));
            for other in ["", "x", &shown[..6], &shown[1..], &upper, &hyphens, &braces] {
                let error = named.read(other).expect_err(other);
                assert_eq!((error.code, error.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
            }
        }
        Named::File.read(&Named::Batch.show(Named::fresh())).expect_err("a batch is no file");
    }
}
