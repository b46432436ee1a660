//! Reads JSON piece by piece: the elements of an array, the captions of a COCO file, the members of
//! an object. serde_json checks each piece as a whole, and its size is limited. What lies between
//! the pieces is never kept in memory.

use std::{collections::BTreeSet, io::Read};

use darkroom_core::shown;
use serde::de::IgnoredAny;

use crate::{
    Error,
    error::shown,
    source::{Source, too_long},
};

/// Keys that a COCO file may have beside `annotations`; they are ignored.
const COCO_KEYS: [&str; 6] = ["info", "images", "annotations", "licenses", "categories", "type"];

/// Follows one value from its first byte to its last.
#[derive(Default)]
struct Value {
    depth: usize,
    string: bool,
    escaped: bool,
}

impl Value {
    /// Whether this byte is the last of an object, an array or a string.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.escaped {
            self.escaped = false;
        } else if self.string {
            match byte {
                b'\\' => self.escaped = true,
                b'"' => {
                    self.string = false;
                    return self.depth == 0;
                }
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    return self.depth == 0;
                }
                _ => {}
            }
        }
        false
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_scalar(first: u8) -> bool {
    !matches!(first, b'{' | b'[' | b'"')
}

/// The members of an object that serde_json has validated: keys, and values as written.
pub(crate) fn members(object: &str) -> Result<Vec<(String, &str)>, String> {
    let mut rest = object.trim_start().strip_prefix('{').unwrap_or_default();
    let mut members = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', ',']);
        if !rest.starts_with('"') {
            return Ok(members);
        }
        let (key, after) = split_value(rest);
        let key: String = serde_json::from_str(key).map_err(|error| sentence(&error))?;
        let (value, after) = split_value(after.trim_start_matches([' ', '\t', '\n', '\r', ':']));
        members.push((key, value));
        rest = after;
    }
}

/// The value at the start of a text, and what follows it.
fn split_value(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let end = match bytes.first() {
        Some(first) if is_scalar(*first) => {
            bytes.iter().position(|byte| is_space(*byte) || matches!(byte, b',' | b'}' | b']'))
        }
        _ => {
            let mut value = Value::default();
            bytes.iter().position(|byte| value.ends_with(*byte)).map(|last| last + 1)
        }
    };
    text.split_at_checked(end.unwrap_or(text.len())).unwrap_or((text, ""))
}

/// A valid value, without the blanks between its parts.
pub(crate) fn compact(value: &str) -> String {
    let mut state = Value::default();
    let mut compact = String::with_capacity(value.len());
    for character in value.chars() {
        let inside = state.string;
        if let Ok(byte) = u8::try_from(character) {
            state.ends_with(byte);
            if !inside && is_space(byte) {
                continue;
            }
        } else {
            // This occurs only inside strings, where it can only end an escape.
            state.escaped = false;
        }
        compact.push(character);
    }
    compact
}

/// Most bytes of a message of serde_json's, which may quote a whole line.
const MOST: usize = 400;

/// serde_json's message without its line number, because lines are counted differently here.
pub(crate) fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (what, column) = match text.rsplit_once(" at line ") {
        Some((what, place)) => (what, place.split_once(" column ").map(|(_, column)| column)),
        None => (text.as_str(), None),
    };
    let what = shown::shown(what);
    let what = shown::shortened(&what, MOST);
    match column {
        Some(column) => format!("{what} (column {column})"),
        None => what.into_owned(),
    }
}

/// Whether an object on one line is a COCO file.
pub(crate) fn is_coco(object: &str) -> bool {
    let members = members(object).unwrap_or_default();
    members.iter().any(|(key, value)| key == "annotations" && value.starts_with('['))
}

/// Whether an object of several lines begins like a COCO file.
pub(crate) fn begins_coco(text: &str) -> bool {
    let key = text.strip_prefix('{').unwrap_or_default().trim_start();
    let (key, after) = split_value(key);
    let (key, after) =
        (key.trim_matches('"'), after.trim_start().strip_prefix(':').unwrap_or_default());
    // In COCO files `images` and similar keys are lists; in a prompt `images` is a number.
    COCO_KEYS.contains(&key)
        && (after.trim_start().starts_with(['[', '{']) || matches!(key, "type"))
}

/// The state between the elements of an array.
pub(crate) struct Array {
    first: bool,
}

impl Array {
    /// Reads the bracket that opens an array.
    pub(crate) fn open<R: Read>(source: &mut Source<R>) -> Result<Self, Error> {
        expect(source, b'[', "an array of strings and objects")?;
        Ok(Self { first: true })
    }

    /// Reads the next element into `piece`. Returns its line; `None` after the last element.
    pub(crate) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
        piece: &mut String,
    ) -> Result<Option<u64>, Error> {
        let next = skip_space(source)?;
        if next == Some(b']') {
            source.byte()?;
            return Ok(None);
        }
        if !std::mem::take(&mut self.first) {
            expect(source, b',', "a comma or a bracket `]` after an element")?;
            skip_space(source)?;
        }
        value(source, piece).map(Some)
    }
}

/// The captions of a COCO file, wherever its `annotations` are.
pub(crate) struct Coco {
    annotations: Option<Array>,
    keys: BTreeSet<String>,
    notes: Vec<(u64, String)>,
}

impl Coco {
    pub(crate) fn open<R: Read>(source: &mut Source<R>) -> Result<Self, Error> {
        expect(source, b'{', "COCO captions: an object with `annotations`")?;
        Ok(Self { annotations: None, keys: BTreeSet::new(), notes: Vec::new() })
    }

