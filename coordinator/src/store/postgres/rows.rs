//! Between rows and the domain's words.

use std::{fmt::Display, str::FromStr};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
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
    pub(super) stage: i16,
    pub(super) generation: i32,
    pub(super) dispatch: i64,
    pub(super) failures: i32,
    pub(super) hosts: Option<Vec<String>>,
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
            hosts: self.hosts.clone().unwrap_or_default(),
            suspect: self.suspect,
        })
    }
}

/// A number that its column only holds within the type's range.
pub(super) fn number<T: TryFrom<i64>>(value: impl Into<i64>) -> Result<T, Error> {
    let value = value.into();
    T::try_from(value).map_err(|_| Error::Corrupt(format!("number {value} out of range")))
}

/// A number as a BIGINT column; what exceeds 63 bits cannot be there.
pub(super) fn column(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// A number as an INTEGER column.
pub(super) fn column32(value: impl TryInto<i32>) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// A stage's position as a column.
pub(super) fn stage_column(stage: usize) -> i16 {
    i16::try_from(stage).unwrap_or(i16::MAX)
}

pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| Error::Corrupt(error.to_string()))
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    let bytes = bytes.try_into().map_err(|_| Error::Corrupt(format!("digest of {} bytes", bytes.len())))?;
    Ok(Digest(bytes))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt(error.to_string()))
}

pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Numbers as the text of an array, for lists of lists, which Postgres's arrays cannot be.
pub(super) fn array(numbers: &[i64]) -> String {
    let mut text = String::with_capacity(2 + 8 * numbers.len());
    text.push('{');
    for (position, number) in numbers.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        text.push_str(&number.to_string());
    }
    text.push('}');
    text
}

/// Text that a TEXT column takes: a worker's message may hold a NUL, which Postgres refuses.
pub(super) fn text_column(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) fn artifact(key: String, sha256: &[u8], size: i64) -> Result<ArtifactRef, Error> {
    Ok(ArtifactRef { key, sha256: digest(sha256)?, size: number(size)? })
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
