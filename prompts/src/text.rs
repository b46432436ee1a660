//! Plain text: a prompt a line.

use crate::{
    detect::{is_python, looks_like_json},
    error::shown,
    source::MARK,
    table::is_header_among,
};

/// Refuses a line that is no prompt. `forced`: the caller said that the file is text.
pub(crate) fn check(line: &str, forced: bool) -> Result<(), String> {
    if !forced && is_python(line) {
        return Err(format!(
            "the line is data as Python prints it, no JSON: {}; json.dumps writes JSON lines, and --format text takes such lines as prompts",
            shown(line.trim())
        ));
    }
    if !forced && looks_like_json(line) {
        return Err(format!(
            "the line is JSON: {}; --format jsonl reads the file as JSON lines, --format text takes such lines as prompts",
            shown(line.trim())
        ));
    }
    if !forced && is_header_among(line) {
        return Err(format!(
            "the line is a table's header: {}; --format csv or tsv reads the file as a table, --format text takes such lines as prompts",
            shown(line.trim())
        ));
    }
    match line.chars().find(|character| matches!(character, '\u{2028}' | '\u{2029}' | &MARK)) {
        Some(MARK) => Err(
            "the byte order mark U+FEFF stands inside the line, as where files were joined without a line end between them; split the line there, or remove it"
                .to_owned(),
        ),
        Some(separator) => Err(format!(
            "the line contains U+{:04X}, which some programs take for a line's end; accepted: LF, CRLF or CR between prompts, or JSON lines where it belongs to a prompt",
            u32::from(separator)
        )),
        None => Ok(()),
    }
}

/// What a prompt has in it that only means something to another tool.
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
