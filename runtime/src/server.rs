//! A gRPC server with what every service owes its callers: health, reflection, deadlines, keep-alive, and an end that
//! lets running calls finish.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use darkroom_core::error::{Code, UserError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::deadline::{DeadlineLayer, Limits};

/// How often an idle connection is asked whether it lives, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Why a server did not start or did not last.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken.
    #[error("port {} of {} is in use by another process; stop that one, or name a free port with --listen {}:PORT (0 lets the system choose)", address.port(), address.ip(), address.ip())]
    PortInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The descriptors given for reflection are broken.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl Error {
    /// The same for a user, about the setting `listen`.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        let (code, reason) = match self {
            Self::PortInUse { .. } => (Code::FailedPrecondition, "PORT_IN_USE"),
            Self::Listen { .. } => (Code::InvalidArgument, "CANNOT_LISTEN"),
            Self::Reflection(_) | Self::Transport(_) => (Code::Internal, "SERVER_FAILED"),
        };
        UserError { field: Some("listen".to_owned()), ..UserError::new(code, reason, self.to_string()) }
    }
}

/// What to serve with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Encoded file descriptor sets, for reflection.
    pub descriptors: Vec<&'static [u8]>,
    /// Full names of the services, for health (`darkroom.v1.Farm`).
    pub services: Vec<String>,
    /// Deadlines of calls.
    pub limits: Limits,
    /// How long running calls may take after shutdown began; then they are cut.
    pub drain: Duration,
}

impl Options {
    /// Options for services of one descriptor set.
    #[must_use]
    pub fn new(descriptors: &'static [u8], services: &[&str]) -> Self {
        Self {
            descriptors: vec![descriptors],
            services: services.iter().map(|&name| name.to_owned()).collect(),
            limits: Limits::default(),
            drain: Duration::from_secs(10),
        }
    }
}

/// Listens on `address`; port 0 lets the system choose.
///
/// # Errors
/// [`Error::PortInUse`] or [`Error::Listen`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { address },
        _ => Error::Listen { address, source },
    })
}

/// Why something does not serve, and since when something is wrong.
struct Trouble {
    reason: String,
    since: Instant,
}

/// Whether the server's services can do their work, as gRPC health tells it. Clones share it.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: Arc<Vec<String>>,
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Health {
    /// That of a process which nobody can ask; its log tells.
    #[must_use]
    pub fn unasked() -> Self {
        Self { reporter: HealthReporter::new(), services: Arc::default(), trouble: Arc::default() }
    }

    /// Turns serving.
    pub async fn serving(&self) {
        if let Some(over) = self.trouble().take() {
            tracing::info!(after_s = over.since.elapsed().as_secs(), "serving again");
        }
        self.set(ServingStatus::Serving).await;
    }

    /// Turns not serving; the reason is logged when it changes.
    pub async fn not_serving(&self, reason: &str) {
        self.log(reason);
        self.set(ServingStatus::NotServing).await;
    }

    /// Turns the process as a whole not serving, for the sake of work that none of its services does: they go on. The
    /// reason is logged when it changes.
    pub async fn not_working(&self, reason: &str) {
        self.log(reason);
        self.reporter.set_service_status("", ServingStatus::NotServing).await;
    }

    fn log(&self, reason: &str) {
        let mut trouble = self.trouble();
        if trouble.as_ref().is_none_or(|trouble| trouble.reason != reason) {
            tracing::warn!(reason, "not serving");
            let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            *trouble = Some(Trouble { reason: reason.to_owned(), since });
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn set(&self, status: ServingStatus) {
        for service in self.services.iter() {
            self.reporter.set_service_status(service, status).await;
        }
        self.reporter.set_service_status("", status).await;
    }
}

/// Starts serving `routes`, health and reflection on `listener`. The future runs until `shutdown` is cancelled and
/// running calls ended; [`Health`] begins as serving.
///
/// # Errors
/// [`Error::Reflection`] at once; the future ends with [`Error::Transport`] when the listener fails.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(Health, impl Future<Output = Result<(), Error>> + Send), Error> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health { reporter, services: Arc::new(options.services), trouble: Arc::default() };
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

    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .layer(DeadlineLayer::new(options.limits))
        .add_routes(routes);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(KEEP_ALIVE));
    let leaving = health.clone();
    let drain = options.drain;
    let serving = async move {
        let stop = shutdown.clone();
        let server = router.serve_with_incoming_shutdown(incoming, async move {
            stop.cancelled().await;
            leaving.not_serving("shutting down").await;
        });
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => return Ok(ended?),
            () = shutdown.cancelled() => {}
        }
        match tokio::time::timeout(drain, server).await {
            Ok(ended) => Ok(ended?),
            Err(_) => {
                tracing::warn!(drain_s = drain.as_secs(), "calls still running at shutdown were cut");
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

    async fn started() -> (String, Health, CancellationToken, tokio::task::JoinHandle<Result<(), Error>>) {
        let listener = listen("127.0.0.1:0".parse().expect("address")).await.expect("listen");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
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
        assert_eq!((ask("").await, ask("darkroom.v1.Farm").await), (Wire::NotServing, Wire::Serving));
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
        let mut answers =
            client.server_reflection_info(tokio_stream::once(request)).await.expect("call").into_inner();
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
        let first = listen("127.0.0.1:0".parse().expect("address")).await.expect("listen");
        let address = first.local_addr().expect("bound");
        let message = listen(address).await.expect_err("taken").to_string();
        assert!(message.contains(&address.port().to_string()) && message.contains("--listen"), "{message}");
    }
}
