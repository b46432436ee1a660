//! The formats of prompt files.

use std::{fmt, str::FromStr};

use crate::{Error, error::shown};

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One prompt per line.
    Text,
    /// One JSON object (or string) per line.
    JsonLines,
    /// A table with a header. Cells are separated by commas, or by what the header shows
    /// (semicolons, tabs).
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
        let found = Self::NAMES
            .iter()
            .find(|(one, _)| one.eq_ignore_ascii_case(name))
            .map(|(_, format)| *format);
        found.ok_or_else(|| {
            let accepted = Self::NAMES.map(|(name, _)| name).join(", ");
            Error::option("format", format!("format is {}; accepted: {accepted}", shown(name)))
        })
    }
}
