//! One suite that every backend of [`TaskQueue`](crate::TaskQueue) passes, and builders of tasks and results.
//!
//! Every guarantee stated on the trait is one of the checks below. A backend runs them with
//! [`conformance_tests!`](crate::conformance_tests), each as a test of its own on a fresh queue. Checks that need time to
//! pass sleep on tokio's clock, which a backend in memory runs paused.

use std::{any::Any, collections::BTreeSet, sync::Arc, time::Duration};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::{ImageId, JobId, StageName, WorkerId},
};
use tokio::time::sleep;

use crate::{
    Leased, TaskQueue,
    task::{
        Completion, EncodeBody, EntryId, EntryState, Lease, Orders, Outcome, PoolId, Subject, Task, TaskBody,
        TaskKey, TaskResult, WorkerCard,
    },
};

/// A fresh, empty queue to check, and its times.
pub struct Harness {
    /// The queue.
    pub queue: Arc<dyn TaskQueue>,
    /// Lease that the checks reap by; heartbeats renew well within it.
    pub lease: Duration,
    /// When a backend gives a silent committer's results to another.
    pub takeover: Duration,
    /// What must outlive the check: a server.
    pub keep: Box<dyn Any + Send>,
}

/// Runs every check as a test: `conformance_tests!(#[tokio::test], harness_expression)`.
#[macro_export]
macro_rules! conformance_tests {
    ($(#[$attribute:meta])+, $harness:expr) => {
        $crate::conformance_tests!(@ [$(#[$attribute])+], $harness,
            tasks_are_leased_in_order_and_once
            a_waiting_lease_gets_the_task_that_comes
            an_empty_line_answers_after_the_wait
            waiting_for_tasks_hints_at_any_pool_and_takes_nothing
            a_suspect_task_is_leased_alone
            pools_do_not_share_a_line
            a_heartbeat_keeps_a_lease_from_the_reaper
            a_heartbeat_never_takes_a_lease_back
            a_reaped_lease_cannot_complete
            only_the_holder_completes_and_only_once
            a_bulk_of_completions_is_answered_one_by_one
            leases_handed_back_go_to_the_head_in_order
            what_is_handed_back_later_comes_first
            only_the_holder_hands_back
            removed_tasks_are_gone_and_leased_ones_reported_lost
            a_pause_leaves_leased_tasks_alone
            results_are_read_once_by_their_committer
            results_of_a_silent_committer_are_read_by_the_next
            acknowledged_results_are_gone
            a_waiting_committer_gets_the_result_that_comes
            entries_tell_every_state
            a_silent_worker_expires_and_a_withdrawn_one_is_gone
            two_workers_never_share_a_task
            a_worker_that_is_to_drain_is_told_until_it_leaves
            a_worker_that_is_set_aside_gets_nothing_for_a_time
        );
    };
    (@ $attributes:tt, $harness:expr, $($check:ident)+) => {
        $($crate::conformance_tests!(@@ $attributes, $harness, $check);)+
    };
    (@@ [$(#[$attribute:meta])+], $harness:expr, $check:ident) => {
        $(#[$attribute])+
        async fn $check() {
            $crate::conformance::$check($harness).await;
        }
    };
}

/// A pool of stage `stage` for tests.
#[must_use]
pub fn pool(stage: &str) -> PoolId {
    let stage = StageName::try_from(stage.to_owned()).expect("a valid stage name");
    PoolId { stage, digest: Digest::of(b"conformance") }
}

/// Task number `index`, of an image of one job.
#[must_use]
pub fn task(index: u64) -> Task {
    let job = JobId(uuid::Uuid::from_u128(7));
    Task {
        key: TaskKey { subject: Subject::Image(ImageId { job, index }), generation: 1, dispatch: 1 },
        compatibility: "same".to_owned(),
        suspect: false,
        body: TaskBody::Encode(EncodeBody { text: format!("text {index}"), prefix: format!("t/{index}/") }),
        traceparent: None,
    }
}

/// Task number `index` as a suspect.
#[must_use]
pub fn suspect(index: u64) -> Task {
    Task { suspect: true, ..task(index) }
}

/// A successful result for a lease.
#[must_use]
pub fn done(lease: &Lease) -> TaskResult {
    let artifact = ArtifactRef { key: "t/x".to_owned(), sha256: Digest::of(b"x"), size: 1 };
    TaskResult {
        key: lease.task.key,
        worker: lease.worker.clone(),
        host: "host".to_owned(),
        device_class: "fake".to_owned(),
        alone: true,
        seconds: 0.5,
        outcome: Outcome::Done { artifact, notes: vec!["a note".to_owned()] },
    }
}

/// A card for worker `id`, serving nothing.
#[must_use]
pub fn card(id: &str) -> WorkerCard {
    WorkerCard {
        id: WorkerId(id.to_owned()),
        host: "host".to_owned(),
        device: "fake".to_owned(),
        device_class: "fake".to_owned(),
        pools: std::collections::BTreeMap::new(),
        leased: 0,
        done: 0,
        busy: 0.0,
        state: "working".to_owned(),
        trouble: String::new(),
        seen_seconds_ago: 0.0,
    }
}

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

fn ids(leases: &[Lease]) -> Vec<EntryId> {
    leases.iter().map(|lease| lease.id.clone()).collect()
}

fn indices(leases: &[Lease]) -> Vec<u64> {
    leases.iter().map(|lease| index(&lease.task.key)).collect()
}

fn index(key: &TaskKey) -> u64 {
    match key.subject {
        Subject::Image(image) => image.index,
        Subject::Text(_) => panic!("the suite's tasks are images"),
    }
}

impl Harness {
    async fn add(&self, pool: &PoolId, tasks: Vec<Task>) {
        self.queue.add(pool, tasks).await.expect("added");
    }

    async fn add_range(&self, pool: &PoolId, range: std::ops::Range<u64>) {
        self.add(pool, range.map(task).collect()).await;
    }

    async fn lease(&self, pool: &PoolId, name: &str, max: usize) -> Vec<Lease> {
        self.queue.lease(pool, &worker(name), max, Duration::ZERO).await.expect("leased")
    }

    async fn heartbeat(&self, pool: &PoolId, name: &str, leases: &[Lease]) -> Vec<EntryId> {
        self.queue.heartbeat(pool, &worker(name), &ids(leases)).await.expect("heartbeat")
    }

    async fn complete(&self, pool: &PoolId, lease: &Lease) -> Completion {
        self.complete_all(pool, std::slice::from_ref(lease)).await[0]
    }

    /// In one call, as the first one's worker.
    async fn complete_all(&self, pool: &PoolId, leases: &[Lease]) -> Vec<Completion> {
        let results = leases.iter().map(|lease| (lease.id.clone(), done(lease))).collect();
        self.queue.complete(pool, &leases[0].worker, results).await.expect("completed")
    }

    async fn results(&self, pool: &PoolId, committer: &str) -> Vec<u64> {
        let results = self.queue.results(pool, committer, 100, Duration::ZERO).await.expect("results");
        results.iter().map(|entry| index(&entry.result.key)).collect()
    }
}

/// The head of the line first, each task to one worker.
pub async fn tasks_are_leased_in_order_and_once(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..3).await;
    h.add_range(&pool, 3..5).await;
    assert_eq!(indices(&h.lease(&pool, "a", 2).await), [0, 1]);
    assert_eq!(indices(&h.lease(&pool, "b", 10).await), [2, 3, 4]);
    assert!(h.lease(&pool, "a", 10).await.is_empty());
}

/// A worker that waits is woken by `add`.
pub async fn a_waiting_lease_gets_the_task_that_comes(h: Harness) {
    let pool = pool("base");
    let name = worker("a");
    let waiting = h.queue.lease(&pool, &name, 5, Duration::from_secs(20));
    let adding = async {
        tokio::task::yield_now().await;
        h.add_range(&pool, 0..1).await;
    };
    let (leases, ()) = tokio::join!(waiting, adding);
    assert_eq!(indices(&leases.expect("leased")), [0]);
}

/// No task, no error.
pub async fn an_empty_line_answers_after_the_wait(h: Harness) {
    let none =
        h.queue.lease(&pool("base"), &worker("a"), 5, Duration::from_millis(20)).await.expect("leased");
    assert!(none.is_empty());
    assert!(!h.queue.wait_for_tasks(&[pool("base")], Duration::from_millis(20)).await.expect("waited"));
}

/// One wait serves all pools of a worker.
pub async fn waiting_for_tasks_hints_at_any_pool_and_takes_nothing(h: Harness) {
    let (base, last) = (pool("base"), pool("sr1024"));
    let both = [base.clone(), last.clone()];
    let waiting = h.queue.wait_for_tasks(&both, Duration::from_secs(20));
    let adding = async {
        tokio::task::yield_now().await;
        h.add_range(&last, 0..1).await;
    };
    let (hint, ()) = tokio::join!(waiting, adding);
    assert!(hint.expect("waited"));
    assert!(h.queue.wait_for_tasks(&both, Duration::ZERO).await.expect("still there"));
    assert_eq!(indices(&h.lease(&last, "a", 1).await), [0]);
}

/// Before it, behind it and with another suspect.
pub async fn a_suspect_task_is_leased_alone(h: Harness) {
    let pool = pool("base");
    h.add(&pool, vec![task(0), suspect(1), suspect(2), task(3), task(4)]).await;
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [0]);
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [1]);
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [2]);
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [3, 4]);
}

/// Tasks and results of one pool are not seen in another.
pub async fn pools_do_not_share_a_line(h: Harness) {
    let (base, last) = (pool("base"), pool("sr1024"));
    h.add_range(&base, 0..1).await;
    assert!(h.lease(&last, "a", 5).await.is_empty());
    let leases = h.lease(&base, "a", 5).await;
    assert_eq!(h.complete(&last, &leases[0]).await, Completion::LeaseLost);
    h.complete(&base, &leases[0]).await;
    assert!(h.results(&last, "c").await.is_empty());
    assert_eq!(h.results(&base, "c").await, [0]);
}

/// Renewed leases live, silent ones are reaped with their tasks.
pub async fn a_heartbeat_keeps_a_lease_from_the_reaper(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..2).await;
    let live = h.lease(&pool, "live", 1).await;
    let dead = h.lease(&pool, "dead", 1).await;
    for _ in 0..4 {
        sleep(h.lease / 3).await;
        assert!(h.heartbeat(&pool, "live", &live).await.is_empty());
    }
    let reaped = h.queue.reap(&pool, h.lease).await.expect("reaped");
    assert_eq!(reaped, dead);
    assert!(h.queue.reap(&pool, h.lease).await.expect("reaped").is_empty(), "reaped once");
    assert!(h.lease(&pool, "live", 5).await.is_empty(), "a reaped task is gone from the queue");
}

