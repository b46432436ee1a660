//! Completing tasks, and how results reach their committer.

use std::time::Duration;

use darkroom_queue::task::{Completion, EntryId, EntryState, EntrySummary, Lease};
use tokio::time::sleep;

use super::{
    harness::{Harness, index, worker},
    samples::{done, pool},
};

/// A worker that slept past its lease completes nothing.
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

/// Each lease is judged by itself, and the answers are in order.
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
    assert!(
        h.queue
            .complete(&pool, &worker("a"), Vec::new())
            .await
            .expect("an empty call succeeds")
            .is_empty()
    );
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

/// As when a coordinator died between reading and committing.
pub async fn results_of_a_silent_committer_are_read_by_the_next(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..2).await;
    for lease in h.lease(&pool, "a", 2).await {
        h.complete(&pool, &lease).await;
    }
    assert_eq!(h.results(&pool, "c1").await, [0, 1]);
    assert!(h.results(&pool, "c2").await.is_empty(), "c1 is still working");
    sleep(h.takeover).await;
    assert_eq!(h.results(&pool, "c2").await, [0, 1]);
}

/// For all committers.
pub async fn acknowledged_results_are_gone(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..2).await;
    for lease in h.lease(&pool, "a", 2).await {
        h.complete(&pool, &lease).await;
    }
    let read = h.queue.results(&pool, "c1", 1, Duration::ZERO).await.expect("read");
    h.queue
        .acknowledge(&pool, &[read[0].id.clone(), EntryId("0-0".to_owned())])
        .await
        .expect("forgotten");
    sleep(h.takeover).await;
    assert_eq!(h.results(&pool, "c2").await, [1]);
    assert_eq!(h.queue.entries(&pool).await.expect("entries").len(), 1);
}

/// `complete` wakes a waiting committer.
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

/// The sweep sees waiting, leased and completed entries.
pub async fn entries_tell_every_state(h: Harness) {
    let pool = pool("base");
    assert!(h.queue.entries(&pool).await.expect("no such pool yet").is_empty());
    h.add_range(&pool, 0..3).await;
    let held = h.lease(&pool, "a", 2).await;
    h.complete(&pool, &held[0]).await;
    let states = |entries: Vec<EntrySummary>| {
        let mut states: Vec<_> = entries.into_iter().map(|e| (index(&e.key), e.state)).collect();
        states.sort_by_key(|(index, _)| *index);
        states
    };
    let expected = vec![
        (0, EntryState::Result),
        (1, EntryState::Leased(worker("a"))),
        (2, EntryState::Waiting),
    ];
    assert_eq!(states(h.queue.entries(&pool).await.expect("entries")), expected);
    h.results(&pool, "c").await;
    assert_eq!(
        states(h.queue.entries(&pool).await.expect("entries")),
        expected,
        "read is not acknowledged"
    );
}
