//! Forecasts of a job's remaining cost, and of a new job's cost, from the farm's speed and shares.

use darkroom_core::{
    forecast::{Forecast, StageWork},
    id::StageName,
    job_state::JobState,
    mix::StageLoad,
};
use darkroom_queue::task::{PoolId, WorkerCard};

use crate::{
    error::Error,
    shared::Shared,
    store::{
        forecast::KeptForecast,
        records::{JobRecord, NewJob, StageCounters},
        roles::{Forecasts, Queries},
    },
};

/// Keeps a job's first forecast. It can be made once every stage of the job has a worker with a
/// measured speed.
pub(crate) async fn keep<S: Forecasts + Queries + ?Sized>(
    shared: &Shared,
    store: &S,
    job: &JobRecord,
) -> Result<Option<KeptForecast>, Error> {
    let rivals = store.active_jobs(job.priority).await?;
    let forecast = of_job(shared, job, rivals);
    let Some(forecast) = forecast.filter(|forecast| forecast.seconds.is_some()) else {
        return Ok(None);
    };
    let kept = store.keep_forecast(job.id, &forecast).await?;
    Ok(kept.then_some(KeptForecast { at_ms: job.now_ms, forecast, spent: None }))
}

/// The remaining cost of a job; `None` if it has ended. `rivals`: number of jobs that share the
/// farm, with this one.
pub(crate) fn of_job(shared: &Shared, job: &JobRecord, rivals: u64) -> Option<Forecast> {
    if !matches!(job.state, JobState::Active | JobState::Paused) {
        return None;
    }
    let work: Vec<Work> = job
        .stages
        .iter()
        .zip(passes(&job.loads()))
        .map(|(stage, passes)| Work {
            pool: pool(job, stage),
            remaining: stage.remaining(),
            passes,
        })
        .collect();
    Some(of_work(shared, &work, job.limits.max_workers, rivals.max(1)))
}

/// The cost of a new job with this many texts and this work of images. `rivals`: number of jobs
/// that share the farm, with this one.
pub(crate) fn of_new(
    shared: &Shared,
    job: &NewJob,
    (texts, loads): (u64, &[StageLoad]),
    rivals: u64,
) -> (Forecast, Vec<PoolId>) {
    let encode = PoolId { stage: StageName::encode(), digest: job.encoder };
    let mut work = vec![Work { pool: encode, remaining: texts, passes: 1.0 }];
    work.extend(loads.iter().map(|load| Work {
        pool: PoolId { stage: load.stage.clone(), digest: job.cascade },
        remaining: load.images,
        passes: load.passes,
    }));
    let forecast = of_work(shared, &work, job.limits.max_workers, rivals);
    (forecast, work.into_iter().map(|work| work.pool).collect())
}

/// Remaining tasks in a pool, and the network passes of each.
struct Work {
    pool: PoolId,
    remaining: u64,
    passes: f64,
}

/// Average network passes of an image in each stage of a job. `encode` is first, with one pass per
/// text.
pub(crate) fn passes(loads: &[StageLoad]) -> impl Iterator<Item = f64> {
    std::iter::once(1.0).chain(loads.iter().map(|load| load.passes))
}

fn of_work(shared: &Shared, work: &[Work], max_workers: Option<u32>, rivals: u64) -> Forecast {
    let (crew, rates) = (shared.crew.get(), shared.rates.get());
    let stages: Vec<StageWork> = work
        .iter()
        .map(|work| StageWork {
            stage: work.pool.stage.to_string(),
            remaining: work.remaining,
            seconds_per_image: crew
                .seconds_per_pass(&work.pool, &rates)
                .map(|seconds| seconds * work.passes),
            workers: match max_workers {
                Some(limit) if !work.pool.stage.is_encode() => {
                    crew.workers(&work.pool).min(u64::from(limit))
                }
                _ => crew.workers(&work.pool),
            },
        })
        .collect();
    let renders =
        |card: &&WorkerCard| card.pools.values().any(|served| !served.pool.stage.is_encode());
    let renderers = crew.cards().iter().filter(renders).count() as u64;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let share = 1.0 / rivals as f64;
    Forecast::new(&stages, renderers, share)
}

/// The pools of a job's stages, `encode` first.
pub(crate) fn pools(job: &JobRecord) -> Vec<PoolId> {
    job.stages.iter().map(|stage| pool(job, stage)).collect()
}

/// The pool of one of a job's stages.
pub(crate) fn pool(job: &JobRecord, stage: &StageCounters) -> PoolId {
    let digest = if stage.name.as_str() == StageName::ENCODE { job.encoder } else { job.cascade };
    PoolId { stage: stage.name.clone(), digest }
}
