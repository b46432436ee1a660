//! Why a job does not advance, what is left of it, and when it will end.

use std::time::Duration;

use darkroom_core::{
    forecast::{Forecast, StageWork},
    id::StageName,
    job_state::JobState,
    settings::{Settings, StageSettings},
};
use darkroom_proto::v1;
use darkroom_queue::task::{PoolId, WorkerCard};

use crate::{
    crew::Crew,
    service::{Error, Shared},
    store::records::{JobRecord, NewJob, StageCounters},
};

/// What holds a job up.
#[derive(Default)]
pub(super) struct Wait {
    /// In words; empty when nothing does.
    pub(super) why: String,
    /// Tasks of other jobs that go first in the stage it waits for.
    pub(super) tasks_ahead: u64,
}

impl Wait {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), tasks_ahead: 0 }
    }
}

/// What a job waits for; nothing when it advances, or has ended.
pub(super) async fn wait(shared: &Shared, job: &JobRecord) -> Result<Wait, Error> {
    match job.state {
        JobState::Paused => return Ok(Wait::because("paused")),
        JobState::Active => {}
        _ => return Ok(Wait::default()),
    }
    let Some(cascade) = shared.cascades.get(&job.cascade) else {
        let why = format!("this farm does not have cascade {} any more", job.cascade.short());
        return Ok(Wait::because(why));
    };
    let crew = shared.crew.get();
    if let Some(limit) = reached_limit(job, &crew) {
        return Ok(Wait::because(limit));
    }
    if job.stages.iter().any(|stage| stage.dispatched > 0) {
        return Ok(Wait::default());
    }
    let ready: Vec<_> = job.stages.iter().filter(|stage| stage.ready > 0).collect();
    for stage in &ready {
        if crew.workers(&pool(job, stage)) == 0 {
            let why = format!("no worker serves stage {} of cascade {}", stage.name, cascade.spec.name);
            return Ok(Wait::because(why));
        }
    }
    let Some(stage) = ready.last() else { return Ok(Wait::default()) };
    let tasks_ahead = shared.front.ahead(job.id, &pool(job, stage)).await?;
    if tasks_ahead == 0 {
        return Ok(Wait::default());
    }
    let why = format!("waiting behind {tasks_ahead} tasks of other jobs in stage {}", stage.name);
    Ok(Wait { why, tasks_ahead })
}

/// The limit on workers that holds a job up, where more would work on it without.
fn reached_limit(job: &JobRecord, crew: &Crew) -> Option<String> {
    let limit = job.limits.max_workers?;
    let reached = |stage: &&StageCounters| {
        let pool = pool(job, stage);
        stage.ready > 0
            && !stage.name.is_encode()
            && crew.workers(&pool) > u64::from(limit)
            && stage.dispatched >= u64::from(limit) * crew.batch_cap(&pool)
    };
    let stage = job.stages.iter().find(reached)?;
    let workers = if limit == 1 { "worker" } else { "workers" };
    Some(format!("its limit of {limit} {workers} is reached in stage {}", stage.name))
}

/// By how much an estimated end misses the job's deadline.
pub(super) fn missed_by(job: &JobRecord, eta: Duration) -> Option<Duration> {
    let left = job.limits.deadline_ms?.saturating_sub(job.now_ms);
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    eta.checked_sub(left).filter(|late| !late.is_zero())
}

/// What is left of a job that shares the farm with so many, itself among them; `None` when it has ended.
pub(super) fn forecast(shared: &Shared, job: &JobRecord, rivals: u64) -> Option<Forecast> {
    if !matches!(job.state, JobState::Active | JobState::Paused) {
        return None;
    }
    let open = job.images.saturating_sub(job.done + job.dead + job.cancelled);
    let work: Vec<Work> = job
        .stages
        .iter()
        .enumerate()
        .map(|(position, stage)| {
            let remaining = stage.total.saturating_sub(stage.passed);
            Work {
                pool: pool(job, stage),
                remaining: if stage.name.is_encode() { remaining } else { remaining.min(open) },
                passes: passes(&job.settings, position),
            }
        })
        .collect();
    Some(of_work(shared, &work, job.limits.max_workers, rivals.max(1)))
}

/// What a job of so many texts and images would take.
pub(super) async fn forecast_new(
    shared: &Shared,
    job: &NewJob,
    texts: u64,
    images: u64,
) -> Result<(Forecast, Vec<PoolId>), Error> {
    let encode = PoolId { stage: StageName::encode(), digest: job.encoder };
    let mut work = vec![Work { pool: encode, remaining: texts, passes: 1.0 }];
    work.extend(job.settings.stages.iter().map(|stage| Work {
        pool: PoolId { stage: stage.stage.clone(), digest: job.cascade },
        remaining: images,
        passes: stage.passes(),
    }));
    let rivals = shared.front.active_jobs(job.priority).await? + 1;
    let forecast = of_work(shared, &work, job.limits.max_workers, rivals);
    Ok((forecast, work.into_iter().map(|work| work.pool).collect()))
}

/// Tasks that are left in a pool, and the network passes of each.
struct Work {
    pool: PoolId,
    remaining: u64,
    passes: f64,
}

fn passes(settings: &Settings, position: usize) -> f64 {
    // `encode` goes first.
    position.checked_sub(1).and_then(|stage| settings.stages.get(stage)).map_or(1.0, StageSettings::passes)
}

fn of_work(shared: &Shared, work: &[Work], max_workers: Option<u32>, rivals: u64) -> Forecast {
    let (crew, rates) = (shared.crew.get(), shared.rates.get());
    let stages: Vec<StageWork> = work
        .iter()
        .map(|work| StageWork {
            stage: work.pool.stage.to_string(),
            remaining: work.remaining,
            seconds_per_image: crew.seconds_per_pass(&work.pool, &rates).map(|seconds| seconds * work.passes),
            workers: match max_workers {
                Some(limit) if !work.pool.stage.is_encode() => crew.workers(&work.pool).min(u64::from(limit)),
                _ => crew.workers(&work.pool),
            },
        })
        .collect();
    let renders = |card: &&WorkerCard| card.pools.values().any(|served| !served.pool.stage.is_encode());
    let renderers = crew.cards().iter().filter(renders).count() as u64;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let share = 1.0 / rivals as f64;
    Forecast::new(&stages, renderers, share)
}

/// Who serves the stages of a forecast, by class of device.
pub(super) fn classes(shared: &Shared, pools: &[PoolId], settings: &Settings) -> Vec<Vec<v1::ClassForecast>> {
    let (crew, rates) = (shared.crew.get(), shared.rates.get());
    let of = |(position, pool): (usize, &PoolId)| {
        let class = |(device_class, members): (String, Crew)| v1::ClassForecast {
            workers: members.workers(pool),
            seconds_per_image: members
                .seconds_per_pass(pool, &rates)
                .map(|seconds| seconds * passes(settings, position)),
            device_class,
        };
        crew.classes(pool).into_iter().map(class).collect()
    };
    pools.iter().enumerate().map(of).collect()
}

/// The pools of a job's stages, `encode` first.
pub(super) fn pools(job: &JobRecord) -> Vec<PoolId> {
    job.stages.iter().map(|stage| pool(job, stage)).collect()
}

fn pool(job: &JobRecord, stage: &StageCounters) -> PoolId {
    let digest = if stage.name.as_str() == StageName::ENCODE { job.encoder } else { job.cascade };
    PoolId { stage: stage.name.clone(), digest }
}
