//! Reading prompt files as people have them: plain text, JSON lines, CSV, TSV, JSON and COCO
//! captions, each also compressed with gzip or zstd.
//!
//! [`Reader`] is an iterator of [`Prompt`]s over any reader. It streams: memory does not grow with
//! the number of prompts, except for 16 bytes per `custom_id` and for a sample. It opens no file
//! that a prompt names; the caller does that.
//!
//! # Which format
//! The name and the content decide together. Extensions count in any case: `.txt`, `.jsonl` and
//! `.ndjson`, `.csv`, `.tsv` and `.tab`, `.json`, each with an optional `.gz` or `.zst`. For
//! another name, or none, the content decides. If name and content disagree, the content wins if it
//! can only mean one thing (JSON lines in a `.json` file); otherwise the file is refused with
//! advice. [`Options::format`] overrides both.
//!
//! # What values mean
//! The same in every format, and the same as over gRPC:
//!
//! | field | JSON | table cell | meaning |
//! | --- | --- | --- | --- |
//! | any but prompt | absent or `null` | empty or blank | not said: what the flags say holds |
//! | `negative` | `""` | (not possible) | the empty text; replaces the flag's |
//! | `style`, `image`, `mask` | `""` | (not possible) | none; replaces the flag's |
//! | `custom_id` | `""` | empty or blank | none |
//! | `images` | `0` | `0` | not said: the job's number of images per prompt |
//! | `images` | 1 to 10000 | digits | this many; `"3"`, `1.0`, `1e3`, `true` and `-1` are refused in JSON |
//! | `seed` | 0 to 2⁶⁴ − 1 | digits | as `images` |
//! | `settings` | an object | columns `settings.size`, `settings.width`, `settings.height`, `settings.output`, `settings.STAGE.KEY` | the prompt's own settings, laid over the job's; names as in a job's settings; an output replaces the job's whole |
//! | `labels` | an object | (a column each) | a string is kept as it is, `null` is left out, anything else is kept as compact JSON |
//!
//! Text fields are strings in JSON; a number is refused. A JSON element may also be a string: the
//! prompt alone. Unknown keys are refused, and a table's other columns are labels;
//! [`Options::labels`] keeps all, some or none of both. A column or key that it names is a label
//! even where it has the name of a field. A table's column called `settings` is a label like any
//! other, and so is a key `settings` whose value is no object where all keys are kept.
//!
//! # Lines and characters
//! UTF-8 with or without a byte order mark, and UTF-16 with one. LF, CRLF and CR end lines, mixed
//! as well, and each becomes LF inside quoted cells. A byte order mark at the start of a line
//! (files that were joined) is dropped. In plain text, a line with U+2028, U+2029, or with U+FEFF
//! further on is refused, since nobody can tell whether it is one prompt or two. NUL and other
//! control characters are refused wherever they are.
//!
//! # Samples
//! Of COCO captions a [`Sample`] can be taken: see there for the rule.

mod column_names;
mod compression;
mod detect;
mod error;
mod fields;
mod foreign;
mod format;
mod header;
mod json;
mod notes;
mod options;
mod prompt;
mod reader;
mod record;
mod sample;
mod settings;
mod source;
mod table;
mod text;

pub use self::{
    error::Error,
    format::Format,
    notes::Note,
    options::{Labels, Limits, Options, Sample},
    prompt::Prompt,
    reader::Reader,
};
