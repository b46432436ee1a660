//! What all parts of a coordinator share.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use darkroom_artifacts::ArtifactStore;
use darkroom_core::{
    cascade::Cascade,
    guard::{Guard, stands},
};
use darkroom_queue::TaskQueue;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    counters::Counters,
    credits::Credits,
    crew::{Crew, LatestCrew},
    decoding::{DECODING_MIB, Source},
    disks::Disks,
    error::Error,
    events::Events,
    feed::Feed,
    image_maps::ImageMaps,
    leadership::Leadership,
    options::Options,
    orphan_cursor::OrphanCursor,
    previews::Previews,
    quotas::LatestQuotas,
    rates::LatestRates,
    store::{
        Store,
        records::{Committed, Term},
        roles::{Agreed, Leading},
    },
    stored::Stored,
    tasks::Cascades,
    troubles::Troubles,
    trust::Trust,
    turns::Turns,
};

/// Forecasts of one tenant that remember much, at one time; each takes 20 MiB at most.
const FORECASTS: usize = 4;
/// Uploads that are checked at one time.
const UPLOADS: usize = 4;
/// Files that clients send at one time. Each lies on this machine's disk until it is stored.
const FILES: usize = 8;
/// How many of them may be of one tenant, so that one tenant's slow files leave turns to others.
const FILES_OF_TENANT: usize = 4;
/// Submits that are recorded at one time. They go on if their clients leave, so clients that submit
/// and leave cannot pile up more of them.
const SUBMITS: usize = 16;

/// Submits whose prompts are checked at one time: half of the cores, so that the other half answers
/// calls.
fn preparers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).max(1)
}

/// State that all parts share. The record is not here: each part gets only the roles of it that it
/// uses.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) queue: Arc<dyn TaskQueue>,
    pub(crate) artifacts: ArtifactStore,
    pub(crate) cascades: Cascades,
    pub(crate) events: Events,
    pub(crate) feed: Feed,
    pub(crate) crew: LatestCrew,
    pub(crate) rates: LatestRates,
    pub(crate) credits: Credits,
    /// Tenants' quotas. The door has them too.
    pub(crate) quotas: Arc<LatestQuotas>,
    pub(crate) counters: Counters,
    /// Permits of submits whose prompts are checked.
    pub(crate) preparing: Arc<Semaphore>,
    /// Permits of submits that are recorded.
    pub(crate) submits: Semaphore,
    /// Turns of forecasts that remember much.
    pub(crate) forecasting: Turns,
    /// Permits of uploads.
    pub(crate) uploads: Semaphore,
    /// Permits of files that clients send, each of which lies on a disk meanwhile.
    pub(crate) files: Semaphore,
    /// Turns of such files of a tenant.
    pub(crate) files_of_tenant: Turns,
    /// Memory for decoding pictures, in MiB.
    pub(crate) decoding: Arc<Semaphore>,
    /// Previews of stages' outputs, and sheets of them.
    pub(crate) previews: Previews,
    /// Recently read maps of jobs' images.
    pub(crate) maps: ImageMaps,
    pub(crate) leadership: Leadership,
    agreed: Arc<dyn Agreed>,
    pub(crate) trust: Trust,
    pub(crate) troubles: Troubles,
    /// An operator accepts that storage knows of later removals than the record.
    pub(crate) restored: AtomicBool,
    /// Held by the one pass of the cleaner that runs.
    pub(crate) cleaning: Mutex<()>,
    /// Where the next search for orphans to remove goes on.
    pub(crate) orphans_from: Mutex<OrphanCursor>,
    pub(crate) disks: Disks,
    pub(crate) stored: Stored,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    /// Object storage, and the memory for pictures that are read from it.
    pub(crate) fn source(&self) -> Source<'_> {
        Source { artifacts: &self.artifacts, decoding: &self.decoding }
    }

    pub(crate) fn new(
        options: Options,
        store: &Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        artifacts: ArtifactStore,
        (cascades, trust): (Vec<Cascade>, Trust),
    ) -> Self {
        let cascades = Cascades::new(cascades);
        let cascades = if options.makes_up { cascades.made_up() } else { cascades };
        let (leading, agreed): (Arc<dyn Leading>, Arc<dyn Agreed>) = (store.clone(), store.clone());
        let restored = AtomicBool::new(options.restored);
        let disks = Disks::new(&options, &artifacts);
        Self {
            options,
            queue,
            artifacts,
            cascades,
            events: Events::default(),
            feed: Feed::default(),
            crew: LatestCrew::default(),
            rates: LatestRates::default(),
            credits: Credits::default(),
            quotas: Arc::default(),
            counters: Counters::default(),
            preparing: Arc::new(Semaphore::new(preparers())),
            submits: Semaphore::new(SUBMITS),
            forecasting: Turns::new(FORECASTS),
            uploads: Semaphore::new(UPLOADS),
            files: Semaphore::new(FILES),
            files_of_tenant: Turns::new(FILES_OF_TENANT),
            decoding: Arc::new(Semaphore::new(DECODING_MIB)),
            previews: Previews::default(),
            maps: ImageMaps::default(),
            leadership: Leadership::new(leading),
            agreed,
            trust,
            troubles: Troubles::default(),
            restored,
            cleaning: Mutex::default(),
            orphans_from: Mutex::default(),
            disks,
            stored: Stored::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Wakes everybody who waits for a change of this transaction.
    pub(crate) fn committed(&self, committed: &Committed) {
        self.events.changed(&committed.jobs);
        if !committed.finished.is_empty() {
            self.events.changed(&committed.finished);
            self.events.finish.notify_one();
        }
    }

    /// The present workers, as they announced themselves.
    pub(crate) async fn read_crew(&self) -> Result<Arc<Crew>, Error> {
        if let Some(crew) = self.crew.young() {
            return Ok(crew);
        }
        Ok(self.crew.set(Crew::new(self.queue.workers(self.options.worker_ttl).await?)))
    }

    /// Takes or renews leadership, if the queue can be reached.
    pub(crate) async fn lead(&self) -> Result<Option<Term>, Error> {
        let queue = async { self.read_crew().await.map(drop) };
        self.leadership.take(queue).await
    }

    /// How long a lease lasts. It comes from the farm's record, so a coordinator with another
    /// setting takes no tasks from live workers.
    pub(crate) async fn lease(&self) -> Result<Duration, Error> {
        let agreed = self.agreed.lease().await?.filter(|_| stands(Guard::LeaseAgreed));
        Ok(agreed.unwrap_or(self.options.lease))
    }

    /// Waits, but at most until shutdown.
    pub(crate) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Records that a part failed; it keeps trying.
    pub(crate) fn failed(&self, part: &str, error: &Error) {
        self.disks.note(error);
        self.troubles.begin(part, error);
    }

    /// Records that a part works (again).
    pub(crate) fn healed(&self, part: &str) {
        self.troubles.end(part);
    }
}
