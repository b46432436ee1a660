//! `/v1/files` and `/v1/batches`: many requests in one file, which become jobs with priority
//! `batch`, and their results in another.

mod api;
mod bell;
mod files;
mod forms;
mod ids;
mod jobs;
mod line;
mod lines;
mod plan;
mod progress;
mod result_file;
mod result_line;
mod results;
mod runner;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use darkroom_farm_api::CallerLayer;

pub(crate) use self::bell::Bell;
pub use self::runner::BatchRunner;
use super::paths::{API, FILES};
use crate::site::Site;

/// The routes. `reads` and `submits` let in who may do so.
pub(super) fn routes(reads: &CallerLayer, submits: &CallerLayer) -> Router<Arc<Site>> {
    let both = |read: axum::routing::MethodRouter<Arc<Site>>,
                write: axum::routing::MethodRouter<Arc<Site>>| {
        read.layer(reads.clone()).merge(write.layer(submits.clone()))
    };
    Router::new()
        .route(FILES, both(get(files::list), post(files::create)))
        .route(
            &format!("{FILES}/{{file}}"),
            both(get(files::show), axum::routing::delete(files::delete)),
        )
        .route(&format!("{FILES}/{{file}}/content"), get(files::content).layer(reads.clone()))
        .route(&format!("{API}/batches"), both(get(api::list), post(api::create)))
        .route(&format!("{API}/batches/{{batch}}"), get(api::show).layer(reads.clone()))
        .route(&format!("{API}/batches/{{batch}}/cancel"), post(api::cancel).layer(submits.clone()))
}
