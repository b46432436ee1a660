//! The whole farm in this process: coordinator, encoder service, a worker per cascade, and one gRPC
//! address. SQLite, a folder of artifacts and an in-memory queue, in one locked state folder.

mod own_key;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use darkroom_artifacts::{ArtifactStore, CascadeBundle};
use darkroom_coordinator::{Pools, store::sqlite::SqliteStore};
use darkroom_core::{
    error::{Code, UserError},
    id::WorkerId,
    key::Key,
};
use darkroom_farm_api::grpc;
use darkroom_queue::{
    TaskQueue,
    memory::{self, MemoryQueue},
    signing::Signer,
};
use darkroom_runtime::{
    credential::{Credential, Credentials, Source},
    peer::Addresses,
    program, server, state_dir,
    state_dir::StateDir,
    terminal::shown_path,
    tls::{ClientSettings, Privacy},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    args::{MachineArgs, Renderer},
    client::Client,
    failure::{self, Result},
};

/// How often a running farm checks its artifact folder.
const CHECK_SECONDS: u32 = 5;

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Whoever has a key. The farm has one of its own, in the state folder.
    Kept,
    /// Everybody.
    Open,
}

/// The farm to start.
#[derive(Debug)]
pub(crate) struct Options {
    /// Folder of its state.
    pub(crate) state: PathBuf,
    /// Address to listen on.
    pub(crate) listen: server::Listen,
    /// How what it serves there is kept private.
    pub(crate) privacy: Privacy,
    /// Who is let in.
    pub(crate) door: Door,
    /// Folders of the cascades to serve; the first is the default.
    pub(crate) cascades: Vec<PathBuf>,
    /// What it runs on.
    pub(crate) machine: MachineArgs,
}

impl Options {
    /// A temporary farm for one command: a free port, and the cascade that the command names.
    pub(crate) fn for_occasion(
        state: &Path,
        cascade: Option<&str>,
        machine: MachineArgs,
    ) -> Result<Self> {
        let cascade = match cascade {
            None => demo_cascade()?,
            Some(named) => named_cascade(named)?,
        };
        Ok(Self {
            state: state.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            privacy: Privacy::Loopback,
            door: Door::Kept,
            cascades: vec![cascade],
            machine,
        })
    }
}

/// Without a farm, a cascade is given as a folder, or as `demo`.
fn named_cascade(named: &str) -> Result<PathBuf> {
    let path = PathBuf::from(named);
    if path.is_dir() {
        return Ok(path);
    }
    if named == "demo" {
        return demo_cascade();
    }
    let mut failure = UserError::new(
        Code::NotFound,
        "UNKNOWN_CASCADE",
        format!("cascade is {named:?}; accepted: the folder of a cascade, or demo"),
    );
    failure.field = Some("cascade".to_owned());
    Err(failure)
}

/// The cascade that ships with the project: `models/demo` in the current folder or in a folder
/// above it or above the binary.
pub(crate) fn demo_cascade() -> Result<PathBuf> {
    let here = std::env::current_dir().into_iter();
    let binary = std::env::current_exe().into_iter();
    here.chain(binary)
        .flat_map(|start| {
            start.ancestors().map(|folder| folder.join("models/demo")).collect::<Vec<_>>()
        })
        .find(|folder| folder.join(darkroom_core::cascade::FILE_NAME).is_file())
        .ok_or_else(|| {
            let mut failure = UserError::new(
                Code::NotFound,
                "NO_CASCADE",
                "the demo cascade (models/demo) is neither in this folder nor above it or the \
                 program; name a cascade's folder with --cascade",
            );
            failure.field = Some("cascade".to_owned());
            failure
        })
}

/// A running farm.
pub(crate) struct Farm {
    address: String,
    /// Its own key; none if it is open.
    key: Option<Key>,
    cascades: Vec<String>,
    stop_serving: CancellationToken,
    serving: JoinHandle<std::result::Result<(), server::Error>>,
    worker: darkroom_worker::Handle,
    encoder: darkroom_encoder_service::Handle,
    coordinator: darkroom_coordinator::Handle,
    space: JoinHandle<Option<()>>,
    full: watch::Receiver<Option<UserError>>,
    _state: StateDir,
}