/// Not from another worker, and not after the reaper.
pub async fn a_heartbeat_never_takes_a_lease_back(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..1).await;
    let held = h.lease(&pool, "a", 1).await;
    assert_eq!(h.heartbeat(&pool, "b", &held).await, ids(&held), "another worker's");
    sleep(h.lease).await;
    assert_eq!(h.queue.reap(&pool, h.lease).await.expect("reaped").len(), 1);
    h.add_range(&pool, 0..1).await;
    let other = h.lease(&pool, "b", 1).await;
    assert_eq!(h.heartbeat(&pool, "a", &held).await, ids(&held), "reaped");
    assert!(h.heartbeat(&pool, "b", &other).await.is_empty(), "the new holder keeps it");
    assert_eq!(h.complete(&pool, &other[0]).await, Completion::Recorded);
}

/// A worker that slept past its lease reports into the void.
pub async fn a_reaped_lease_cannot_complete(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..1).await;
    let held = h.lease(&pool, "a", 1).await;
    sleep(h.lease).await;
    h.queue.reap(&pool, h.lease).await.expect("reaped");
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::LeaseLost);
    assert!(h.results(&pool, "c").await.is_empty());
}

/// A lease ends with one result.
pub async fn only_the_holder_completes_and_only_once(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..1).await;
    let held = h.lease(&pool, "a", 1).await;
    let thief = Lease { worker: worker("b"), ..held[0].clone() };
    assert_eq!(h.complete(&pool, &thief).await, Completion::LeaseLost);
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::Recorded);
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::LeaseLost);
    assert_eq!(h.results(&pool, "c").await, [0]);
}

