//! Leasing tasks: in order, to one worker at a time, and what ends a lease.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use darkroom_queue::{Leased, task::Completion};
use tokio::time::sleep;

use super::{
    harness::{Harness, ids, indices, worker},
    samples::{pool, suspect, task},
};

/// The oldest task first, and each task to only one worker.
pub async fn tasks_are_leased_in_order_and_once(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..3).await;
    h.add_range(&pool, 3..5).await;
    assert_eq!(indices(&h.lease(&pool, "a", 2).await), [0, 1]);
    assert_eq!(indices(&h.lease(&pool, "b", 10).await), [2, 3, 4]);
    assert!(h.lease(&pool, "a", 10).await.is_empty());
}

/// `add` wakes a waiting worker.
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

/// An empty queue gives no task and no error.
pub async fn an_empty_line_answers_after_the_wait(h: Harness) {
    let none = h
        .queue
        .lease(&pool("base"), &worker("a"), 5, Duration::from_millis(20))
        .await
        .expect("leased");
    assert!(none.is_empty());
    assert!(
        !h.queue.wait_for_tasks(&[pool("base")], Duration::from_millis(20)).await.expect("waited")
    );
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

/// Suspects before it, behind it, and next to another suspect.
pub async fn a_suspect_task_is_leased_alone(h: Harness) {
    let pool = pool("base");
    h.add(&pool, vec![task(0), suspect(1), suspect(2), task(3), task(4)]).await;
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [0]);
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [1]);
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [2]);
    assert_eq!(indices(&h.lease(&pool, "a", 5).await), [3, 4]);
}

/// Tasks and results of one pool are not visible in another.
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

/// Renewed leases stay; silent ones are reaped with their tasks.
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

/// Neither from another worker nor after the reaper.
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

/// Drained tasks come next, in their old order.
pub async fn leases_handed_back_go_to_the_head_in_order(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..5).await;
    let held = h.lease(&pool, "a", 3).await;
    h.queue.hand_back(&pool, &worker("a"), &ids(&held)).await.expect("handed back");
    assert_eq!(h.heartbeat(&pool, "a", &held).await, ids(&held), "the lease has ended");
    let next = h.lease(&pool, "b", 10).await;
    assert_eq!(indices(&next), [0, 1, 2, 3, 4]);
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::LeaseLost);
}

/// Tasks handed back a second time come next too; a suspect among them still runs alone.
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

/// Leases of other workers are not touched.
pub async fn only_the_holder_hands_back(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..1).await;
    let held = h.lease(&pool, "a", 1).await;
    h.queue.hand_back(&pool, &worker("b"), &ids(&held)).await.expect("ignored");
    assert!(h.heartbeat(&pool, "a", &held).await.is_empty());
    assert!(h.lease(&pool, "b", 1).await.is_empty());
}

/// As a cancel does.
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

/// As a pause does.
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

/// Concurrent leases are disjoint and complete.
pub async fn two_workers_never_share_a_task(h: Harness) {
    let pool = pool("base");
    h.add_range(&pool, 0..200).await;
    let take = |name: &'static str| {
        let (queue, pool) = (Arc::clone(&h.queue), pool.clone());
        async move {
            let mut taken = Vec::new();
            loop {
                let leases =
                    queue.lease(&pool, &worker(name), 3, Duration::ZERO).await.expect("leased");
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
