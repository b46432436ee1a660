//! Reads our text from a picture: the first value of each keyword, up to a maximum length.

use darkroom_core::shown::shown;

use super::Error;

/// Most bytes of all text of ours, inflated.
const MAX_TEXT: usize = 1 << 20;
/// The keywords that are read. Other text is ignored, however long it is.
const OURS: &str = "darkroom.";
const FOR_PEOPLE: &str = "parameters";

/// Text so far, and bytes that more of it may have.
pub(super) struct Room {
    left: usize,
    text: Vec<(String, String)>,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: MAX_TEXT, text: Vec::new() }
    }
}

impl Room {
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn into_text(self) -> Vec<(String, String)> {
        self.text
    }

    pub(super) fn too_long(&self) -> String {
        format!("all text together has more than {MAX_TEXT} bytes")
    }

    pub(super) fn wants(&self, keyword: &str) -> bool {
        let is_ours = keyword.starts_with(OURS) || keyword == FOR_PEOPLE;
        is_ours && !self.text.iter().any(|(found, _)| found == keyword)
    }

    pub(super) fn take(
        &mut self,
        keyword: &str,
        text: Result<String, png::DecodingError>,
    ) -> Result<(), Error> {
        // A keyword of somebody's file ends up in a message.
        let wrong = |reason: String| Error::Text(shown(keyword).into_owned(), reason);
        let text = text.map_err(|error| wrong(error.to_string()));
        let fits = text.and_then(|text| match self.left.checked_sub(text.len()) {
            Some(left) => Ok((left, text)),
            None => Err(wrong(self.too_long())),
        });
        match fits {
            Ok((left, text)) => {
                self.left = left;
                self.text.push((keyword.to_owned(), text));
                Ok(())
            }
            // Nothing is read out of the line for people.
            Err(_) if keyword == FOR_PEOPLE => Ok(()),
            Err(error) => Err(error),
        }
    }
}
