//! Cards of workers, and the orders that they get.

use std::{sync::Arc, time::Duration};

use darkroom_core::worker_state::WorkerState;
use darkroom_queue::task::{Completion, Orders, WorkerCard};
use tokio::time::sleep;

use super::{
    harness::{Harness, indices, worker},
    samples::{card, pool},
};

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
    assert_eq!(fresh[0].leased, 3, "the latest card counts");
    let all = within(h.lease * 100).await;
    assert_eq!(all.iter().map(|card| card.id.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(all[0].seen_seconds_ago >= h.lease.as_secs_f64() * 0.99);
}

/// Asking a worker to drain.
pub async fn a_worker_that_is_to_drain_is_told_until_it_leaves(h: Harness) {
    let drain = Orders { drain: true, aside: false };
    assert_eq!(h.queue.announce(card("a")).await.expect("announced"), Orders::default());
    h.queue.announce(card("b")).await.expect("announced");
    for _ in 0..2 {
        h.queue.ask_to_drain(&worker("a")).await.expect("asking twice is like asking once");
        assert_eq!(h.queue.announce(card("a")).await.expect("announced"), drain);
    }
    assert_eq!(h.queue.announce(card("b")).await.expect("announced"), Orders::default());
    let mut cards = h.queue.workers(h.lease).await.expect("workers");
    cards.sort_by(|a, b| a.id.cmp(&b.id));
    let states: Vec<_> = cards.iter().map(|card| card.state.clone()).collect();
    assert_eq!(states, [WorkerState::Draining, WorkerState::Working], "whatever its own card says");
    h.queue.withdraw(&worker("a")).await.expect("withdrawn");
    assert_eq!(
        h.queue.announce(card("a")).await.expect("announced"),
        Orders::default(),
        "forgotten"
    );
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
    assert!(h.heartbeat(&pool, "a", &held).await.is_empty(), "it keeps what it holds");
    assert_eq!(h.complete(&pool, &held[0]).await, Completion::Recorded);
    let orders = h.queue.announce(card("a")).await.expect("announced");
    assert_eq!(orders, Orders { drain: false, aside: true });
    assert_eq!(h.queue.workers(h.lease).await.expect("workers")[0].state, WorkerState::SetAside);
    assert_eq!(indices(&h.lease(&pool, "b", 1).await), [1], "another worker gets it");
    h.queue.set_aside(&[pool.clone(), other.clone()], &[]).await.expect("lifted");
    assert_eq!(indices(&h.lease(&pool, "a", 1).await), [2], "lifted at once");
    h.queue.set_aside(&[pool.clone(), other.clone()], &aside).await.expect("set aside");
    assert!(h.lease(&other, "a", 9).await.is_empty());
    sleep(h.lease + Duration::from_millis(50)).await;
    assert_eq!(indices(&h.lease(&other, "a", 9).await), [4], "it ends by itself");
    assert_eq!(h.queue.announce(card("a")).await.expect("announced"), Orders::default());
}
