//! The whole farm in this process: coordinator, encoder service, a worker per cascade, one gRPC address; SQLite, a
//! folder of artifacts and an in-memory queue under one locked state folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use darkroom_artifacts::{ArtifactStore, CascadeBundle};
use darkroom_coordinator::store::sqlite::SqliteStore;
use darkroom_core::error::{Code, UserError};
use darkroom_queue::{
    TaskQueue,
    memory::{self, MemoryQueue},
};
use darkroom_runtime::{program, server, state_dir, state_dir::StateDir, terminal::shown_path};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{MachineArgs, Renderer},
    failure::{self, Result},
};

/// How often a running farm tries its artifact folder out.
const CHECK_SECONDS: u32 = 5;

/// A farm to start.
#[derive(Debug)]
pub(crate) struct Options {
    /// Folder of its state.
    pub(crate) state: PathBuf,
    /// Address to listen on.
    pub(crate) listen: server::Listen,
    /// Folders of the cascades to serve; the first is the default.
    pub(crate) cascades: Vec<PathBuf>,
    /// What it runs on.
    pub(crate) machine: MachineArgs,
}

impl Options {
    /// A farm for one command: a free port, and the cascade that the command names.
    pub(crate) fn for_occasion(state: &Path, cascade: Option<&str>, machine: MachineArgs) -> Result<Self> {
        let cascade = match cascade {
            None => demo_cascade()?,
            Some(named) => named_cascade(named)?,
        };
        Ok(Self {
            state: state.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            cascades: vec![cascade],
            machine,
        })
    }
}

/// Without a farm a cascade is a folder, or the demo cascade by its name.
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

/// The cascade that ships with the project: `models/demo` of a folder above the current one or above the binary.
pub(crate) fn demo_cascade() -> Result<PathBuf> {
    let here = std::env::current_dir().into_iter();
    let binary = std::env::current_exe().into_iter();
    here.chain(binary)
        .flat_map(|start| start.ancestors().map(|folder| folder.join("models/demo")).collect::<Vec<_>>())
        .find(|folder| folder.join(darkroom_core::cascade::FILE_NAME).is_file())
        .ok_or_else(|| {
            let mut failure = UserError::new(
                Code::NotFound,
                "NO_CASCADE",
                "the demo cascade (models/demo) is not here nor above the program; name a cascade's folder with --cascade",
            );
            failure.field = Some("cascade".to_owned());
            failure
        })
}

