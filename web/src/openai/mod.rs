//! OpenAI's image API, for clients that speak it: `/v1/images/generations`, `/v1/images/edits`,
//! `/v1/models`, `/v1/files` and `/v1/batches`.
//!
//! A request becomes a job of one prompt with priority `interactive`, whose pictures are the answer.
//! Handlers return the same errors as the rest of the site; [`dialect`] writes them in OpenAI's
//! shape. `docs/openai.md` describes the API for users.

pub(crate) mod aliases;
pub(crate) mod dialect;
pub(crate) mod fuzzed;

mod answer;
mod base64_stream;
pub(crate) mod batches;
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
mod refusals;
mod size;
mod spec;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{MethodRouter, get, post},
};
use darkroom_farm_api::{CallerLayer, Rule, Scope};

pub(crate) use self::{
    desk::Desk,
    paths::{EDITS, FILES, GENERATIONS},
};
use self::{paths::API, refusals::Refusals};
use crate::site::Site;

/// The routes.
pub(crate) fn routes(needing: impl Fn(Rule) -> CallerLayer) -> Router<Arc<Site>> {
    let (reads, submits) = (needing(Rule::Scope(Scope::Read)), needing(Rule::Scope(Scope::Submit)));
    let refusals = Arc::default();
    batches::routes(&reads, &submits)
        .route(GENERATIONS, making(post(images::generate), submits.clone(), &refusals))
        .route(EDITS, making(post(images::edit), submits, &refusals))
        .route(&format!("{API}/models"), get(models::list).layer(reads.clone()))
        .route(&format!("{API}/models/{{model}}"), get(models::show).layer(reads))
}

/// A route that makes pictures. Its refusals are seen outside the layer that finds out who calls,
/// because that layer refuses, too.
fn making<S: Clone + Send + Sync + 'static>(
    route: MethodRouter<S>,
    submits: CallerLayer,
    refusals: &Arc<Refusals>,
) -> MethodRouter<S> {
    let watched = middleware::from_fn_with_state(Arc::clone(refusals), refusals::watch);
    route.layer(submits).layer(watched)
}
