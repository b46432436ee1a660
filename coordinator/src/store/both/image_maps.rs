//! The states of all images of a job.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use super::{
    super::image_maps,
    Error, Record,
    rows::{Small, number, parse},
};
use crate::store::{
    image_map::{MAP_PART, MapPart, joined, of_images},
    roles::ImageMaps,
};

/// Index, state and stage of an image.
pub(in super::super) type ChangedRow = (i64, String, Small);

/// The map's version and size without runs, and the images that changed. `None`: too many changed.
pub(in super::super) type Changes = Option<(MapPart, Vec<ChangedRow>)>;

#[async_trait]
impl ImageMaps for Record {
    async fn map_part(&self, job: JobId, first: u64) -> Result<MapPart, Error> {
        let mut tx = self.begin_read().await?;
        let range = (first, first.saturating_add(u64::from(MAP_PART)));
        let (part, runs) = image_maps::part(&mut tx, job, range).await?;
        Ok(MapPart { runs: joined(runs, range), ..part })
    }

    async fn map_changes(
        &self,
        job: JobId,
        after: u64,
        most: u32,
    ) -> Result<Option<MapPart>, Error> {
        let mut tx = self.begin_read().await?;
        let Some((part, rows)) = image_maps::changes(&mut tx, job, (after, most)).await? else {
            return Ok(None);
        };
        let changed =
            |(idx, state, stage): ChangedRow| Ok((number(idx)?, parse(&state)?, number(stage)?));
        let changed = rows.into_iter().map(changed).collect::<Result<_, Error>>()?;
        Ok(Some(MapPart { runs: of_images(changed), ..part }))
    }
}
