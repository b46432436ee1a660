//! Reads manifests and checks that they are intact.

use std::io::BufRead;

use darkroom_core::{
    digest::Digest,
    guard::{Guard, stands},
    shown::shown,
};
use sha2::{Digest as _, Sha256};

use super::{Error, Header, ImageLine, Line, MAX_LINE, Totals};
use crate::picture::MAX_FILE_BYTES;

/// Reads a manifest to its end and checks that it is intact: hash, totals, and indices in order
/// without gaps. Passes every image to `image` on the way, before the check is complete.
///
/// # Errors
/// The first wrong line.
pub fn verify(
    mut input: impl BufRead,
    mut image: impl FnMut(ImageLine),
) -> Result<(Header, Totals), Error> {
    let mut checker = Checker::default();
    loop {
        let mut text = Vec::new();
        std::io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut text)?;
        if text.is_empty() {
            return checker.finish();
        }
        let (found, problem) = checker.line(&text);
        if let Some(problem) = problem {
            return Err(problem);
        }
        found.into_iter().for_each(&mut image);
    }
}

/// Checks a manifest line by line, and continues after a wrong line.
#[derive(Default)]
pub struct Checker {
    hasher: Sha256,
    header: Option<Header>,
    counted: Totals,
    stated: Option<Totals>,
    lines: u64,
    next_index: u64,
}

impl Checker {
    /// Takes the next line with its end. Returns the image, if the line is one, and what is wrong,
    /// if anything is.
    pub fn line(&mut self, text: &[u8]) -> (Option<ImageLine>, Option<Error>) {
        self.lines += 1;
        let (image, reason) = self.take(text);
        self.hasher.update(text);
        (image, reason.map(|reason| Error::Line { line: self.lines, reason }))
    }

    fn take(&mut self, text: &[u8]) -> (Option<ImageLine>, Option<String>) {
        let wrong = |reason: &str| (None, Some(reason.to_owned()));
        if self.stated.is_some() {
            return wrong("something follows the totals");
        }
        if text.last() != Some(&b'\n') {
            return wrong("it ends without the totals");
        }
        match serde_json::from_slice(text) {
            // Names of unknown kinds are quoted as they are.
            Err(error) => wrong(&shown(&error.to_string())),
            Ok(Line::Header(header)) if self.lines == 1 => {
                self.header = Some(header);
                (None, None)
            }
            Ok(Line::Header(_)) => wrong("the header is the first line, and only the first"),
            Ok(Line::Image(image)) => {
                let reason = self.place(image.index).or_else(|| unlikely(&image));
                self.counted.count(&image);
                (Some(*image), reason)
            }
            Ok(Line::Totals { totals, sha256_above }) => {
                let is_hash = sha256_above == Digest(self.hasher.clone().finalize().into())
                    || !stands(Guard::ManifestHash);
                let is_sum = totals == self.counted;
                self.stated = Some(totals);
                match (is_hash, is_sum) {
                    (true, true) => (None, None),
                    (true, false) => wrong("the totals are not those of the lines above"),
                    (false, _) => wrong("the lines above do not have the hash that it states"),
                }
            }
        }
    }

    /// What is wrong with an image of this index in this place.
    fn place(&mut self, index: u64) -> Option<String> {
        let expected = self.next_index;
        self.next_index = expected.max(index.saturating_add(1));
        if index < expected {
            Some(format!("image {index} is listed twice or out of order"))
        } else if index > expected {
            Some(format!("image {expected} is missing before image {index}"))
        } else if self.lines == 1 {
            Some("the header is missing before it".to_owned())
        } else {
            None
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> &Totals {
        &self.counted
    }

    /// The header, once it was read.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Checks that the manifest is complete.
    ///
    /// # Errors
    /// If the header or the totals are missing.
    pub fn finish(self) -> Result<(Header, Totals), Error> {
        let missing = |what: &str| Error::Line { line: self.lines + 1, reason: what.to_owned() };
        match (self.header, self.stated) {
            (_, None) => Err(missing("it ends without the totals")),
            (None, _) => Err(Error::Line { line: 1, reason: "the header is missing".to_owned() }),
            (Some(header), Some(totals)) => Ok((header, totals)),
        }
    }
}

/// What is wrong with the picture that a line states.
fn unlikely(image: &ImageLine) -> Option<String> {
    let size = image.size.filter(|size| *size > MAX_FILE_BYTES)?;
    Some(format!("image {} has {size} bytes; accepted: at most {MAX_FILE_BYTES}", image.index))
}
