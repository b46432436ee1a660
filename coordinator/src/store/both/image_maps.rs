//! The states of all images of a job.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use super::{super::image_maps, Error, Record};
use crate::store::{image_map::MapPart, roles::ImageMaps};

#[async_trait]
impl ImageMaps for Record {
    async fn map_part(&self, job: JobId, first: u64) -> Result<MapPart, Error> {
        let mut tx = self.begin_read().await?;
        image_maps::part(&mut tx, job, first).await
    }

    async fn map_changes(
        &self,
        job: JobId,
        after: u64,
        most: u32,
    ) -> Result<Option<MapPart>, Error> {
        let mut tx = self.begin_read().await?;
        image_maps::changes(&mut tx, job, (after, most)).await
    }
}
