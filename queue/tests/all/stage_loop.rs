//! The stage loop against the in-memory queue, with a model and a storage that the test controls.
//!
//! Time is paused and moves only when a test advances it. A blocking task prevents tokio from
//! advancing it while the model's thread computes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, Mutex, mpsc as blocking},
    time::Duration,
};

use async_trait::async_trait;
use darkroom_core::{
    artifact::ArtifactRef, digest::Digest, error::UserError, id::WorkerId,
    worker_state::WorkerState,
};
use darkroom_queue::{
    Leased, TaskQueue,
    memory::MemoryQueue,
    signing::{Credentials, FarmSecret, Forged, Holder, Signer},
    stage_loop::{self, BatchFault, Fault, Handle, Loaded, Model, Options, Row, Serve, Stage},
    task::{Outcome, PoolId, Subject, Task, TaskResult},
};
use darkroom_suites::queue::{pool, suspect, task};
use tokio::{sync::mpsc, time::advance};
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_secs(30);
const STALL: Duration = Duration::from_secs(100);
const GRACE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Loaded(u64),
    Started(Vec<u64>),
    Stored(u64),
}

/// The test's instruction to the model at each of its steps.
enum Step {
    Go,
    Panic,
}

/// While this lives, paused time does not move by itself.
struct ClockHold {
    _release: blocking::Sender<()>,
}

impl ClockHold {
    fn new() -> Self {
        let (release, released) = blocking::channel();
        tokio::task::spawn_blocking(move || released.recv().ok());
        Self { _release: release }
    }
}

#[derive(Default)]
struct Faults {
    /// Storage is down.
    loads: bool,
    stores: bool,
    /// Tasks that make the whole batch fail.
    poison: HashSet<u64>,
    /// Batches with more rows run out of memory.
    memory: Option<usize>,
    /// Fewer rows than this take the same memory.
    pass: usize,
}

struct TestStage {
    events: mpsc::UnboundedSender<Event>,
    faults: Arc<Mutex<Faults>>,
}

fn index(task: &Task) -> u64 {
    match task.key.subject {
        Subject::Image(image) => image.index,
        Subject::Text(_) => panic!("an image"),
    }
}

#[async_trait]
impl Stage for TestStage {
    type Input = u64;
    type Output = u64;
    type File = u64;

    async fn load(&self, _pool: &PoolId, task: &Task) -> Result<Loaded<u64>, Fault> {
        if self.faults.lock().unwrap().loads {
            return Err(Fault::Storage("down".to_owned()));
        }
        self.events.send(Event::Loaded(index(task))).unwrap();
        Ok(Loaded::Ready(index(task)))
    }

    fn encode(&self, _task: &Task, output: u64, _device_class: &str) -> Result<u64, Outcome> {
        Ok(output)
    }

    async fn store(&self, task: &Task, file: &u64) -> Result<Outcome, Fault> {
        if self.faults.lock().unwrap().stores {
            return Err(Fault::Storage("down".to_owned()));
        }
        self.events.send(Event::Stored(*file)).unwrap();
        let key = format!("t/{}", index(task));
        Ok(Outcome::Done {
            artifact: ArtifactRef { key, sha256: Digest::of(b""), size: 0 },
            notes: vec![],
        })
    }
}

/// Takes one step per message from the test. If the channel is closed, runs on without them.
struct TestModel {
    events: mpsc::UnboundedSender<Event>,
    steps: blocking::Receiver<Step>,
    faults: Arc<Mutex<Faults>>,
}

impl Model for TestModel {
    type Input = u64;
    type Output = u64;

