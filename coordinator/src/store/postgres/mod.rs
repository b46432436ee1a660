//! The record in Postgres, for farms of several coordinators. Bulk statements take arrays, no lock
//! is held while work runs, and the server's clock counts.
//!
//! One method is one transaction of a few round trips, whatever the number of rows. Locks are taken
//! in one order: texts by id, then jobs by `seq` (see `progress`), then a tenant with quotas (see
//! `both::metering`). A rare path must break this order; if Postgres then finds a deadlock, the
//! transaction runs again. The schema documents what must be avoided because old snapshots may be
//! open.
//!
//! The code that both backends share is in `both`. A file named after a role has what differs.

/// Takes this backend's text of a statement.
macro_rules! sql {
    (sqlite: $sqlite:expr, postgres: $postgres:expr $(,)?) => {
        $postgres
    };
}

/// Binds a column of rows for each expression, as the last parameters: an array each.
macro_rules! bind_rows {
    ($query:expr, $rows:expr, |$one:pat_param| $($column:expr),+ $(,)?) => {{
        #[allow(unused_variables, reason = "an expression takes what it needs of a row")]
        let query = $query$(.bind($rows.iter().map(|$one| $column).collect::<Vec<_>>()))+;
        query
    }};
}

mod block_bits;
#[expect(clippy::duplicate_mod, reason = "compiled once per backend")]
#[path = "../both/mod.rs"]
mod both;
mod dispatch_text;
mod dispatching;
mod farm_changes;
pub(super) mod fault;
mod following;
mod hints;
mod image_maps;
mod input_row;
mod leadership;
mod leading;
mod lost_answer;
mod manifests;
mod metering;
mod missing;
mod moves;
mod notes;
mod onward;
mod open;
mod options;
mod outcomes;
mod outputs;
mod page;
#[cfg(test)]
mod page_tests;
mod plans;
mod progress;
mod prune;
mod queries;
mod receive;
mod rows;
mod servers;
mod session;
mod spread;
mod store;
mod submits;
mod texts;
mod transaction;
mod url;
mod why;

use sqlx::PgConnection as Connection;

use super::Error;
pub use options::Options;
pub use store::PostgresStore;
use store::PostgresStore as Record;
use transaction::{Tx, retried};
