//! The whole farm in this process: coordinator, encoder service, a worker per cascade, and one gRPC
//! address. SQLite, a folder of artifacts and an in-memory queue, in one locked state folder.

mod cascades;
mod failures;
mod health;
mod own_key;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use darkroom_artifacts::{ArtifactStore, CascadeBundle};
use darkroom_coordinator::{Budget, Pools, store::sqlite::SqliteStore};
use darkroom_core::{error::UserError, id::WorkerId, key::Key};
use darkroom_farm_api::grpc;
use darkroom_queue::{
    TaskQueue,
    memory::{self, MemoryQueue},
    signing::Signer,
};
use darkroom_runtime::{
    credential::{Credential, Credentials, Source},
    disk::ByteSize,
    peer::Addresses,
    program, server,
    state_dir::StateDir,
    tls::{ClientSettings, Privacy},
};
use darkroom_web::SiteSettings;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub(crate) use cascades::demo_cascade;
use cascades::{load, named_cascade};
use failures::{full_at_start, in_folder, state_failure, storage_failure};
use health::{Lost, watch_storage};

use crate::{
    args::{DiskArgs, MachineArgs, Renderer},
    client::Client,
    failure::{self, Result},
};

/// How long a start waits until it is known how much the farm stores.
const COUNTED: Duration = Duration::from_secs(2);

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Whoever has a key. The farm has one of its own, in the state folder.
    Kept,
    /// Everybody.
    Open,
}

/// How long a farm runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// Until it is stopped. It waits for room on a full disk.
    Service,
    /// For one command, which does not wait on a full disk.
    Occasion,
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
    /// How much of the disk it may use.
    pub(crate) disk: DiskArgs,
    /// How it is reached and shown over HTTP.
    pub(crate) site: SiteSettings,
    /// Webhooks may lead to this machine and its network.
    pub(crate) webhook_private_addresses: bool,
    /// How long it runs.
    pub(crate) stay: Stay,
}

impl Options {
    /// A temporary farm for one command: a free port, and the cascade that the command names.
    pub(crate) fn for_occasion(
        state: &Path,
        cascade: Option<&str>,
        machine: MachineArgs,
        disk: DiskArgs,
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
            disk,
            site: SiteSettings::default(),
            webhook_private_addresses: false,
            stay: Stay::Occasion,
        })
    }
}

/// What a user is told at the start about the disk budget.
pub(crate) struct BudgetTold {
    /// The budget, and how much of it is used.
    pub(crate) line: String,
    /// Whether more than three quarters are used.
    pub(crate) nearly_used: bool,
}

