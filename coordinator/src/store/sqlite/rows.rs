//! Between rows and the domain's words.

use std::{fmt::Display, str::FromStr};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::JobId,
    image_state::{ImageProgress, ImageState},
};
use serde::{Serialize, de::DeserializeOwned};

use super::Error;

/// An image's progress as its columns.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct ProgressRow {
    pub(super) job: i64,
    pub(super) idx: i64,
    pub(super) prompt: i64,
    pub(super) state: String,
    pub(super) stage: i64,
    pub(super) generation: i64,
    pub(super) dispatch: i64,
    pub(super) failures: i64,
    pub(super) hosts: String,
    pub(super) suspect: bool,
}

impl ProgressRow {
    pub(super) fn progress(&self) -> Result<ImageProgress, Error> {
        Ok(ImageProgress {
            state: parse::<ImageState>(&self.state)?,
            stage: number(self.stage)?,
            generation: number(self.generation)?,
            dispatch: number(self.dispatch)?,
            failures: number(self.failures)?,
            hosts: if self.hosts == "[]" { Vec::new() } else { from_json(&self.hosts)? },
            suspect: self.suspect,
        })
    }
}

/// A number that its column only holds within the type's range.
pub(super) fn number<T: TryFrom<i64>>(value: i64) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::Corrupt(format!("number {value} out of range")))
}

/// A number as a column; what exceeds 63 bits cannot be there.
pub(super) fn column(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| Error::Corrupt(error.to_string()))
}

pub(super) fn job_id(text: &str) -> Result<JobId, Error> {
    parse(text)
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt(error.to_string()))
}

pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))
}

pub(super) fn artifact(key: String, sha256: &str, size: i64) -> Result<ArtifactRef, Error> {
    Ok(ArtifactRef { key, sha256: parse::<Digest>(sha256)?, size: number(size)? })
}

/// A seed as a column: the same 64 bits.
pub(super) fn seed_column(seed: u64) -> i64 {
    i64::from_le_bytes(seed.to_le_bytes())
}

pub(super) fn seed(column: i64) -> u64 {
    u64::from_le_bytes(column.to_le_bytes())
}

/// Seed of an image from its prompt's first: seed, seed + 1, …, wrapping.
pub(super) fn image_seed(first_seed: i64, first_index: i64, idx: i64) -> u64 {
    seed(first_seed.wrapping_add(idx.wrapping_sub(first_index)))
}
