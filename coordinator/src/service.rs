//! The coordinator as one thing: options in, a handle out, every task of it joined at the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use darkroom_artifacts::ArtifactStore;
use darkroom_core::{
    cascade::Cascade,
    error::{Code, UserError},
    guard::{Guard, stands},
};
use darkroom_queue::TaskQueue;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use crate::{
    api, committer, conduct,
    counters::Counters,
    crew::{Crew, LatestCrew},
    dispatcher,
    events::Events,
    finisher, follower, limits,
    openings::Openings,
    rates::{self, LatestRates},
    reaper,
    store::{
        self, Store,
        records::{Committed, Term},
    },
    tasks::Cascades,
};

/// Pictures that are looked at at a time.
const UPLOADS: usize = 4;
/// Memory that pictures being decoded may take together, MiB: one of the largest, or many small ones.
pub(crate) const DECODING_MIB: usize = 1024;

/// Submits whose prompts are looked at at a time: half of the cores, so that the other half answers calls.
fn preparers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}

/// Timings and shares.
#[derive(Clone, Debug)]
pub struct Options {
    /// A lease that was not renewed for so long is over, where the farm's record does not say otherwise. The workers'
    /// heartbeats must come well within it.
    pub lease: Duration,
    /// How often expired leases are looked for.
    pub reap: Duration,
    /// How often SQL and the queue are compared; a lost task is ready again after two passes.
    pub sweep: Duration,
    /// How often each part looks for work that nobody woke it for.
    pub poll: Duration,
    /// A worker that was not announced for so long does not count.
    pub worker_ttl: Duration,
    /// A streaming submit without a chunk for so long is given up.
    pub receiving_idle: Duration,
    /// Time limit of a unary call.
    pub call: Duration,
    /// Time limit of a unary submit.
    pub submit: Duration,
    /// Least time between two events of one watcher; changes in between are folded.
    pub watch_interval: Duration,
    /// With so many failures, deaths among them, a worker's death ends an image; none: by the rules for failures.
    pub worker_deaths: Option<u32>,
    /// A watch that is quiet for so long repeats the job at its version: proxies cut streams on which nothing comes.
    pub watch_repeat: Duration,
    /// Workers and encoder are parts of this process: nobody may drain them, because none could take their place.
    pub resident_workers: bool,
    /// Weights of tenants in the fair share; 1 where absent.
    pub tenant_weights: BTreeMap<String, f64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            reap: Duration::from_secs(1),
            sweep: Duration::from_secs(2),
            poll: Duration::from_millis(250),
            worker_ttl: Duration::from_secs(10),
            receiving_idle: Duration::from_secs(600),
            call: Duration::from_secs(30),
            submit: Duration::from_secs(120),
            watch_interval: Duration::from_millis(50),
            worker_deaths: None,
            watch_repeat: Duration::from_secs(20),
            resident_workers: false,
            tenant_weights: BTreeMap::new(),
        }
    }
}

/// Why the coordinator, or a part of it, could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] darkroom_queue::Error),
    /// Object storage.
    #[error(transparent)]
    Artifacts(#[from] darkroom_artifacts::Error),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] darkroom_artifacts::manifest::Error),
    /// A temporary file.
    #[error("a temporary file failed: {0}")]
    File(#[from] std::io::Error),
    /// The change may have been made, or not; the sentence says how to find out.
    #[error(transparent)]
    Unsure(UserError),
    /// A fault of ours.
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.retryable(),
            Self::Queue(error) => error.retryable(),
            Self::Artifacts(error) => error.retryable(),
            Self::Manifest(_) | Self::File(_) => true,
            Self::Unsure(_) | Self::Other(_) => false,
        }
    }

    /// Logs a fault of ours, of which a user is only told that the log has it.
    pub(crate) fn log(&self) {
        if self.to_user().code == Code::Internal {
            tracing::error!(error = self as &dyn std::error::Error, "the coordinator failed");
        }
    }

    /// The error as a user should see it.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        match self {
            Self::Store(error) => error.to_user(),
            Self::Unsure(error) => error.clone(),
            Self::Artifacts(error) => error.to_user(),
            error if error.retryable() => UserError::new(Code::Unavailable, "UNAVAILABLE", error.to_string()),
            error => UserError::new(Code::Internal, "INTERNAL", error.to_string()),
        }
    }
}

