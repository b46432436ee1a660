//! The part of a file that has arrived in chunks. The client accepts at most the announced number
//! of bytes, and at most what such a file may have.

use darkroom_core::{digest::Digest, error::UserError};
use tonic::Status;

use crate::failure::{self, Result};

/// Most chunks in a row that bring nothing.
const MOST_EMPTY: u32 = 16;
/// How often a file may change while it is fetched.
const MOST_CHANGES: u32 = 8;

/// A chunk, whatever it is part of.
pub(super) struct Chunk<'a> {
    /// Of the whole file, in hexadecimal digits; empty except at first.
    pub(super) sha256: &'a str,
    /// Bytes of the whole file.
    pub(super) total: u64,
    pub(super) data: &'a [u8],
}

/// How much of a file has arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    /// What it is, for people.
    what: String,
    most: u64,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    total: u64,
    empty: u32,
    changes: u32,
}

impl Arrived {
    /// Nothing yet, of a file of at most `most` bytes.
    pub(super) fn nothing(what: String, most: u64) -> Self {
        let sha256 = String::new();
        Self { what, most, bytes: 0, sha256, total: 0, empty: 0, changes: 0 }
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`Refused::Changed`] if it is of another file than those before, so that all must be fetched
    /// again; [`Refused::Lie`] if the farm cannot be believed.
    pub(super) fn take(&mut self, chunk: &Chunk<'_>) -> std::result::Result<(), Refused> {
        if !chunk.sha256.is_empty() {
            if !self.sha256.is_empty() && self.sha256 != chunk.sha256 {
                self.changes += 1;
                if self.changes > MOST_CHANGES {
                    return Err(self.lie("changes whenever it is fetched"));
                }
                (self.bytes, self.total, self.empty) = (0, 0, 0);
                self.sha256.clear();
                return Err(Refused::Changed);
            }
            if chunk.total > self.most {
                let (total, most) = (chunk.total, self.most);
                return Err(self.lie(&format!("has {total} bytes; accepted: at most {most}")));
            }
            // Any text of the farm's would end up in a message.
            if chunk.sha256.parse::<Digest>().is_err() {
                return Err(self.lie("has no SHA-256"));
            }
            chunk.sha256.clone_into(&mut self.sha256);
            self.total = chunk.total;
        }
        self.empty = if chunk.data.is_empty() { self.empty + 1 } else { 0 };
        if self.empty > MOST_EMPTY {
            return Err(self.lie("comes in empty pieces"));
        }
        self.bytes = self.bytes.saturating_add(chunk.data.len() as u64);
        if self.bytes > self.total {
            let total = self.total;
            return Err(self.lie(&format!("has more bytes than the {total} that it announced")));
        }
        Ok(())
    }

    /// Whether all of it is there.
    ///
    /// # Errors
    /// A status after which the rest is fetched.
    pub(super) fn whole(&self) -> std::result::Result<(), Status> {
        if self.bytes == self.total && !self.sha256.is_empty() {
            Ok(())
        } else {
            Err(Status::unavailable("the stream ended early"))
        }
    }

    fn lie(&self, how: &str) -> Refused {
        Refused::Lie(failure::unbelievable(format!("the farm says that {} {how}", self.what)))
    }
}

/// Why a chunk is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// What has arrived is of another file.
    Changed,
    /// The farm sends what no farm sends.
    Lie(UserError),
}

/// Checks the whole of a file that is in memory.
pub(super) fn check_hash(bytes: &[u8], stated: &str, what: &str) -> Result<()> {
    if Digest::of(bytes).to_string() == stated {
        return Ok(());
    }
    Err(failure::internal(format!(
        "{what} arrived with a different hash than the farm has; fetch it again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(digit: &str) -> String {
        digit.repeat(64)
    }

    fn lie(arrived: &mut Arrived, sha256: &str, total: u64, data: &[u8]) -> String {
        match arrived.take(&Chunk { sha256, total, data }) {
            Err(Refused::Lie(error)) => error.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_never_has_more_than_was_announced_or_may_be() {
        let nothing = || Arrived::nothing("it".to_owned(), 100);
        let a = sha("a");
        let mut arrived = nothing();
        let chunk = |data| Chunk { sha256: "", total: 0, data };
        arrived.take(&Chunk { sha256: &a, total: 5, data: b"123" }).expect("fine");
        assert!(arrived.whole().is_err());
        arrived.take(&chunk(b"45")).expect("fine");
        assert!(arrived.whole().is_ok());
        assert!(lie(&mut arrived, "", 0, b"6").contains("more bytes than the 5 that"));

        assert!(lie(&mut nothing(), &a, 101, b"").contains("accepted: at most 100"));
        assert!(lie(&mut nothing(), &a, u64::MAX, b"").contains("accepted: at most 100"));
        assert!(lie(&mut nothing(), "", 0, b"1").contains("more bytes than the 0 that"));
        assert!(lie(&mut nothing(), "\u{1b}[2J", 1, b"1").contains("has no SHA-256"));

        let mut arrived = nothing();
        arrived.take(&Chunk { sha256: &a, total: 5, data: b"" }).expect("fine");
        let refused = (0..100).find_map(|_| match arrived.take(&chunk(b"")) {
            Err(Refused::Lie(error)) => Some(error.message),
            _ => None,
        });
        assert!(refused.expect("refused").contains("comes in empty pieces"));
    }

    #[test]
    fn a_file_that_always_changes_is_given_up() {
        let mut arrived = Arrived::nothing("it".to_owned(), 100);
        let mut changed = 0;
        for turn in 0..100 {
            let sha256 = sha(if turn % 2 == 0 { "a" } else { "b" });
            match arrived.take(&Chunk { sha256: &sha256, total: 5, data: b"1" }) {
                Ok(()) => {}
                Err(Refused::Changed) => changed += 1,
                Err(Refused::Lie(error)) => {
                    assert!(error.message.contains("changes whenever"), "{error}");
                    assert_eq!(changed, 8);
                    return;
                }
            }
        }
        panic!("it goes on");
    }
}
