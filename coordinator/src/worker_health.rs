//! Sets workers aside that fail on images that others complete, but never the last worker of a
//! pool, and tells the queue. The record has the workers that are set aside or must drain. So every
//! coordinator knows them, and can tell the queue again after a flush.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_core::{
    guard::{Guard, stands},
    id::WorkerId,
    worker_health::{self, Peer},
    worker_state::WorkerState,
};
use darkroom_queue::task::{PoolId, WorkerCard};

use crate::{
    crew::Crew,
    error::Error,
    shared::Shared,
    store::{roles::WorkerHealth, worker_health::Aside},
};

/// How far back failures count.
const WINDOW: Duration = Duration::from_secs(worker_health::WINDOW_SECONDS);
/// How often older failures are deleted.
const FORGET: Duration = Duration::from_secs(60);

/// Runs until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, store: Arc<dyn WorkerHealth>) {
    let mut told = Told { any: true, forgot: Instant::now() };
    while !shared.stop.is_cancelled() {
        match pass(&shared, store.as_ref(), &mut told).await {
            Ok(()) => shared.healed("worker health"),
            Err(error) => shared.failed("worker health", &error),
        }
        shared.pause(shared.options.sweep).await;
    }
}

struct Told {
    /// The queue may still have workers as set aside.
    any: bool,
    forgot: Instant,
}

async fn pass(shared: &Shared, store: &dyn WorkerHealth, told: &mut Told) -> Result<(), Error> {
    let Some(term) = shared.lead().await? else {
        told.any = true;
        return Ok(());
    };
    let crew = shared.crew.get();
    remind_of_drains(shared, store, &crew).await?;
    let mut asides = store.asides().await?;
    let blamed = store.blamed(WINDOW, worker_health::IMAGES).await?;
    let workers: Vec<WorkerId> = blamed.iter().map(|(worker, _)| worker.clone()).collect();
    for worker in worker_health::to_set_aside(&peers(&crew, &asides), &workers) {
        let images = blamed.iter().find(|(one, _)| one == &worker).map_or(0, |(_, images)| *images);
        let reason = format!("failed on {images} images that other workers then completed");
        tracing::warn!(worker = %worker, images, "worker set aside: other workers complete \
            the images that fail on it");
        store.set_aside(term, &worker, &reason).await?;
        asides = store.asides().await?;
    }
    let aside: Vec<WorkerId> = asides.iter().map(|aside| aside.worker.clone()).collect();
    for worker in worker_health::to_take_back(&peers(&crew, &asides), &aside) {
        tracing::warn!(worker = %worker, "worker is used again: it is the last one of a pool");
        store.take_back(term, &worker).await?;
        asides.retain(|one| one.worker != worker);
    }
    if told.any || !asides.is_empty() {
        let times: Vec<_> = asides.iter().map(|aside| (aside.worker.clone(), aside.left)).collect();
        shared.queue.set_aside(&shared.cascades.pools(), &times).await?;
        told.any = !asides.is_empty();
    }
    if told.forgot.elapsed() > FORGET {
        store.forget_worker_health(WINDOW).await?;
        told.forgot = Instant::now();
    }
    Ok(())
}

/// Repeats drain commands to the queue if it does not have them (any more).
async fn remind_of_drains(
    shared: &Shared,
    store: &dyn WorkerHealth,
    crew: &Crew,
) -> Result<(), Error> {
    if !stands(Guard::DrainKept) {
        return Ok(());
    }
    for worker in store.drains().await? {
        let unaware = |card: &WorkerCard| card.id == worker && card.state != WorkerState::Draining;
        if crew.cards().iter().any(unaware) {
            shared.queue.ask_to_drain(&worker).await?;
        }
    }
    Ok(())
}

/// The live workers, with the record's state of who is set aside; the queue's may be older.
fn peers(crew: &Crew, asides: &[Aside]) -> Vec<Peer<PoolId>> {
    let peer = |card: &WorkerCard| Peer {
        worker: card.id.clone(),
        pools: card.pools.values().map(|served| served.pool.clone()).collect(),
        takes_tasks: card.state != WorkerState::Draining
            && !asides.iter().any(|one| one.worker == card.id),
    };
    crew.cards().iter().map(peer).collect()
}
