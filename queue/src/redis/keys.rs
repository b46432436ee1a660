//! Names of the keys. The keys of one pool share a hash tag, and so they are in one slot of a
//! cluster.

use crate::task::PoolId;

/// Longest farm id.
const FARM_ID: usize = 64;

/// The names of a farm's keys.
#[derive(Clone, Debug)]
pub(super) struct FarmKeys {
    /// The farm's id.
    pub(super) farm: String,
    /// Identity of the SQL database that uses this queue.
    pub(super) owner: String,
    /// Hash: worker to card.
    pub(super) cards: String,
    /// Sorted set: workers by the time of their last sign of life, milliseconds by Redis's clock.
    pub(super) seen: String,
    /// Sorted set: workers that must drain, by the time of that request.
    pub(super) drain: String,
    /// Sorted set: workers that are set aside, by the time when that ends.
    pub(super) aside: String,
}

/// The names of one pool's keys.
#[derive(Clone, Debug)]
pub(super) struct PoolKeys {
    /// Stream: waiting tasks, and those leased from it.
    pub(super) tasks: String,
    /// Stream: tasks that were handed back; they come before the other waiting tasks.
    pub(super) head: String,
    /// List: tokens for workers that wait.
    pub(super) bell: String,
    /// Id of the newest suspect that was added to the stream of tasks.
    pub(super) suspect: String,
    /// Sorted set: workers that are set aside, by the time when that ends, milliseconds by
    /// Redis's clock.
    pub(super) aside: String,
    /// Stream: results.
    pub(super) results: String,
    /// List: tokens for committers that wait.
    pub(super) rung: String,
}

impl FarmKeys {
    /// `None` for an id that cannot be in a hash tag; accepted: 1 to 64 letters, digits, `-` and
    /// `_`.
    pub(super) fn new(farm: &str) -> Option<Self> {
        let fits = (1..=FARM_ID).contains(&farm.len())
            && farm.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        fits.then(|| Self {
            farm: farm.to_owned(),
            owner: format!("darkroom:{{{farm}}}:owner"),
            cards: format!("darkroom:{{{farm}}}:cards"),
            seen: format!("darkroom:{{{farm}}}:seen"),
            drain: format!("darkroom:{{{farm}}}:drain"),
            aside: format!("darkroom:{{{farm}}}:aside"),
        })
    }

    pub(super) fn pool(&self, pool: &PoolId) -> PoolKeys {
        let tag = format!("darkroom:{{{}:{}@{}}}", self.farm, pool.stage, pool.digest);
        PoolKeys {
            tasks: format!("{tag}:tasks"),
            head: format!("{tag}:head"),
            bell: format!("{tag}:bell"),
            suspect: format!("{tag}:suspect"),
            aside: format!("{tag}:aside"),
            results: format!("{tag}:results"),
            rung: format!("{tag}:rung"),
        }
    }
}

/// The type that Redis must report for one of these keys.
pub(super) fn type_of(key: &str) -> &'static str {
    match key.rsplit(':').next() {
        Some("tasks" | "head" | "results") => "stream",
        Some("bell" | "rung") => "list",
        Some("cards") => "hash",
        Some("seen" | "drain" | "aside") => "zset",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::samples::pool;

    #[test]
    fn a_pools_keys_share_one_hash_tag_and_differ_otherwise() {
        let keys = FarmKeys::new("farm-1").unwrap().pool(&pool("base"));
        let all =
            [keys.tasks, keys.head, keys.bell, keys.suspect, keys.aside, keys.results, keys.rung];
        let tag = |key: &str| key[key.find('{').unwrap()..=key.find('}').unwrap()].to_owned();
        assert!(all.iter().all(|key| tag(key) == tag(&all[0])));
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_farm_id_cannot_break_the_tag() {
        assert!(
            ["", "a}b", "{", "a b", &"x".repeat(65)].iter().all(|id| FarmKeys::new(id).is_none())
        );
    }
}