impl Farm {
    /// Takes the folder and the port, then starts every part. Models load in parallel.
    pub(crate) async fn start(options: Options) -> Result<Self> {
        let state = StateDir::open(&options.state).map_err(state_failure)?;
        let listener = server::listen(&options.listen, &options.privacy)
            .await
            .map_err(|error| error.to_user())?;
        let address = listener.farm();

        let bundles = load(options.cascades).await?;
        let artifacts = ArtifactStore::private(&state.path().join("artifacts"))
            .map_err(|error| in_folder(state.path(), storage_failure(&error)))?;
        artifacts.check().await.map_err(|error| in_folder(state.path(), error))?;
        let store = SqliteStore::open(&state.path().join("farm.sqlite"))
            .await
            .map_err(|error| in_folder(state.path(), error.to_user()))?;
        let key = match options.door {
            Door::Open => None,
            Door::Kept => {
                let key = own_key::own_key(state.path(), &store).await;
                Some(key.map_err(|error| in_folder(state.path(), error))?)
            }
        };
        if key.is_none() && !listener.is_loopback() {
            tracing::warn!(
                "this farm is open and other machines can reach it: whoever does may do everything; \
                 leave --open out to require keys"
            );
        }
        let queue: Arc<dyn TaskQueue> = Arc::new(MemoryQueue::new(memory::Options::default()));
        let cascades: Vec<_> = bundles.iter().map(|bundle| bundle.cascade().clone()).collect();
        let names = cascades.iter().map(|cascade| cascade.spec.name.clone()).collect();

        let coordinator = darkroom_coordinator::Coordinator::start(
            darkroom_coordinator::Options {
                resident_workers: true,
                makes_up: options.machine.renderer == Renderer::Fake,
                ..Default::default()
            },
            Arc::new(store),
            Arc::clone(&queue),
            artifacts.clone(),
            cascades,
        )
        .await
        .map_err(|error| in_folder(state.path(), error.to_user()))?;
        let stored = artifacts.clone();
        let parts = Parts {
            machine: options.machine,
            state: state.path().to_owned(),
            queue,
            artifacts,
            bundles,
            coordinator: coordinator.clone(),
        };
        let (encoder, worker) = tokio::try_join!(parts.encoder(), parts.worker())?;

        let routes = Routes::new(grpc::service(coordinator.calls()))
            .add_service(grpc::admin_service(coordinator.admin_calls()))
            .add_service(encoder.encoder_service());
        let callers = match options.door {
            Door::Open => coordinator.open_door(),
            Door::Kept => coordinator.kept_door(),
        };
        let around = |routes| grpc::behind(callers, routes);
        let services = ["darkroom.v1.Farm", "darkroom.v1.Admin", "darkroom.v1.Encoder"];
        let serve = darkroom_coordinator::server_options(&services);
        let stop_serving = CancellationToken::new();
        let serving = server::serve_within(listener, routes, around, serve, stop_serving.clone());
        let (health, serving) = serving.await.map_err(|error| error.to_user())?;
        let serving = tokio::spawn(serving);
        let (told, full) = watch::channel(None);
        let lost = Lost::of(&encoder, &worker);
        let space = watch_storage((state.path().to_owned(), stored), health, told, lost);
        let space = tokio::spawn(stop_serving.clone().run_until_cancelled_owned(space));
        state.publish(&address).map_err(state_failure)?;
        Ok(Self {
            address,
            key,
            cascades: names,
            stop_serving,
            serving,
            worker,
            encoder,
            coordinator,
            space,
            full,
            _state: state,
        })
    }

