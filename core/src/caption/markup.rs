//! The text of a piece of HTML, as BeautifulSoup on Python 3.11's `html.parser` gives it.
//!
//! Tags, comments and declarations are removed, together with the content of `<script>`, `<style>`,
//! `<template>`, `<rt>` and `<rp>`. Character references become characters. Broken markup stays as
//! text: "a < b" stays.

use super::{Error, space::is_space};

/// Elements whose content is dropped.
const SILENT: [&str; 5] = ["script", "style", "template", "rt", "rp"];
/// Elements that never have content.
const VOID: [&str; 24] = [
    "area", "base", "basefont", "bgsound", "br", "col", "command", "embed", "frame", "hr", "image",
    "img", "input", "isindex", "keygen", "link", "menuitem", "meta", "nextid", "param", "source",
    "spacer", "track", "wbr",
];

/// Most bytes that may be read in search of ends of tags that are missing.
const IN_VAIN: usize = 1 << 20;

/// The text between tags.
pub(super) fn text(markup: &str) -> Result<String, Error> {
    if !markup.contains(['<', '&']) {
        return Ok(blank_or(markup));
    }
    let mut reader = Reader::default();
    let rest = reader.read(markup, false);
    reader.read(rest, true);
    reader.flush();
    if reader.in_vain > IN_VAIN { Err(Error::Markup) } else { Ok(reader.text) }
}

/// What the parser collects.
#[derive(Default)]
struct Reader {
    text: String,
    /// The text since the last tag.
    run: String,
    open: Vec<String>,
    /// `script` or `style` while the parser is inside one: there only its end tag counts as markup.
    raw: Option<String>,
    /// Bytes read so far in search of ends that were missing.
    in_vain: usize,
}

/// What a construct that begins with `<` is.
enum Found {
    /// It was read, up to this byte.
    End(usize),
    /// Its end is missing.
    Unfinished,
}

