//! The farm's record in SQL: the only truth about the submitted work and its progress.
//!
//! [`Store`] is the sum of [`roles`]. One method is one transaction. Every UPDATE names the state
//! it expects, and counters come from the rows it returned, never from its input. Time is the
//! database's. Backends decide nothing about the domain: they read rows, ask `darkroom_core`'s
//! state machines, and write the answer if the row is still as read. `store_suite!` in
//! `tests/suites` tests what every backend must do.

pub mod attempt;
pub mod batches;
mod cause;
mod change;
mod columns;
pub(crate) mod custom_id;
pub mod error;
mod failures;
pub mod farm_changes;
mod fault;
pub mod forecast;
pub mod history;
pub mod image_commands;
pub mod image_map;
mod image_pages;
mod job_columns;
mod job_pages;
mod judged_images;
mod judged_texts;
pub mod keys;
pub mod leftovers;
pub mod limits;
pub mod metering;
mod migrations;
mod missing;
mod notes;
#[cfg(feature = "cluster")]
pub mod postgres;
pub mod records;
pub mod removal;
pub mod roles;
mod row;
mod spent;
pub mod sqlite;
mod tally;
mod variants;
pub mod webhooks;
pub mod worker_health;

pub use error::Error;
use roles::{
    Agreed, Attempts, Audit, Batches, Commands, Dispatching, FarmChanges, Following, Forecasts,
    History, ImageCommands, ImageMaps, Inputs, Keys, Leading, Leftovers, Limiting, Maintenance,
    Manifests, Metering, Outcomes, Queries, Removal, Retention, Submits, Tenants, Webhooks,
    WorkerHealth,
};

/// Makes a store the sum of its roles.
macro_rules! sum_of {
    ($($Role:ident)*) => {
        /// The record of one farm: all its [`roles`].
        pub trait Store: $($Role +)* {}

        impl<T: $($Role +)*> Store for T {}
    };
}

sum_of! {
    Agreed Leading Submits Inputs Dispatching Outcomes Following Commands ImageCommands Limiting
    Forecasts History WorkerHealth Queries Attempts ImageMaps FarmChanges Manifests Maintenance Keys
    Tenants Metering Audit Leftovers Removal Retention Batches Webhooks
}
