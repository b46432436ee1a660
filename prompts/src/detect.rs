//! Which format a file has: what its name says, what its first line says, and what follows where they disagree.

use std::{fmt, str::FromStr};

use darkroom_core::prompt::is_blank;
use serde::de::IgnoredAny;

use crate::{Error, Options, error::shown, json, source::MARK, table};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A prompt a line.
    Text,
    /// A JSON object (or string) a line.
    JsonLines,
    /// A table with a header, its cells separated by commas, or by what the header shows (semicolons, tabs).
    Csv,
    /// A table with a header, its cells separated by tabs.
    Tsv,
    /// An array of strings and objects; or COCO captions.
    Json,
    /// COCO captions: an object with `annotations`.
    Coco,
}

impl Format {
    const NAMES: [(&'static str, Self); 6] = [
        ("text", Self::Text),
        ("jsonl", Self::JsonLines),
        ("csv", Self::Csv),
        ("tsv", Self::Tsv),
        ("json", Self::Json),
        ("coco", Self::Coco),
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, format)| format == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found =
            Self::NAMES.iter().find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, format)| *format);
        found.ok_or_else(|| {
            let accepted = Self::NAMES.map(|(name, _)| name).join(", ");
            Error::option("format", format!("format is {}; accepted: {accepted}", shown(name)))
        })
    }
}

/// Extensions of files that are text, but whose lines are no prompts.
const OTHERS: [&str; 10] = ["yaml", "yml", "toml", "xml", "html", "htm", "ini", "ipynb", "py", "sql"];

/// What a file's name says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Name {
    pub(crate) format: Option<Format>,
    /// Its last extension as it was spelled.
    pub(crate) extension: String,
    pub(crate) compressed: bool,
}

impl Name {
    pub(crate) fn of(name: &str) -> Self {
        let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
        let (stem, last) = name.rsplit_once('.').unwrap_or((name, ""));
        let compressed =
            matches!(last.to_ascii_lowercase().as_str(), "gz" | "gzip" | "zst" | "zstd") && !stem.is_empty();
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

/// What the first line with something on it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Nothing,
    /// A line that is a JSON object.
    JsonLine,
    /// The beginning of a JSON object that goes on in the next lines.
    JsonObject,
    Coco,
    JsonArray,
    /// A table's header.
    Header(u8),
    /// Text that is no list of prompts: what it is.
    Document(&'static str),
    Other,
}

/// The format of a file that begins with `peek`, and a note where its name says something else.
pub(crate) fn decide(name: &Name, peek: &str, options: &Options) -> Result<(Format, Option<String>), Error> {
    if let Some(format) = options.format {
        return Ok((format, None));
    }
    let first = first_line(peek, options.comments);
    let content = content(&first);
    if let Content::Document(what) = content {
        return Err(Error::line(
            first.line,
            format!("the file is {what}, not a list of prompts; --format text takes its lines as prompts"),
        ));
    }
    let refuse = |what: &str, format: &str| {
        let named = match name.format {
            Some(_) => format!("the file is named .{}, but this line is {what}", name.extension),
            None => format!("this line is {what}"),
        };
        let text = if format == "text" { "" } else { "; --format text takes its lines as prompts" };
        let shown = shown(first.text.trim());
        Err(Error::line(first.line, format!("{named}: {shown}; read it with --format {format}{text}")))
    };
    let instead = |format: Format, what: &str| {
        Ok((
            format,
            Some(format!("the file is named .{}, but holds {what}; it is read as that", name.extension)),
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
        (Some(Format::Text | Format::Csv | Format::Tsv), Content::JsonObject | Content::JsonArray) => {
            refuse("the beginning of JSON", "json")
        }
        (Some(Format::Text | Format::Csv | Format::Tsv), Content::Coco) => {
            refuse("the beginning of COCO captions", "coco")
        }
        (None | Some(Format::Text), Content::Header(b'\t')) => refuse("a table's header", "tsv"),
        (None | Some(Format::Text), Content::Header(_)) => refuse("a table's header", "csv"),
        (None, _) if OTHERS.iter().any(|other| other.eq_ignore_ascii_case(&name.extension)) => {
            Err(Error::File(format!(
                "it is named .{}, which is no list of prompts; --format text takes its lines as prompts",
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
        (Some(Format::Json | Format::Coco), Content::JsonLine) => instead(Format::JsonLines, "JSON lines"),
        (Some(Format::Json | Format::Coco), Content::Header(separator)) => {
            refuse("a table's header", if separator == b'\t' { "tsv" } else { "csv" })
        }
        (Some(Format::Json | Format::Coco), _) => refuse("not JSON", "text"),
    }
}

/// The first line that says something.
struct First<'a> {
    line: u64,
    text: &'a str,
    /// The text from there on, as far as it can be seen.
    rest: &'a str,
}

/// The first line that is not blank, nor a comment where those are skipped.
fn first_line(peek: &str, comments: bool) -> First<'_> {
    let mut rest = peek;
    let mut line = 1;
    loop {
        rest = rest.trim_start_matches(MARK);
        let (text, next) = rest.split_once('\n').map_or((rest, None), |(text, next)| (text, Some(next)));
        let skipped = is_blank(text) || (comments && is_comment(text));
        match next {
            Some(next) if skipped => (rest, line) = (next, line + 1),
            _ if skipped => return First { line, text: "", rest: "" },
            _ => return First { line, text, rest },
        }
    }
}

/// Whether a line is a comment where comments are skipped.
pub(crate) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn content(first: &First<'_>) -> Content {
    let line = first.text.trim();
    if line.is_empty() {
        return Content::Nothing;
    }
    if let Some(what) = document(line) {
        return Content::Document(what);
    }
    let rest = first.rest.trim_start();
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
        _ => table::header_of(line).map_or(Content::Other, Content::Header),
    }
}

/// The first character that is not blank after the first one.
fn after(text: &str) -> Option<char> {
    text.get(1..)?.trim_start().chars().next()
}

/// Whether a line is a JSON object or array, or begins as only an object can: none of these is a prompt.
pub(crate) fn looks_like_json(line: &str) -> bool {
    let line = line.trim();
    is_json_object(line) || is_json_array(line) || (line.starts_with('{') && after(line) == Some('"'))
}

/// Whether a line is a dictionary, or a list of some, as Python prints them: `{'prompt': 'a cat'}`.
pub(crate) fn is_python(line: &str) -> bool {
    let line = line.trim();
    let line = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).unwrap_or(line).trim();
    line.starts_with('{') && line.ends_with('}') && after(line) == Some('\'') && line.contains("':")
}

fn is_json_object(line: &str) -> bool {
    line.starts_with('{') && line.ends_with('}') && serde_json::from_str::<IgnoredAny>(line).is_ok()
}

/// Whether a line is an array of strings, objects or arrays. Others, like `[1]`, may stand in a prompt.
fn is_json_array(line: &str) -> bool {
    line.starts_with('[')
        && line.ends_with(']')
        && matches!(after(line), Some('"' | '{' | '['))
        && serde_json::from_str::<IgnoredAny>(line).is_ok()
}

/// What a text is that is a document of its own kind.
fn document(line: &str) -> Option<&'static str> {
    let begins = |start: &str| line.get(..start.len()).is_some_and(|have| have.eq_ignore_ascii_case(start));
    if begins("<!doctype html") || begins("<html") {
        Some("a web page")
    } else if begins("<?xml") {
        Some("XML")
    } else if begins("version https://git-lfs.github.com/spec/") {
        Some("a pointer of Git LFS (`git lfs pull` fetches what it stands for)")
    } else {
        None
    }
}