impl Reader {
    /// Reads all finished constructs, or everything if `last`; returns the rest.
    fn read<'a>(&mut self, markup: &'a str, last: bool) -> &'a str {
        let mut rest = markup;
        while !rest.is_empty() {
            let next = match &self.raw {
                None => rest.find(['<', '&']),
                Some(name) => end_of_raw(rest, name),
            };
            let Some(next) = next else {
                if self.raw.is_some() {
                    return rest;
                }
                self.run.push_str(rest);
                return "";
            };
            self.run.push_str(&rest[..next]);
            rest = &rest[next..];
            let (taken, goes_on) = if rest.starts_with('<') {
                self.angle(rest, last).map_or((0, false), |taken| (taken, true))
            } else {
                self.ampersand(rest, last)
            };
            rest = &rest[taken..];
            if !goes_on {
                break;
            }
        }
        if last && self.raw.is_none() {
            self.run.push_str(rest);
            return "";
        }
        rest
    }

    /// How much of `rest`, which begins with `<`, was read. `None`: wait for more text.
    fn angle(&mut self, rest: &str, last: bool) -> Option<usize> {
        let second = rest[1..].chars().next();
        let found = match second {
            Some(letter) if letter.is_ascii_alphabetic() => self.start_tag(rest),
            Some('/') => self.end_tag(rest),
            Some('!') => self.declaration(rest),
            Some('?') => match rest.find('>') {
                Some(end) => {
                    self.flush();
                    Found::End(end + 1)
                }
                None => Found::Unfinished,
            },
            Some(_) => {
                self.run.push('<');
                Found::End(1)
            }
            None => return None,
        };
        match found {
            Found::End(end) => Some(end),
            Found::Unfinished if !last => None,
            // What was read so far is dropped.
            Found::Unfinished if self.in_vain > IN_VAIN => None,
            Found::Unfinished => {
                self.in_vain += rest.len();
                let end = match (rest[1..].find('>'), rest[1..].find('<')) {
                    (Some(end), _) => end + 2,
                    (None, Some(end)) => end + 1,
                    (None, None) => 1,
                };
                self.run.push_str(&rest[..end]);
                Some(end)
            }
        }
    }

    fn start_tag(&mut self, rest: &str) -> Found {
        let name_end =
            rest.find(['\t', '\n', '\r', '\u{c}', ' ', '/', '>', '\0']).unwrap_or(rest.len());
        let name = rest[1..name_end].to_lowercase();
        let (end, closed) = match end_of_tag(rest, name_end) {
            Tag::Whole { end, empty } => (end, empty),
            Tag::Broken(end) => {
                self.run.push_str(&rest[..end]);
                return Found::End(end);
            }
            Tag::Unfinished => return Found::Unfinished,
        };
        self.flush();
        if closed || VOID.contains(&name.as_str()) {
            return Found::End(end);
        }
        if matches!(name.as_str(), "script" | "style") {
            self.raw = Some(name.clone());
        }
        self.open.push(name);
        Found::End(end)
    }

    fn end_tag(&mut self, rest: &str) -> Found {
        let Some(close) = rest.find('>') else { return Found::Unfinished };
        let inside = rest[2..close].trim_matches(is_space);
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
        let proper =
            inside.starts_with(|c: char| c.is_ascii_alphabetic()) && inside.chars().all(named);
        if self.raw.is_some() && (!proper || self.raw.as_deref() != Some(&inside.to_lowercase())) {
            self.run.push_str(&rest[..=close]);
            return Found::End(close + 1);
        }
        if !proper && !rest[2..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            // `</>` is dropped; anything else is a comment.
            if close > 2 {
                self.flush();
            }
            return Found::End(close + 1);
        }
        let name = if proper {
            inside.to_lowercase()
        } else {
            let end = rest[2..].find(['\t', '\n', '\r', '\u{c}', ' ', '/', '>', '\0']);
            rest[2..end.map_or(close, |end| end + 2)].to_lowercase()
        };
        self.flush();
        if let Some(depth) = self.open.iter().rposition(|open| *open == name) {
            self.open.truncate(depth);
        }
        if proper {
            self.raw = None;
        }
        Found::End(close + 1)
    }

    /// Comments, `<!doctype …>`, `<![…]]>` and everything else that begins with `<!`.
    fn declaration(&mut self, rest: &str) -> Found {
        let end = if let Some(comment) = rest.strip_prefix("<!--") {
            end_of_comment(comment).map(|end| end + 4)
        } else if let Some(section) = rest.strip_prefix("<![") {
            // The text of a CDATA section is text; it keeps its own run.
            match (
                section.strip_prefix("cdata[").or(section.strip_prefix("CDATA[")),
                section.find("]]>"),
            ) {
                (Some(data), Some(end)) => {
                    self.flush();
                    self.run.push_str(&data[..data.len().min(end.saturating_sub(6))]);
                    Some(end + 6)
                }
                (None, _) => section
                    .find("]>")
                    .map(|end| end + 5)
                    .or_else(|| rest.find('>').map(|end| end + 1)),
                (Some(_), None) => None,
            }
        } else {
            rest.find('>').map(|end| end + 1)
        };
        match end {
            Some(end) => {
                self.flush();
                Found::End(end)
            }
            None => Found::Unfinished,
        }
    }

    /// How much of `rest`, which begins with `&`, was read, and whether to continue.
    fn ampersand(&mut self, rest: &str, last: bool) -> (usize, bool) {
        if let Some(number) = rest.strip_prefix("&#") {
            let hexadecimal = number.starts_with(['x', 'X']);
            let digits = if hexadecimal { &number[1..] } else { number };
            let is_digit =
                |c: char| if hexadecimal { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
            let length = digits.find(|c| !is_digit(c)).unwrap_or(digits.len());
            // Even a decimal number must not be followed by a hexadecimal digit or by the end of
            // the text.
            let ended = digits[length..].chars().next().is_some_and(|c| !c.is_ascii_hexdigit());
            if length > 0 && ended {
                let value =
                    u32::from_str_radix(&digits[..length], if hexadecimal { 16 } else { 10 });
                self.run.push(character(value.unwrap_or(u32::MAX)));
                let read = rest.len() - digits.len() + length;
                return (read + usize::from(digits[length..].starts_with(';')), true);
            }
            if rest.contains(';') {
                self.run.push_str("&#");
                return (2, false);
            }
            return (0, false);
        }
        let name = rest[1..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.')))
            .map_or(&rest[1..], |end| &rest[1..=end]);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let more = rest.len() > 1;
            self.run.push_str(if more { "&" } else { "" });
            return (usize::from(more), more);
        }
        // At the end of the text, a dash or dot inside the name may be what ends it.
        let mut length = name.len();
        while length > 0
            && rest[1 + length..].chars().next().is_none_or(|c| c.is_ascii_alphanumeric())
        {
            length -= 1;
        }
        if length == 0 {
            // The reference drops the ampersand of a final "&x".
            return (usize::from(last && rest.len() == 2), false);
        }
        let name = &name[..length];
        match named(name) {
            Some(characters) => self.run.push_str(&characters),
            None => {
                self.run.push('&');
                self.run.push_str(name);
            }
        }
        let read = 1 + length;
        (read + usize::from(rest[read..].starts_with(';')), true)
    }

    /// Ends a run of text.
    fn flush(&mut self) {
        let run = std::mem::take(&mut self.run);
        if !self.open.iter().any(|name| SILENT.contains(&name.as_str())) {
            self.text.push_str(&blank_or(&run));
        }
    }
}

/// A run that holds only blanks becomes one blank.
fn blank_or(run: &str) -> String {
    let is_blank = |c: char| matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ');
    if !run.is_empty() && run.chars().all(is_blank) {
        return if run.contains('\n') { "\n" } else { " " }.to_owned();
    }
    run.to_owned()
}

