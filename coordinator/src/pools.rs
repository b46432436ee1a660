//! The present work of every pool: waiting, running and recently done tasks, and its workers. It
//! comes from the record and the queue, so every coordinator gives the same answer.

use std::collections::BTreeMap;

use darkroom_core::{cascade::Cascade, digest::Digest, id::StageName};
use darkroom_queue::task::{EntryState, PoolId};

use crate::{
    crew::Crew,
    error::Error,
    shared::Shared,
    store::{
        history::{Depth, Sizes, Work},
        roles::History,
    },
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolWork {
    /// Name of a cascade that has the pool.
    pub(crate) cascade: String,
    pub(crate) sizes: Sizes,
    /// Model seconds of the ready and dispatched tasks; `None` if never measured.
    pub(crate) work_seconds: Option<f64>,
    /// Recent tasks per batch divided by the largest batch.
    pub(crate) batch_fill: Option<f64>,
    /// Tasks recently done per second.
    pub(crate) rate: f64,
}

/// The work of all pools: encoders first, then each cascade's stages in order.
pub(crate) async fn describe<S: History + ?Sized>(
    shared: &Shared,
    store: &S,
) -> Result<Vec<PoolWork>, Error> {
    let crew = shared.read_crew().await?;
    let rates = shared.rates.get();
    let mut depths: BTreeMap<PoolId, Vec<Depth>> = BTreeMap::new();
    for depth in store.depths().await? {
        depths.entry(depth.pool.clone()).or_default().push(depth);
    }
    let recent = store.recent_work().await?;
    let mut pools = Vec::new();
    for (pool, cascade) in in_order(shared.cascades.iter()) {
        let leased = leased(shared, &pool).await?;
        let depths = depths.remove(&pool).unwrap_or_default();
        let done = recent.pools.iter().find(|work| work.pool == pool);
        pools.push(PoolWork {
            cascade,
            work_seconds: work_seconds(&depths, crew.seconds_per_pass(&pool, &rates)),
            batch_fill: done.and_then(|work| batch_fill(work, &crew)),
            rate: done.map_or(0.0, |work| rate(work, recent.seconds)),
            sizes: Sizes {
                ready: depths.iter().map(|depth| depth.ready).sum(),
                dispatched: depths.iter().map(|depth| depth.dispatched).sum(),
                leased,
                workers: crew.workers(&pool),
                oldest_ms: depths.iter().filter_map(|depth| depth.oldest_ms).max(),
                pool,
            },
        });
    }
    Ok(pools)
}

/// Every pool with the name of its cascade. An encoder that several cascades share has the name of
/// the first one.
fn in_order<'a>(
    cascades: impl Iterator<Item = (&'a Digest, &'a Cascade)>,
) -> Vec<(PoolId, String)> {
    let (mut encoders, mut stages): (Vec<(PoolId, String)>, Vec<_>) = (Vec::new(), Vec::new());
    for (digest, cascade) in cascades {
        let name = || cascade.spec.name.clone();
        let encoder = PoolId { stage: StageName::encode(), digest: cascade.encoder_digest() };
        if encoders.iter().all(|(known, _)| *known != encoder) {
            encoders.push((encoder, name()));
        }
        let pool = |stage: &StageName| PoolId { stage: stage.clone(), digest: *digest };
        stages.extend(cascade.spec.stages.iter().map(|stage| (pool(&stage.name), name())));
    }
    encoders.into_iter().chain(stages).collect()
}

async fn leased(shared: &Shared, pool: &PoolId) -> Result<u64, Error> {
    let entries = shared.queue.entries(pool).await?;
    let leased = entries.iter().filter(|entry| matches!(entry.state, EntryState::Leased(_)));
    Ok(leased.count() as u64)
}

/// Tasks times their network passes times the seconds of a pass. If some images have their own
/// settings, the passes are the mean over the job's images.
fn work_seconds(depths: &[Depth], seconds_per_pass: Option<f64>) -> Option<f64> {
    let seconds_per_pass = seconds_per_pass?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let seconds = |depth: &Depth| {
        let own = depth.settings.as_ref();
        let loads = own.map(|own| depth.mix.loads(own, depth.images)).unwrap_or_default();
        let load = loads.iter().find(|load| load.stage == depth.pool.stage);
        let passes = load.map_or(1.0, |load| load.passes);
        (depth.ready + depth.dispatched) as f64 * passes * seconds_per_pass
    };
    Some(depths.iter().map(seconds).sum())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn batch_fill(work: &Work, crew: &Crew) -> Option<f64> {
    if work.batches <= 0.0 || crew.workers(&work.pool) == 0 {
        return None;
    }
    let tasks = (work.done + work.failed) as f64 / work.batches;
    Some((tasks / crew.batch_cap(&work.pool) as f64).min(1.0))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rate(work: &Work, seconds: f64) -> f64 {
    if seconds > 0.0 { work.done as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use darkroom_core::{
        mix::Mix,
        output::Output,
        sampling::{Sampler, Sampling},
        settings::{Settings, StageSettings},
        start::Start,
    };

    use super::*;

    fn settings(steps: &[u32]) -> Settings {
        let stage = |(position, steps): (usize, &u32)| StageSettings {
            stage: format!("s{position}").try_into().expect("a name"),
            size: 64,
            extent: None,
            sampling: Sampling::plain(Sampler::Ddim, *steps),
        };
        let stages = steps.iter().enumerate().map(stage).collect();
        Settings { start: Start::Noise, fit: None, output: Output::default(), stages }
    }

    fn four_tasks(stage: &str, own: &Settings, mix: &Mix) -> Depth {
        let stage = StageName::try_from(stage.to_owned()).expect("a name");
        Depth {
            pool: PoolId { stage, digest: Digest::of(b"cascade") },
            settings: Some(own.clone()),
            mix: mix.clone(),
            images: 8,
            ready: 3,
            dispatched: 1,
            oldest_ms: None,
        }
    }

    #[test]
    fn work_counts_the_passes_of_images_with_settings_of_their_own() {
        let (own, mut mix) = (settings(&[10]), Mix::default());
        let seconds =
            |stage: &str, mix: &Mix| work_seconds(&[four_tasks(stage, &own, mix)], Some(0.5));
        assert_eq!(seconds("s0", &mix), Some(20.0));
        mix.add(&settings(&[30, 6]), 2);
        assert_eq!(seconds("s0", &mix), Some(30.0), "15 passes on average");
        assert_eq!(seconds("s1", &mix), Some(12.0), "a stage that the job does not have");
    }
}
