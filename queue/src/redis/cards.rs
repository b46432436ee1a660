//! Workers' cards: a hash of cards, a sorted set of the times they were last seen by Redis's clock,
//! and the orders for workers: who must drain and who gets nothing.

use std::time::Duration;

use darkroom_core::id::WorkerId;
use redis::{Value, from_redis_value};

use super::{connection::Link, keys::FarmKeys, script::SCRIPTS};
use crate::{
    Error,
    task::{Orders, WorkerCard},
};

/// Cards older than this are dropped, whatever a reader asks for, so that the list stays bounded.
const LIFETIME: Duration = Duration::from_secs(3600);

pub(super) async fn announce(
    link: &Link,
    farm: &FarmKeys,
    card: &WorkerCard,
) -> Result<Orders, Error> {
    let text = serde_json::to_string(card).map_err(|error| Error::Malformed(error.to_string()))?;
    let mut call = SCRIPTS.announce.call(&[&farm.cards, &farm.seen, &farm.drain, &farm.aside]);
    call.arg(&card.id.0).arg(text).arg(LIFETIME.as_millis().to_string());
    Ok(orders(link.ask::<(i64, i64)>(&SCRIPTS.announce, call).await?))
}

pub(super) async fn ask_to_drain(
    link: &Link,
    farm: &FarmKeys,
    worker: &WorkerId,
) -> Result<(), Error> {
    let mut call = SCRIPTS.ask_to_drain.call(&[&farm.drain]);
    call.arg(&worker.0).arg(LIFETIME.as_millis().to_string());
    link.ask::<i64>(&SCRIPTS.ask_to_drain, call).await.map(drop)
}

/// Replaces the workers that get nothing, in one of the sets that list them.
pub(super) async fn set_aside(
    link: &Link,
    key: &str,
    workers: &[(WorkerId, Duration)],
) -> Result<(), Error> {
    let mut call = SCRIPTS.set_aside.call(&[key]);
    for (worker, time) in workers {
        call.arg(&worker.0).arg(time.as_millis().to_string());
    }
    link.ask::<i64>(&SCRIPTS.set_aside, call).await.map(drop)
}

pub(super) async fn withdraw(link: &Link, farm: &FarmKeys, worker: &WorkerId) -> Result<(), Error> {
    let mut call = SCRIPTS.withdraw.call(&[&farm.cards, &farm.seen, &farm.drain]);
    call.arg(&worker.0);
    link.ask::<i64>(&SCRIPTS.withdraw, call).await.map(drop)
}

pub(super) async fn workers(
    link: &Link,
    farm: &FarmKeys,
    since: Duration,
) -> Result<Vec<WorkerCard>, Error> {
    let mut call = SCRIPTS.workers.call(&[&farm.cards, &farm.seen, &farm.drain, &farm.aside]);
    call.arg(since.min(LIFETIME).as_millis().to_string());
    let cards: Vec<Value> = link.ask(&SCRIPTS.workers, call).await?;
    // Each by itself: one that cannot be read hides no other.
    let read = |value| {
        let (age_ms, id, text, drain, aside): (u64, Vec<u8>, Vec<u8>, i64, i64) =
            from_redis_value(value).ok()?;
        card(age_ms, &id, &text).map(|card| card.under(orders((drain, aside))))
    };
    Ok(cards.into_iter().filter_map(read).collect())
}

fn orders((drain, aside): (i64, i64)) -> Orders {
    Orders { drain: drain == 1, aside: aside == 1 }
}

pub(super) fn card(age_ms: u64, id: &[u8], text: &[u8]) -> Option<WorkerCard> {
    let seen_seconds_ago = Duration::from_millis(age_ms).as_secs_f64();
    match serde_json::from_slice::<WorkerCard>(text) {
        Ok(card) if card.id.0.as_bytes() != id => {
            tracing::debug!("a worker's card is in another worker's place");
            None
        }
        Ok(card) => Some(WorkerCard { seen_seconds_ago, ..card }),
        // Perhaps it comes from another release. The worker's next card may be readable; the card
        // of a silent worker expires.
        Err(error) => {
            tracing::debug!(%error, "a worker's card cannot be read");
            None
        }
    }
}