fn end_of_raw(rest: &str, name: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = rest[from..].find("</") {
        let at = from + found;
        let after = rest[at + 2..].trim_start_matches(is_space);
        let after = after
            .get(..name.len())
            .filter(|found| found.eq_ignore_ascii_case(name))
            .map(|_| &after[name.len()..]);
        if after.is_some_and(|after| after.trim_start_matches(is_space).starts_with('>')) {
            return Some(at);
        }
        from = at + 2;
    }
    None
}

fn end_of_comment(comment: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = comment[from..].find("--") {
        let dashes = from + found + 2;
        let after = comment[dashes..].trim_start_matches(is_space);
        if after.starts_with('>') {
            return Some(comment.len() - after.len() + 1);
        }
        from = dashes - 1;
    }
    None
}

/// The end of a start tag.
enum Tag {
    Whole {
        end: usize,
        empty: bool,
    },
    /// It is text, up to this byte.
    Broken(usize),
    Unfinished,
}

/// Skips attributes: names, values with and without quotes, blanks and slashes.
fn end_of_tag(rest: &str, name_end: usize) -> Tag {
    let bytes = rest.as_bytes();
    let space = |at: usize| rest[at..].chars().next().is_some_and(is_space);
    let width = |at: usize| rest[at..].chars().next().map_or(1, char::len_utf8);
    let mut at = name_end;
    loop {
        while at < bytes.len()
            && (space(at) || (bytes[at] == b'/' && bytes.get(at + 1) != Some(&b'>')))
        {
            at += width(at);
        }
        match bytes.get(at) {
            None => return Tag::Unfinished,
            Some(b'>') => return Tag::Whole { end: at + 1, empty: false },
            Some(b'/') => return Tag::Whole { end: at + 2, empty: true },
            Some(_)
                if !matches!(bytes[at - 1], b'\'' | b'"' | b'/')
                    && !rest[..at].ends_with(is_space) =>
            {
                return broken(rest, at);
            }
            Some(_) => {}
        }
        // A name may begin with `=`.
        at += width(at);
        while at < bytes.len() && !space(at) && !matches!(bytes[at], b'/' | b'=' | b'>') {
            at += width(at);
        }
        let mut value = at;
        while value < bytes.len() && space(value) {
            value += width(value);
        }
        if bytes.get(value) != Some(&b'=') {
            continue;
        }
        while value < bytes.len() && bytes[value] == b'=' {
            value += 1;
        }
        while value < bytes.len() && space(value) {
            value += width(value);
        }
        match bytes.get(value) {
            Some(quote @ (b'\'' | b'"')) => match rest[value + 1..].find(char::from(*quote)) {
                Some(length) => at = value + length + 2,
                None => return broken(rest, at),
            },
            _ => {
                at = value;
                while at < bytes.len() && !space(at) && bytes[at] != b'>' {
                    at += width(at);
                }
            }
        }
    }
}

fn broken(rest: &str, at: usize) -> Tag {
    match rest.as_bytes().get(at) {
        None => Tag::Unfinished,
        Some(byte) if byte.is_ascii_alphabetic() || matches!(byte, b'=' | b'/') => Tag::Unfinished,
        Some(_) => Tag::Broken(at),
    }
}

/// The character of a numeric reference.
fn character(number: u32) -> char {
    match number {
        0x80..=0x9f => {
            let text = htmlize::unescape(format!("&#{number};")).into_owned();
            text.chars().next().unwrap_or('\u{fffd}')
        }
        0 => '\u{fffd}',
        _ => char::from_u32(number).unwrap_or('\u{fffd}'),
    }
}

/// The characters of a named reference that HTML defines.
fn named(name: &str) -> Option<String> {
    let reference = format!("&{name};");
    let characters = htmlize::unescape(&reference).into_owned();
    (characters != reference && (!characters.ends_with(';') || name == "semi"))
        .then_some(characters)
}

/// Replaces every reference in a text, with or without a final semicolon, like Python's
/// `html.unescape`.
pub(super) fn unescape(text: &str) -> String {
    htmlize::unescape(text).into_owned()
}

/// Replaces references that end in a semicolon, as ftfy does.
pub(super) fn unescape_strict(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        unescaped.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = rest[1..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '#'))
            .map_or(rest.len(), |l| l + 1);
        let whole = rest[length..].starts_with(';').then(|| &rest[..=length]);
        let known = whole
            .map(htmlize::unescape)
            .filter(|found| !found.starts_with('&') || found.len() == 1);
        match (whole, known) {
            (Some(whole), Some(characters)) => {
                unescaped.push_str(&characters);
                rest = &rest[whole.len()..];
            }
            _ => {
                unescaped.push('&');
                rest = &rest[1..];
            }
        }
    }
    unescaped.push_str(rest);
    unescaped
}