/// A running farm.
pub(crate) struct Farm {
    address: SocketAddr,
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
    /// Takes the folder and the port, then starts every part; models load side by side.
    pub(crate) async fn start(options: Options) -> Result<Self> {
        let state = StateDir::open(&options.state).map_err(state_failure)?;
        let listener = server::listen(&options.listen).await.map_err(|error| error.to_user())?;
        let address = listener.reachable();

        let bundles = load(options.cascades).await?;
        let artifacts = ArtifactStore::local(&state.path().join("artifacts"))
            .map_err(|error| in_folder(state.path(), storage_failure(&error)))?;
        artifacts.check().await.map_err(|error| in_folder(state.path(), error))?;
        let store = SqliteStore::open(&state.path().join("farm.sqlite"))
            .await
            .map_err(|error| in_folder(state.path(), error.to_user()))?;
        let queue: Arc<dyn TaskQueue> = Arc::new(MemoryQueue::new(memory::Options::default()));
        let cascades: Vec<_> = bundles.iter().map(|bundle| bundle.cascade().clone()).collect();
        let names = cascades.iter().map(|cascade| cascade.spec.name.clone()).collect();

        let coordinator = darkroom_coordinator::Coordinator::start(
            darkroom_coordinator::Options { resident_workers: true, ..Default::default() },
            Arc::new(store),
            Arc::clone(&queue),
            artifacts.clone(),
            cascades,
        )
        .await
        .map_err(|error| in_folder(state.path(), error.to_user()))?;
        let stored = artifacts.clone();
        let parts =
            Parts { machine: options.machine, state: state.path().to_owned(), queue, artifacts, bundles };
        let (encoder, worker) = tokio::try_join!(parts.encoder(), parts.worker())?;

        let routes = coordinator.routes().add_service(encoder.encoder_service());
        let services = ["darkroom.v1.Farm", "darkroom.v1.Encoder"];
        let serve = darkroom_coordinator::server_options(&services);
        let stop_serving = CancellationToken::new();
        let (health, serving) = server::serve(listener, routes, serve, stop_serving.clone())
            .await
            .map_err(|error| error.to_user())?;
        let serving = tokio::spawn(serving);
        let (told, full) = watch::channel(None);
        let lost = Lost::of(&encoder, &worker);
        let space = watch_storage((state.path().to_owned(), stored), health, told, lost);
        let space = tokio::spawn(stop_serving.clone().run_until_cancelled_owned(space));
        state.publish(&address.to_string()).map_err(state_failure)?;
        Ok(Self {
            address,
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

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names of the cascades it serves.
    pub(crate) fn cascades(&self) -> &[String] {
        &self.cascades
    }

    /// Ends when the disk of the state folder is full or its artifacts cannot be stored, with what to say about it. Work
    /// waits until they can.
    pub(crate) async fn full(&self) -> UserError {
        let mut full = self.full.clone();
        match full.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or_else(|| failure::internal("the disk is full")),
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets the parts finish in order: workers hand back what they cannot finish, results are committed, calls end.
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

/// Ends when a part that renders or encodes is no longer at work.
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

/// Looks after the disk of the state folder, the artifacts in it and the parts that work: a farm that cannot store what it
/// makes says that it does not serve, and serves again by itself; one that has lost a part says so for good.
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
        let failure = state_dir::check_space(&state).err().map(state_failure).or_else(|| unusable.clone());
        match &failure {
            Some(failure) => health.not_serving(&failure.message).await,
            None if told.borrow().is_some() => health.serving().await,
            None => {}
        }
        told.send_if_modified(|before| std::mem::replace(before, failure.clone()) != failure);
    }
}

/// What encoder and worker are started with.
struct Parts {
    machine: MachineArgs,
    state: PathBuf,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    bundles: Vec<CascadeBundle>,
}

impl Parts {
    async fn encoder(&self) -> Result<darkroom_encoder_service::Handle> {
        let options = darkroom_encoder_service::Options {
            host: program::host_name(),
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
                darkroom_encoder_service::start(options, queue, artifacts, &self.bundles, stop).await
            }
            Renderer::Fake => {
                darkroom_encoder_service::start_fake(options, queue, artifacts, &self.bundles, stop).await
            }
        }
    }

    async fn worker(&self) -> Result<darkroom_worker::Handle> {
        let options = darkroom_worker::Options {
            host: program::host_name(),
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
            Renderer::Model => darkroom_worker::start(options, queue, artifacts, &self.bundles, stop).await,
            Renderer::Fake => {
                let fake = darkroom_worker::FakeOptions {
                    step: Duration::from_millis(self.machine.fake_step_ms),
                    failing_seeds: self.machine.fake_failing_seed.clone(),
                    ..Default::default()
                };
                darkroom_worker::start_fake(options, fake, queue, artifacts, &self.bundles, stop).await
            }
        }
    }
}

/// Hashes the cascades' files, and refuses two of one name.
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
        state_dir::Error::Full { .. } => {
            UserError::new(Code::ResourceExhausted, "DISK_FULL", error.to_string())
        }
        state_dir::Error::Io { path, source } => failure::file("state", "use the state folder", path, source),
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

/// A failure of something in the state folder, which it names.
fn in_folder(state: &Path, failure: UserError) -> UserError {
    let message = if failure.message.contains(&shown_path(state)) {
        failure.message
    } else {
        format!("state folder {}: {}", shown_path(state), failure.message)
    };
    UserError { message, ..failure }
}