/// Each for itself, answered in order.
pub async fn a_bulk_of_completions_is_answered_one_by_one(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..4).await;
    let mut held = h.lease(&pool, "a", 3).await;
    let other = h.lease(&pool, "b", 1).await;
    held.insert(1, Lease { worker: worker("a"), ..other[0].clone() });
    held.push(held[0].clone());
    let expected = [
        Completion::Recorded,
        Completion::LeaseLost,
        Completion::Recorded,
        Completion::Recorded,
        Completion::LeaseLost,
    ];
    assert_eq!(h.complete_all(&pool, &held).await, expected);
    assert_eq!(h.results(&pool, "c").await, [0, 1, 2]);
    assert!(h.heartbeat(&pool, "b", &other).await.is_empty(), "another's lease is untouched");
    assert!(h.queue.complete(&pool, &worker("a"), Vec::new()).await.expect("nothing to do").is_empty());
}

/// Drained tasks are next, in their old order.
pub async fn leases_handed_back_go_to_the_head_in_order(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..5).await;
    let held = h.lease(&pool, "a", 3).await;
    h.queue.hand_back(&pool, &worker("a"), &ids(&held)).await.expect("handed back");
    assert_eq!(h.heartbeat(&pool, "a", &held).await, ids(&held), "no lease any more");
    let next = h.lease(&pool, "b", 10).await;
    assert_eq!(indices(&next), [0, 1, 2, 3, 4]);
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::LeaseLost);
}

