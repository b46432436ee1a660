//! Reads one JSON configuration file, key by key.
//!
//! Each read names the key, its default and what is accepted, so that an unsupported value is
//! refused by name. The reference classes ignore unknown keys, and so does this reader;
//! [`ConfigFile::ignored_keys`] lists the keys that were never read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use darkroom_core::shown::{shown, shown_json};
use serde_json::{Map, Value};

use crate::error::LoadError;
use crate::json;

/// Most channels, or largest width of a vector. Larger values in a configuration are refused, so
/// that products of a few such numbers do not overflow. The widest published networks have about
/// ten thousand.
pub(crate) const WIDTH: RangeInclusive<usize> = 1..=1 << 17;
/// Layers of one kind.
pub(crate) const LAYERS: RangeInclusive<usize> = 1..=512;
/// Levels of a U-Net.
pub(crate) const LEVELS: RangeInclusive<usize> = 1..=12;
/// Edges of a picture, in pixels.
pub(crate) const EDGE: RangeInclusive<usize> = 1..=8192;
/// The constant that is added to a variance before its root is taken.
pub(crate) const EPSILON: RangeInclusive<f64> = 1e-12..=0.1;
/// The divisor of a sum.
pub(crate) const SCALE: RangeInclusive<f64> = 0.01..=100.0;

/// Longer values are shortened in messages.
const TOLD: usize = 120;

/// A parsed configuration file that remembers which keys were read.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    entries: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    /// Keys that are known to have no effect.
    known: RefCell<BTreeSet<String>>,
}

type Read<T> = Result<T, LoadError>;

impl ConfigFile {
    pub(crate) fn open(path: &Path) -> Read<Self> {
        match json::read(path)? {
            Value::Object(entries) => Ok(Self::new(path, entries)),
            _ => {
                let message = "it is not a JSON object; accepted: {…}".to_owned();
                Err(LoadError::Config { path: path.to_owned(), message })
            }
        }
    }

    fn new(path: &Path, entries: Map<String, Value>) -> Self {
        Self { path: path.to_owned(), entries, read: RefCell::default(), known: RefCell::default() }
    }

    #[cfg(test)]
    pub(crate) fn from_value(value: Value) -> Self {
        match value {
            Value::Object(entries) => Self::new(Path::new("config.json"), entries),
            other => panic!("not an object: {other}"),
        }
    }

    /// The class that wrote the file, or an empty text.
    pub(crate) fn class_name(&self) -> &str {
        self.entries.get("_class_name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The value under a key; absent and `null` are the same. Marks the key as read.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.entries.get(key).filter(|value| !value.is_null())
    }

    /// The error for a key's value.
    pub(crate) fn refuse(&self, key: &str, accepted: impl Into<String>) -> LoadError {
        let value = self.entries.get(key).map_or_else(|| "absent".to_owned(), Value::to_string);
        LoadError::Unsupported {
            path: self.path.clone(),
            // The key may come from the file.
            key: shown(&beginning(key.to_owned())).into_owned(),
            value: shown_json(&beginning(value)).into_owned(),
            accepted: accepted.into(),
        }
    }

    fn read<T>(
        &self,
        key: &str,
        accepted: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Read<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => parse(value).map(Some).ok_or_else(|| self.refuse(key, accepted)),
        }
    }