    fn run(
        &mut self,
        _pool: &PoolId,
        rows: &[Row<'_, u64>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<u64, Outcome>>, BatchFault> {
        self.events.send(Event::Started(rows.iter().map(|row| *row.input).collect())).unwrap();
        if let Ok(Step::Panic) = self.steps.recv() {
            panic!("ordered by the test");
        }
        if on_step().is_break() {
            return Err(BatchFault::Interrupted);
        }
        let faults = self.faults.lock().unwrap();
        if faults.memory.is_some_and(|most| rows.len() > most) {
            return Err(BatchFault::OutOfMemory { least: faults.pass });
        }
        if rows.iter().any(|row| faults.poison.contains(row.input)) {
            return Err(BatchFault::Failed { code: "poison".into(), message: "bad".to_owned() });
        }
        Ok(rows.iter().map(|row| Ok(*row.input)).collect())
    }

    fn device(&self) -> String {
        "test".to_owned()
    }

    fn device_class(&self) -> String {
        "test".to_owned()
    }
}

struct Bench {
    queue: Arc<MemoryQueue>,
    events: mpsc::UnboundedReceiver<Event>,
    steps: Option<blocking::Sender<Step>>,
    faults: Arc<Mutex<Faults>>,
    handle: Handle,
    _hold: ClockHold,
}

impl Bench {
    async fn start(pools: &[&str], batch_cap: usize) -> Self {
        Self::start_signing(Signer::default(), pools, batch_cap).await
    }

    async fn start_signing(signer: Signer, pools: &[&str], batch_cap: usize) -> Self {
        let hold = ClockHold::new();
        let queue = Arc::new(MemoryQueue::default());
        let (event_sender, events) = mpsc::unbounded_channel();
        let (step_sender, steps) = blocking::channel();
        let faults = Arc::new(Mutex::new(Faults::default()));
        let serve = pools.iter().map(|stage| Serve { pool: pool(stage), batch_cap }).collect();
        let options = Options {
            heartbeat: LEASE / 3,
            stall: STALL,
            grace: GRACE,
            storage_patience: PATIENCE,
            linger: Duration::ZERO,
            signer,
            ..Options::new(WorkerId("w".to_owned()), "host", serve)
        };
        let stage = TestStage { events: event_sender.clone(), faults: Arc::clone(&faults) };
        let model = TestModel { events: event_sender, steps, faults: Arc::clone(&faults) };
        let handle = stage_loop::start(
            options,
            Arc::clone(&queue) as Arc<dyn TaskQueue>,
            Arc::new(stage),
            move || Ok(model),
            CancellationToken::new(),
        )
        .await
        .unwrap();
        Self { queue, events, steps: Some(step_sender), faults, handle, _hold: hold }
    }

    async fn add(&self, stage: &str, tasks: Vec<Task>) {
        self.queue.add(&pool(stage), tasks).await.unwrap();
    }

    fn step(&self, step: Step) {
        self.steps.as_ref().unwrap().send(step).unwrap();
    }

    async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }

    /// Waits for the start of a batch and skips loads and stores.
    async fn started(&mut self) -> Vec<u64> {
        loop {
            if let Event::Started(rows) = self.event().await {
                return rows;
            }
        }
    }

    /// Waits for results, and advances time while there are none.
    async fn results(&mut self, stage: &str, count: usize) -> HashMap<u64, TaskResult> {
        let mut results = HashMap::new();
        while results.len() < count {
            for entry in
                self.queue.results(&pool(stage), "c", 100, Duration::from_secs(3600)).await.unwrap()
            {
                let Subject::Image(image) = entry.result.key.subject else { panic!("an image") };
                results.insert(image.index, entry.result);
            }
        }
        results
    }

    /// Advances time until the loop reports this trouble.
    async fn until_told(&self, sentence: Option<&str>) {
        let trouble = self.handle.trouble();
        for _ in 0..300 {
            if trouble.borrow().as_deref() == sentence {
                return;
            }
            turn(Duration::from_secs(1)).await;
        }
        panic!("told {:?} instead of {sentence:?}", *trouble.borrow());
    }

    /// Advances time by a lease, heartbeat by heartbeat, and reaps the leases that were not
    /// renewed.
    async fn reaped_after_a_lease(&self, stage: &str) -> usize {
        for _ in 0..4 {
            advance(LEASE / 3).await;
            settle().await;
        }
        self.queue.reap(&pool(stage), LEASE).await.unwrap().len()
    }

