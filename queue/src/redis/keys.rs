//! Names of the keys. Keys of one pool share a hash tag, and so a slot of a cluster.

use crate::task::PoolId;

/// Longest farm id.
const FARM_ID: usize = 64;

/// Names the keys of a farm.
#[derive(Clone, Debug)]
pub(super) struct FarmKeys {
    /// The farm's id.
    pub(super) farm: String,
    /// Identity of the SQL database whose queue this is.
    pub(super) owner: String,
    /// Hash: worker to card.
    pub(super) cards: String,
    /// Sorted set: workers by their last sign of life, milliseconds by Redis's clock.
    pub(super) seen: String,
    /// Sorted set: workers that are to drain, by when that was wished.
    pub(super) drain: String,
    /// Sorted set: workers that get nothing, by until when.
    pub(super) aside: String,
}

/// Names of one pool's keys.
#[derive(Clone, Debug)]
pub(super) struct PoolKeys {
    /// Stream: the line, and what was leased from it.
    pub(super) tasks: String,
    /// Stream: tasks handed back, which come before the line.
    pub(super) head: String,
    /// List: tokens for workers that wait.
    pub(super) bell: String,
    /// Id of the newest suspect that was added to the line.
    pub(super) suspect: String,
    /// Sorted set: workers that get nothing, by until when, milliseconds by Redis's clock.
    pub(super) aside: String,
    /// Stream: results.
    pub(super) results: String,
    /// List: tokens for committers that wait.
    pub(super) rung: String,
}

impl FarmKeys {
    /// None for an id that would not do in a hash tag; accepted: 1 to 64 letters, digits, `-` and `_`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::pool;

    #[test]
    fn a_pools_keys_share_one_hash_tag_and_differ_otherwise() {
        let keys = FarmKeys::new("farm-1").unwrap().pool(&pool("base"));
        let all = [keys.tasks, keys.head, keys.bell, keys.suspect, keys.aside, keys.results, keys.rung];
        let tag = |key: &str| key[key.find('{').unwrap()..=key.find('}').unwrap()].to_owned();
        assert!(all.iter().all(|key| tag(key) == tag(&all[0])));
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_farm_id_cannot_break_the_tag() {
        assert!(["", "a}b", "{", "a b", &"x".repeat(65)].iter().all(|id| FarmKeys::new(id).is_none()));
    }
}
