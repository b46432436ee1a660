//! The record in one SQLite file: one writer, a few readers, write-ahead log, every commit on disk
//! before it returns.
//!
//! Bulk statements take JSON lists (`json_each`), where the Postgres backend takes arrays. What
//! it does as Postgres does is in `both`; a file that is named like a role implements it, or has its
//! SQL.

/// The text of a statement, of two that do the same.
macro_rules! sql {
    (sqlite: $sqlite:expr, postgres: $postgres:expr $(,)?) => {
        $sqlite
    };
}

/// Binds a column of rows for each expression, as the last parameter: one JSON list of lists.
macro_rules! bind_rows {
    ($query:expr, $rows:expr, |$one:pat_param| $($column:expr),+ $(,)?) => {
        $query.bind(crate::store::columns::to_json(
            &$rows.iter().map(|$one| ($($column,)+)).collect::<Vec<_>>(),
        )?)
    };
}

/// How many stages an image passes, or those of a prompt; the argument is the alias of its row.
macro_rules! stages_of {
    ($row:literal) => {
        concat!(
            "coalesce((SELECT v.stages FROM job_variants AS v WHERE v.job = ",
            $row,
            ".job AND v.variant = ",
            $row,
            ".variant), (SELECT count(*) FROM job_stages AS o WHERE o.job = ",
            $row,
            ".job AND o.stage >= 0 AND o.own))"
        )
    };
}

#[cfg_attr(feature = "cluster", expect(clippy::duplicate_mod, reason = "see its own words"))]
#[path = "../both/mod.rs"]
mod both;
mod dispatching;
mod farm_changes;
pub(super) mod fault;
mod following;
mod forecasts;
mod history;
mod image_maps;
mod leading;
mod manifests;
mod missing;
mod moves;
mod notes;
mod open;
mod outcomes;
mod page;
#[cfg(test)]
mod page_tests;
mod progress;
mod queries;
mod rows;
mod store;
mod submits;
mod texts;

use sqlx::SqliteConnection as Connection;

use super::Error;
pub use store::SqliteStore;
use store::{SqliteStore as Record, Tx, retried};
