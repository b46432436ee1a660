//! The code that both backends share. These files are compiled once for each backend, as its module
//! `both`. They use the parent module's items for what differs; the names are the same in both
//! parents.
//!
//! - `Record`: the store. It has `reads` and `writes` (pools of connections), `reader` (a
//!   connection; with SQLite its statements see one moment), `begin_read`, `begin_write` and
//!   `check_term`.
//! - `Connection`, `Tx`, and `retried`, which runs a transaction again if it lost against another.
//! - `LockedJobs`, `moves::apply` and `moves::finish`: lock jobs, move their images, and end the
//!   jobs that are complete.
//! - `sql!(sqlite: …, postgres: …)`: the text of a statement. They stand side by side, so that
//!   whoever changes one sees the other. Text that both databases understand is written once; `$1`
//!   is a parameter in both.
//! - `bind_rows!(query, rows, |row| …)`: binds columns for a bulk statement, as arrays or as JSON.
//! - `rows`: types of columns that differ (`IdColumn`, `HashColumn`, `Small`, `Int`, `Places`), and
//!   lists for bulk statements.
//! - Functions in the parent's file for a role, if only a part of a method differs.
//!
//! A file that is named like a role implements it.

pub(super) mod abandoned;
mod agreed;
pub(super) mod attempts;
mod audit;
mod batches;
mod candidates;
mod clock;
pub(super) mod commands;
pub(super) mod deleted_jobs;
mod deliveries;
pub(super) mod dispatching;
pub(super) mod failures;
pub(super) mod farm_changes;
mod files;
pub(super) mod following;
pub(super) mod following_commands;
pub(super) mod following_images;
mod forecasts;
pub(super) mod history;
pub(super) mod image_commands;
pub(super) mod image_maps;
pub(super) mod input_row;
pub(super) mod inputs;
mod keys;
mod leftovers;
pub(super) mod limiting;
mod maintenance;
mod manifests;
pub(super) mod metering;
pub(super) mod missing;
pub(super) mod mix;
pub(super) mod moves;
pub(super) mod notes;
pub(super) mod outcomes;
pub(super) mod page;
pub(super) mod policy_walk;
pub(super) mod queries;
mod removal;
mod retention;
pub(super) mod row_types;
pub(super) mod submits;
mod sums;
mod tenant_lock;
mod tenants;
mod texts;
mod unused_files;
mod unused_inputs;
mod unused_texts;
mod usage_audit;
mod usages;
pub(super) mod variants;
pub(super) mod webhooks;
pub(super) mod worker_health;

use super::{Connection, Error, Record, Tx, retried, rows};
