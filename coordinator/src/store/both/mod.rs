//! What both backends do alike. These files are compiled once for each backend, as its module
//! `both`: what differs they take from their parent under the same names.
//!
//! - `Record`: the store. It gives `reads` and `writes` (pools of connections), `reader` (a
//!   connection, which sees one moment if that costs nothing), `begin_read`, `begin_write` and
//!   `check_term`.
//! - `Connection`, `Tx`, and `retried`, which runs a transaction until nothing is in its way.
//! - `sql!(sqlite: …, postgres: …)`: the text of a statement. Both are side by side, so that a
//!   change of one meets the other. Text that both databases understand is written once; `$1` is a
//!   parameter in both.
//! - `bind_rows!(query, rows, |row| …)`: columns for a bulk statement, in the form that the backend
//!   takes.
//! - `rows`: types and functions for columns that the two keep in different forms: `IdColumn`,
//!   `HashColumn`, `Small`, `Int`, `Places`, and lists for bulk statements.
//! - Functions of a role's own file, where only the beginning and the end of a method are alike.
//!
//! A file that is named like a role implements it.

mod agreed;
pub(super) mod attempts;
mod audit;
mod clock;
pub(super) mod commands;
pub(super) mod dispatching;
pub(super) mod failures;
mod farm_changes;
pub(super) mod following;
mod forecasts;
pub(super) mod history;
pub(super) mod image_commands;
mod image_maps;
pub(super) mod input_row;
mod inputs;
mod keys;
pub(super) mod limiting;
mod maintenance;
mod manifests;
pub(super) mod missing;
pub(super) mod notes;
mod outcomes;
pub(super) mod page;
pub(super) mod queries;
pub(super) mod row_types;
pub(super) mod submits;
mod tenants;
pub(super) mod texts;
pub(super) mod variants;
pub(super) mod worker_health;

use super::{Connection, Error, Record, Tx, retried, rows};
