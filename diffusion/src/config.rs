//! One JSON configuration file, read key by key.
//!
//! Every reading names the key, its default and what is accepted, so that a value this implementation does not run is
//! refused by name. Keys never asked for are what the reference classes ignore too; [`ConfigFile::ignored_keys`] lists
//! them instead of refusing, as those classes do.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::LoadError;

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
        let text = std::fs::read(path).map_err(|source| LoadError::read(path, source))?;
        let invalid = |message| LoadError::Config { path: path.to_owned(), message };
        match serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))? {
            Value::Object(entries) => Ok(Self::new(path, entries)),
            _ => Err(invalid("expected a JSON object".to_owned())),
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

    /// The refusal of a key's value.
    pub(crate) fn refuse(&self, key: &str, accepted: impl Into<String>) -> LoadError {
        let value = self.entries.get(key).map_or_else(|| "absent".to_owned(), Value::to_string);
        LoadError::Unsupported {
            path: self.path.clone(),
            key: key.to_owned(),
            value,
            accepted: accepted.into(),
        }
    }

    fn read<T>(&self, key: &str, accepted: &str, parse: impl Fn(&Value) -> Option<T>) -> Read<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => parse(value).map(Some).ok_or_else(|| self.refuse(key, accepted)),
        }
    }

    pub(crate) fn count(&self, key: &str) -> Read<Option<usize>> {
        self.read(key, "a whole number", as_count)
    }

    pub(crate) fn number(&self, key: &str) -> Read<Option<f64>> {
        self.read(key, "a number", Value::as_f64)
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

    pub(crate) fn counts(&self, key: &str) -> Read<Option<Vec<usize>>> {
        self.read(key, "a list of whole numbers", |value| value.as_array()?.iter().map(as_count).collect())
    }

    pub(crate) fn numbers(&self, key: &str) -> Read<Option<Vec<f64>>> {
        self.read(key, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub(crate) fn texts(&self, key: &str) -> Read<Option<Vec<String>>> {
        self.read(key, "a list of texts", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// One whole number for every level, given as a number or as a list with one for each.
    pub(crate) fn counts_per_level(&self, key: &str, levels: usize, default: usize) -> Read<Vec<usize>> {
        let accepted = format!("a whole number, or a list of {levels} of them");
        let parsed = self.read(key, &accepted, |value| match value {
            Value::Array(items) => items.iter().map(as_count).collect::<Option<Vec<_>>>(),
            single => as_count(single).map(|count| vec![count; levels]),
        })?;
        let counts = parsed.unwrap_or_else(|| vec![default; levels]);
        if counts.len() == levels { Ok(counts) } else { Err(self.refuse(key, accepted)) }
    }

    /// A key that is required to be present.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| LoadError::Config {
            path: self.path.clone(),
            message: format!("`{key}` is missing"),
        })
    }

    /// Refuses any value of `key` but the one accepted (or absence).
    pub(crate) fn only(&self, key: &str, accepted: &Value) -> Read<()> {
        match self.get(key) {
            None => Ok(()),
            Some(value) if same(value, accepted) => Ok(()),
            Some(_) => Err(self.refuse(key, format!("{accepted} or null"))),
        }
    }

    /// Marks a key that has no effect in this architecture; it stays in the list of ignored keys if it is set to
    /// anything but its default.
    pub(crate) fn without_effect(&self, key: &str, default: &Value) {
        self.known.borrow_mut().insert(key.to_owned());
        let is_default = self.entries.get(key).is_none_or(|value| value.is_null() || same(value, default));
        if is_default {
            self.read.borrow_mut().insert(key.to_owned());
        }
    }

    /// Of the ignored keys, those that nothing here knows: a newer class's, another one's, or a slip of the pen.
    pub(crate) fn unknown_keys(&self) -> Vec<String> {
        let known = self.known.borrow();
        self.ignored_keys().into_iter().filter(|key| !known.contains(key)).collect()
    }

    /// Keys that nothing has read, sorted, without the file's own notes (`_class_name` and the like).
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

fn as_count(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// Equality that takes `1` and `1.0` for the same number.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_nobody_read_are_listed_and_notes_are_not() {
        let config = ConfigFile::from_value(json!({"_class_name": "X", "a": 1, "b": null, "c": 2.0, "d": 3}));
        assert_eq!(config.count("a").unwrap(), Some(1));
        config.without_effect("c", &json!(2));
        config.without_effect("d", &json!(4));
        assert_eq!(config.ignored_keys(), ["b", "d"]);
        assert_eq!(config.unknown_keys(), ["b"]);
        assert_eq!(config.class_name(), "X");
    }

    #[test]
    fn a_refusal_names_file_key_value_and_what_would_do() {
        let config = ConfigFile::from_value(json!({"act_fn": 3, "layers": [1, 2]}));
        let error = config.text("act_fn").unwrap_err().to_string();
        assert!(error.contains("config.json") && error.contains("act_fn") && error.contains('3'), "{error}");
        let error = config.counts_per_level("layers", 3, 1).unwrap_err().to_string();
        assert!(error.contains("[1,2]") && error.contains("list of 3"), "{error}");
        assert!(config.only("act_fn", &json!(4)).is_err());
        assert!(config.only("act_fn", &json!(3.0)).is_ok());
    }
}
