//! gRPC health and reflection for a process that does no other work over gRPC.

use darkroom_core::error::UserError;
use darkroom_proto::FILE_DESCRIPTOR_SET;
use darkroom_runtime::{
    server::{self, Health, Listen},
    tls::Privacy,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Serves `routes`, health and reflection on `listen` until `stop`. `services` are the names that
/// health knows.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve_health(
    (listen, privacy): (&Listen, &Privacy),
    routes: Routes,
    services: &[&str],
    stop: CancellationToken,
) -> Result<(Health, JoinHandle<Result<(), server::Error>>), UserError> {
    let listener = server::listen(listen, privacy).await.map_err(|error| error.to_user())?;
    tracing::info!(address = %listener.address(), "listening");
    // A member has no record of keys to ask, so other machines get nothing that takes work.
    let routes = if listener.is_loopback() { routes } else { Routes::default() };
    let options = server::Options::new(FILE_DESCRIPTOR_SET, services);
    let (health, serving) =
        server::serve(listener, routes, options, stop).await.map_err(|error| error.to_user())?;
    Ok((health, tokio::spawn(serving)))
}
