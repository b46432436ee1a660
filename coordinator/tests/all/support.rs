//! A farm for tests: the coordinator on SQLite in a temporary folder and a queue in memory, served
//! on loopback, with workers that store a few bytes instead of rendering.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Coordinator, Handle, Options,
    store::{Store, sqlite::SqliteStore},
};
use darkroom_core::{
    artifact::ArtifactRef, cascade::Cascade, failure_code::FailureCode, id::WorkerId,
    worker_state::WorkerState,
};
use darkroom_farm_api::{CallerLayer, grpc};
use darkroom_proto::v1::{self, farm_client::FarmClient};
use darkroom_queue::{
    TaskQueue,
    memory::MemoryQueue,
    signing::Signer,
    task::{Outcome, PoolId, ServedPool, Subject, Task, TaskBody, TaskResult, WorkerCard},
};
use darkroom_suites::cascade;
pub(crate) use darkroom_suites::cascade::STAGES;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    service::Routes,
    transport::{Channel, Server},
};

/// Longest that anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// With schedules of known lengths for the second stage.
pub(crate) fn cascade() -> Cascade {
    let mut cascade = cascade::with_a_file(STAGES.len());
    let second = &mut cascade.spec.stages[1];
    (second.train_timesteps, second.noise_timesteps) = (Some(900), Some(800));
    cascade
}

pub(crate) fn pool(stage: &str) -> PoolId {
    cascade::pool(&cascade(), stage)
}

pub(crate) fn options() -> Options {
    Options {
        lease: Duration::from_millis(600),
        reap: Duration::from_millis(50),
        sweep: Duration::from_millis(200),
        poll: Duration::from_millis(20),
        worker_ttl: Duration::from_secs(5),
        watch_interval: Duration::from_millis(1),
        ..Options::default()
    }
}

