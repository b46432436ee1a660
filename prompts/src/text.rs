//! Plain text: one prompt per line.

use crate::{
    detect::{is_python, looks_like_json},
    error::shown,
    source::MARK,
};

/// Refuses a line that is not a prompt. `forced`: the caller said that the file is text.
pub(crate) fn check(line: &str, forced: bool) -> Result<(), String> {
    if !forced && is_python(line) {
        return Err(format!(
            "the line is data as Python prints it, not JSON: {}; json.dumps writes JSON lines, \
             and --format text takes such lines as prompts",
            shown(line.trim())
        ));
    }
    if !forced && looks_like_json(line) {
        return Err(format!(
            "the line is JSON: {}; --format jsonl reads the file as JSON lines, --format text takes such lines as prompts",
            shown(line.trim())
        ));
    }
    match line.chars().find(|character| matches!(character, '\u{2028}' | '\u{2029}' | &MARK)) {
        Some(MARK) => {
            Err("the byte order mark U+FEFF is inside the line, perhaps because files were joined \
             without a line end; split the line there, or remove it"
                .to_owned())
        }
        Some(separator) => Err(format!(
            "the line contains U+{:04X}, which some programs take for a line's end; accepted: LF, \
             CRLF or CR between prompts, or JSON lines if it is part of a prompt",
            u32::from(separator)
        )),
        None => Ok(()),
    }
}

/// What is wrong with a later line that is a table's header.
pub(crate) fn header(line: &str) -> String {
    format!(
        "the line is a table's header: {}; --format csv or tsv reads the file as a table, --format text takes such lines as prompts",
        shown(line.trim())
    )
}

/// The part of a prompt that only means something to another tool.
pub(crate) fn other_tools_words(text: &str) -> Option<&str> {
    let option = |word: &&str| {
        let name = word.strip_prefix("--").map(|name| name.split('=').next().unwrap_or_default());
        name.is_some_and(|name| {
            name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        })
    };
    if let Some(word) = text.split_whitespace().find(option) {
        return Some(word);
    }
    if let Some(at) = text.find("<lora:") {
        let lora = text.get(at..).unwrap_or_default();
        return Some(lora.split_inclusive('>').next().unwrap_or_default());
    }
    let start = text.trim_start();
    ["Negative prompt:", "Steps: "].into_iter().find(|word| start.starts_with(word))
}

/// How a line is formatted that comes from another program; the formatting becomes part of the
/// prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// In quotes, as in a program: `"a red circle",`.
    Quoted,
    /// With a list marker: `- a red circle`, `1. a red circle`.
    Listed,
}

impl Writing {
    pub(crate) fn of(line: &str) -> Option<Self> {
        let line = line.trim();
        let mark = line.split_whitespace().next().unwrap_or_default();
        let number = mark.strip_suffix(['.', ')']).unwrap_or_default();
        let is_number =
            (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        if mark.len() < line.len() && (is_number || matches!(mark, "-" | "*" | "\u{2022}")) {
            return Some(Self::Listed);
        }
        let bare = line.strip_suffix([',', ';']).unwrap_or(line);
        let is_quoted = |(open, close): (char, char)| {
            let inside = bare.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
            inside.is_some_and(|inside| !inside.is_empty() && !inside.contains([open, close]))
        };
        let quotes =
            [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{ab}', '\u{bb}')];
        quotes.into_iter().any(is_quoted).then_some(Self::Quoted)
    }
}
