//! The states of all images of a job.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use crate::store::{error::Error, image_map::MapPart};

/// The states of all images of a job.
#[async_trait]
pub trait ImageMaps: Send + Sync + 'static {
    /// The states of the images from `first` on, as of one moment:
    /// [`MAP_PART`](crate::store::image_map::MAP_PART) images, or up to the job's end.
    async fn map_part(&self, job: JobId, first: u64) -> Result<MapPart, Error>;

    /// The states of the images that changed after a version, as of one moment; `None` if there may
    /// be more than `most`.
    async fn map_changes(
        &self,
        job: JobId,
        after: u64,
        most: u32,
    ) -> Result<Option<MapPart>, Error>;
}