/// A running farm.
pub(crate) struct Farm {
    address: String,
    /// Its own key; none if it is open.
    key: Option<Key>,
    cascades: Vec<String>,
    stop_serving: CancellationToken,
    serving: JoinHandle<std::result::Result<(), server::Error>>,
    site_tasks: darkroom_web::Tasks,
    stop_batches: CancellationToken,
    batches: JoinHandle<()>,
    worker: darkroom_worker::Handle,
    encoder: darkroom_encoder_service::Handle,
    coordinator: darkroom_coordinator::Handle,
    space: JoinHandle<Option<()>>,
    full: watch::Receiver<Option<UserError>>,
    budget: Option<Budget>,
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
                "this farm is open and other machines can reach it: anybody there can do everything; \
                 start it without --open to require keys"
            );
        }
        let queue: Arc<dyn TaskQueue> = Arc::new(MemoryQueue::new(memory::Options::default()));
        let cascades: Vec<_> = bundles.iter().map(|bundle| bundle.cascade().clone()).collect();
        let names = cascades.iter().map(|cascade| cascade.spec.name.clone()).collect();

        let coordinator = darkroom_coordinator::Coordinator::start(
            darkroom_coordinator::Options {
                resident_workers: true,
                makes_up: options.machine.renderer == Renderer::Fake,
                record_folder: Some(state.path().to_owned()),
                disk_floor: options.disk.disk_floor.map(|floor| floor.0),
                budget: options.disk.budget(),
                // A command ends too soon for a receiver that is slow.
                sends_webhooks: options.stay == Stay::Service,
                webhook_private_addresses: options.webhook_private_addresses,
                ..Default::default()
            },
            Arc::new(store),
            Arc::clone(&queue),
            artifacts.clone(),
            cascades,
        )
        .await
        .map_err(|error| in_folder(state.path(), error.to_user()))?;
        if let Some(full) = coordinator.full().filter(|_| options.stay == Stay::Occasion) {
            coordinator.shutdown().await;
            return Err(in_folder(state.path(), full_at_start(&full)));
        }
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
        let (site, site_tasks, batches) = darkroom_web::router(darkroom_web::Parts {
            farm: coordinator.calls(),
            admin: coordinator.admin_calls(),
            batches: coordinator.batches(),
            callers: callers.clone(),
            seals: coordinator.seals(),
            tls: listener.speaks_tls(),
            settings: options.site.clone(),
        });
        let around = |routes| darkroom_web::beside(grpc::behind(callers, routes), site);
        let services = ["darkroom.v1.Farm", "darkroom.v1.Admin", "darkroom.v1.Encoder"];
        let mut serve = darkroom_coordinator::server_options(&services);
        serve.web = Some(darkroom_web::web());
        let stop_serving = CancellationToken::new();
        let serving = server::serve_within(listener, routes, around, serve, stop_serving.clone());
        let (health, serving) = serving.await.map_err(|error| error.to_user())?;
        let serving = tokio::spawn(serving);
        let stop_batches = CancellationToken::new();
        let batches = tokio::spawn(batches.run(stop_batches.clone()));
        let (told, full) = watch::channel(None);
        let lost = Lost::of(&encoder, &worker);
        let disks = coordinator.clone();
        let disks = move || disks.full();
        let watched = (state.path().to_owned(), stored, disks);
        let space = watch_storage(watched, health, told, lost);
        let space = tokio::spawn(stop_serving.clone().run_until_cancelled_owned(space));
        state.publish(&address).map_err(state_failure)?;
        Ok(Self {
            address,
            key,
            cascades: names,
            stop_serving,
            serving,
            site_tasks,
            stop_batches,
            batches,
            worker,
            encoder,
            coordinator,
            space,
            full,
            budget: options.disk.budget(),
            _state: state,
        })
    }

    /// Where a client on this machine finds it, as `--farm` takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How much of its disk budget is used now; nothing if it has no budget.
    pub(crate) async fn budget_told(&self) -> Option<BudgetTold> {
        let budget = self.budget?;
        let stored = self.coordinator.stored_bytes(COUNTED).await;
        let used = match stored {
            Some(bytes) => format!("{} used", ByteSize(bytes)),
            None => "what is used is still being counted".to_owned(),
        };
        let most = ByteSize(budget.bytes);
        Some(BudgetTold {
            line: format!("disk budget {most}, {used}; --disk-budget SIZE changes it"),
            nearly_used: stored.is_some_and(|bytes| bytes > budget.bytes - budget.bytes / 4),
        })
    }

    /// Where a browser on this machine finds its page.
    pub(crate) fn page(&self) -> String {
        let scheme = if self.address.contains("://") { "" } else { "http://" };
        format!("{scheme}{}/", self.address)
    }

    /// The same, with the farm's own key, with which the page logs in; none if the farm is open.
    pub(crate) fn link(&self) -> Option<String> {
        self.key.as_ref().map(|key| format!("{}#key={}", self.page(), key.expose()))
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

    /// Resolves with an error when a disk stays full or artifacts cannot be stored. Work waits
    /// until they can.
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
        // Before the record is closed: a step that is under way is left, and done again.
        self.stop_batches.cancel();
        let batched = self.batches.await.map_err(failure::internal);
        let worked = self.worker.join().await;
        let encoded = self.encoder.join().await;
        self.coordinator.shutdown().await;
        self.stop_serving.cancel();
        let served = self.serving.await.map_err(failure::internal);
        let served = served.and_then(|served| served.map_err(|error| error.to_user()));
        self.site_tasks.end().await;
        let looked = self.space.await.map(drop).map_err(failure::internal);
        worked.and(encoded).and(served).and(looked).and(batched)
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
