//! Reads JSON files of a model.
//!
//! One function reads all of them, so all accept the same: UTF-8 with or without a byte order mark,
//! a regular file, and no more bytes than such a file can need. Anything else (UTF-16, a Git LFS
//! pointer, a server's error page, an empty file) is named in the error. Python writes some numbers
//! that JSON does not have. They are read as texts, and the reader of the number then refuses them
//! by name.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::error::LoadError;
use crate::foreign;

/// Most bytes of a configuration, or of an index of shards.
const CONFIG: u64 = 16 << 20;
/// Most bytes of a tokenizer. The largest published one has 35 MB.
pub(crate) const TOKENIZER: u64 = 256 << 20;

/// Reads one of a model's configuration files.
///
/// # Errors
/// [`LoadError::Read`] if there is no such file, [`LoadError::Config`] if it is not JSON.
pub fn read(path: &Path) -> Result<Value, LoadError> {
    let text = text(path, CONFIG)?;
    parse(&text).map_err(|error| LoadError::Config {
        path: path.to_owned(),
        message: describe(&error, &text),
    })
}

/// A file's text, without a byte order mark.
pub(crate) fn text(path: &Path, most: u64) -> Result<String, LoadError> {
    let invalid = |message: String| LoadError::Config { path: path.to_owned(), message };
    let bytes = bytes(path, most)?;
    if is_utf16(&bytes) {
        return Err(invalid(
            "it is UTF-16; accepted: UTF-8, which most editors offer when they save".to_owned(),
        ));
    }
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    std::str::from_utf8(&bytes[start..]).map(str::to_owned).map_err(
        |error| match foreign::describe(&bytes) {
            Some(what) => invalid(what),
            None => invalid(format!(
                "it is not UTF-8, from byte {} on; accepted: UTF-8",
                start + error.valid_up_to()
            )),
        },
    )
}

/// A regular file's bytes, at most `most`.
pub(crate) fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::read(path, source);
    let invalid = |message: String| LoadError::Config { path: path.to_owned(), message };
    // Checked before it is opened, because opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(invalid("it is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let mebibytes = most >> 20;
        return Err(invalid(format!("it has more than {mebibytes} MiB, which no such file needs")));
    }
    Ok(bytes)
}

/// Parses a text. Python's numbers that JSON does not have become texts.
fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|error| {
        let quoted = quote_numbers(text);
        if quoted == text { Err(error) } else { serde_json::from_str(&quoted) }
    })
}

/// Puts quotes around `NaN`, `Infinity` and `-Infinity` outside texts.
fn quote_numbers(text: &str) -> String {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut quoted = String::with_capacity(text.len());
    let (mut rest, mut inside) = (text, false);
    while let Some(character) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !inside && rest.starts_with(**word));
        let length = match (word, character) {
            (Some(word), _) => {
                quoted.push('"');
                quoted.push_str(word);
                quoted.push('"');
                rest = &rest[word.len()..];
                continue;
            }
            (None, '\\') if inside => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (None, '"') => {
                inside = !inside;
                1
            }
            (None, other) => other.len_utf8(),
        };
        quoted.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    quoted
}

fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || matches!(bytes, [0, b'{' | b'[', ..] | [b'{' | b'[', 0, ..])
}

fn describe(error: &serde_json::Error, text: &str) -> String {
    match foreign::describe(text.as_bytes()) {
        Some(what) => what,
        None if error.is_eof() => format!("it ends too early: {error}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::shown::shown_path;

    use super::*;

    fn of(bytes: &[u8]) -> Result<Value, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_err(|error| {
            let sentence = error.to_string();
            assert!(
                sentence.starts_with(&shown_path(&path)) && sentence.lines().count() == 1,
                "{sentence}"
            );
            sentence
        })
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let plain = of(br#"{"a": [1, "x"]}"#).unwrap();
        assert_eq!(of(b"\xef\xbb\xbf{\"a\": [1, \"x\"]}").unwrap(), plain);
        assert!(of(b"\xef\xbb\xbf\xef\xbb\xbf{}").is_err(), "one, in front");
    }

    #[test]
    fn another_encoding_is_named() {
        for text in ["{\"a\": 1}", "\u{feff}{\"a\": 1}"] {
            for bytes in [utf16(text, u16::to_le_bytes), utf16(text, u16::to_be_bytes)] {
                let error = of(&bytes).unwrap_err();
                assert!(error.contains("UTF-16") && error.contains("accepted: UTF-8"), "{error}");
            }
        }
        let error = of(b"{\"a\": \"caf\xe9\"}").unwrap_err();
        assert!(error.contains("not UTF-8, from byte 10"), "{error}");
    }

    #[test]
    fn what_is_no_json_is_named() {
        for (bytes, words) in [
            (&b""[..], "it is empty"),
            (b"{\"a\": 1", "ends too early"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
                "Git LFS pointer",
            ),
            (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML page"),
            (b"/annex/objects/SHA256E-s1--0\n", "git-annex"),
            (b"Entry not found", "Entry not found"),
        ] {
            let error = of(bytes).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn numbers_that_json_has_no_words_for_are_texts() {
        let value =
            of(br#"{"a": -Infinity, "b": [NaN, Infinity], "c": "NaN \" NaN", "d": 1}"#).unwrap();
        let expected = serde_json::json!({"a": "-Infinity", "b": ["NaN", "Infinity"], "c": "NaN \" NaN", "d": 1});
        assert_eq!(value, expected);
        assert!(of(br#"{"a": Nan}"#).is_err());
    }

    #[test]
    fn only_regular_files_of_a_sensible_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let path = folder.path().join("vast.json");
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("more than 16 MiB"), "{error}");
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink("gone.json", &link).unwrap();
        let error = read(&link).unwrap_err();
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert!(said.contains("gone.json") && said.contains("not there"), "{said}");
    }
}