/// And so do those handed back from there, and with them a suspect, alone as before.
pub async fn what_is_handed_back_later_comes_first(h: Harness) {
    let pool = pool("base");
    h.add(&pool, vec![task(0), task(1), suspect(2), task(3)]).await;
    let first = h.lease(&pool, "a", 2).await;
    let second = h.lease(&pool, "a", 2).await;
    h.queue.hand_back(&pool, &worker("a"), &ids(&second)).await.expect("handed back");
    h.queue.hand_back(&pool, &worker("a"), &ids(&first)).await.expect("handed back");
    let again = h.lease(&pool, "b", 1).await;
    assert_eq!(indices(&again), [0]);
    h.queue.hand_back(&pool, &worker("b"), &ids(&again)).await.expect("handed back");
    assert_eq!(indices(&h.lease(&pool, "b", 10).await), [0, 1]);
    let alone = h.lease(&pool, "b", 10).await;
    assert_eq!(indices(&alone), [2]);
    assert!(alone[0].task.suspect);
    assert!(h.heartbeat(&pool, "b", &alone).await.is_empty());
    assert_eq!(indices(&h.lease(&pool, "b", 10).await), [3]);
    assert_eq!(h.complete(&pool, &alone[0]).await, Completion::Recorded);
}

/// Others' leases are left alone.
pub async fn only_the_holder_hands_back(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..1).await;
    let held = h.lease(&pool, "a", 1).await;
    h.queue.hand_back(&pool, &worker("b"), &ids(&held)).await.expect("ignored");
    assert!(h.heartbeat(&pool, "a", &held).await.is_empty());
    assert!(h.lease(&pool, "b", 1).await.is_empty());
}

/// Cancel.
pub async fn removed_tasks_are_gone_and_leased_ones_reported_lost(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..4).await;
    let held = h.lease(&pool, "a", 2).await;
    let unknown = task(99).key;
    let keys = [task(0).key, task(2).key, unknown];
    let mut removed = h.queue.remove(&pool, &keys, Leased::Remove).await.expect("removed");
    removed.sort_unstable();
    assert_eq!(removed, [task(0).key, task(2).key]);
    assert_eq!(h.heartbeat(&pool, "a", &held).await, ids(&held[..1]));
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::LeaseLost);
    assert_eq!(h.complete(&pool, &held[1]).await, Completion::Recorded);
    assert_eq!(indices(&h.lease(&pool, "b", 10).await), [3]);
}