    /// A whole number within a range; `default` if the key is absent.
    pub(crate) fn count(
        &self,
        key: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Read<usize> {
        Ok(self.optional_count(key, range)?.unwrap_or(default))
    }

    /// The same without a default.
    pub(crate) fn optional_count(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Read<Option<usize>> {
        let accepted = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &accepted, |value| as_count(value).filter(|count| range.contains(count)))
    }

    /// A number within a range; `default` if the key is absent.
    pub(crate) fn number(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> Read<f64> {
        let accepted =
            format!("a number from {} to {}", plain(*range.start()), plain(*range.end()));
        let number = self
            .read(key, &accepted, |value| value.as_f64().filter(|number| range.contains(number)))?;
        Ok(number.unwrap_or(default))
    }

    pub(crate) fn flag(&self, key: &str) -> Read<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(crate) fn text(&self, key: &str) -> Read<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.refuse(key, "a text")),
        }
    }

    /// Whole numbers, each within a range.
    pub(crate) fn counts(
        &self,
        key: &str,
        range: &RangeInclusive<usize>,
    ) -> Read<Option<Vec<usize>>> {
        let accepted = format!("a list of whole numbers from {} to {}", range.start(), range.end());
        self.read(key, &accepted, |value| {
            let count = |item| as_count(item).filter(|count| range.contains(count));
            value.as_array()?.iter().map(count).collect()
        })
    }

    pub(crate) fn numbers(&self, key: &str) -> Read<Option<Vec<f64>>> {
        self.read(key, "a list of numbers", |value| {
            value.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    pub(crate) fn texts(&self, key: &str) -> Read<Option<Vec<String>>> {
        self.read(key, "a list of texts", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// One whole number per level, given as one number or as a list with one for each level.
    pub(crate) fn counts_per_level(
        &self,
        key: &str,
        levels: usize,
        default: usize,
        range: &RangeInclusive<usize>,
    ) -> Read<Vec<usize>> {
        let (least, most) = (range.start(), range.end());
        let accepted =
            format!("a whole number from {least} to {most}, or a list of {levels} of them");
        let count = |item: &Value| as_count(item).filter(|count| range.contains(count));
        let parsed = self.read(key, &accepted, |value| match value {
            Value::Array(items) => items.iter().map(count).collect::<Option<Vec<_>>>(),
            single => count(single).map(|count| vec![count; levels]),
        })?;
        let counts = parsed.unwrap_or_else(|| vec![default; levels]);
        if counts.len() == levels { Ok(counts) } else { Err(self.refuse(key, accepted)) }
    }

    /// A key that must be present.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| LoadError::Config {
            path: self.path.clone(),
            message: format!("`{key}` is missing"),
        })
    }

    /// Refuses every value of `key` except the accepted one (or none).
    pub(crate) fn only(&self, key: &str, accepted: &Value) -> Read<()> {
        match self.get(key) {
            None => Ok(()),
            Some(value) if same(value, accepted) => Ok(()),
            Some(_) if accepted.is_null() => Err(self.refuse(key, "null, or no such key")),
            Some(_) => Err(self.refuse(key, format!("{accepted} or null"))),
        }
    }

    /// Marks a key that has no effect in this architecture. It stays in the list of ignored keys
    /// unless it has its default.
    pub(crate) fn without_effect(&self, key: &str, default: &Value) {
        self.known.borrow_mut().insert(key.to_owned());
        let is_default =
            self.entries.get(key).is_none_or(|value| value.is_null() || same(value, default));
        if is_default {
            self.read.borrow_mut().insert(key.to_owned());
        }
    }

    /// Marks a key that never has an effect, whatever its value.
    pub(crate) fn passed_over(&self, key: &str) {
        self.read.borrow_mut().insert(key.to_owned());
    }

    /// The ignored keys that are not known here: from a newer class, from another class, or
    /// misspelt.
    pub(crate) fn unknown_keys(&self) -> Vec<String> {
        let known = self.known.borrow();
        self.ignored_keys().into_iter().filter(|key| !known.contains(key)).collect()
    }

    /// Keys that were never read, sorted, without the file's own notes (such as `_class_name`).
    pub(crate) fn ignored_keys(&self) -> Vec<String> {
        let read = self.read.borrow();
        let mut keys: Vec<String> = self
            .entries
            .keys()
            .filter(|key| !key.starts_with('_') && !read.contains(*key))
            .cloned()
            .collect();
        keys.sort();
        keys
    }
}

/// A number for people: whole numbers without a point, small ones with an exponent.
fn plain(number: f64) -> String {
    if number != 0.0 && number.abs() < 1e-3 { format!("{number:e}") } else { number.to_string() }
}

fn as_count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// Equality for which `1` and `1.0` are the same.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// A text, or its beginning if it is long.
fn beginning(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TOLD) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_nobody_read_are_listed_and_notes_are_not() {
        let config = ConfigFile::from_value(
            json!({"_class_name": "X", "a": 1, "b": null, "c": 2.0, "d": 3}),
        );
        assert_eq!(config.count("a", 0, 0..=9).unwrap(), 1);
        config.without_effect("c", &json!(2));
        config.without_effect("d", &json!(4));
        assert_eq!(config.ignored_keys(), ["b", "d"]);
        assert_eq!(config.unknown_keys(), ["b"]);
        assert_eq!(config.class_name(), "X");
    }

    #[test]
    fn a_key_of_the_files_own_is_shown_escaped_and_short() {
        let long = "k".repeat(500);
        let config = ConfigFile::from_value(json!({"a\u{1b}[2J\0\n": 1, &long: 2}));
        for key in config.ignored_keys() {
            let error = config.refuse(&key, "no such key").to_string();
            assert!(!error.contains(char::is_control), "{error:?}");
            assert!(error.len() < 300, "{error}");
        }
        assert_eq!(config.ignored_keys().len(), 2);
    }

    #[test]
    fn a_refusal_names_file_key_value_and_what_would_do() {
        let config = ConfigFile::from_value(json!({"act_fn": 3, "layers": [1, 2]}));
        let error = config.text("act_fn").unwrap_err().to_string();
        assert!(
            error.contains("config.json") && error.contains("act_fn") && error.contains('3'),
            "{error}"
        );
        let error = config.counts_per_level("layers", 3, 1, &LAYERS).unwrap_err().to_string();
        assert!(error.contains("[1,2]") && error.contains("list of 3"), "{error}");
        assert!(config.only("act_fn", &json!(4)).is_err());
        assert!(config.only("act_fn", &json!(3.0)).is_ok());
        let error = config.only("act_fn", &Value::Null).unwrap_err().to_string();
        assert!(
            error
                .ends_with("`act_fn` is 3, which is not supported; accepted: null, or no such key"),
            "{error}"
        );
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_the_range() {
        let config = ConfigFile::from_value(
            json!({"eps": -1, "layers": u64::MAX, "text": "NaN", "long": "x".repeat(999)}),
        );
        let error = config.number("eps", 1e-5, EPSILON).unwrap_err().to_string();
        assert!(
            error.contains("`eps` is -1") && error.contains("accepted: a number from 1e-12 to 0.1"),
            "{error}"
        );
        let error = config.count("layers", 1, LAYERS).unwrap_err().to_string();
        assert!(error.contains("accepted: a whole number from 1 to 512"), "{error}");
        assert!(config.number("text", 1.0, SCALE).is_err());
        assert_eq!(config.number("absent", 1.5, SCALE).unwrap(), 1.5);
        let error = config.count("long", 1, LAYERS).unwrap_err().to_string();
        assert!(error.contains('…') && error.len() < 300, "{error}");
    }
}
