//! OpenAI's image API, for clients that speak it: `/v1/images/generations`, `/v1/images/edits` and
//! `/v1/models`.
//!
//! A request becomes a job of one prompt with priority `interactive`, whose pictures are the answer.
//! Handlers return the same errors as the rest of the site; [`dialect`] writes them in OpenAI's
//! shape. `docs/openai.md` describes the API for users.

pub(crate) mod aliases;
pub(crate) mod dialect;

mod answer;
mod base64_stream;
mod desk;
mod events;
mod fields;
mod fingerprint;
mod form;
mod images;
mod ledger;
mod mask;
mod models;
mod order;
mod paths;
mod placement;
mod progress;
mod quality;
mod size;
mod spec;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use darkroom_farm_api::{CallerLayer, Rule, Scope};

use self::paths::API;
pub(crate) use self::{
    desk::Desk,
    paths::{EDITS, GENERATIONS},
};
use crate::site::Site;

/// The routes.
pub(crate) fn routes(needing: impl Fn(Rule) -> CallerLayer) -> Router<Arc<Site>> {
    let (reads, submits) = (needing(Rule::Scope(Scope::Read)), needing(Rule::Scope(Scope::Submit)));
    Router::new()
        .route(GENERATIONS, post(images::generate).layer(submits.clone()))
        .route(EDITS, post(images::edit).layer(submits))
        .route(&format!("{API}/models"), get(models::list).layer(reads.clone()))
        .route(&format!("{API}/models/{{model}}"), get(models::show).layer(reads))
}
