//! How a job's images failed, by code: the rows that a backend reads, and the summary for users.

use super::{
    Error,
    columns::number,
    records::{Example, FailureCount, Failures},
    roles::{MOST_CODES, MOST_COUNTED},
    row::row,
};

/// Codes that a backend reads: one more than are reported, to know whether there are more.
pub(super) const CODES_READ: u32 = MOST_CODES + 1;

row! {
    /// The images that have one code.
    pub(super) struct CodeRow {
        code: String,
        images: i64,
        dead: i64,
        first: i64,
        last: i64,
        example: i64,
        sentence: Option<String>,
    }
}

/// The reported codes.
pub(super) fn told(codes: &[String]) -> &[String] {
    &codes[..codes.len().min(MOST_CODES as usize)]
}

/// Most images that are counted per code.
pub(super) fn counted_of_each(codes: &[String]) -> i64 {
    i64::from(MOST_COUNTED) / i64::try_from(told(codes).len()).unwrap_or(1).max(1)
}

/// The summary: the codes with the most dead images first.
pub(super) fn summary(codes: &[String], rows: Vec<CodeRow>) -> Result<Failures, Error> {
    let most = counted_of_each(codes);
    let count = |row: CodeRow| {
        Ok::<_, Error>(FailureCount {
            code: row.code.into(),
            dead: number(row.dead)?,
            not_dead: number(row.images - row.dead)?,
            at_least: row.images >= most,
            first: number(row.first)?,
            last: number(row.last)?,
            example: Example {
                index: number(row.example)?,
                message: row.sentence.unwrap_or_default(),
            },
        })
    };
    let mut counts: Vec<_> = rows.into_iter().map(count).collect::<Result<_, _>>()?;
    counts.sort_by(|a, b| (b.dead, a.code.name()).cmp(&(a.dead, b.code.name())));
    Ok(Failures { counts, more: codes.len() > MOST_CODES as usize })
}
