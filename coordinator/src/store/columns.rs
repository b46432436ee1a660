//! Converts between columns and the domain's types, for values that have the same form in both
//! databases.

use std::{fmt::Display, str::FromStr};

use darkroom_core::{
    id::StageName,
    text_state::{Outlook, TextState, outlook},
};
use serde::{Serialize, de::DeserializeOwned};

use super::Error;

/// Reads a number that must be within the type's range.
pub(super) fn number<T: TryFrom<i64>>(value: impl Into<i64>) -> Result<T, Error> {
    let value = value.into();
    T::try_from(value).map_err(|_| Error::Corrupt(format!("number {value} out of range")))
}

/// A number for a signed 64-bit column. No stored number needs more than 63 bits.
pub(super) fn column(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub(super) fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| Error::Corrupt(error.to_string()))
}

pub(super) fn stage_name(name: String) -> Result<StageName, Error> {
    name.try_into().map_err(|_| Error::Corrupt("stage name".to_owned()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt(error.to_string()))
}

pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))
}

/// A seed as a column: the same 64 bits.
pub(super) fn seed_column(seed: u64) -> i64 {
    i64::from_le_bytes(seed.to_le_bytes())
}

/// The seed of a column.
pub(super) fn seed(column: i64) -> u64 {
    u64::from_le_bytes(column.to_le_bytes())
}

/// Seed of an image from its prompt's first seed: seed, seed + 1, …, wrapping.
pub(super) fn image_seed(first_seed: i64, first_index: i64, idx: i64) -> u64 {
    seed(first_seed.wrapping_add(idx.wrapping_sub(first_index)))
}

/// The event for a prompt's images, from the states of its text, negative text and style.
pub(super) fn outlook_of(states: [Option<&str>; 3]) -> Result<Outlook, Error> {
    let states: Vec<TextState> =
        states.into_iter().flatten().map(parse).collect::<Result<_, _>>()?;
    Ok(outlook(states))
}
