//! The record in one SQLite file: one writer, a few readers, write-ahead log, every commit on disk
//! before it returns.
//!
//! Bulk statements take JSON lists (`json_each`), where the Postgres backend takes arrays. The
//! code that both backends share is in `both`. A file named after a role has what differs.

/// Takes this backend's text of a statement.
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

/// The number of stages of an image, or of a prompt's images; the argument is the alias of its row.
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

#[cfg_attr(
    feature = "cluster",
    expect(clippy::duplicate_mod, reason = "compiled once per backend")
)]
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
mod metering;
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
