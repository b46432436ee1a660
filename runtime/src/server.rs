//! A gRPC server with everything that a service needs: health, reflection, deadlines, keep-alive, a
//! shutdown that lets running calls finish, and limits that one client cannot get around.
//!
//! The accept loop is our own: `accept` takes connections, `seats` decides who keeps one, `guard`
//! counts the running calls, and `budget` the memory of their messages. hyper serves each
//! connection, tonic each call. TLS begins in `connection`. Requests that are not gRPC pass the same
//! limits (`web`).

mod accept;
mod answer;
mod budget;
mod connection;
mod error;
mod framing;
mod guard;
mod health;
mod ledger;
mod options;
mod pace;
mod refusal;
mod seats;
mod web;

use std::{future::Future, sync::Arc};

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::Layer;

pub(crate) use self::web::OverWeb;
pub use self::{
    error::Error,
    guard::{BodyMemory, ClientAddress},
    health::Health,
    options::Options,
    web::{Web, WebBody, WebRequest, is_grpc},
};
use crate::deadline::DeadlineLayer;
pub use crate::listen::{Listen, Listener, listen};

/// Starts to serve `routes`, health and reflection on `listener`. The future runs until `shutdown`
/// is cancelled and all running calls have ended. [`Health`] starts as serving.
///
/// # Errors
/// [`Error::Reflection`] at once; the future ends with [`Error::Failed`] if a task of the server
/// panics.
pub async fn serve(
    listener: Listener,
    routes: Routes,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(Health, impl Future<Output = Result<(), Error>> + Send), Error> {
    serve_within(listener, routes, |all| all, options, shutdown).await
}

/// As [`serve`]; `around` puts a layer around all routes, those of health and reflection included.
///
/// # Errors
/// As [`serve`].
pub async fn serve_within(
    listener: Listener,
    routes: Routes,
    around: impl FnOnce(Routes) -> Routes,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(Health, impl Future<Output = Result<(), Error>> + Send), Error> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health =
        Health { reporter, services: Arc::new(options.services.clone()), trouble: Arc::default() };
    health.serving().await;

    let reflection = || {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        for descriptors in &options.descriptors {
            builder = builder.register_encoded_file_descriptor_set(descriptors);
        }
        builder
    };
    let routes = routes
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let routes = around(routes).prepare();

    let calls = DeadlineLayer::new(options.limits.clone()).layer(routes);
    let drain = options.drain;
    let door = accept::Door::new(options, calls);
    let leaving = health.clone();
    let serving = async move {
        let mut open = door.open(listener, &shutdown);
        shutdown.cancelled().await;
        leaving.not_serving("shutting down").await;
        let ended = async {
            let mut ended = Ok(());
            while let Some(joined) = open.join_next().await {
                ended = ended.and(joined);
            }
            door.emptied().await;
            ended
        };
        match tokio::time::timeout(drain, ended).await {
            Ok(ended) => Ok(ended?),
            Err(_) => {
                tracing::warn!(
                    drain_s = drain.as_secs(),
                    "calls still running at shutdown were cut"
                );
                door.cut();
                Ok(())
            }
        }
    };
    Ok((health, serving))
}

#[cfg(test)]
mod tests {
    use darkroom_proto::FILE_DESCRIPTOR_SET;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    use super::*;
    use crate::tls::Privacy;

    async fn started()
    -> (String, Health, CancellationToken, tokio::task::JoinHandle<Result<(), Error>>) {
        let listener = listen(&"127.0.0.1:0".parse().expect("address"), &Privacy::Loopback)
            .await
            .expect("listen");
        let address = format!("http://{}", listener.address());
        let shutdown = CancellationToken::new();
        let options = Options::new(FILE_DESCRIPTOR_SET, &["darkroom.v1.Farm"]);
        let (health, serving) =
            serve(listener, Routes::default(), options, shutdown.clone()).await.expect("serve");
        (address, health, shutdown, tokio::spawn(serving))
    }

    async fn channel(address: String) -> tonic::transport::Channel {
        let endpoint = tonic::transport::Endpoint::from_shared(address).expect("address");
        endpoint.connect().await.expect("connect")
    }

    #[tokio::test]
    async fn health_follows_what_the_process_says() {
        let (address, health, shutdown, serving) = started().await;
        let mut client = HealthClient::new(channel(address).await);
        let mut ask = async |service: &str| {
            let request = HealthCheckRequest { service: service.to_owned() };
            client.check(request).await.expect("known service").into_inner().status()
        };
        use tonic_health::pb::health_check_response::ServingStatus as Wire;
        assert_eq!(ask("darkroom.v1.Farm").await, Wire::Serving);
        health.not_serving("the store cannot be reached").await;
        assert_eq!(ask("darkroom.v1.Farm").await, Wire::NotServing);
        assert_eq!(ask("").await, Wire::NotServing);
        health.serving().await;
        assert_eq!(ask("").await, Wire::Serving);
        health.not_working("the queue cannot be reached").await;
        assert_eq!(
            (ask("").await, ask("darkroom.v1.Farm").await),
            (Wire::NotServing, Wire::Serving)
        );
        health.not_serving("draining").await;
        assert_eq!(ask("darkroom.v1.Farm").await, Wire::NotServing);
        health.serving().await;
        assert_eq!((ask("").await, ask("darkroom.v1.Farm").await), (Wire::Serving, Wire::Serving));
        drop(client);
        shutdown.cancel();
        serving.await.expect("joined").expect("ended well");
    }

    #[tokio::test]
    async fn reflection_tells_the_services() {
        let (address, _health, shutdown, serving) = started().await;
        let mut client = ServerReflectionClient::new(channel(address).await);
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await
            .expect("call")
            .into_inner();
        let answer = answers.message().await.expect("answer").expect("one").message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            panic!("no list of services: {answer:?}")
        };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        assert!(names.contains(&"darkroom.v1.Farm".to_owned()), "{names:?}");
        drop(answers);
        drop(client);
        shutdown.cancel();
        serving.await.expect("joined").expect("ended well");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_a_way_out() {
        let first = listen(&"127.0.0.1:0".parse().expect("address"), &Privacy::Loopback)
            .await
            .expect("listen");
        let address = first.address();
        let message =
            listen(&address.into(), &Privacy::Loopback).await.expect_err("taken").to_string();
        assert!(
            message.contains(&address.port().to_string()) && message.contains("--listen"),
            "{message}"
        );
    }
}
