//! Converts between columns and the domain's types, for values that SQLite stores in its own form:
//! hashes and ids are text, and a list is JSON.

use std::collections::HashMap;

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::{ImageId, JobId},
    text_state::Outlook,
};
use uuid::Uuid;

use super::Error;
pub(super) use crate::store::columns::{
    column, from_json, image_seed, number, outlook_of, parse, seed_column, stage_name, to_json,
};

/// A job's id.
pub(super) type IdColumn = String;
/// A digest.
pub(super) type HashColumn = String;
/// A number that Postgres keeps in 16 bits.
pub(super) type Small = i64;
/// A number that Postgres keeps in 32 bits.
pub(super) type Int = i64;
/// Where something failed.
pub(super) type Places = String;

pub(super) fn id_column(job: JobId) -> IdColumn {
    job.to_string()
}

/// The id of a file, a batch or a runner.
pub(super) fn uuid_column(id: Uuid) -> IdColumn {
    id.to_string()
}

pub(super) fn uuid(column: &str) -> Result<Uuid, Error> {
    parse(column)
}

pub(super) fn digest_column(digest: Digest) -> HashColumn {
    digest.to_string()
}

pub(super) fn digest(column: &str) -> Result<Digest, Error> {
    parse(column)
}

pub(super) fn places(column: &str) -> Result<Vec<String>, Error> {
    if column == "[]" { Ok(Vec::new()) } else { from_json(column) }
}

/// Text for a TEXT column. SQLite accepts every text.
pub(super) fn text_column(text: &str) -> &str {
    text
}

/// Digests for a bulk statement.
pub(super) fn digests(digests: &[Digest]) -> Result<String, Error> {
    to_json(digests)
}

/// The value of the columns `encoded` of `prompts` and `job_texts`.
pub(super) fn outlook_column(outlook: Outlook) -> i64 {
    match outlook {
        Outlook::Waits => 0,
        Outlook::Encoded => 1,
        Outlook::Dead => 2,
    }
}

/// Job and prompt of images.
pub(super) type Prompts = HashMap<ImageId, (i64, i64)>;

pub(super) fn job_id(text: &str) -> Result<JobId, Error> {
    parse(text)
}

pub(super) fn artifact(key: String, sha256: &str, size: i64) -> Result<ArtifactRef, Error> {
    Ok(ArtifactRef { key, sha256: parse::<Digest>(sha256)?, size: number(size)? })
}

/// Numbers for a bulk statement, as a JSON list.
pub(super) fn list(numbers: &[i64]) -> Result<String, Error> {
    to_json(numbers)
}

/// Names for a bulk statement.
pub(super) fn names(names: &[&str]) -> Result<String, Error> {
    to_json(names)
}
