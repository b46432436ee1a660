//! Keeps tensors in memory that images share: prompts come in runs, all of them use the negative
//! text, and the images of a prompt start from one picture.
//!
//! A tensor that several ask for at the same time is read once. The least recently used tensors
//! make room for others. Failures are not kept.

use std::{fmt, hash::Hash, sync::Arc};

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_queue::stage_loop::Fault;
use moka::{future::Cache, policy::EvictionPolicy};

/// Tensors by key, with a limit on their bytes together.
pub(crate) struct Kept<K>(Cache<K, Arc<FloatTensor>>);

impl<K: Eq + Hash + Send + Sync + 'static> Kept<K> {
    /// Keeps tensors of up to `bytes` together. A single larger tensor is kept alone.
    pub(crate) fn new(bytes: u64) -> Self {
        let most = u32::try_from(bytes).unwrap_or(u32::MAX);
        let weight = move |_: &K, tensor: &Arc<FloatTensor>| {
            u32::try_from(size_of_val(tensor.data.as_slice())).unwrap_or(u32::MAX).min(most)
        };
        let cache = Cache::builder().max_capacity(bytes).weigher(weight);
        Self(cache.eviction_policy(EvictionPolicy::lru()).build())
    }

    /// The tensor of that key: the kept one, or the result of `read`. `read` runs only if nobody is
    /// reading this tensor already.
    ///
    /// # Errors
    /// The error of `read`, for all that waited for it.
    pub(crate) async fn get(
        &self,
        key: K,
        read: impl Future<Output = Result<FloatTensor, Fault>>,
    ) -> Result<Arc<FloatTensor>, Fault> {
        let mut was_read = false;
        let read = async {
            let tensor = read.await;
            was_read = tensor.is_ok();
            tensor.map(Arc::new)
        };
        let tensor =
            self.0.try_get_with(key, read).await.map_err(|fault: Arc<Fault>| Fault::clone(&fault));
        if was_read {
            // Otherwise up to 64 new tensors would be counted late: the cache would exceed its
            // limit, and ignore what was used in the meantime.
            self.0.run_pending_tasks().await;
        }
        tensor
    }
}

impl<K> fmt::Debug for Kept<K> {
    // Not derived, because that would print every value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kept").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn tensor(values: usize) -> FloatTensor {
        FloatTensor { shape: vec![values], data: vec![0.0; values] }
    }

    /// A cache for `values` f32s, and a count of reads.
    struct Counted {
        kept: Kept<u32>,
        reads: Cell<u32>,
    }

    impl Counted {
        fn new(values: u64) -> Self {
            Self { kept: Kept::new(4 * values), reads: Cell::new(0) }
        }

        /// Requests `key`, and returns how often it was read so far.
        async fn reads_for(&self, key: u32, values: usize) -> u32 {
            let before = self.reads.get();
            let read = async {
                self.reads.set(before + 1);
                Ok(tensor(values))
            };
            self.kept.get(key, read).await.expect("reads");
            self.reads.get() - before
        }
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_makes_room() {
        let cache = Counted::new(100);
        for key in 0..4 {
            assert_eq!(cache.reads_for(key, 25).await, 1);
        }
        assert_eq!(cache.reads_for(0, 25).await, 0, "used again, so it is not the oldest");
        assert_eq!(cache.reads_for(4, 25).await, 1);
        assert_eq!((cache.reads_for(0, 25).await, cache.reads_for(1, 25).await), (0, 1));
    }

    #[tokio::test]
    async fn one_that_is_larger_than_all_is_kept_alone() {
        let cache = Counted::new(100);
        cache.reads_for(1, 60).await;
        cache.reads_for(2, 1000).await;
        assert_eq!((cache.reads_for(2, 1000).await, cache.reads_for(1, 60).await), (0, 1));
    }

    #[tokio::test]
    async fn a_failure_is_told_and_not_kept() {
        let kept = Kept::new(100);
        let failed = kept.get(1, async { Err(Fault::Storage("away".to_owned())) }).await;
        assert!(matches!(failed, Err(Fault::Storage(reason)) if reason == "away"));
        kept.get(1, async { Ok(tensor(1)) }).await.expect("it is there now");
    }
}