    /// Where a client on this machine finds it, as `--farm` takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Result<Client> {
        let addresses = Addresses::parse(&self.address)?;
        let own = |key: &Key| {
            let credential = Credential { key: key.clone(), source: Source::Own };
            Credentials::own(&addresses, &credential)
        };
        let keys = self.key.as_ref().map_or_else(Credentials::none, own);
        Client::new(&addresses, &ClientSettings::default(), &keys)
    }

    /// Names of the cascades it serves.
    pub(crate) fn cascades(&self) -> &[String] {
        &self.cascades
    }

    /// Resolves with an error when the disk of the state folder is full or artifacts cannot be
    /// stored. Work waits until they can.
    pub(crate) async fn full(&self) -> UserError {
        let mut full = self.full.clone();
        match full.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or_else(|| failure::internal("the disk is full")),
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets the parts finish in order: workers hand back what they cannot finish, results are
    /// committed, calls end.
    pub(crate) async fn shut_down(self) -> Result<()> {
        self.worker.shutdown();
        self.encoder.shutdown();
        let worked = self.worker.join().await;
        let encoded = self.encoder.join().await;
        self.coordinator.shutdown().await;
        self.stop_serving.cancel();
        let served = self.serving.await.map_err(failure::internal);
        let served = served.and_then(|served| served.map_err(|error| error.to_user()));
        let looked = self.space.await.map(drop).map_err(failure::internal);
        worked.and(encoded).and(served).and(looked)
    }
}

