//! Detects the format of a file from its name and its first line, and from the following lines if
//! those disagree.

use darkroom_core::prompt::is_blank;
use serde::de::IgnoredAny;

use crate::{Error, Format, Options, error::shown, header, json, source::MARK};

/// Extensions of text files whose lines are not prompts.
const OTHERS: [&str; 10] =
    ["yaml", "yml", "toml", "xml", "html", "htm", "ini", "ipynb", "py", "sql"];

/// What a file's name tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Name {
    pub(crate) format: Option<Format>,
    /// Its last extension, spelled as in the name.
    pub(crate) extension: String,
    pub(crate) compressed: bool,
}

impl Name {
    pub(crate) fn of(name: &str) -> Self {
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let (stem, last) = name.rsplit_once('.').unwrap_or((name, ""));
        let compressed =
            matches!(last.to_ascii_lowercase().as_str(), "gz" | "gzip" | "zst" | "zstd")
                && !stem.is_empty();
        let extension = match stem.rsplit_once('.') {
            Some((_, inner)) if compressed => inner,
            None if compressed => "",
            _ => last,
        };
        let format = match extension.to_ascii_lowercase().as_str() {
            "txt" | "text" => Some(Format::Text),
            "jsonl" | "ndjson" | "jsonlines" => Some(Format::JsonLines),
            "csv" => Some(Format::Csv),
            "tsv" | "tab" => Some(Format::Tsv),
            "json" => Some(Format::Json),
            _ => None,
        };
        Self { format, extension: extension.to_owned(), compressed }
    }
}

/// Kind of the first line with content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Nothing,
    /// A line that is a JSON object.
    JsonLine,
    /// The beginning of a JSON object that continues in the next lines.
    JsonObject,
    Coco,
    JsonArray,
    /// A table's header.
    Header(u8),
    /// Text that is not a list of prompts, and what it is.
    Document(&'static str),
    Other,
}

/// The format of a file that begins with `peek`, and a note if its name says something else.
pub(crate) fn decide(
    name: &Name,
    peek: &str,
    options: &Options,
) -> Result<(Format, Option<String>), Error> {
    if let Some(format) = options.format {
        return Ok((format, None));
    }
    let first = first_line(peek, options.comments);
    let content = content(&first);
    if let Content::Document(what) = content {
        return Err(Error::line(
            first.line,
            format!(
                "the file is {what}, not a list of prompts; --format text takes its lines as prompts"
            ),
        ));
    }
    let refuse = |what: &str, format: &str| {
        let named = match name.format {
            Some(_) => format!("the file is named .{}, but this line is {what}", name.extension),
            None => format!("this line is {what}"),
        };
        let text = if format == "text" { "" } else { "; --format text takes its lines as prompts" };
        let shown = shown(first.text.trim());
        Err(Error::line(
            first.line,
            format!("{named}: {shown}; read it with --format {format}{text}"),
        ))
    };
    let instead = |format: Format, what: &str| {
        Ok((
            format,
            Some(format!(
                "the file is named .{}, but contains {what} and is read as such",
                name.extension
            )),
        ))
    };
    match (name.format, content) {
        (_, Content::Nothing) => Ok((name.format.unwrap_or(Format::Text), None)),
        (None, Content::JsonLine) => Ok((Format::JsonLines, None)),
        (None, Content::JsonArray | Content::JsonObject) => Ok((Format::Json, None)),
        (None, Content::Coco) => Ok((Format::Coco, None)),
        (Some(Format::Text | Format::Csv | Format::Tsv), Content::JsonLine) => {
            refuse("a JSON object", "jsonl")
        }
        (
            Some(Format::Text | Format::Csv | Format::Tsv),
            Content::JsonObject | Content::JsonArray,
        ) => refuse("the beginning of JSON", "json"),
        (Some(Format::Text | Format::Csv | Format::Tsv), Content::Coco) => {
            refuse("the beginning of COCO captions", "coco")
        }
        (None | Some(Format::Text), Content::Header(b'\t')) => refuse("a table's header", "tsv"),
        (None | Some(Format::Text), Content::Header(_)) => refuse("a table's header", "csv"),
        (None, _) if OTHERS.iter().any(|other| other.eq_ignore_ascii_case(&name.extension)) => {
            Err(Error::File(format!(
                "it is named .{}, which is not a list of prompts; --format text takes its lines \
                 as prompts",
                name.extension
            )))
        }
        (None | Some(Format::Text), _) => Ok((Format::Text, None)),
        (Some(Format::JsonLines), Content::JsonArray) => instead(Format::Json, "a JSON array"),
        (Some(Format::JsonLines), Content::Coco) => instead(Format::Coco, "COCO captions"),
        (Some(Format::JsonLines), Content::Header(separator)) => {
            refuse("a table's header", if separator == b'\t' { "tsv" } else { "csv" })
        }
        (Some(Format::JsonLines), _) => Ok((Format::JsonLines, None)),
        (Some(format @ (Format::Csv | Format::Tsv)), _) => Ok((format, None)),
        (Some(Format::Json | Format::Coco), Content::JsonArray | Content::JsonObject) => {
            Ok((Format::Json, None))
        }
        (Some(Format::Json | Format::Coco), Content::Coco) => Ok((Format::Coco, None)),
        (Some(Format::Json | Format::Coco), Content::JsonLine) => {
            instead(Format::JsonLines, "JSON lines")
        }
        (Some(Format::Json | Format::Coco), Content::Header(separator)) => {
            refuse("a table's header", if separator == b'\t' { "tsv" } else { "csv" })
        }
        (Some(Format::Json | Format::Coco), _) => refuse("not JSON", "text"),
    }
}