    async fn end(self) {
        drop(self.steps);
        self.handle.shutdown();
        self.handle.join().await.unwrap();
        assert!(
            self.queue.workers(Duration::from_secs(3600)).await.unwrap().is_empty(),
            "withdrawn"
        );
    }
}

/// Lets all ready tasks run.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn code(result: &TaskResult) -> &str {
    match &result.outcome {
        Outcome::Done { .. } => "done",
        Outcome::Failed { code, .. } => code.name(),
        Outcome::InputMissing { .. } => "input missing",
        Outcome::Interrupted { .. } => "interrupted",
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_is_loaded_while_the_model_computes() {
    let mut bench = Bench::start(&["base"], 2).await;
    bench.add("base", (0..4).map(task).collect()).await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(bench.event().await);
    }
    use Event::{Loaded, Started};
    let started = seen
        .iter()
        .position(|event| *event == Started(vec![0, 1]))
        .expect("the first batch started");
    assert!(started >= 2, "after its inputs were loaded: {seen:?}");
    // The model has not been released, so the second batch was loaded while the first runs.
    assert!(seen.contains(&Loaded(2)) && seen.contains(&Loaded(3)), "{seen:?}");
    assert!(!seen.contains(&Started(vec![2, 3])), "{seen:?}");
    bench.add("base", (4..6).map(task).collect()).await;
    settle().await;
    let leased = bench.handle.card().leased;
    assert_eq!(leased, 4, "two batches are held at most");
    bench.step(Step::Go);
    assert_eq!(bench.started().await, [2, 3]);
    bench.step(Step::Go);
    bench.step(Step::Go);
    let results = bench.results("base", 6).await;
    assert!(results.values().all(|result| code(result) == "done" && !result.alone));
    bench.end().await;
}