/// Pause.
pub async fn a_pause_leaves_leased_tasks_alone(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..2).await;
    let held = h.lease(&pool, "a", 1).await;
    let keys = [task(0).key, task(1).key];
    let removed = h.queue.remove(&pool, &keys, Leased::Keep).await.expect("removed");
    assert_eq!(removed, [task(1).key]);
    assert!(h.heartbeat(&pool, "a", &held).await.is_empty());
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::Recorded);
}

/// However often it asks.
pub async fn results_are_read_once_by_their_committer(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..2).await;
    for lease in h.lease(&pool, "a", 2).await {
        h.complete(&pool, &lease).await;
    }
    assert_eq!(h.results(&pool, "c").await, [0, 1]);
    assert!(h.results(&pool, "c").await.is_empty());
    sleep(h.takeover).await;
    assert!(h.results(&pool, "c").await.is_empty());
}

/// A coordinator died between reading and committing.
pub async fn results_of_a_silent_committer_are_read_by_the_next(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..2).await;
    for lease in h.lease(&pool, "a", 2).await {
        h.complete(&pool, &lease).await;
    }
    assert_eq!(h.results(&pool, "c1").await, [0, 1]);
    assert!(h.results(&pool, "c2").await.is_empty(), "c1 is at work");
    sleep(h.takeover).await;
    assert_eq!(h.results(&pool, "c2").await, [0, 1]);
}

/// For every committer.
pub async fn acknowledged_results_are_gone(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..2).await;
    for lease in h.lease(&pool, "a", 2).await {
        h.complete(&pool, &lease).await;
    }
    let read = h.queue.results(&pool, "c1", 1, Duration::ZERO).await.expect("read");
    h.queue.acknowledge(&pool, &[read[0].id.clone(), EntryId("0-0".to_owned())]).await.expect("forgotten");
    sleep(h.takeover).await;
    assert_eq!(h.results(&pool, "c2").await, [1]);
    assert_eq!(h.queue.entries(&pool).await.expect("entries").len(), 1);
}

/// A committer that waits is woken by `complete`.
pub async fn a_waiting_committer_gets_the_result_that_comes(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..1).await;
    let held = h.lease(&pool, "a", 1).await;
    let waiting = h.queue.results(&pool, "c", 10, Duration::from_secs(20));
    let completing = async {
        tokio::task::yield_now().await;
        h.complete(&pool, &held[0]).await;
    };
    let (results, ()) = tokio::join!(waiting, completing);
    let results = results.expect("results");
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].result, done(&held[0]), "as it was reported");
}

/// The sweep sees waiting, leased and result entries.
pub async fn entries_tell_every_state(h: Harness) {
    let pool = pool("base");
    assert!(h.queue.entries(&pool).await.expect("no such pool yet").is_empty());
    h.add_range(&pool, 0..3).await;
    let held = h.lease(&pool, "a", 2).await;
    h.complete(&pool, &held[0]).await;
    let states = |entries: Vec<crate::task::EntrySummary>| {
        let mut states: Vec<_> = entries.into_iter().map(|e| (index(&e.key), e.state)).collect();
        states.sort_by_key(|(index, _)| *index);
        states
    };
    let expected =
        vec![(0, EntryState::Result), (1, EntryState::Leased(worker("a"))), (2, EntryState::Waiting)];
    assert_eq!(states(h.queue.entries(&pool).await.expect("entries")), expected);
    h.results(&pool, "c").await;
    assert_eq!(states(h.queue.entries(&pool).await.expect("entries")), expected, "read is not acknowledged");
}