/// Resolves when a part that renders or encodes has stopped working.
struct Lost(Vec<Pin<Box<dyn Future<Output = &'static str> + Send>>>);

impl Lost {
    fn of(encoder: &darkroom_encoder_service::Handle, worker: &darkroom_worker::Handle) -> Self {
        let (no_encoder, no_worker) = (encoder.broken(), worker.broken());
        let drains = worker.drains();
        Self(vec![
            Box::pin(async move {
                no_encoder.await;
                "the encoder of this farm broke; see the log, and start the farm again"
            }),
            Box::pin(async move {
                no_worker.await;
                "the worker of this farm broke; see the log, and start the farm again"
            }),
            Box::pin(async move {
                drains.await;
                "the worker of this farm is draining"
            }),
        ])
    }

    /// Why no work is done any more.
    async fn any(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            let ended = self.0.iter_mut().find_map(|part| match part.as_mut().poll(cx) {
                Poll::Ready(why) => Some(why),
                Poll::Pending => None,
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Watches the disk of the state folder, its artifacts and the working parts. If the farm cannot
/// store its results, health says "not serving" until it can again. If it has lost a part, health
/// says "not serving" until it is restarted.
async fn watch_storage(
    (state, artifacts): (PathBuf, ArtifactStore),
    health: server::Health,
    told: watch::Sender<Option<UserError>>,
    mut lost: Lost,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut unusable = None;
    for tick in 0_u32.. {
        tokio::select! {
            why = lost.any() => {
                health.not_serving(why).await;
                told.send_replace(Some(UserError::new(Code::Internal, "PART_BROKEN", why)));
                return;
            }
            _ = ticks.tick() => {}
        }
        if tick % CHECK_SECONDS == CHECK_SECONDS - 1 {
            unusable = artifacts.check().await.err().map(|failure| in_folder(&state, failure));
        }
        let failure =
            state_dir::check_space(&state).err().map(state_failure).or_else(|| unusable.clone());
        match &failure {
            Some(failure) => health.not_serving(&failure.message).await,
            None if told.borrow().is_some() => health.serving().await,
            None => {}
        }
        told.send_if_modified(|before| std::mem::replace(before, failure.clone()) != failure);
    }
}

/// Options of the encoder and the worker.
struct Parts {
    machine: MachineArgs,
    state: PathBuf,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    bundles: Vec<CascadeBundle>,
    coordinator: darkroom_coordinator::Handle,
}

impl Parts {
    /// What a part signs its results with, as a worker of another process does.
    fn signer(&self, of: Pools) -> Signer {
        let worker = WorkerId::fresh(&program::host_name());
        self.coordinator.signer(worker, self.coordinator.pools(of))
    }

    async fn encoder(&self) -> Result<darkroom_encoder_service::Handle> {
        let options = darkroom_encoder_service::Options {
            host: program::host_name(),
            signer: self.signer(Pools::Texts),
            machine: darkroom_encoder_service::Machine {
                device: self.machine.device.clone(),
                threads: self.machine.threads,
            },
            ..Default::default()
        };
        let (queue, artifacts) = (Arc::clone(&self.queue), self.artifacts.clone());
        let stop = CancellationToken::new();
        match self.machine.renderer {
            Renderer::Model => {
                darkroom_encoder_service::start(options, queue, artifacts, &self.bundles, stop)
                    .await
            }
            Renderer::Fake => {
                darkroom_encoder_service::start_fake(options, queue, artifacts, &self.bundles, stop)
                    .await
            }
        }
    }

    async fn worker(&self) -> Result<darkroom_worker::Handle> {
        let options = darkroom_worker::Options {
            host: program::host_name(),
            signer: self.signer(Pools::Images),
            machine: darkroom_worker::Machine {
                device: self.machine.device.clone(),
                dtype: self.machine.dtype.clone(),
                threads: self.machine.threads,
                eager: self.machine.eager,
                model_memory: self
                    .machine
                    .model_memory_mib
                    .map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
            },
            batch: self.machine.batch,
            cache: Some(self.state.join("cache")),
            ..Default::default()
        };
        let (queue, artifacts) = (Arc::clone(&self.queue), self.artifacts.clone());
        let stop = CancellationToken::new();
        match self.machine.renderer {
            Renderer::Model => {
                darkroom_worker::start(options, queue, artifacts, &self.bundles, stop).await
            }
            Renderer::Fake => {
                let fake = darkroom_worker::FakeOptions {
                    step: Duration::from_millis(self.machine.fake_step_ms),
                    failing_seeds: self.machine.fake_failing_seed.clone(),
                    ..Default::default()
                };
                darkroom_worker::start_fake(options, fake, queue, artifacts, &self.bundles, stop)
                    .await
            }
        }
    }
}

/// Hashes the cascades' files, and refuses two cascades with the same name.
async fn load(folders: Vec<PathBuf>) -> Result<Vec<CascadeBundle>> {
    let load = move || {
        let bundles = folders.iter().map(|folder| CascadeBundle::load(folder));
        CascadeBundle::distinct(bundles.collect::<Result<_>>()?)
    };
    tokio::task::spawn_blocking(load).await.map_err(failure::internal)?
}

fn state_failure(error: state_dir::Error) -> UserError {
    let mut failure = match &error {
        state_dir::Error::InUse { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_IN_USE", error.to_string())
        }
        state_dir::Error::NoLocks { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_NO_LOCKS", error.to_string())
        }
        state_dir::Error::Elsewhere { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_ELSEWHERE", error.to_string())
        }
        state_dir::Error::Foreign { .. } => {
            UserError::new(Code::FailedPrecondition, "STATE_FOREIGN", error.to_string())
        }
        state_dir::Error::Full { .. } => {
            UserError::new(Code::ResourceExhausted, "DISK_FULL", error.to_string())
        }
        state_dir::Error::Io { path, source } => {
            failure::file("state", "use the state folder", path, source)
        }
    };
    failure.field = Some("state".to_owned());
    failure
}

fn storage_failure(error: &darkroom_artifacts::Error) -> UserError {
    let code = match error {
        darkroom_artifacts::Error::NoSpace { .. } => Code::ResourceExhausted,
        darkroom_artifacts::Error::Unusable { .. } => Code::FailedPrecondition,
        error if error.retryable() => Code::Unavailable,
        _ => Code::Internal,
    };
    UserError::new(code, "ARTIFACTS_UNUSABLE", failure::with_causes(error))
}

/// An error about something in the state folder; its message names the folder.
fn in_folder(state: &Path, failure: UserError) -> UserError {
    let message = if failure.message.contains(&shown_path(state)) {
        failure.message
    } else {
        format!("state folder {}: {}", shown_path(state), failure.message)
    };
    UserError { message, ..failure }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };

    use super::*;

    /// A server without services, and the watch of a farm whose worker breaks on request.
    struct Watched {
        _folder: tempfile::TempDir,
        address: SocketAddr,
        breaks: tokio::sync::oneshot::Sender<()>,
        told: watch::Receiver<Option<UserError>>,
        watching: JoinHandle<()>,
        stop: CancellationToken,
    }

    async fn watched() -> Watched {
        let folder = tempfile::tempdir().expect("a folder");
        let artifacts = ArtifactStore::local(&folder.path().join("artifacts")).expect("artifacts");
        let listener =
            server::listen(&SocketAddr::from(([127, 0, 0, 1], 0)).into(), &Privacy::Loopback)
                .await
                .expect("a port");
        let address = listener.reachable();
        let options =
            darkroom_coordinator::server_options(&["darkroom.v1.Farm", "darkroom.v1.Encoder"]);
        let stop = CancellationToken::new();
        let served = server::serve(listener, Routes::default(), options, stop.clone()).await;
        let (health, serving) = served.expect("serves");
        tokio::spawn(serving);
        let (breaks, broken) = tokio::sync::oneshot::channel();
        let lost = Lost(vec![
            Box::pin(std::future::pending()),
            Box::pin(async move {
                broken.await.expect("told");
                "the worker of this farm broke; see the log, and start the farm again"
            }),
        ]);
        let (tell, told) = watch::channel(None);
        let watching =
            tokio::spawn(watch_storage((folder.path().to_owned(), artifacts), health, tell, lost));
        Watched { _folder: folder, address, breaks, told, watching, stop }
    }

    async fn health(address: SocketAddr, service: &str) -> ServingStatus {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let mut client = HealthClient::new(endpoint.connect().await.expect("connects"));
        let ask = HealthCheckRequest { service: service.to_owned() };
        client.check(ask).await.expect("answered").into_inner().status()
    }

    #[tokio::test]
    async fn a_part_that_broke_turns_health_for_good_and_ends_who_waits_for_the_farm() {
        let mut farm = watched().await;
        let services = ["", "darkroom.v1.Farm", "darkroom.v1.Encoder"];
        for service in services {
            assert_eq!(health(farm.address, service).await, ServingStatus::Serving, "{service:?}");
        }
        farm.breaks.send(()).expect("it is watched");
        let told =
            farm.told.wait_for(Option::is_some).await.expect("told").clone().expect("a failure");
        assert_eq!((told.code, told.reason.as_str()), (Code::Internal, "PART_BROKEN"));
        assert!(told.message.contains("the worker of this farm broke"), "{}", told.message);
        // Nothing can turn it back, although disk and storage work.
        farm.watching.await.expect("the watch is over");
        for service in services {
            assert_eq!(
                health(farm.address, service).await,
                ServingStatus::NotServing,
                "{service:?}"
            );
        }
        farm.stop.cancel();
    }

    #[tokio::test]
    async fn a_worker_that_drains_is_a_part_that_works_no_more() {
        let queue: Arc<dyn TaskQueue> = Arc::new(MemoryQueue::new(memory::Options::default()));
        let folder = tempfile::tempdir().expect("a folder");
        let artifacts = ArtifactStore::local(folder.path()).expect("artifacts");
        let bundles = load(vec![demo_cascade().expect("the demo")]).await.expect("loads");
        let stop = CancellationToken::new();
        let encoder = darkroom_encoder_service::start_fake(
            darkroom_encoder_service::Options::default(),
            Arc::clone(&queue),
            artifacts.clone(),
            &bundles,
            stop.clone(),
        );
        let worker = darkroom_worker::start_fake(
            darkroom_worker::Options::default(),
            darkroom_worker::FakeOptions::default(),
            queue,
            artifacts,
            &bundles,
            stop.clone(),
        );
        let (encoder, worker) = (encoder.await.expect("starts"), worker.await.expect("starts"));
        let mut lost = Lost::of(&encoder, &worker);
        let nothing = tokio::time::timeout(Duration::from_millis(100), lost.any()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        worker.shutdown();
        assert_eq!(lost.any().await, "the worker of this farm is draining");
        worker.join().await.expect("ends");
        encoder.shutdown();
        encoder.join().await.expect("ends");
    }
}
