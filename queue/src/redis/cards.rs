//! Workers' cards: a hash of cards and a sorted set of when each was last seen, by Redis's clock.

use std::time::Duration;

use darkroom_core::id::WorkerId;

use super::{connection::Link, keys::FarmKeys, script::SCRIPTS};
use crate::{Error, task::WorkerCard};

/// Cards older than this are forgotten whatever a reader asks for, so that the list stays bounded.
const LIFETIME: Duration = Duration::from_secs(3600);

pub(super) async fn announce(link: &Link, farm: &FarmKeys, card: &WorkerCard) -> Result<(), Error> {
    let text = serde_json::to_string(card).map_err(|error| Error::Malformed(error.to_string()))?;
    let mut call = SCRIPTS.announce.call(&[&farm.cards, &farm.seen]);
    call.arg(&card.id.0).arg(text).arg(LIFETIME.as_millis().to_string());
    link.ask::<i64>(&SCRIPTS.announce, call).await.map(drop)
}

pub(super) async fn withdraw(link: &Link, farm: &FarmKeys, worker: &WorkerId) -> Result<(), Error> {
    let mut call = SCRIPTS.withdraw.call(&[&farm.cards, &farm.seen]);
    call.arg(&worker.0);
    link.ask::<i64>(&SCRIPTS.withdraw, call).await.map(drop)
}

pub(super) async fn workers(link: &Link, farm: &FarmKeys, since: Duration) -> Result<Vec<WorkerCard>, Error> {
    let mut call = SCRIPTS.workers.call(&[&farm.cards, &farm.seen]);
    call.arg(since.min(LIFETIME).as_millis().to_string());
    let cards: Vec<(u64, String)> = link.ask(&SCRIPTS.workers, call).await?;
    Ok(cards.into_iter().filter_map(|(age_ms, text)| card(age_ms, &text)).collect())
}

fn card(age_ms: u64, text: &str) -> Option<WorkerCard> {
    let seen_seconds_ago = Duration::from_millis(age_ms).as_secs_f64();
    match serde_json::from_str::<WorkerCard>(text) {
        Ok(card) => Some(WorkerCard { seen_seconds_ago, ..card }),
        // Of another release, perhaps; its next one may do, and a silent one's is forgotten in time.
        Err(error) => {
            tracing::debug!(%error, "a worker's card cannot be read");
            None
        }
    }
}
