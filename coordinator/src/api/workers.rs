//! Workers, cascades, and the farm itself.

use std::time::{SystemTime, UNIX_EPOCH};

use darkroom_proto::v1;

use super::{Farm, convert};
use crate::service::Error;

impl Farm {
    pub(super) async fn workers(&self) -> Result<v1::ListWorkersResponse, Error> {
        let cards = self.shared.queue.workers(self.shared.options.worker_ttl).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let measured = |pool: &_| self.shared.rates.seconds_per_image(pool);
        Ok(v1::ListWorkersResponse {
            workers: cards.iter().map(|card| convert::worker(card, now, measured)).collect(),
        })
    }

    pub(super) fn cascades(&self) -> v1::ListCascadesResponse {
        let cascades = self.shared.cascades.iter();
        v1::ListCascadesResponse {
            cascades: cascades.map(|(digest, cascade)| convert::cascade(digest, cascade)).collect(),
        }
    }

    pub(super) async fn farm(&self) -> Result<v1::GetFarmResponse, Error> {
        Ok(v1::GetFarmResponse {
            farm_id: self.shared.store.farm_id().await?.to_string(),
            lease_seconds: self.shared.options.lease.as_secs_f64(),
            cascades: self.cascades().cascades,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}
