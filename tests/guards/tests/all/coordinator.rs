//! The guards of the coordinator's services, with the record in SQLite and a queue that observes
//! its calls.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Coordinator, Handle, Options,
    store::{Store, removal::Candidate, sqlite::SqliteStore},
};
use darkroom_core::{
    artifact::ArtifactRef, cascade::Cascade, digest::Digest, guard::Guard, id::WorkerId,
    worker_state::WorkerState,
};
use darkroom_farm_api::{CallerLayer, grpc};
use darkroom_guards::red;
use darkroom_proto::v1::{self, farm_client::FarmClient};
use darkroom_queue::{
    TaskQueue,
    signing::Signer,
    task::{
        EntryId, Lease, Outcome, PoolId, ResultEntry, ServedPool, TaskBody, TaskKey, TaskResult,
        WorkerCard,
    },
};
use darkroom_suites::{
    cascade,
    obstacles::{Obstructed, Request},
    queue::{Watch, Watched, task},
};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{
    service::Routes,
    transport::{Channel, Server},
};

/// Longest that anything may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Can hold back tasks of `base`, counts passes over that pool, and checks SQL whenever a result is
/// acknowledged.
struct Told {
    store: Arc<dyn Store>,
    base: PoolId,
    /// Tasks of `base` are held back until it is open.
    open: watch::Sender<bool>,
    held: AtomicU64,
    passes: AtomicU64,
    too_soon: Mutex<Vec<TaskKey>>,
    read: Mutex<Vec<(EntryId, TaskKey)>>,
}

#[async_trait]
impl Watch for Told {
    async fn adding(&self, pool: &PoolId) {
        if pool == &self.base {
            self.held.fetch_add(1, Ordering::SeqCst);
            let _ = self.open.subscribe().wait_for(|open| *open).await;
        }
    }

    async fn read(&self, results: &[ResultEntry]) {
        let read = results.iter().map(|entry| (entry.id.clone(), entry.result.key));
        self.read.lock().expect("the list").extend(read);
    }

    async fn acknowledging(&self, pool: &PoolId, results: &[EntryId]) {
        let dispatched = self.store.dispatched(pool).await.expect("the record answers");
        let read = self.read.lock().expect("the list").clone();
        let keys = read.into_iter().filter(|(id, _)| results.contains(id)).map(|(_, key)| key);
        let early: Vec<TaskKey> = keys.filter(|key| dispatched.contains(key)).collect();
        self.too_soon.lock().expect("the list").extend(early);
    }

    async fn listed(&self, pool: &PoolId) {
        if pool == &self.base {
            self.passes.fetch_add(1, Ordering::SeqCst);
            // A pass has looked while the tasks were on their way. Now they arrive.
            if self.held.load(Ordering::SeqCst) > 0 {
                self.open.send_replace(true);
            }
        }
    }
}

/// Without guidance, so that a prompt has one text.
fn cascade() -> Cascade {
    let mut cascade = cascade::with_a_file(2);
    cascade.spec.stages[0].sampling.guidance_scale = 1.0;
    cascade
}

fn pool(stage: &str) -> PoolId {
    cascade::pool(&cascade(), stage)
}

/// A served coordinator, and a worker that the test controls.
struct Farm {
    handle: Handle,
    client: FarmClient<Channel>,
    queue: Arc<Watched<Told>>,
    worker: WorkerId,
    signer: Signer,
    folder: Arc<tempfile::TempDir>,
}

impl Farm {
    /// If `open` is false, tasks of `base` are held back until a pass has looked for them.
    async fn start(open: bool) -> Self {
        Self::start_with(open, Self::options()).await
    }

    fn options() -> Options {
        Options {
            sweep: Duration::from_millis(100),
            poll: Duration::from_millis(20),
            watch_interval: Duration::from_millis(1),
            ..Options::default()
        }
    }

