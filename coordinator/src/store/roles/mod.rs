//! The interfaces of the record for the parts of a coordinator, one trait each.
//!
//! One method is one transaction. A part names the roles that it uses, so its signature says what
//! it can change. A backend implements a role in the file of the same name.

mod agreed;
mod attempts;
mod audit;
mod batches;
mod commands;
mod dispatching;
mod farm_changes;
mod following;
mod forecasts;
mod history;
mod image_commands;
mod image_maps;
mod inputs;
mod keys;
mod leading;
mod leftovers;
mod limiting;
mod maintenance;
mod manifests;
mod metering;
mod outcomes;
mod queries;
mod removal;
mod retention;
mod submits;
mod tenants;
mod webhooks;
mod worker_health;

pub use agreed::Agreed;
pub use attempts::Attempts;
pub use audit::Audit;
pub use batches::Batches;
pub use commands::Commands;
pub use dispatching::Dispatching;
pub use farm_changes::FarmChanges;
pub use following::Following;
pub use forecasts::Forecasts;
pub use history::History;
pub use image_commands::ImageCommands;
pub use image_maps::ImageMaps;
pub use inputs::Inputs;
pub use keys::Keys;
pub use leading::Leading;
pub use leftovers::Leftovers;
pub use limiting::Limiting;
pub use maintenance::Maintenance;
pub use manifests::Manifests;
pub use metering::Metering;
pub use outcomes::Outcomes;
pub use queries::{LOOKED_AT, MOST_CODES, MOST_COUNTED, NOT_LISTED, Queries};
pub use removal::Removal;
pub use retention::Retention;
pub use submits::Submits;
pub use tenants::Tenants;
pub use webhooks::Webhooks;
pub use worker_health::WorkerHealth;
