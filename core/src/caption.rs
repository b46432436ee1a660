//! DeepFloyd IF's cleaning of captions, as diffusers' `IFPipeline` does it with BeautifulSoup and ftfy.
//!
//! IF was trained on captions that had gone through this, so that its pipelines send prompts through it too. A text
//! loses links, markup, nicknames, CJK ideographs, file names, article numbers and shop talk; dashes, quotes and
//! brackets are levelled. The steps, their order and their quirks are the reference's; `tools/reference/captions.py`
//! runs it and writes the table that the tests hold this against.
//!
//! Limits: of ftfy's repair of wrongly decoded text, only UTF-8 read as Windows-1252 in sequences of three and four bytes
//! is undone (lower-casing has already ruined those of two), and of those that lost a byte the ones that end in a blank;
//! its heuristics and other code pages are not there (`repair`). Markup is read as Python 3.11 reads it; later versions
//! differ in unfinished comments and in `<script>` (`markup`). Python's and this program's Unicode tables may be of
//! different years.

mod links;
mod markup;
mod patterns;
mod repair;

use patterns::{PUNCTUATION, SHOP_TALK, Step};

/// Why a caption is not cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its markup would take too long to read.
    #[error("its markup is too involved: too many < begin a tag that does not end")]
    Markup,
    /// Its character references yield ever more of them.
    #[error("its character references are too involved: they hold each other too often")]
    References,
}

/// A caption after one round of cleaning. It takes time in proportion to the length of the caption.
///
/// # Errors
/// [`Error`] for texts that nobody writes.
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

/// `+` is a blank and `%41` an A; bytes that are no UTF-8 become U+FFFD, in each run of ASCII by itself.
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
        let other = rest[ascii..].find(|c: char| c.is_ascii()).map_or(rest.len(), |length| ascii + length);
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

/// White space as Python has it: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
