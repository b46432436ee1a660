//! DeepFloyd IF's cleaning of captions, as diffusers' `IFPipeline` does it with BeautifulSoup and
//! ftfy.
//!
//! IF was trained on captions that had gone through this, so its pipelines clean prompts in the
//! same way. A text loses links, markup, nicknames, CJK ideographs, file names, article numbers and
//! shop talk; dashes, quotes and brackets are made uniform. The steps, their order and their quirks
//! are those of the reference. `tools/reference/captions.py` runs the reference and writes the
//! table that the tests compare with.
//!
//! Limits: ftfy repairs wrongly decoded text with heuristics and several code pages. Here only two
//! kinds are repaired (`repair`): UTF-8 sequences of three and four bytes that were read as
//! Windows-1252, and sequences that lost a byte and end in a blank. Sequences of two bytes cannot
//! be repaired, because lower-casing has already ruined them. Markup is read as Python 3.11 reads
//! it; later versions treat unfinished comments and `<script>` differently (`markup`). Python's
//! Unicode tables and this program's may be of different years.

mod error;
mod links;
mod markup;
mod patterns;
mod repair;
mod space;

pub use error::Error;
use patterns::{PUNCTUATION, SHOP_TALK, Step};
use space::is_space;

/// A caption after one round of cleaning. It takes time in proportion to the length of the caption.
///
/// # Errors
/// [`Error`] if its markup or its references are too complex. People do not write such texts.
pub fn clean(caption: &str) -> Result<String, Error> {
    let mut text = strip(&percent_decoded(caption)).to_lowercase();
    text = text.replace("<person>", "person");
    text = links::removed(&text, &["https:", "http:"]);
    text = links::removed(&text, &["www:"]);
    text = markup::text(&text)?;
    text = apply(text, &PUNCTUATION);
    if text.matches(['-', '_']).count() > 3 {
        text = text.replace(['-', '_'], " ");
    }
    text = repair::repair(&text)?;
    text = markup::unescape(&markup::unescape(&text));
    Ok(strip(&apply(text, &SHOP_TALK)).to_owned())
}

fn apply(text: String, steps: &[Step]) -> String {
    steps.iter().fold(text, |text, step| step.apply(&text))
}

/// `+` becomes a blank and `%41` becomes A. Bytes that are not UTF-8 become U+FFFD. Each run of
/// ASCII is decoded in a branch of its own.
fn percent_decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    if !text.contains('%') {
        return text;
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let ascii = rest.find(|c: char| !c.is_ascii()).unwrap_or(rest.len());
        decoded.push_str(&String::from_utf8_lossy(&percent_bytes(&rest.as_bytes()[..ascii])));
        let other =
            rest[ascii..].find(|c: char| c.is_ascii()).map_or(rest.len(), |length| ascii + length);
        decoded.push_str(&rest[ascii..other]);
        rest = &rest[other..];
    }
    decoded
}

fn percent_bytes(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut position = 0;
    while position < text.len() {
        let digits = text.get(position + 1..position + 3).filter(|_| text[position] == b'%');
        let byte = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(text[position]));
        position += if byte.is_some() { 3 } else { 1 };
    }
    bytes
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