    async fn start_with(open: bool, options: Options) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::start_in(folder, open, options).await
    }

    /// With artifacts in this storage.
    async fn start_on(storage: &Obstructed) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let artifacts = ArtifactStore::over(Arc::new(storage.clone()));
        Self::assemble(folder, true, Self::options(), artifacts).await
    }

    /// On the record in a folder, with an empty queue.
    async fn start_in(folder: Arc<tempfile::TempDir>, open: bool, options: Options) -> Self {
        let artifacts = ArtifactStore::local(&folder.path().join("artifacts")).expect("a folder");
        Self::assemble(folder, open, options, artifacts).await
    }

    async fn assemble(
        folder: Arc<tempfile::TempDir>,
        open: bool,
        options: Options,
        artifacts: ArtifactStore,
    ) -> Self {
        let store = SqliteStore::open(&folder.path().join("farm.sqlite")).await.expect("a record");
        let store: Arc<dyn Store> = Arc::new(store);
        let queue = Arc::new(Watched::new(Told {
            store: Arc::clone(&store),
            base: pool("base"),
            open: watch::Sender::new(open),
            held: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            too_soon: Mutex::default(),
            read: Mutex::default(),
        }));
        store.set_lease(None, Duration::from_secs(10)).await.expect("agrees");
        let shared = Arc::clone(&queue) as Arc<dyn TaskQueue>;
        let handle = Coordinator::start(options, store, shared, artifacts, vec![cascade()])
            .await
            .expect("starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let routes = Routes::new(grpc::service(handle.calls()));
        let routes = grpc::behind(CallerLayer::open(), routes);
        tokio::spawn(
            Server::builder()
                .add_routes(routes)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let client = FarmClient::connect(format!("http://{address}")).await.expect("connects");
        let worker = WorkerId("w".to_owned());
        let signer = handle.signer(worker.clone(), vec![pool("encode"), pool("base")]);
        let farm = Self { handle, client, queue, worker, signer, folder };
        farm.announce().await;
        farm
    }

    async fn announce(&self) {
        self.queue.announce(self.card()).await.expect("announces");
    }

    fn card(&self) -> WorkerCard {
        let served = |pool: &PoolId| ServedPool {
            pool: pool.clone(),
            batch_cap: 8,
            seconds_per_image: 0.1,
            seconds_per_pass: 0.01,
            running: 0,
            mean_batch: 0.0,
        };
        let pools = ["encode", "base"].map(pool);
        WorkerCard {
            id: self.worker.clone(),
            host: "host".to_owned(),
            device: "none".to_owned(),
            device_class: "none".to_owned(),
            pools: pools.iter().map(|pool| (pool.to_string(), served(pool))).collect(),
            leased: 0,
            done: 0,
            busy: 0.0,
            state: WorkerState::Working,
            trouble: String::new(),
            failed: 0,
            memory: None,
            version: String::new(),
            seen_seconds_ago: 0.0,
        }
    }

    /// Submits one prompt with this many images, and returns the job's id.
    async fn submit(&mut self, images: u32) -> String {
        let prompt = v1::Prompt { text: "a cat".to_owned(), images, ..v1::Prompt::default() };
        let spec = v1::JobSpec { seed: Some(7), ..v1::JobSpec::default() };
        let request = v1::SubmitJobRequest { spec: Some(spec), prompts: vec![prompt] };
        self.client.submit_job(request).await.expect("accepted").into_inner().job.expect("a job").id
    }

    async fn lease(&self, stage: &str, count: usize) -> Vec<Lease> {
        let mut leases = Vec::new();
        while leases.len() < count {
            let more =
                self.queue.lease(&pool(stage), &self.worker, 8, DEADLINE).await.expect("leases");
            assert!(!more.is_empty(), "no task comes");
            leases.extend(more);
        }
        leases
    }

    async fn complete(&self, stage: &str, leases: &[Lease]) {
        let results = leases.iter().map(|lease| {
            let mut result = Self::result(lease, lease.task.body.prefix());
            self.signer.sign(&pool(stage), &mut result);
            (lease.id.clone(), result)
        });
        let results = results.collect();
        self.queue.complete(&pool(stage), &self.worker, results).await.expect("completes");
    }

    /// A success that names an output under this prefix, not signed yet.
    fn result(lease: &Lease, prefix: &str) -> TaskResult {
        let sha256 = Digest::of(b"x");
        TaskResult {
            key: lease.task.key,
            worker: lease.worker.clone(),
            place: "host".to_owned(),
            device_class: "none".to_owned(),
            alone: true,
            seconds: 0.1,
            batch: 1,
            outcome: Outcome::Done {
                artifact: ArtifactRef {
                    key: format!("{prefix}{sha256}.safetensors"),
                    sha256,
                    size: 4096,
                },
                notes: Vec::new(),
            },
            warrant: lease.task.warrant,
            signature: None,
        }
    }

    /// Waits for this many more passes over `base`.
    async fn passes(&self, count: u64) {
        let until = self.queue.watch.passes.load(Ordering::SeqCst) + count;
        let passed = async {
            while self.queue.watch.passes.load(Ordering::SeqCst) < until {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, passed).await.expect("the sweep goes on");
    }

    async fn end(self) {
        self.handle.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_its_way_is_taken_for_lost() {
    red(Guard::TwoPasses, "taken for lost", || async {
        let mut farm = Farm::start(false).await;
        farm.submit(1).await;
        let texts = farm.lease("encode", 1).await;
        farm.complete("encode", &texts).await;
        let leases = farm.lease("base", 1).await;
        farm.passes(3).await;
        let lost = farm.handle.counters().tasks_lost.get();
        farm.end().await;
        assert_eq!(
            (lost, leases.len()),
            (0, 1),
            "a task on its way to the queue is taken for lost"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_dispatched_onto_a_full_disk() {
    red(Guard::DiskFloor, "dispatched onto a full disk", || async {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let mut before = Farm::start_in(Arc::clone(&folder), true, Farm::options()).await;
        before.submit(1).await;
        before.end().await;
        // No disk has that much.
        let full = Options { disk_floor: Some(u64::MAX), ..Farm::options() };
        let farm = Farm::start_in(folder, true, full).await;
        farm.passes(3).await;
        let dispatched = farm.queue.queue.entries(&pool("encode")).await.expect("entries").len();
        farm.end().await;
        assert_eq!(dispatched, 0, "a text is dispatched onto a full disk");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_sql_does_not_expect_stays() {
    red(Guard::UnexpectedRemoved, "stays in the queue", || async {
        let farm = Farm::start(true).await;
        farm.queue.add(&pool("base"), vec![task(99)]).await.expect("added");
        farm.passes(3).await;
        let left = farm.queue.queue.entries(&pool("base")).await.expect("entries").len();
        farm.end().await;
        assert_eq!(left, 0, "an entry of nobody stays in the queue");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_acknowledged_before_it_is_committed() {
    red(Guard::AckAfterCommit, "a crash now loses it", || async {
        let mut farm = Farm::start(true).await;
        farm.submit(1).await;
        let texts = farm.lease("encode", 1).await;
        farm.complete("encode", &texts).await;
        let leases = farm.lease("base", 1).await;
        farm.complete("base", &leases).await;
        let emptied = async {
            while !farm.queue.queue.entries(&pool("base")).await.expect("entries").is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, emptied).await.expect("acknowledged");
        let early = farm.queue.watch.too_soon.lock().expect("the list").len();
        farm.end().await;
        assert_eq!(early, 0, "acknowledged before SQL has it: a crash now loses it");
    })
    .await;
}

/// Reports a task of `base` in a way that the farm must not believe, and returns what it discarded
/// and how many images it committed.
async fn reported(change: impl Fn(&Farm, &mut TaskResult)) -> (u64, u64) {
    let mut farm = Farm::start(true).await;
    let id = farm.submit(1).await;
    let texts = farm.lease("encode", 1).await;
    farm.complete("encode", &texts).await;
    let leases = farm.lease("base", 1).await;
    let before = farm.handle.counters().committed.get();
    let mut result = Farm::result(&leases[0], leases[0].task.body.prefix());
    change(&farm, &mut result);
    let results = vec![(leases[0].id.clone(), result)];
    farm.queue.complete(&pool("base"), &farm.worker, results).await.expect("completes");
    let settled = async {
        let counters = farm.handle.counters();
        while counters.discarded().is_empty() && counters.committed.get() == before {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, settled).await.expect("it is settled");
    let job = farm.client.get_job(v1::GetJobRequest { id }).await.expect("a job").into_inner();
    let discarded = farm.handle.counters().discarded().values().sum();
    farm.end().await;
    (discarded, job.stages[1].done)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_a_result_finishes_an_image() {
    red(Guard::ResultSigned, "an unsigned result commits", || async {
        let outcome = reported(|_, _| {}).await;
        assert_eq!(outcome, (1, 0), "an unsigned result commits");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_names_another_images_output_as_its_own() {
    red(Guard::OutputOwn, "a foreign output commits", || async {
        let outcome = reported(|farm, result| {
            let Outcome::Done { artifact, .. } = &mut result.outcome else { panic!("a success") };
            artifact.key = format!("tasks/another/{}.png", artifact.sha256);
            farm.signer.sign(&pool("base"), result);
        })
        .await;
        assert_eq!(outcome, (1, 0), "a foreign output commits");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_runs_what_somebody_wrote_into_the_queue() {
    red(Guard::TaskSealed, "a changed task is accepted", || async {
        let mut farm = Farm::start(true).await;
        farm.submit(1).await;
        let mut task = farm.lease("encode", 1).await.remove(0).task;
        assert!(farm.signer.accepts(&pool("encode"), &task), "the farm's own");
        let TaskBody::Encode(body) = &mut task.body else { panic!("a text") };
        body.text.push('!');
        let accepted = farm.signer.accepts(&pool("encode"), &task);
        farm.end().await;
        assert!(!accepted, "a changed task is accepted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_stores_again_what_is_being_removed() {
    red(Guard::LeavingAvoided, "where it is still being deleted", || async {
        let mut farm = Farm::start(true).await;
        farm.submit(1).await;
        let texts = farm.lease("encode", 1).await;
        farm.complete("encode", &texts).await;
        let leases = farm.lease("base", 1).await;
        let prefix = leases[0].task.body.prefix().to_owned();
        let Outcome::Done { artifact, .. } = Farm::result(&leases[0], &prefix).outcome else {
            panic!("a success")
        };
        let store = &farm.queue.watch.store;
        let term = store.lead("any").await.expect("leads").expect("alone");
        let object = Candidate::output(artifact.key);
        store.suspect(term, 0, &[object]).await.expect("takes it");
        let marked = store.mark(term, 0, 9).await.expect("marks").expect("not busy");
        assert_eq!(marked.marked, 1);
        // The result names it, so the task comes again.
        farm.complete("base", &leases).await;
        let again = farm.lease("base", 1).await;
        let other = again[0].task.body.prefix().to_owned();
        farm.end().await;
        assert_ne!(other, prefix, "it is stored again where it is still being deleted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_record_removes_objects() {
    red(Guard::RemovalsAgreed, "an older copy of the record deletes", || async {
        let farm = Farm::start(true).await;
        let store = &farm.queue.watch.store;
        let artifacts =
            ArtifactStore::local(&farm.folder.path().join("artifacts")).expect("a folder");
        let object = artifacts.put_content("tasks/a/", "png", "bytes".into()).await;
        let object = object.expect("stores");
        let id = store.farm_id().await.expect("an id");
        let ahead = format!(r#"{{"farm":"{id}","database":"","removals":9}}"#);
        artifacts.write_mark("cleaner/epoch.json", ahead.into()).await.expect("stores");
        let term = store.lead("any").await.expect("leads").expect("alone");
        let candidate = Candidate::output(object.key.clone());
        store.suspect(term, 0, &[candidate]).await.expect("takes it");
        let cleaned = farm.handle.clean(Duration::ZERO).await;
        let there = artifacts.get(&object).await.is_ok();
        farm.end().await;
        assert!(cleaned.is_err() && there, "an older copy of the record deletes");
    })
    .await;
}

/// Makes an object a candidate of the cleaner, and stores it.
async fn doomed(farm: &Farm, storage: &Obstructed) {
    let artifacts = ArtifactStore::over(Arc::new(storage.beside()));
    let object = artifacts.put_content("tasks/a/", "png", "bytes".into()).await.expect("stores");
    let store = &farm.queue.watch.store;
    let term = store.lead("any").await.expect("leads").expect("alone");
    store.suspect(term, 0, &[Candidate::output(object.key)]).await.expect("takes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_passes_run_at_once() {
    red(Guard::CleansAlone, "a second pass runs beside the first", || async {
        let storage = Obstructed::default();
        let farm = Farm::start_on(&storage).await;
        doomed(&farm, &storage).await;
        let held = storage.hold(|request| matches!(request, Request::Delete(_)));
        let passes = async {
            tokio::join!(farm.handle.clean(Duration::ZERO), async {
                timeout(DEADLINE, held.reached()).await.expect("the first one deletes");
                let second =
                    timeout(Duration::from_secs(1), farm.handle.clean(Duration::ZERO)).await;
                held.let_go();
                second.is_err()
            })
        };
        let (first, waited) = passes.await;
        first.expect("cleans");
        farm.end().await;
        assert!(waited, "a second pass runs beside the first");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_could_not_be_deleted_counts_as_deleted() {
    red(Guard::DeletedForSure, "it stays for ever", || async {
        let storage = Obstructed::default();
        let farm = Farm::start_on(&storage).await;
        storage.refuse(io::ErrorKind::PermissionDenied, |one| matches!(one, Request::Delete(_)));
        doomed(&farm, &storage).await;
        farm.handle.clean(Duration::ZERO).await.expect("cleans");
        storage.clear();
        farm.handle.clean(Duration::from_secs(3600)).await.expect("cleans");
        let listed = ArtifactStore::over(Arc::new(storage.beside()));
        let left = listed.list("tasks/").collect::<Vec<_>>().await.len();
        farm.end().await;
        assert_eq!(left, 0, "it stays for ever");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_a_task_is_stored_where_something_is_removed() {
    red(Guard::LeavingAvoided, "where it is still being deleted", || async {
        let mut farm = Farm::start(true).await;
        farm.submit(1).await;
        let texts = farm.lease("encode", 1).await;
        farm.complete("encode", &texts).await;
        let leases = farm.lease("base", 1).await;
        let prefix = leases[0].task.body.prefix().to_owned();
        let Outcome::Done { artifact, .. } = Farm::result(&leases[0], &prefix).outcome else {
            panic!("a success")
        };
        let store = &farm.queue.watch.store;
        let term = store.lead("any").await.expect("leads").expect("alone");
        store.suspect(term, 0, &[Candidate::output(artifact.key)]).await.expect("takes it");
        assert_eq!(store.mark(term, 0, 9).await.expect("marks").expect("not busy").marked, 1);
        // The task is lost, and the sweep makes it again.
        farm.queue.queue.flush();
        farm.announce().await;
        let other = farm.lease("base", 1).await[0].task.body.prefix().to_owned();
        farm.end().await;
        assert_ne!(other, prefix, "it is stored again where it is still being deleted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_of_another_lease_robs_the_living() {
    red(Guard::LeaseAgreed, "a live worker is robbed", || async {
        let options = Options {
            lease: Duration::from_millis(1),
            reap: Duration::from_millis(10),
            sweep: Duration::from_millis(100),
            poll: Duration::from_millis(20),
            ..Options::default()
        };
        let mut farm = Farm::start_with(true, options).await;
        farm.submit(1).await;
        let texts = farm.lease("encode", 1).await;
        farm.passes(3).await;
        let ids: Vec<EntryId> = texts.iter().map(|lease| lease.id.clone()).collect();
        let lost = farm.queue.heartbeat(&pool("encode"), &farm.worker, &ids).await.expect("renews");
        farm.end().await;
        assert_eq!(lost, [], "a live worker is robbed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_to_drain_is_lost_with_the_queue() {
    red(Guard::DrainKept, "the command is forgotten", || async {
        let mut farm = Farm::start(true).await;
        let ask = v1::DrainWorkerRequest { worker: farm.worker.0.clone(), ..Default::default() };
        farm.client.drain_worker(ask).await.expect("asked");
        // Like a flush. Then the worker sends its heartbeat.
        farm.queue.withdraw(&farm.worker).await.expect("forgets");
        farm.announce().await;
        farm.passes(5).await;
        let told = farm.queue.announce(farm.card()).await.expect("announces").drain;
        farm.end().await;
        assert!(told, "the command is forgotten");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_images_of_one_prompt_share_their_pictures_place() {
    red(Guard::SeedInDigest, "one picture for two seeds", || async {
        let mut farm = Farm::start(true).await;
        farm.submit(2).await;
        let texts = farm.lease("encode", 1).await;
        farm.complete("encode", &texts).await;
        let prefix = |lease: &Lease| match &lease.task.body {
            TaskBody::Render(body) => body.prefix.clone(),
            TaskBody::Encode(body) => body.prefix.clone(),
        };
        let prefixes: Vec<String> = farm.lease("base", 2).await.iter().map(prefix).collect();
        farm.end().await;
        assert_ne!(prefixes[0], prefixes[1], "one picture for two seeds");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_misses_what_comes_while_it_looks() {
    red(Guard::WatchFirst, "misses a change", || async {
        let mut farm = Farm::start(true).await;
        let id = farm.submit(1).await;
        let request = v1::WatchJobRequest { id: id.clone(), ..v1::WatchJobRequest::default() };
        let mut events = farm.client.watch_job(request).await.expect("watches").into_inner();
        let mut state = async || {
            let event = timeout(Duration::from_secs(1), events.next()).await.ok()??;
            Some(event.expect("an event").job?.state())
        };
        // Waits until nothing changes any more: the text waits for its worker.
        while state().await.is_some() {}
        let pause = v1::PauseJobRequest { id: id.clone() };
        farm.client.pause_job(pause).await.expect("pauses");
        assert_eq!(state().await, Some(v1::JobState::Paused));
        // Right after an event, while the watcher looks again.
        farm.client.resume_job(v1::ResumeJobRequest { id }).await.expect("resumes");
        let told = state().await;
        farm.end().await;
        assert_eq!(told, Some(v1::JobState::Active), "the watcher misses a change");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_the_layer_serves_anybody() {
    red(Guard::CallerKnown, "serves anybody", || async {
        let farm = Farm::start(true).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let routes = Routes::new(grpc::service(farm.handle.calls()));
        let server = Server::builder().add_routes(routes);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let mut client = FarmClient::connect(format!("http://{address}")).await.expect("connects");
        let answer = client.get_farm(v1::GetFarmRequest {}).await;
        farm.end().await;
        assert!(answer.is_err(), "a server without callers serves anybody");
    })
    .await;
}
