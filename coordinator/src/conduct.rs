//! Sets workers aside that fail at what others can do, never the last of a pool, and tells the queue. The record says
//! who is aside and who is to drain, so that every coordinator says the same and a flushed queue is told again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_core::{
    conduct::{self, Peer},
    guard::{Guard, stands},
    id::WorkerId,
};
use darkroom_queue::task::{PoolId, WorkerCard};

use crate::{
    crew::Crew,
    service::{Error, Shared},
    store::conduct::Aside,
};

/// How far back failures count.
const WINDOW: Duration = Duration::from_secs(conduct::WINDOW_SECONDS);
/// How often what is older is forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// Runs until shutdown.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut told = Told { any: true, forgot: Instant::now() };
    while !shared.stop.is_cancelled() {
        match pass(&shared, &mut told).await {
            Ok(()) => shared.healed("conduct"),
            Err(error) => shared.failed("conduct", &error),
        }
        shared.pause(shared.options.sweep).await;
    }
}

struct Told {
    /// The queue may hold somebody as aside.
    any: bool,
    forgot: Instant,
}

async fn pass(shared: &Shared, told: &mut Told) -> Result<(), Error> {
    let Some(term) = shared.lead().await? else {
        told.any = true;
        return Ok(());
    };
    let crew = shared.crew.get();
    remind_of_drains(shared, &crew).await?;
    let mut asides = shared.store.asides().await?;
    let blamed = shared.store.blamed(WINDOW, conduct::IMAGES).await?;
    let workers: Vec<WorkerId> = blamed.iter().map(|(worker, _)| worker.clone()).collect();
    for worker in conduct::to_set_aside(&peers(&crew, &asides), &workers) {
        let images = blamed.iter().find(|(one, _)| one == &worker).map_or(0, |(_, images)| *images);
        let reason = format!("failed at {images} images that other workers then did");
        tracing::warn!(worker = %worker, images, "worker set aside: others do what fails there");
        shared.store.set_aside(term, &worker, &reason).await?;
        asides = shared.store.asides().await?;
    }
    let aside: Vec<WorkerId> = asides.iter().map(|aside| aside.worker.clone()).collect();
    for worker in conduct::to_take_back(&peers(&crew, &asides), &aside) {
        tracing::warn!(worker = %worker, "worker taken back: it is the last of a pool");
        shared.store.take_back(term, &worker).await?;
        asides.retain(|one| one.worker != worker);
    }
    if told.any || !asides.is_empty() {
        let times: Vec<_> = asides.iter().map(|aside| (aside.worker.clone(), aside.left)).collect();
        shared.queue.set_aside(&shared.cascades.pools(), &times).await?;
        told.any = !asides.is_empty();
    }
    if told.forgot.elapsed() > FORGET {
        shared.store.forget_conduct(WINDOW).await?;
        told.forgot = Instant::now();
    }
    Ok(())
}

/// Tells the queue again who is to drain, where it does not know it (any more).
async fn remind_of_drains(shared: &Shared, crew: &Crew) -> Result<(), Error> {
    if !stands(Guard::DrainKept) {
        return Ok(());
    }
    for worker in shared.store.drains().await? {
        let unaware = |card: &WorkerCard| card.id == worker && card.state != WorkerCard::DRAINING;
        if crew.cards().iter().any(unaware) {
            shared.queue.ask_to_drain(&worker).await?;
        }
    }
    Ok(())
}

/// The live workers as the record has them; what the queue says of who is aside may be older.
fn peers(crew: &Crew, asides: &[Aside]) -> Vec<Peer<PoolId>> {
    let peer = |card: &WorkerCard| Peer {
        worker: card.id.clone(),
        pools: card.pools.values().map(|served| served.pool.clone()).collect(),
        takes_tasks: card.state != WorkerCard::DRAINING && !asides.iter().any(|one| one.worker == card.id),
    };
    crew.cards().iter().map(peer).collect()
}
