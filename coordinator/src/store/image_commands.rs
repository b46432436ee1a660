//! Inputs and results of commands to some images of a job, for both backends.

use std::{collections::BTreeMap, ops::Range};

use darkroom_core::{
    error::{Code, UserError},
    id::JobId,
    image_command::ImageCommand,
    image_filter::{ImageFilter, Window},
};

use super::{
    Error,
    columns::{column, from_json, number, parse},
    records::JobRecord,
    row::row,
};

/// Images that are read in one step of a count.
pub(super) const COUNTED_AT_ONCE: u64 = 20_000;
/// Images that one step of following reads for each image that it may change.
const LOOKED_AT: u64 = 4;
/// Most commands to a job's images that are still being carried out.
pub const MAX_COMMANDS: u64 = 100;

/// The result of one step of a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Images that the command would change.
    pub images: u64,
    /// Matching done images, which the command does not change.
    pub done: u64,
    /// Where the next step begins; `None` after the last.
    pub next: Option<u64>,
}

/// A done image whose picture is missing in storage or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostPicture {
    /// Its index.
    pub index: u64,
    /// Its generation at the time of the check.
    pub generation: u32,
}

/// The result of a command for lost pictures.
#[derive(Clone, Debug)]
pub struct Rerendered {
    /// The job afterwards.
    pub job: JobRecord,
    /// Images that run again.
    pub images: u64,
}

/// A command from its row.
pub(super) struct Pending {
    pub(super) command: ImageCommand,
    pub(super) filter: ImageFilter,
    /// Index of the next image to change.
    pub(super) next: u64,
}

impl Pending {
    pub(super) fn new(command: &str, filter: &str, next: i64) -> Result<Self, Error> {
        Ok(Self { command: parse(command)?, filter: from_json(filter)?, next: number(next)? })
    }

    /// The indices to read for a chunk of `limit` images.
    pub(super) fn window(&self, limit: u64) -> Window {
        self.filter.window(self.next, limit.saturating_mul(LOOKED_AT))
    }

    /// The names of the states that it changes.
    pub(super) fn states(&self) -> Vec<&'static str> {
        let states = self.filter.states_among(self.command.states());
        states.into_iter().map(|state| state.name()).collect()
    }

    /// Error codes that images must have; empty: any code or none.
    pub(super) fn codes(&self) -> Vec<&str> {
        self.filter.codes().iter().map(String::as_str).collect()
    }
}

row! {
    /// A prompt with images in a range that is read.
    pub(super) struct PromptRow {
        pub(super) text: String,
        pub(super) custom_id: Option<String>,
        pub(super) labels: Option<String>,
        pub(super) first_index: i64,
        pub(super) images: i64,
        /// First index of the range, and the one after its last.
        pub(super) range_start: i64,
        pub(super) range_end: i64,
    }
}

/// The indices of the images whose prompts match the filter, within their ranges.
pub(super) fn meant(filter: &ImageFilter, prompts: &[PromptRow]) -> Result<Vec<Range<u64>>, Error> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for prompt in prompts {
        let labels: BTreeMap<String, String> =
            prompt.labels.as_deref().map_or(Ok(BTreeMap::new()), from_json)?;
        if !filter.prompts().accepts(&prompt.text, prompt.custom_id.as_deref(), &labels) {
            continue;
        }
        let start: u64 = number(prompt.first_index.max(prompt.range_start))?;
        let end: u64 = number((prompt.first_index + prompt.images).min(prompt.range_end))?;
        if start >= end {
            continue;
        }
        match ranges.last_mut().filter(|last| last.end == start) {
            Some(last) => last.end = end,
            None => ranges.push(start..end),
        }
    }
    Ok(ranges)
}

/// Ranges as columns: first index, and the one after the last.
pub(super) fn bounds(ranges: &[Range<u64>]) -> Vec<(i64, i64)> {
    ranges.iter().map(|range| (column(range.start), column(range.end))).collect()
}

/// Refuses a command if too many others are still being carried out.
pub(super) fn check_pending(job: JobId, pending: i64) -> Result<(), UserError> {
    if pending < column(MAX_COMMANDS) {
        return Ok(());
    }
    Err(UserError::new(
        Code::Unavailable,
        "TOO_MANY_COMMANDS",
        format!(
            "job {job} has {pending} commands to its images that are still being carried out; \
             accepted: fewer than {MAX_COMMANDS}, so try again in a moment"
        ),
    ))
}

/// The refusal of a change that must wait for a running command.
pub(super) fn still_following(job: JobId) -> UserError {
    UserError::new(
        Code::Unavailable,
        "STILL_FOLLOWING",
        format!("a command to job {job} is still being carried out; try again in a moment"),
    )
}