/// How long a leader waits for the queue before it gives way: another one leads that much sooner than at its term's end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What all parts share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) store: Arc<dyn Store>,
    /// The record for those who ask over gRPC: no bulk is before them in its line for a connection.
    pub(crate) front: Arc<dyn Store>,
    pub(crate) queue: Arc<dyn TaskQueue>,
    pub(crate) artifacts: ArtifactStore,
    pub(crate) cascades: Cascades,
    pub(crate) events: Events,
    pub(crate) crew: LatestCrew,
    pub(crate) rates: LatestRates,
    pub(crate) openings: Openings,
    pub(crate) counters: Counters,
    /// Turns of those whose prompts are looked at.
    pub(crate) preparing: Arc<tokio::sync::Semaphore>,
    /// Turns of those who send pictures.
    pub(crate) uploads: tokio::sync::Semaphore,
    /// Memory in which pictures are decoded, MiB.
    pub(crate) decoding: Arc<tokio::sync::Semaphore>,
    /// This process, as leader and as committer.
    pub(crate) holder: String,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// The term in which this coordinator leads, as it last knew.
    leading: Mutex<Option<Term>>,
    /// When the queue last answered one who would lead.
    reached: Mutex<Instant>,
    /// What each failing part last said.
    failing: Mutex<BTreeMap<String, Failing>>,
}

/// What a failing part last said.
struct Failing {
    said: String,
    /// Whether it is the record that fails, or the way to it.
    store: bool,
}

impl Failing {
    fn of(error: &Error) -> Self {
        let store = matches!(error, Error::Store(error) if error.retryable());
        // What a store says in general has its cause below it.
        let said = match std::error::Error::source(error) {
            Some(cause) if matches!(error, Error::Store(_)) => format!("{error}: {cause}"),
            _ => error.to_string(),
        };
        Self { said, store }
    }
}

impl Shared {
    /// Tells everybody what a transaction changed.
    pub(crate) fn committed(&self, committed: &Committed) {
        self.events.changed(&committed.jobs);
        if !committed.finished.is_empty() {
            self.events.changed(&committed.finished);
            self.events.finish.notify_one();
        }
    }

    /// The workers as they announced themselves just now.
    pub(crate) async fn read_crew(&self) -> Result<Arc<Crew>, Error> {
        if let Some(crew) = self.crew.young() {
            return Ok(crew);
        }
        Ok(self.crew.set(Crew::new(self.queue.workers(self.options.worker_ttl).await?)))
    }

    /// Takes or renews the leadership, if the queue can be reached: a leader that is cut off from it must not keep
    /// those from leading who are not, and after a while gives way to them.
    pub(crate) async fn lead(&self) -> Result<Option<Term>, Error> {
        let asked = Instant::now();
        if let Err(error) = self.read_crew().await {
            self.give_way(asked).await;
            return Err(error);
        }
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        let term = self.store.lead(&self.holder).await?;
        let before =
            std::mem::replace(&mut *self.leading.lock().unwrap_or_else(PoisonError::into_inner), term);
        match (before, term) {
            (None, Some(term)) => tracing::info!(holder = self.holder, term = term.0, "leads the farm"),
            (Some(term), None) => tracing::info!(term = term.0, "leads the farm no more"),
            _ => {}
        }
        Ok(term)
    }

    /// Gives the leadership up where the queue has been out of reach for too long.
    async fn give_way(&self, asked: Instant) {
        let reached = *self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        // From the beginning of the question: its answer may have taken its time.
        if asked.saturating_duration_since(reached) < PATIENCE {
            return;
        }
        let led = self.leading.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(term) = led else { return };
        tracing::warn!(term = term.0, "leads the farm no more: the queue is out of reach");
        if let Err(error) = self.store.resign(&self.holder).await {
            tracing::warn!(%error, "leadership was not given up; it ends by itself");
        }
    }

    /// How long a lease lasts: the farm's record says it, so that a coordinator that was started with another one robs
    /// nobody.
    pub(crate) async fn lease(&self) -> Result<Duration, Error> {
        let agreed = self.store.lease().await?.filter(|_| stands(Guard::LeaseAgreed));
        Ok(agreed.unwrap_or(self.options.lease))
    }

    /// Waits, but not past shutdown.
    pub(crate) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Logs a part's failure when it begins, not at each repetition.
    pub(crate) fn failed(&self, part: &str, error: &Error) {
        if let Error::Store(store::Error::NotLeading(term)) = error {
            tracing::info!(part, term, "another coordinator leads by now");
            return;
        }
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.insert(part.to_owned(), Failing::of(error)).is_none() {
            tracing::error!(
                part,
                error = error as &dyn std::error::Error,
                "coordinator part fails; it keeps trying"
            );
        }
    }

