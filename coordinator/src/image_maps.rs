//! A cache of recently read maps of jobs' images. If many clients ask for the same page, it is read
//! once, and all wait for that read.

use std::{sync::Arc, time::Duration};

use darkroom_core::id::JobId;
use darkroom_proto::v1;
use moka::future::Cache;
use tokio::sync::Semaphore;

use crate::{error::Error, store};

/// Largest age of a map that is used again.
const AGE: Duration = Duration::from_secs(1);
/// Most runs of all kept maps together.
const RUNS: u64 = 1 << 20;
/// Maps that are read at one time.
const READING: usize = 2;

pub(crate) struct ImageMaps {
    /// By job and first image.
    maps: Cache<(JobId, u64), Arc<v1::GetImageMapResponse>>,
    reading: Semaphore,
}

impl Default for ImageMaps {
    fn default() -> Self {
        Self::keeping(AGE)
    }
}

impl ImageMaps {
    /// Keeps maps for this long.
    fn keeping(age: Duration) -> Self {
        let weight = |_: &(JobId, u64), map: &Arc<v1::GetImageMapResponse>| {
            u32::try_from(map.codes.len() + 16).unwrap_or(u32::MAX)
        };
        let maps = Cache::builder().max_capacity(RUNS).time_to_live(age).weigher(weight).build();
        Self { maps, reading: Semaphore::new(READING) }
    }

    /// The map of a job from an image on: a recent one that is not older than `version`, or a new
    /// one from `read`.
    pub(crate) async fn get<F>(
        &self,
        key: (JobId, u64),
        version: u64,
        read: impl Fn() -> F,
    ) -> Result<v1::GetImageMapResponse, Error>
    where
        F: Future<Output = Result<v1::GetImageMapResponse, Error>>,
    {
        let map = self.known(key, read()).await?;
        if map.version >= version {
            return Ok((*map).clone());
        }
        self.maps.invalidate(&key).await;
        Ok((*self.known(key, read()).await?).clone())
    }

    async fn known(
        &self,
        key: (JobId, u64),
        read: impl Future<Output = Result<v1::GetImageMapResponse, Error>>,
    ) -> Result<Arc<v1::GetImageMapResponse>, Error> {
        let reading = async {
            let _turn = self.reading.acquire().await.map_err(Error::other)?;
            read.await.map(Arc::new)
        };
        let told = |error: Arc<Error>| Error::Store(store::Error::Refused(error.to_user()));
        self.maps.try_get_with(key, reading).await.map_err(told)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_map_is_read_once_for_all_who_ask_within_a_second_and_know_nothing_newer() {
        let (maps, reads) = (ImageMaps::keeping(Duration::from_secs(3600)), Cell::new(0));
        let key = (JobId(Uuid::now_v7()), 0);
        let read = || async {
            reads.set(reads.get() + 1);
            tokio::task::yield_now().await;
            let version = reads.get();
            Ok(v1::GetImageMapResponse { version, ..Default::default() })
        };
        let (one, other) = tokio::join!(maps.get(key, 0, read), maps.get(key, 0, read));
        assert_eq!((one.expect("read").version, other.expect("read").version), (1, 1));
        assert_eq!(maps.get(key, 1, read).await.expect("kept").version, 1);
        assert_eq!(maps.get(key, 2, read).await.expect("read again").version, 2);
        assert_eq!(maps.get((key.0, 5), 0, read).await.expect("another part").version, 3);
        assert_eq!(reads.get(), 3);
    }

    #[tokio::test]
    async fn a_failure_is_told_as_it_was_and_not_kept() {
        let maps = ImageMaps::default();
        let key = (JobId(Uuid::now_v7()), 0);
        let missing = || async { Err(store::Error::no_job(key.0).into()) };
        let error = maps.get(key, 0, missing).await.expect_err("no job").to_user();
        assert_eq!(error.reason, "NOT_FOUND");
        maps.get(key, 0, || async { Ok(v1::GetImageMapResponse::default()) }).await.expect("read");
    }
}
