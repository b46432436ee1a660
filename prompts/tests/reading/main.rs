//! Prompt files as people have them, and broken ones.

mod cases;
mod coco;
mod compression;
mod encoding;
mod formats;
mod memory;
mod properties;
mod settings;
mod tables;
mod values;

use std::io::Read;

use darkroom_prompts::{Error, Format, Note, Options, Prompt, Reader};

/// All prompts of a file and the notes about it, or its error.
fn read_with(
    bytes: impl Read,
    name: &str,
    options: Options,
) -> Result<(Vec<Prompt>, Vec<Note>), Error> {
    let mut reader = Reader::open(bytes, Some(name).filter(|name| !name.is_empty()), options)?;
    let prompts = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((prompts, reader.notes()))
}

/// All prompts of a good file without notes.
fn read(bytes: impl AsRef<[u8]>, name: &str) -> Vec<Prompt> {
    let (prompts, notes) = read_with(bytes.as_ref(), name, Options::default()).expect(name);
    assert_eq!(notes, [], "{name}");
    prompts
}

/// The texts of a good file, with their lines.
fn texts(bytes: impl AsRef<[u8]>, name: &str) -> Vec<(u64, String)> {
    read(bytes, name).into_iter().map(|prompt| (prompt.line, prompt.text)).collect()
}

/// The sentence that refuses a file. It must contain all of `words`.
fn refused(bytes: impl AsRef<[u8]>, name: &str, words: &[&str]) -> Error {
    refused_with(bytes, name, Options::default(), words)
}

fn refused_with(bytes: impl AsRef<[u8]>, name: &str, options: Options, words: &[&str]) -> Error {
    let error = read_with(bytes.as_ref(), name, options).expect_err(name);
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{name}: {word:?} is not in {text:?}");
    }
    assert!(!text.contains(['\n', '\u{1b}', '\u{202e}']), "one printable line: {text:?}");
    error
}

fn forced(format: Format) -> Options {
    Options { format: Some(format), ..Options::default() }
}

fn lines(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
}
