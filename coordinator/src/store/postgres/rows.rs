//! Between columns and the domain's words, where Postgres has its own form of a value: ids are
//! UUID, hashes BYTEA, and a list is an array.

use darkroom_core::{artifact::ArtifactRef, digest::Digest, id::JobId};
use uuid::Uuid;

use super::Error;
pub(super) use crate::store::columns::{
    column, from_json, image_seed, number, outlook_of, parse, seed_column, stage_name, to_json,
};

/// A job's id.
pub(super) type IdColumn = Uuid;
/// A digest.
pub(super) type HashColumn = Vec<u8>;
/// A SMALLINT.
pub(super) type Small = i16;
/// An INTEGER.
pub(super) type Int = i32;
/// Where something failed.
pub(super) type Places = Option<Vec<String>>;

pub(super) fn id_column(job: JobId) -> IdColumn {
    job.0
}

pub(super) fn job_id(column: &IdColumn) -> Result<JobId, Error> {
    Ok(JobId(*column))
}

/// The id of a file, a batch or a runner.
pub(super) fn uuid_column(id: Uuid) -> IdColumn {
    id
}

pub(super) fn uuid(column: &IdColumn) -> Result<Uuid, Error> {
    Ok(*column)
}

pub(super) fn digest_column(digest: Digest) -> [u8; 32] {
    digest.0
}

pub(super) fn places(column: &Places) -> Result<Vec<String>, Error> {
    Ok(column.clone().unwrap_or_default())
}

/// Numbers for a bulk statement.
pub(super) fn list(numbers: &[i64]) -> Result<&[i64], Error> {
    Ok(numbers)
}

/// Digests for a bulk statement.
pub(super) fn digests(digests: &[Digest]) -> Result<Vec<[u8; 32]>, Error> {
    Ok(digests.iter().map(|digest| digest.0).collect())
}

/// A number as an INTEGER column.
pub(super) fn column32(value: impl TryInto<i32>) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// A stage's position as a column.
pub(super) fn stage_column(stage: usize) -> i16 {
    i16::try_from(stage).unwrap_or(i16::MAX)
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    let bytes =
        bytes.try_into().map_err(|_| Error::Corrupt(format!("digest of {} bytes", bytes.len())))?;
    Ok(Digest(bytes))
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

/// Names for a bulk statement.
pub(super) fn names<'a>(names: &'a [&'a str]) -> Result<&'a [&'a str], Error> {
    Ok(names)
}
