//! When a worker is set aside (DESIGN invariant 9): when images that ran alone failed on it, and
//! another worker then completed them.
//!
//! A worker is set aside only if each pool it serves still has another worker that takes tasks. An
//! image that fails everywhere blames nobody, because no worker completes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::WorkerId;

/// The number of such images after which a worker is set aside.
pub const IMAGES: u64 = 3;
/// The failures must lie within this many seconds.
pub const WINDOW_SECONDS: u64 = 900;
/// Seconds for which a worker is set aside the first time. Each further time is twice as long.
pub const FIRST_SECONDS: u64 = 300;
/// Most seconds for which a worker is set aside.
pub const MOST_SECONDS: u64 = 3600;

/// Seconds for which a worker is set aside when it was set aside `before` times already.
#[must_use]
pub fn aside_seconds(before: u32) -> u64 {
    FIRST_SECONDS.saturating_mul(1 << before.min(10)).min(MOST_SECONDS)
}

/// A live worker.
#[derive(Clone, Debug)]
pub struct Peer<P> {
    /// Its id.
    pub worker: WorkerId,
    /// The pools it serves.
    pub pools: BTreeSet<P>,
    /// Whether it takes tasks: it is neither draining nor set aside.
    pub takes_tasks: bool,
}

/// The blamed workers that can be set aside, one after the other, without leaving a pool empty.
#[must_use]
pub fn to_set_aside<P: Ord>(peers: &[Peer<P>], blamed: &[WorkerId]) -> Vec<WorkerId> {
    let mut serving = serving(peers);
    let mut chosen = Vec::new();
    for worker in blamed {
        let Some(peer) = peers.iter().find(|peer| &peer.worker == worker && peer.takes_tasks)
        else {
            continue;
        };
        if chosen.contains(worker)
            || peer.pools.iter().any(|pool| serving.get(pool).is_none_or(|n| *n < 2))
        {
            continue;
        }
        for pool in &peer.pools {
            serving.entry(pool).and_modify(|workers| *workers -= 1);
        }
        chosen.push(worker.clone());
    }
    chosen
}

/// The workers that must be taken back because a pool of theirs lost its other workers. Those whose
/// time ends first come first.
#[must_use]
pub fn to_take_back<P: Ord>(peers: &[Peer<P>], aside: &[WorkerId]) -> Vec<WorkerId> {
    let mut serving = serving(peers);
    let mut chosen = Vec::new();
    for worker in aside {
        let Some(peer) = peers.iter().find(|peer| &peer.worker == worker && !peer.takes_tasks)
        else {
            continue;
        };
        if peer.pools.iter().all(|pool| serving.contains_key(pool)) {
            continue;
        }
        for pool in &peer.pools {
            *serving.entry(pool).or_insert(0) += 1;
        }
        chosen.push(worker.clone());
    }
    chosen
}

fn serving<P: Ord>(peers: &[Peer<P>]) -> BTreeMap<&P, u64> {
    let mut serving = BTreeMap::new();
    for pool in peers.iter().filter(|peer| peer.takes_tasks).flat_map(|peer| &peer.pools) {
        *serving.entry(pool).or_insert(0) += 1;
    }
    serving
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(worker: &str, pools: &[u8], takes_tasks: bool) -> Peer<u8> {
        Peer {
            worker: WorkerId(worker.to_owned()),
            pools: pools.iter().copied().collect(),
            takes_tasks,
        }
    }

    fn names(workers: &[WorkerId]) -> Vec<&str> {
        workers.iter().map(|worker| worker.0.as_str()).collect()
    }

    fn ids(names: &[&str]) -> Vec<WorkerId> {
        names.iter().map(|name| WorkerId((*name).to_owned())).collect()
    }

    #[test]
    fn the_last_of_a_pool_is_never_set_aside() {
        let peers = [peer("a", &[1, 2], true), peer("b", &[1], true), peer("c", &[2], true)];
        assert_eq!(names(&to_set_aside(&peers, &ids(&["a", "b", "c"]))), ["a"]);
        assert_eq!(names(&to_set_aside(&peers, &ids(&["b", "c", "a"]))), ["b", "c"]);
        assert!(to_set_aside(&peers[..1], &ids(&["a"])).is_empty());
        let aside = [peer("a", &[1], true), peer("b", &[1], false)];
        assert!(to_set_aside(&aside, &ids(&["a"])).is_empty(), "the other one takes nothing");
        assert!(to_set_aside(&peers, &ids(&["gone"])).is_empty());
    }

    #[test]
    fn who_is_left_alone_with_a_pool_comes_back() {
        let peers = [peer("a", &[1], false), peer("b", &[1], false), peer("c", &[2], true)];
        assert_eq!(names(&to_take_back(&peers, &ids(&["b", "a"]))), ["b"], "one is enough");
        let served = [peer("a", &[1], false), peer("d", &[1], true)];
        assert!(to_take_back(&served, &ids(&["a"])).is_empty());
    }

    #[test]
    fn each_time_is_twice_as_long_up_to_an_hour() {
        let times: Vec<_> = (0..6).map(aside_seconds).collect();
        assert_eq!(times, [300, 600, 1200, 2400, 3600, 3600]);
        assert_eq!(aside_seconds(u32::MAX), 3600);
    }

    proptest! {
        #[test]
        fn a_pool_that_was_served_stays_served(
            workers in prop::collection::vec((prop::collection::btree_set(0_u8..4, 1..4), any::<bool>()), 1..8),
            blamed in prop::collection::vec(0_usize..8, 0..10),
        ) {
            let peers: Vec<_> = workers.iter().enumerate().map(|(n, (pools, takes_tasks))| {
                Peer { worker: WorkerId(format!("w{n}")), pools: pools.clone(), takes_tasks: *takes_tasks }
            }).collect();
            let blamed: Vec<_> = blamed.iter().map(|n| WorkerId(format!("w{n}"))).collect();
            let aside = to_set_aside(&peers, &blamed);
            let left: Vec<_> = peers.iter().map(|peer| {
                Peer { takes_tasks: peer.takes_tasks && !aside.contains(&peer.worker), ..peer.clone() }
            }).collect();
            let (before, after) = (serving(&peers), serving(&left));
            prop_assert!(before.keys().all(|pool| after.contains_key(pool)));
        }
    }
}
