//! Workers and cascades.

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
}