    /// Ignored keys, with their lines.
    pub(crate) fn notes(&self) -> &[(u64, String)] {
        &self.notes
    }

    /// Reads the next annotation into `piece`. Returns its line; `None` at the end of the file.
    pub(crate) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
        piece: &mut String,
    ) -> Result<Option<u64>, Error> {
        loop {
            if let Some(annotations) = &mut self.annotations {
                if let Some(line) = annotations.next(source, piece)? {
                    return Ok(Some(line));
                }
                self.annotations = None;
            }
            if !self.key(source, piece)? {
                end(source)?;
                return match self.keys.contains("annotations") {
                    true => Ok(None),
                    false => Err(Error::File(format!(
                        "it is a JSON object without `annotations` (its keys: {}); accepted: an array of prompts, COCO captions, or JSON lines",
                        self.keys.iter().map(|key| shown(key)).collect::<Vec<_>>().join(", ")
                    ))),
                };
            }
        }
    }

    /// Reads the next key, and skips its value unless the key is `annotations`. `false` at the end
    /// of the object.
    fn key<R: Read>(&mut self, source: &mut Source<R>, piece: &mut String) -> Result<bool, Error> {
        /// No COCO file has more keys than this.
        const MOST: usize = 64;
        let next = skip_space(source)?;
        if next == Some(b'}') {
            source.byte()?;
            return Ok(false);
        }
        if !self.keys.is_empty() {
            expect(source, b',', "a comma or a bracket `}`")?;
        }
        if skip_space(source)? != Some(b'"') {
            return Err(unexpected(source, "a key in quotes")?);
        }
        let line = value(source, piece)?;
        let key: String =
            serde_json::from_str(piece).map_err(|error| Error::line(line, sentence(&error)))?;
        skip_space(source)?;
        expect(source, b':', "a colon after a key")?;
        if !self.keys.insert(key.clone()) {
            return Err(Error::line(line, format!("the key {} occurs twice", shown(&key))));
        }
        if self.keys.len() > MOST {
            return Err(Error::line(
                line,
                format!("there are more than {MOST} keys; accepted: COCO captions"),
            ));
        }
        skip_space(source)?;
        if key == "annotations" {
            self.annotations = Some(Array::open(source)?);
            return Ok(true);
        }
        if key == "prompt" || key == "prompts" {
            return Err(Error::line(
                line,
                format!(
                    "the file is one JSON object with the key {}; accepted: an array of strings and objects, JSON lines (one object a line), or COCO captions",
                    shown(&key)
                ),
            ));
        }
        if !COCO_KEYS.contains(&key.as_str()) {
            self.notes.push((line, format!("the key {} is ignored", shown(&key))));
        }
        if source.peek_byte()? == Some(b'[') {
            let mut array = Array::open(source)?;
            while array.next(source, piece)?.is_some() {}
        } else {
            value(source, piece)?;
        }
        Ok(true)
    }
}

/// Checks that only blanks follow.
pub(crate) fn end<R: Read>(source: &mut Source<R>) -> Result<(), Error> {
    match skip_space(source)? {
        None => Ok(()),
        Some(_) => Err(unexpected(source, "nothing after the end of the JSON")?),
    }
}

/// Reads one whole value into `piece`, with a size limit, and checks it. Returns its line.
fn value<R: Read>(source: &mut Source<R>, piece: &mut String) -> Result<u64, Error> {
    let line = source.line();
    let mut bytes = std::mem::take(piece).into_bytes();
    bytes.clear();
    let scalar = source.peek_byte()?.is_none_or(is_scalar);
    let mut state = Value::default();
    while let Some(byte) = source.peek_byte()? {
        if scalar && (is_space(byte) || matches!(byte, b',' | b'}' | b']')) {
            break;
        }
        if bytes.len() >= source.longest() {
            return Err(Error::line(
                line,
                too_long("the JSON value that begins here", source.longest()),
            ));
        }
        source.byte()?;
        bytes.push(byte);
        if !scalar && state.ends_with(byte) {
            break;
        }
    }
    if bytes.is_empty() {
        return Err(unexpected(source, "a JSON value")?);
    }
    *piece = String::from_utf8(bytes).expect("values begin and end at ASCII characters of a text");
    match serde_json::from_str::<IgnoredAny>(piece) {
        Ok(_) => Ok(line),
        Err(error) if error.is_eof() => Err(Error::line(
            line,
            "the file ends inside the JSON value that begins here; it is cut short",
        )),
        Err(error) => Err(Error::line(line, format!("this is not JSON: {}", sentence(&error)))),
    }
}

fn skip_space<R: Read>(source: &mut Source<R>) -> Result<Option<u8>, Error> {
    loop {
        match source.peek_byte()? {
            Some(byte) if is_space(byte) => source.byte()?,
            next => return Ok(next),
        };
    }
}

fn expect<R: Read>(source: &mut Source<R>, byte: u8, accepted: &str) -> Result<(), Error> {
    if skip_space(source)? != Some(byte) {
        return Err(unexpected(source, accepted)?);
    }
    source.byte()?;
    Ok(())
}

/// The error about the next character, which may have several bytes.
fn unexpected<R: Read>(source: &mut Source<R>, accepted: &str) -> Result<Error, Error> {
    let line = source.line();
    let found = match source.peek()?.chars().next() {
        Some(character) => shown(&character.to_string()),
        None => "the end of the file".to_owned(),
    };
    Ok(Error::line(line, format!("{found} is not expected here; accepted: {accepted}")))
}
