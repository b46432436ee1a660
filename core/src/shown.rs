//! Text from outside, made safe to show on a terminal or in a log: prompts, names, errors, file
//! names, answers of a farm.
//!
//! Characters that are invisible or that control a terminal are written as escapes: control
//! characters (C0, C1, DEL), the marks and overrides of bidirectional text, zero-width and other
//! invisible characters, line and paragraph separators. Nothing else is changed, not even a
//! backslash: the result is for reading and cannot be parsed back.

use std::{borrow::Cow, fmt::Write as _, path::Path};

/// Whether a character is shown as an escape.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Soft hyphen, grapheme joiner, Arabic letter mark, Hangul fillers, Khmer inherent
            // vowels, Mongolian variation selectors and vowel separator.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}'
            // Zero-width spaces and joiners, direction marks, separators, embeddings, overrides and
            // isolates, invisible operators, format characters that Unicode deprecates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotation marks.
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            // Format characters of shorthand and music; tags and variation selectors, which can
            // carry hidden text.
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text for one line: line ends and tabs are escaped too.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// Shortens a text to about `most` bytes. Keeps the beginning, and the end, where an error says what
/// is accepted.
#[must_use]
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let head = text.floor_char_boundary(most * 2 / 3);
    let tail = text.ceil_char_boundary(text.len() - most / 4);
    Cow::Owned(format!("{} … {}", &text[..head], &text[tail..]))
}

/// A text of several lines: line feeds stay.
#[must_use]
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character != '\n' && is_hidden(character))
}

/// A file name or path by its bytes; those that are not UTF-8 are shown as `\xff`.
#[must_use]
pub fn shown_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text += &shown(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A path; bytes that are not UTF-8 are shown as `\xff`.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    shown_bytes(path.as_os_str().as_encoded_bytes())
}

/// A finished JSON document. Hidden characters occur only in its strings; they become `\u…`, so the
/// document means the same.
#[must_use]
pub fn shown_json(document: &str) -> Cow<'_, str> {
    if !document.contains(|character| character != '\n' && is_hidden(character)) {
        return Cow::Borrowed(document);
    }
    let mut text = String::with_capacity(document.len() + 16);
    for character in document.chars() {
        if character == '\n' || !is_hidden(character) {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    Cow::Owned(text)
}

fn escaped(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            character if !hidden(character) => shown.push(character),
            '\n' => shown += "\\n",
            '\r' => shown += "\\r",
            '\t' => shown += "\\t",
            character => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
            }
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_or_a_reader_cannot_see_is_escaped() {
        for (text, seen) in [
            ("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("\u{9b}31m \u{7f}\u{0}", "\\u{9b}31m \\u{7f}\\u{0}"),
            ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
            (
                "\u{202e}gnp.exe\u{2066}\u{61c}\u{200e}",
                "\\u{202e}gnp.exe\\u{2066}\\u{61c}\\u{200e}",
            ),
            (
                "zero\u{200b}\u{200d}\u{feff}\u{2060}\u{ad}",
                "zero\\u{200b}\\u{200d}\\u{feff}\\u{2060}\\u{ad}",
            ),
            ("a\u{2028}b\u{85}c\u{e0041}", "a\\u{2028}b\\u{85}c\\u{e0041}"),
        ] {
            assert_eq!(shown(text), seen);
        }
        for same in ["", "ein größerer Kreis über 青い四角 🟥 ❤\u{fe0f}", r"C:\x \n", "مرحبا שלום"]
        {
            assert!(matches!(shown(same), Cow::Borrowed(text) if text == same), "{same}");
        }
        assert_eq!(shown_lines("one\n\u{1b}two\t"), "one\n\\u{1b}two\\t");
    }

    #[test]
    fn a_file_name_shows_its_bytes() {
        assert_eq!(shown_bytes(b"a\xff\xfe/\x1bb\n.png"), "a\\xff\\xfe/\\u{1b}b\\n.png");
        assert_eq!(shown_bytes("größe".as_bytes()), "größe");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_and_json_means_the_same(text in any::<String>(), extra in "[\u{80}-\u{9f}\u{202a}-\u{202e}\u{e0041}\u{7f}]{0,4}") {
            let text = text + &extra;
            prop_assert!(!shown(&text).contains(is_hidden));
            let document = serde_json::to_string(&text).expect("JSON");
            let safe = shown_json(&document);
            prop_assert!(!safe.contains(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).expect("JSON"), text);
        }
    }
}