/// Cards and their age.
pub async fn a_silent_worker_expires_and_a_withdrawn_one_is_gone(h: Harness) {
    for name in ["a", "b", "c"] {
        h.queue.announce(card(name)).await.expect("announced");
    }
    h.queue.withdraw(&worker("c")).await.expect("withdrawn");
    sleep(h.lease).await;
    h.queue.announce(WorkerCard { leased: 3, ..card("b") }).await.expect("announced");
    let within = |since| {
        let queue = Arc::clone(&h.queue);
        async move {
            let mut cards = queue.workers(since).await.expect("workers");
            cards.sort_by(|a, b| a.id.cmp(&b.id));
            cards
        }
    };
    let fresh = within(h.lease / 2).await;
    assert_eq!(fresh.iter().map(|card| card.id.0.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(fresh[0].leased, 3, "the latest card");
    let all = within(h.lease * 100).await;
    assert_eq!(all.iter().map(|card| card.id.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(all[0].seen_seconds_ago >= h.lease.as_secs_f64() * 0.99);
}

/// Concurrent leases are disjoint and complete.
pub async fn two_workers_never_share_a_task(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..200).await;
    let take = |name: &'static str| {
        let (queue, pool) = (Arc::clone(&h.queue), pool.clone());
        async move {
            let mut taken = Vec::new();
            loop {
                let leases = queue.lease(&pool, &worker(name), 3, Duration::ZERO).await.expect("leased");
                if leases.is_empty() {
                    return taken;
                }
                taken.extend(indices(&leases));
                tokio::task::yield_now().await;
            }
        }
    };
    let (a, b) = tokio::join!(take("a"), take("b"));
    let all: BTreeSet<u64> = a.iter().chain(&b).copied().collect();
    assert_eq!((all.len(), a.len() + b.len()), (200, 200));
}

/// Drain.
pub async fn a_worker_that_is_to_drain_is_told_until_it_leaves(h: Harness) {
    let drain = Orders { drain: true, aside: false };
    assert_eq!(h.queue.announce(card("a")).await.expect("announced"), Orders::default());
    h.queue.announce(card("b")).await.expect("announced");
    for _ in 0..2 {
        h.queue.ask_to_drain(&worker("a")).await.expect("wished, twice as once");
        assert_eq!(h.queue.announce(card("a")).await.expect("announced"), drain);
    }
    assert_eq!(h.queue.announce(card("b")).await.expect("announced"), Orders::default());
    let mut cards = h.queue.workers(h.lease).await.expect("workers");
    cards.sort_by(|a, b| a.id.cmp(&b.id));
    let states: Vec<_> = cards.iter().map(|card| card.state.as_str()).collect();
    assert_eq!(states, [WorkerCard::DRAINING, "working"], "whatever it says of itself");
    h.queue.withdraw(&worker("a")).await.expect("withdrawn");
    assert_eq!(h.queue.announce(card("a")).await.expect("announced"), Orders::default(), "forgotten");
}

/// Setting a worker aside.
pub async fn a_worker_that_is_set_aside_gets_nothing_for_a_time(h: Harness) {
    let (pool, other) = (pool("base"), pool("sr256"));
    h.add_range(&pool, 0..4).await;
    h.add_range(&other, 4..5).await;
    let held = h.lease(&pool, "a", 1).await;
    h.queue.announce(card("a")).await.expect("announced");
    let aside = [(worker("a"), h.lease)];
    h.queue.set_aside(&[pool.clone(), other.clone()], &aside).await.expect("set aside");
    assert!(h.lease(&pool, "a", 9).await.is_empty() && h.lease(&other, "a", 9).await.is_empty());
    assert!(h.heartbeat(&pool, "a", &held).await.is_empty(), "what it holds it keeps");
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::Recorded);
    let orders = h.queue.announce(card("a")).await.expect("announced");
    assert_eq!(orders, Orders { drain: false, aside: true });
    assert_eq!(h.queue.workers(h.lease).await.expect("workers")[0].state, WorkerCard::ASIDE);
    assert_eq!(indices(&h.lease(&pool, "b", 1).await), [1], "others get it");
    h.queue.set_aside(&[pool.clone(), other.clone()], &[]).await.expect("lifted");
    assert_eq!(indices(&h.lease(&pool, "a", 1).await), [2], "lifted at once");
    h.queue.set_aside(&[pool.clone(), other.clone()], &aside).await.expect("set aside");
    assert!(h.lease(&other, "a", 9).await.is_empty());
    sleep(h.lease + Duration::from_millis(50)).await;
    assert_eq!(indices(&h.lease(&other, "a", 9).await), [4], "it ends by itself");
    assert_eq!(h.queue.announce(card("a")).await.expect("announced"), Orders::default());
}