/// The first line with content.
struct First<'a> {
    line: u64,
    text: &'a str,
    /// The visible text from there on.
    rest: &'a str,
}

/// The first line that is not blank, and not a comment if comments are skipped.
fn first_line(peek: &str, comments: bool) -> First<'_> {
    let mut rest = peek;
    let mut line = 1;
    loop {
        rest = rest.trim_start_matches(MARK);
        let (text, next) =
            rest.split_once('\n').map_or((rest, None), |(text, next)| (text, Some(next)));
        let skipped = is_blank(text) || (comments && is_comment(text));
        match next {
            Some(next) if skipped => (rest, line) = (next, line + 1),
            _ if skipped => return First { line, text: "", rest: "" },
            _ => return First { line, text, rest },
        }
    }
}

/// Whether a line is a comment that must be skipped.
pub(crate) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn content(first: &First<'_>) -> Content {
    let line = first.text.trim();
    if line.is_empty() {
        return Content::Nothing;
    }
    let rest = first.rest.trim_start();
    let behind = first.rest.split_once('\n').map_or("", |(_, behind)| behind);
    if let Some(what) = document(line, behind) {
        return Content::Document(what);
    }
    match line.as_bytes().first() {
        Some(b'{') if is_json_object(line) => match json::is_coco(line) {
            true => Content::Coco,
            false => Content::JsonLine,
        },
        Some(b'{') if json::begins_coco(rest) => Content::Coco,
        Some(b'{') if matches!(after(rest), Some('"' | '}')) => Content::JsonObject,
        Some(b'[') => match after(rest) {
            Some('"' | ']') => Content::JsonArray,
            Some('{') => match after(rest.get(1..).unwrap_or_default().trim_start()) {
                Some('"' | '}') => Content::JsonArray,
                _ => Content::Other,
            },
            _ => Content::Other,
        },
        _ => header::header_of(line, behind).map_or(Content::Other, Content::Header),
    }
}

/// The first character after the first one that is not blank.
fn after(text: &str) -> Option<char> {
    text.get(1..)?.trim_start().chars().next()
}

/// Whether a line is a JSON object or array, or begins like an object. None of these is a prompt.
pub(crate) fn looks_like_json(line: &str) -> bool {
    let line = line.trim();
    is_json_object(line)
        || is_json_array(line)
        || (line.starts_with('{') && after(line) == Some('"'))
}

/// Whether a line is a dictionary, or a list of dictionaries, as Python prints them: `{'prompt': 'a
/// cat'}`.
pub(crate) fn is_python(line: &str) -> bool {
    let line = line.trim();
    let line =
        line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).unwrap_or(line).trim();
    line.starts_with('{') && line.ends_with('}') && after(line) == Some('\'') && line.contains("':")
}

fn is_json_object(line: &str) -> bool {
    line.starts_with('{') && line.ends_with('}') && serde_json::from_str::<IgnoredAny>(line).is_ok()
}

/// Whether a line is an array of strings, objects or arrays. Other arrays, like `[1]`, may be part
/// of a prompt.
fn is_json_array(line: &str) -> bool {
    line.starts_with('[')
        && line.ends_with(']')
        && matches!(after(line), Some('"' | '{' | '['))
        && serde_json::from_str::<IgnoredAny>(line).is_ok()
}

/// The kind of a text that is another document, judged by its first line and what follows.
fn document(line: &str, behind: &str) -> Option<&'static str> {
    /// Lines that are searched for the end of an element.
    const LINES: usize = 20;
    let closes = || behind.lines().take(LINES).any(|line| line.trim_start().starts_with("</"));
    let begins =
        |start: &str| line.get(..start.len()).is_some_and(|have| have.eq_ignore_ascii_case(start));
    if begins("<!doctype html") || begins("<html") {
        Some("a web page")
    } else if begins("<?xml") {
        Some("XML")
    } else if begins("version https://git-lfs.github.com/spec/") {
        Some("a Git LFS pointer (run `git lfs pull` to fetch the real file)")
    } else if line.starts_with('<') && line.ends_with('>') && (line.contains("</") || closes()) {
        Some("XML, or a part of a web page")
    } else if header::is_rule_of_markdown(behind) && line.contains('|') {
        Some("a Markdown table (CSV and TSV are read)")
    } else if is_blank(behind) && is_refusal(line) {
        Some("a server's answer that it has no such file (look at the address it came from)")
    } else {
        None
    }
}

/// Whether a line is what servers send instead of a file, such as `404: Not Found`.
fn is_refusal(line: &str) -> bool {
    const WORDS: [&str; 7] = [
        "Bad Gateway",
        "Forbidden",
        "Internal Server Error",
        "Not Found",
        "Service Unavailable",
        "Too Many Requests",
        "Unauthorized",
    ];
    let code = line.get(..3).unwrap_or_default();
    let words = line.get(3..).unwrap_or_default().trim_start_matches([':', ' ']);
    code.bytes().all(|byte| byte.is_ascii_digit()) && WORDS.contains(&words)
}