/// The farm's secret, and a worker's keys for these pools.
fn keys(pools: &[&str]) -> (FarmSecret, Signer) {
    let secret = FarmSecret::fresh().expect("random numbers");
    let holder =
        Holder { worker: WorkerId("w".to_owned()), key: String::new(), expires: u64::MAX / 2 };
    let of = |stage: &&str| (pool(stage), secret.member_keys(&holder, &pool(stage)));
    let pools = pools.iter().map(of).collect();
    let signer = Signer::new(Credentials { holder, pools });
    (secret, signer)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_farm_did_not_seal_is_not_run() {
    let (secret, signer) = keys(&["base"]);
    let mut bench = Bench::start_signing(signer, &["base"], 4).await;
    let base = pool("base");
    let sealed = |index| {
        let mut task = task(index);
        secret.seal(&base, &mut task);
        task
    };
    let mut changed = sealed(1);
    changed.key.dispatch += 1;
    let stranger = {
        let mut task = task(2);
        FarmSecret::fresh().expect("random numbers").seal(&base, &mut task);
        task
    };
    bench.add("base", vec![task(0), changed, stranger, sealed(3)]).await;
    bench.step(Step::Go);
    assert_eq!(bench.started().await, [3], "only what the farm made is run");
    let results = bench.results("base", 4).await;
    let outcomes = [0, 1, 2, 3].map(|index| code(&results[&index]));
    assert_eq!(outcomes, ["interrupted", "interrupted", "interrupted", "done"]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_signed_and_returns_its_warrant() {
    let (secret, signer) = keys(&["base"]);
    let mut bench = Bench::start_signing(signer, &["base"], 1).await;
    let base = pool("base");
    bench.faults.lock().unwrap().poison.insert(1);
    let sealed = |index| {
        let mut task = task(index);
        secret.seal(&base, &mut task);
        task
    };
    bench.add("base", vec![sealed(0), sealed(1)]).await;
    bench.step(Step::Go);
    bench.step(Step::Go);
    let results = bench.results("base", 2).await;
    assert_eq!([0, 1].map(|index| code(&results[&index])), ["done", "poison"]);
    for (index, result) in &results {
        assert_eq!(result.warrant, sealed(*index).warrant);
        let checked = secret.check(&base, result, 0, Duration::ZERO);
        // The stage of these tests names no real output.
        let right = if *index == 0 { Err(Forged::Output) } else { Ok(()) };
        assert_eq!(checked, right, "{result:?}");
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_the_model_takes_in_what_comes() {
    let mut bench = Bench::start(&["base"], 4).await;
    bench.add("base", vec![task(0)]).await;
    assert_eq!(bench.started().await, [0]);
    for i in 1..=5 {
        bench.add("base", vec![task(i)]).await;
        settle().await;
    }
    bench.step(Step::Go);
    assert_eq!(bench.started().await, [1, 2, 3, 4], "full, although its tasks came one by one");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn later_stages_go_first_and_incompatible_tasks_apart() {
    let mut bench = Bench::start(&["sr1024", "base"], 4).await;
    bench.add("base", vec![task(9)]).await;
    assert_eq!(bench.started().await, [9]);
    let other = |i| Task { compatibility: "other".to_owned(), ..task(i) };
    // While 9 runs, 0 waits next to the model. 1 and 3 share a key, 2 has another, and 4 runs
    // alone.
    bench.add("base", vec![task(0)]).await;
    while bench.event().await != Event::Loaded(0) {}
    bench.add("sr1024", vec![task(1), other(2), task(3), suspect(4), task(5)]).await;
    for _ in 0..8 {
        bench.step(Step::Go);
    }
    let mut runs = Vec::new();
    while runs.iter().flatten().count() < 6 {
        runs.push(bench.started().await);
    }
    assert_eq!(runs, [vec![0], vec![1, 3], vec![2], vec![4], vec![5]]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_leases_for_as_long_as_steps_finish() {
    let mut bench = Bench::start(&["base"], 1).await;
    bench.add("base", vec![task(0), task(1)]).await;
    bench.started().await;
    assert_eq!(
        bench.reaped_after_a_lease("base").await,
        0,
        "running and waiting leases are renewed"
    );
    bench.step(Step::Go);
    bench.step(Step::Go);
    assert_eq!(bench.results("base", 2).await.len(), 2);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_model_loses_its_leases_and_its_late_result_is_dropped() {
    let mut bench = Bench::start(&["base"], 1).await;
    bench.add("base", vec![task(0)]).await;
    bench.started().await;
    advance(STALL).await;
    settle().await;
    assert_eq!(bench.reaped_after_a_lease("base").await, 1, "no step within the stall limit");
    bench.step(Step::Go);
    bench.add("base", vec![task(1)]).await;
    bench.step(Step::Go);
    let results = bench.results("base", 1).await;
    assert_eq!(results.keys().collect::<Vec<_>>(), [&1], "only the task leased afterwards");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_stops_when_all_its_leases_are_lost_and_goes_on_when_some_are() {
    let mut bench = Bench::start(&["base"], 2).await;
    bench.add("base", vec![task(0), task(1)]).await;
    bench.started().await;
    bench.queue.remove(&pool("base"), &[task(0).key], Leased::Remove).await.unwrap();
    advance(LEASE / 3).await;
    settle().await;
    bench.step(Step::Go);
    let results = bench.results("base", 1).await;
    assert_eq!(results.keys().collect::<Vec<_>>(), [&1]);

    bench.add("base", vec![task(2), task(3)]).await;
    bench.started().await;
    bench.queue.remove(&pool("base"), &[task(2).key, task(3).key], Leased::Remove).await.unwrap();
    advance(LEASE / 3).await;
    settle().await;
    bench.step(Step::Go);
    bench.add("base", vec![task(4)]).await;
    assert_eq!(bench.started().await, [4]);
    bench.step(Step::Go);
    assert_eq!(bench.results("base", 1).await.keys().collect::<Vec<_>>(), [&4]);
    while let Ok(event) = bench.events.try_recv() {
        assert!(!matches!(event, Event::Stored(2 | 3)), "no output of a cancelled task is stored");
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_poison_row_fails_alone_and_a_panic_too() {
    let mut bench = Bench::start(&["base"], 4).await;
    bench.faults.lock().unwrap().poison.insert(2);
    bench.add("base", (0..4).map(task).collect()).await;
    (0..5).for_each(|_| bench.step(Step::Go));
    let results = bench.results("base", 4).await;
    for (index, result) in &results {
        assert_eq!(code(result), if *index == 2 { "poison" } else { "done" });
        assert!(result.alone, "each was judged when it ran alone");
    }
    bench.add("base", vec![task(5)]).await;
    bench.step(Step::Panic);
    let results = bench.results("base", 1).await;
    assert_eq!(code(&results[&5]), "panic");
    bench.add("base", vec![task(6)]).await;
    bench.step(Step::Go);
    assert_eq!(code(&bench.results("base", 1).await[&6]), "done", "the thread lives on");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn want_of_memory_halves_the_batch_and_the_cap() {
    let mut bench = Bench::start(&["base"], 8).await;
    bench.faults.lock().unwrap().memory = Some(3);
    bench.add("base", (0..8).map(task).collect()).await;
    let mut runs = Vec::new();
    for _ in 0..7 {
        runs.push(bench.started().await.len());
        bench.step(Step::Go);
    }
    assert_eq!(runs, [8, 4, 2, 2, 4, 2, 2]);
    assert_eq!(bench.results("base", 8).await.len(), 8);
    assert_eq!(bench.handle.card().pools[&pool("base").to_string()].batch_cap, 2);
    bench.faults.lock().unwrap().memory = Some(0);
    bench.add("base", vec![task(9)]).await;
    bench.step(Step::Go);
    assert_eq!(code(&bench.results("base", 1).await[&9]), "out_of_memory");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_does_not_fit_fails_at_once_and_leaves_the_cap() {
    let mut bench = Bench::start(&["base"], 8).await;
    (bench.faults.lock().unwrap().memory, bench.faults.lock().unwrap().pass) = (Some(0), 4);
    bench.add("base", (0..8).map(task).collect()).await;
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(bench.started().await.len());
        bench.step(Step::Go);
    }
    assert_eq!(runs, [8, 4, 4], "half of four takes the same memory");
    let results = bench.results("base", 8).await;
    assert!((0..8).all(|index| code(&results[&index]) == "out_of_memory"));
    assert_eq!(bench.handle.card().pools[&pool("base").to_string()].batch_cap, 4);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn storage_faults_are_retried_under_the_lease_then_interrupt() {
    let mut bench = Bench::start(&["base"], 1).await;
    bench.faults.lock().unwrap().stores = true;
    bench.add("base", vec![task(0)]).await;
    bench.step(Step::Go);
    bench.started().await;
    turn(PATIENCE / 2).await;
    assert_eq!(
        bench.queue.reap(&pool("base"), LEASE).await.unwrap().len(),
        0,
        "still under the lease"
    );
    bench.faults.lock().unwrap().stores = false;
    turn(Duration::from_secs(10)).await;
    assert_eq!(code(&bench.results("base", 1).await[&0]), "done", "the fault ended in time");

    bench.faults.lock().unwrap().stores = true;
    bench.add("base", vec![task(1)]).await;
    bench.step(Step::Go);
    bench.started().await;
    turn(PATIENCE + Duration::from_secs(10)).await;
    assert_eq!(code(&bench.results("base", 1).await[&1]), "interrupted");

    bench.faults.lock().unwrap().loads = true;
    bench.add("base", vec![task(2)]).await;
    turn(PATIENCE + Duration::from_secs(10)).await;
    assert_eq!(code(&bench.results("base", 1).await[&2]), "interrupted");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn storage_that_fails_is_told_until_it_works_again() {
    let mut bench = Bench::start(&["base"], 1).await;
    bench.faults.lock().unwrap().stores = true;
    bench.add("base", vec![task(0)]).await;
    bench.step(Step::Go);
    bench.until_told(Some("an output cannot be stored: down")).await;
    let cards = bench.queue.workers(LEASE).await.unwrap();
    assert_eq!(cards[0].trouble, "an output cannot be stored: down");
    bench.faults.lock().unwrap().stores = false;
    bench.until_told(None).await;
    assert_eq!(code(&bench.results("base", 1).await[&0]), "done");

    bench.faults.lock().unwrap().loads = true;
    bench.add("base", vec![task(1)]).await;
    bench.until_told(Some("an input cannot be loaded: down")).await;
    turn(PATIENCE + Duration::from_secs(10)).await;
    assert_eq!(code(&bench.results("base", 1).await[&1]), "interrupted");
    // No task is left that would retry, so the old fault is not reported for ever.
    bench.until_told(None).await;
    bench.end().await;
}

/// Advances time second by second, so that every timer on the way fires.
async fn turn(by: Duration) {
    for _ in 0..by.as_secs() {
        settle().await;
        // Encoding runs on a separate thread, so it needs real time too.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        advance(Duration::from_secs(1)).await;
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_runs_and_hands_back_the_rest_in_order() {
    let mut bench = Bench::start(&["base"], 2).await;
    bench.add("base", (0..6).map(task).collect()).await;
    let mut seen = Vec::new();
    while !(seen.contains(&Event::Started(vec![0, 1])) && seen.contains(&Event::Loaded(3))) {
        seen.push(bench.event().await);
    }
    bench.handle.shutdown();
    settle().await;
    assert_eq!(bench.handle.card().state, WorkerState::Draining);
    bench.step(Step::Go);
    let results = bench.results("base", 2).await;
    assert!(results.values().all(|result| code(result) == "done"));
    let queue = Arc::clone(&bench.queue);
    bench.end().await;
    let next =
        queue.lease(&pool("base"), &WorkerId("v".to_owned()), 10, Duration::ZERO).await.unwrap();
    assert_eq!(next.iter().map(|lease| index(&lease.task)).collect::<Vec<_>>(), [2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn after_the_grace_period_a_run_stops_at_its_next_step_without_a_failure() {
    let mut bench = Bench::start(&["base"], 2).await;
    bench.add("base", vec![task(0), task(1)]).await;
    bench.started().await;
    bench.handle.shutdown();
    settle().await;
    advance(GRACE).await;
    settle().await;
    bench.step(Step::Go);
    let queue = Arc::clone(&bench.queue);
    bench.end().await;
    let entries = queue.entries(&pool("base")).await.unwrap();
    assert!(
        entries.iter().all(|entry| entry.state == darkroom_queue::task::EntryState::Waiting),
        "{entries:?}"
    );
    assert_eq!(entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_never_stops_keeps_neither_the_process_nor_its_tasks() {
    let mut bench = Bench::start(&["base"], 2).await;
    bench.add("base", vec![task(0), task(1)]).await;
    bench.started().await;
    bench.handle.shutdown();
    settle().await;
    advance(GRACE).await;
    settle().await;
    advance(GRACE).await;
    let Bench { queue, handle, steps, _hold, .. } = bench;
    handle.join().await.unwrap();
    let next =
        queue.lease(&pool("base"), &WorkerId("v".to_owned()), 10, Duration::ZERO).await.unwrap();
    assert_eq!(next.len(), 2);
    drop(steps);
}

#[tokio::test]
async fn a_model_that_cannot_be_made_says_why() {
    let (events, _) = mpsc::unbounded_channel();
    let stage = TestStage { events, faults: Arc::default() };
    let refused = UserError::invalid("device", "device is \"cuda:9\"; accepted: cpu");
    let error = refused.clone();
    let options = Options::new(WorkerId("w".to_owned()), "host", Vec::new());
    let started = stage_loop::start::<_, TestModel>(
        options,
        Arc::new(MemoryQueue::default()),
        Arc::new(stage),
        move || Err(error),
        CancellationToken::new(),
    );
    assert_eq!(started.await.unwrap_err(), refused);
}