    /// Logs the end of a part's failures.
    pub(crate) fn healed(&self, part: &str) {
        if self.failing.lock().unwrap_or_else(PoisonError::into_inner).remove(part).is_some() {
            tracing::info!(part, "coordinator part works again");
        }
    }
}

/// The coordinator.
#[derive(Debug)]
pub struct Coordinator;

impl Coordinator {
    /// Recovers what an earlier process left, and starts every part.
    ///
    /// # Errors
    /// If the record or the queue cannot be used.
    pub async fn start(
        options: Options,
        store: Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        artifacts: ArtifactStore,
        cascades: Vec<Cascade>,
    ) -> Result<Handle, Error> {
        let front = Arc::clone(&store);
        Self::start_fronted(options, store, front, queue, artifacts, cascades).await
    }

    /// As [`start`](Self::start), where calls are answered from `front`: the same record over connections of its own.
    ///
    /// # Errors
    /// If the record or the queue cannot be used.
    pub async fn start_fronted(
        options: Options,
        store: Arc<dyn Store>,
        front: Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        artifacts: ArtifactStore,
        cascades: Vec<Cascade>,
    ) -> Result<Handle, Error> {
        let started = Self::start_parts(options, store, front, queue, artifacts, cascades).await;
        started.inspect_err(Error::log)
    }

    async fn start_parts(
        options: Options,
        store: Arc<dyn Store>,
        front: Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        artifacts: ArtifactStore,
        cascades: Vec<Cascade>,
    ) -> Result<Handle, Error> {
        store.set_lease(None, options.lease).await?;
        for cascade in &cascades {
            store.register_cascade(cascade).await?;
        }
        let shared = Arc::new(Shared {
            options,
            store,
            front,
            queue,
            artifacts,
            cascades: Cascades::new(cascades),
            events: Events::default(),
            crew: LatestCrew::default(),
            rates: LatestRates::default(),
            openings: Openings::default(),
            counters: Counters::default(),
            preparing: Arc::new(tokio::sync::Semaphore::new(preparers())),
            uploads: tokio::sync::Semaphore::new(UPLOADS),
            decoding: Arc::new(tokio::sync::Semaphore::new(DECODING_MIB)),
            holder: format!("coordinator-{}", uuid::Uuid::new_v4().simple()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            leading: Mutex::default(),
            reached: Mutex::new(Instant::now()),
            failing: Mutex::default(),
        });
        // Nothing of this process is on its way to the queue yet, so two passes at once tell what it does not have. What
        // another coordinator was about to add then runs twice, which costs work and loses none.
        let mut missing = reaper::Missing::default();
        reaper::sweep(&shared, &mut missing).await?;
        reaper::sweep(&shared, &mut missing).await?;
        shared.tasks.spawn(dispatcher::run(Arc::clone(&shared)));
        shared.tasks.spawn(dispatcher::listen(Arc::clone(&shared)));
        shared.tasks.spawn(follower::run(Arc::clone(&shared)));
        shared.tasks.spawn(finisher::run(Arc::clone(&shared)));
        shared.tasks.spawn(limits::run(Arc::clone(&shared)));
        shared.tasks.spawn(conduct::run(Arc::clone(&shared)));
        shared.tasks.spawn(rates::run(Arc::clone(&shared)));
        shared.tasks.spawn(reaper::run_reaper(Arc::clone(&shared)));
        shared.tasks.spawn(reaper::run_sweeper(Arc::clone(&shared)));
        for pool in shared.cascades.pools() {
            shared.tasks.spawn(committer::run(Arc::clone(&shared), pool));
        }
        Ok(Handle { shared })
    }
}

/// A running coordinator.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The gRPC service, to be served beside others.
    #[must_use]
    pub fn routes(&self) -> Routes {
        Routes::new(api::farm_server(Arc::clone(&self.shared)))
    }

    /// What it counted since start-up.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What keeps the farm from working, if something does: what the first of the failing parts last said.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let failing = self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner);
        // Without the others' hints work is found by polling.
        let mut serious = failing.iter().filter(|(part, _)| *part != dispatcher::LISTEN);
        serious.next().map(|(part, failing)| format!("{part}: {}", failing.said))
    }

    /// Whether a part fails because the record cannot be reached.
    #[must_use]
    pub fn store_fails(&self) -> bool {
        let failing = self.shared.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.values().any(|failing| failing.store)
    }

    /// Ends every part and stream, waits for them, and closes the record. What was accepted stays.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        if let Err(error) = self.shared.store.resign(&self.shared.holder).await {
            tracing::warn!(%error, "leadership was not given up; it ends by itself");
        }
        self.shared.front.close().await;
        self.shared.store.close().await;
    }
}
