//! The farm over HTTP: a JSON API with events, links to pictures, and the web page.
//!
//! Handlers call [`Calls`](darkroom_farm_api::Calls), as gRPC does, with the same caller, and
//! return the same sentences. This crate never knows SQL, queues, storage or models.
//!
//! The API is described for users in `docs/http.md`.

mod admin_routes;
mod clock;
#[cfg(feature = "schema")]
mod described;
mod entry;
mod events;
mod farm_routes;
#[doc(hidden)]
pub mod fuzzed;
mod gate;
mod json_answer;
mod lines;
mod links;
mod openai;
#[cfg(feature = "schema")]
pub mod openapi;
mod page;
mod paths;
mod pictures;
mod problem;
mod public_url;
mod query;
mod range;
mod route;
mod router;
mod serving;
mod session;
mod settings;
mod site;
mod submission;
mod submits;
mod tasks;
mod unread;
mod uploads;
mod words;

pub use openai::{aliases::ModelAlias, batches::BatchRunner};
pub use public_url::PublicUrl;
pub use router::{Parts, router};
pub use serving::{beside, web};
pub use settings::{Price, SiteSettings};
pub use tasks::Tasks;