/// A served coordinator. The next one can use its folder and object store.
pub(crate) struct Farm {
    pub(crate) handle: Handle,
    pub(crate) client: FarmClient<Channel>,
    /// Where the workers of this farm lease.
    pub(crate) tasks_of: Arc<dyn TaskQueue>,
    /// The queue of a farm that is not on Redis.
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) artifacts: ArtifactStore,
    pub(crate) folder: Arc<TempDir>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Farm {
    pub(crate) async fn start() -> Self {
        Self::start_with(options()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::start_over(options, folder, ArtifactStore::in_memory()).await
    }

    /// On an existing record, with a new, empty queue, as after a restart.
    pub(crate) async fn start_over(
        options: Options,
        folder: Arc<TempDir>,
        artifacts: ArtifactStore,
    ) -> Self {
        let store = SqliteStore::open(&database(folder.path())).await.expect("a record");
        Self::assemble(options, folder, Arc::new(store), Arc::default(), artifacts).await
    }

    pub(crate) async fn start_with_store(
        options: Options,
        folder: Arc<TempDir>,
        store: SqliteStore,
    ) -> Self {
        let store = Arc::new(store);
        Self::assemble(options, folder, store, Arc::default(), ArtifactStore::in_memory()).await
    }

    /// One of several coordinators that share a record, a queue and an object store.
    pub(crate) async fn join(
        store: Arc<dyn Store>,
        queue: &Arc<MemoryQueue>,
        artifacts: &ArtifactStore,
    ) -> Self {
        Self::join_with(options(), store, queue, artifacts).await
    }

    pub(crate) async fn join_with(
        options: Options,
        store: Arc<dyn Store>,
        queue: &Arc<MemoryQueue>,
        artifacts: &ArtifactStore,
    ) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::assemble(options, folder, store, Arc::clone(queue), artifacts.clone()).await
    }

    /// A farm whose calls use another connection to the record than its own work.
    pub(crate) async fn fronted(
        options: Options,
        store: Arc<dyn Store>,
        front: Arc<dyn Store>,
    ) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::assemble_fronted(
            options,
            folder,
            (store, front),
            Arc::default(),
            ArtifactStore::in_memory(),
        )
        .await
    }

    async fn assemble(
        options: Options,
        folder: Arc<TempDir>,
        store: Arc<dyn Store>,
        queue: Arc<MemoryQueue>,
        artifacts: ArtifactStore,
    ) -> Self {
        let front = Arc::clone(&store);
        Self::assemble_fronted(options, folder, (store, front), queue, artifacts).await
    }

    async fn assemble_fronted(
        options: Options,
        folder: Arc<TempDir>,
        stores: (Arc<dyn Store>, Arc<dyn Store>),
        queue: Arc<MemoryQueue>,
        artifacts: ArtifactStore,
    ) -> Self {
        let tasks = Arc::clone(&queue) as Arc<dyn TaskQueue>;
        Self::assemble_all(options, folder, stores, (queue, tasks), artifacts).await
    }

    /// A farm whose tasks and results are on this queue.
    pub(crate) async fn on(options: Options, tasks: Arc<dyn TaskQueue>) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let store = SqliteStore::open(&database(folder.path())).await.expect("a record");
        let store: Arc<dyn Store> = Arc::new(store);
        let (stores, queues) = ((Arc::clone(&store), store), (Arc::default(), tasks));
        Self::assemble_all(options, folder, stores, queues, ArtifactStore::in_memory()).await
    }

    async fn assemble_all(
        options: Options,
        folder: Arc<TempDir>,
        (store, front): (Arc<dyn Store>, Arc<dyn Store>),
        (queue, tasks_of): (Arc<MemoryQueue>, Arc<dyn TaskQueue>),
        artifacts: ArtifactStore,
    ) -> Self {
        let handle = Coordinator::start_fronted(
            options,
            Arc::clone(&store),
            front,
            Arc::clone(&tasks_of),
            artifacts.clone(),
            vec![cascade()],
        )
        .await
        .expect("starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let routes = Routes::new(grpc::service(handle.calls()));
        let routes = grpc::behind(CallerLayer::open(), routes);
        let served = Server::builder().add_routes(routes).serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            stop.clone().cancelled_owned(),
        );
        tasks.spawn(served);
        let client = FarmClient::connect(format!("http://{address}")).await.expect("connects");
        Self { handle, client, tasks_of, queue, store, artifacts, folder, stop, tasks }
    }

    /// Workers for every stage, which do what `behave` says.
    pub(crate) fn work(&self, behave: impl Fn(&Task) -> Act + Send + Sync + 'static) -> Workers {
        self.work_on(&["encode", "base", "sr256", "sr1024"], "host", behave)
    }

    /// A worker for every stage that announces itself and takes nothing, so that work is dispatched
    /// and then stays as it is.
    pub(crate) fn wait_beside(&self) -> Workers {
        let stages = ["encode", "base", "sr256", "sr1024"];
        let (worker, pools) = self.worker(&stages, "idle", |_| Act::Done);
        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(&worker).announce(pools));
        Workers { worker, tasks }
    }

    pub(crate) fn work_on(
        &self,
        stages: &[&str],
        host: &str,
        behave: impl Fn(&Task) -> Act + Send + Sync + 'static,
    ) -> Workers {
        let (worker, pools) = self.worker(stages, host, behave);
        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(&worker).announce(pools.clone()));
        for pool in pools {
            tasks.spawn(Arc::clone(&worker).run(pool));
        }
        Workers { worker, tasks }
    }

    fn worker(
        &self,
        stages: &[&str],
        host: &str,
        behave: impl Fn(&Task) -> Act + Send + Sync + 'static,
    ) -> (Arc<FakeWorker>, Vec<PoolId>) {
        let id = WorkerId::fresh(host);
        let pools: Vec<PoolId> = stages.iter().map(|stage| pool(stage)).collect();
        let worker = FakeWorker {
            id: id.clone(),
            host: host.to_owned(),
            signer: self.handle.signer(id, pools.clone()),
            queue: Arc::clone(&self.tasks_of),
            artifacts: self.artifacts.clone(),
            behave: Box::new(behave),
            ran: Arc::default(),
            stop: CancellationToken::new(),
        };
        (Arc::new(worker), pools)
    }

    /// Polls until the job is as `wanted` says.
    pub(crate) async fn until(
        &mut self,
        id: &str,
        what: &str,
        wanted: impl Fn(&v1::Job) -> bool,
    ) -> v1::Job {
        let give_up = Instant::now() + DEADLINE;
        loop {
            let job = self.get(id).await;
            if wanted(&job) {
                return job;
            }
            assert!(Instant::now() < give_up, "not in time: {what}; {job:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the job has ended and its manifest is written, then checks it.
    pub(crate) async fn until_ended(&mut self, id: &str) -> v1::Job {
        let written = v1::ManifestState::Written;
        let job = self.until(id, "ended", |job| job.manifest() == written).await;
        self.audit(id).await;
        job
    }

    pub(crate) async fn audit(&self, id: &str) {
        let wrong = self.store.audit(id.parse().expect("an id")).await.expect("audits");
        assert_eq!(wrong, Vec::<String>::new());
    }

    pub(crate) async fn get(&mut self, id: &str) -> v1::Job {
        self.client
            .get_job(v1::GetJobRequest { id: id.to_owned() })
            .await
            .expect("a job")
            .into_inner()
    }

    pub(crate) async fn submit(&mut self, spec: v1::JobSpec, prompts: Vec<v1::Prompt>) -> v1::Job {
        let request = v1::SubmitJobRequest { spec: Some(spec), prompts };
        self.client.submit_job(request).await.expect("accepted").into_inner().job.expect("a job")
    }

    pub(crate) async fn images(&mut self, id: &str) -> Vec<v1::Image> {
        let request =
            v1::ListImagesRequest { job_id: id.to_owned(), page_size: 1000, ..Default::default() };
        self.client.list_images(request).await.expect("images").into_inner().images
    }

    /// The bytes of a job's manifest.
    pub(crate) async fn manifest_bytes(&mut self, job: &str) -> Vec<u8> {
        let request = v1::FetchManifestRequest { job_id: job.to_owned(), offset: 0 };
        let chunks = self.client.fetch_manifest(request).await.expect("a manifest");
        let (mut chunks, mut bytes) = (chunks.into_inner(), Vec::new());
        while let Some(chunk) = chunks.message().await.expect("a chunk") {
            bytes.extend(chunk.data);
        }
        bytes
    }

    pub(crate) async fn shutdown(self) {
        self.handle.shutdown().await;
        self.stop.cancel();
        drop(self.client);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Polls until the condition holds.
pub(crate) async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + DEADLINE;
    while !so().await {
        assert!(Instant::now() < give_up, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("farm.sqlite")
}

pub(crate) fn spec() -> v1::JobSpec {
    v1::JobSpec { seed: Some(7), ..Default::default() }
}

pub(crate) fn prompt(text: &str) -> v1::Prompt {
    v1::Prompt { text: text.to_owned(), ..Default::default() }
}

pub(crate) fn prompts(count: usize) -> Vec<v1::Prompt> {
    (0..count).map(|number| prompt(&format!("prompt {number}"))).collect()
}

/// Index of a task's image; `None` for a text.
pub(crate) fn index(task: &Task) -> Option<u64> {
    match task.key.subject {
        Subject::Image(image) => Some(image.index),
        Subject::Text(_) => None,
    }
}

/// What a worker does with a task.
pub(crate) enum Act {
    /// Renders it.
    Done,
    /// Renders it, and reports these notes about it.
    Note(&'static str),
    /// Renders it, and forgets to sign.
    Unsigned,
    /// Ends it with this outcome.
    End(Outcome),
    /// Dies with it: the lease is never renewed, and the task never completed.
    Die,
    /// Renews the lease until the token is cancelled, then renders it.
    Hold(CancellationToken),
}

pub(crate) fn failed() -> Act {
    Act::End(Outcome::Failed {
        code: FailureCode::NonFinite,
        message: "a value is not finite".to_owned(),
    })
}

pub(crate) struct Workers {
    worker: Arc<FakeWorker>,
    tasks: TaskTracker,
}

impl Workers {
    /// Every task that was leased, in order.
    pub(crate) fn ran(&self) -> Vec<Task> {
        self.worker.ran.lock().expect("ran").clone()
    }

    pub(crate) async fn stop(self) -> Vec<Task> {
        self.worker.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.worker.queue.withdraw(&self.worker.id).await.expect("withdraws");
        self.worker.ran.lock().expect("ran").clone()
    }
}

struct FakeWorker {
    id: WorkerId,
    host: String,
    signer: Signer,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    behave: Box<dyn Fn(&Task) -> Act + Send + Sync>,
    ran: Arc<Mutex<Vec<Task>>>,
    stop: CancellationToken,
}

impl FakeWorker {
    async fn announce(self: Arc<Self>, pools: Vec<PoolId>) {
        while !self.stop.is_cancelled() {
            let served = |pool: &PoolId| ServedPool {
                pool: pool.clone(),
                batch_cap: 4,
                seconds_per_image: 0.5,
                seconds_per_pass: 0.05,
                running: 0,
                mean_batch: 0.0,
            };
            let card = WorkerCard {
                id: self.id.clone(),
                host: self.host.clone(),
                device: "none".to_owned(),
                device_class: "fake".to_owned(),
                pools: pools.iter().map(|pool| (pool.to_string(), served(pool))).collect(),
                leased: 0,
                done: 0,
                busy: 0.5,
                state: WorkerState::Working,
                trouble: String::new(),
                failed: 0,
                memory: None,
                version: String::new(),
                seen_seconds_ago: 0.0,
            };
            self.queue.announce(card).await.expect("announces");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn run(self: Arc<Self>, pool: PoolId) {
        while !self.stop.is_cancelled() {
            let leased = self
                .queue
                .lease(&pool, &self.id, 4, Duration::from_millis(50))
                .await
                .expect("leases");
            let (alone, batch) = (leased.len() == 1, leased.len() as u32);
            let ids: Vec<_> = leased.iter().map(|lease| lease.id.clone()).collect();
            for (position, lease) in leased.into_iter().enumerate() {
                let accepted = self.signer.accepts(&pool, &lease.task);
                self.ran.lock().expect("ran").push(lease.task.clone());
                let act = if accepted {
                    (self.behave)(&lease.task)
                } else {
                    let reason = "not made by this farm".to_owned();
                    Act::End(Outcome::Interrupted { reason })
                };
                let signs = !matches!(act, Act::Unsigned);
                let outcome = match act {
                    Act::Done | Act::Unsigned => self.render(&lease.task, Vec::new()).await,
                    Act::Note(note) => self.render(&lease.task, vec![note.to_owned()]).await,
                    Act::End(Outcome::Done { artifact, notes }) => {
                        self.copy(&lease.task, &artifact, notes).await
                    }
                    Act::End(outcome) => outcome,
                    Act::Die => continue,
                    Act::Hold(until) => {
                        while !until.is_cancelled() && !self.stop.is_cancelled() {
                            // The rest of its batch waits behind this one.
                            let kept = &ids[position..];
                            self.queue.heartbeat(&pool, &self.id, kept).await.expect("beats");
                            let beat = Duration::from_millis(50);
                            drop(tokio::time::timeout(beat, until.cancelled()).await);
                        }
                        self.render(&lease.task, Vec::new()).await
                    }
                };
                let mut result = TaskResult {
                    key: lease.task.key,
                    worker: self.id.clone(),
                    place: self.host.clone(),
                    device_class: "fake".to_owned(),
                    alone,
                    seconds: 0.001,
                    batch,
                    outcome,
                    warrant: lease.task.warrant,
                    signature: None,
                };
                if signs {
                    self.signer.sign(&pool, &mut result);
                }
                self.queue
                    .complete(&pool, &self.id, vec![(lease.id.clone(), result)])
                    .await
                    .expect("completes");
            }
        }
    }

    /// Stores what a test prepared as this task's own output.
    async fn copy(&self, task: &Task, prepared: &ArtifactRef, notes: Vec<String>) -> Outcome {
        let bytes = self.artifacts.get(prepared).await.expect("it is prepared");
        let (_, extension) = prepared.key.rsplit_once('.').expect("an extension");
        let stored = self.artifacts.put_content(task.body.prefix(), extension, bytes).await;
        Outcome::Done { artifact: stored.expect("stores"), notes }
    }

    async fn render(&self, task: &Task, notes: Vec<String>) -> Outcome {
        let (prefix, text, extension) = match &task.body {
            // As long as an embedding.
            TaskBody::Encode(body) => (&body.prefix, format!("{:<1000}", body.text), "safetensors"),
            TaskBody::Render(body) => {
                let extension = if body.picture.is_some() {
                    body.output.format().extension()
                } else {
                    "safetensors"
                };
                (&body.prefix, format!("{:?}", body), extension)
            }
        };
        let artifact =
            self.artifacts.put_content(prefix, extension, Bytes::from(text)).await.expect("stores");
        Outcome::Done { artifact, notes }
    }
}
