//! Why a job does not advance, by how much it will miss its deadline, and which workers serve its
//! stages.

use std::time::Duration;

use darkroom_core::{job_state::JobState, mix::StageLoad};
use darkroom_proto::v1;
use darkroom_queue::task::PoolId;

use crate::{
    crew::Crew,
    error::Error,
    forecasts::{passes, pool},
    shared::Shared,
    store::{
        records::{JobRecord, StageCounters},
        roles::{Metering, Queries},
    },
};

/// The reason why a job waits.
#[derive(Default)]
pub(super) struct Wait {
    /// In words; empty if it does not wait.
    pub(super) why: String,
    /// Tasks of other jobs that go first in the stage it waits for.
    pub(super) tasks_ahead: u64,
}

impl Wait {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), tasks_ahead: 0 }
    }
}

/// What a job waits for; empty if it advances or has ended.
pub(super) async fn wait(
    shared: &Shared,
    store: &(impl Metering + Queries + ?Sized),
    job: &JobRecord,
) -> Result<Wait, Error> {
    if let Some(why) = obstacle(shared, job) {
        return Ok(Wait::because(why));
    }
    if job.state != JobState::Active {
        return Ok(Wait::default());
    }
    if let Some(quota) = workers_in_use(shared, store, job).await? {
        return Ok(Wait::because(quota));
    }
    if is_dispatched(job) {
        return Ok(Wait::default());
    }
    let Some(stage) = ready(job).last() else { return Ok(Wait::default()) };
    let tasks_ahead = store.ahead(job.id, &pool(job, stage)).await?;
    if tasks_ahead == 0 {
        return Ok(Wait::default());
    }
    let why = format!("waiting behind {tasks_ahead} tasks of other jobs in stage {}", stage.name);
    Ok(Wait { why, tasks_ahead })
}

/// Like [`wait`], but only the reasons that need no look at other jobs, so it is cheap enough for
/// listings.
pub(super) fn obstacle(shared: &Shared, job: &JobRecord) -> Option<String> {
    match job.state {
        JobState::Paused => return Some("paused".to_owned()),
        JobState::Active => {}
        _ => return None,
    }
    let Some(cascade) = shared.cascades.get(&job.cascade) else {
        return Some(format!("this farm does not have cascade {} any more", job.cascade.short()));
    };
    // What runs is finished, but nothing follows it.
    if let Some(full) = shared.disks.full() {
        return Some(full);
    }
    let crew = shared.crew.get();
    if let Some(limit) = reached_limit(job, &crew) {
        return Some(limit);
    }
    if has_ready_images(job)
        && let Some(quota) = shared.quotas.get().held(&job.tenant)
    {
        return Some(quota);
    }
    if is_dispatched(job) {
        return None;
    }
    let stage = ready(job).find(|stage| crew.workers(&pool(job, stage)) == 0)?;
    Some(format!("no worker serves stage {} of cascade {}", stage.name, cascade.spec.name))
}

fn is_dispatched(job: &JobRecord) -> bool {
    job.stages.iter().any(|stage| stage.dispatched > 0)
}

/// The stages that have ready tasks.
fn ready(job: &JobRecord) -> impl DoubleEndedIterator<Item = &StageCounters> {
    job.stages.iter().filter(|stage| stage.ready > 0)
}

fn has_ready_images(job: &JobRecord) -> bool {
    ready(job).any(|stage| !stage.name.is_encode())
}

/// The limit on workers, if more workers would work on the job without it.
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

/// The quota of workers in use, if it holds the job's images back.
async fn workers_in_use(
    shared: &Shared,
    store: &(impl Metering + ?Sized),
    job: &JobRecord,
) -> Result<Option<String>, Error> {
    let (quotas, crew) = (shared.quotas.get(), shared.crew.get());
    let Some(limit) = quotas.workers(&job.tenant) else { return Ok(None) };
    for stage in ready(job).filter(|stage| !stage.name.is_encode()) {
        let pool = pool(job, stage);
        if crew.workers(&pool) <= u64::from(limit) {
            continue;
        }
        let in_flight = store.in_flight(&pool).await?.get(&job.tenant).copied().unwrap_or(0);
        if in_flight >= u64::from(limit) * crew.batch_cap(&pool) {
            let workers = if limit == 1 { "worker" } else { "workers" };
            return Ok(Some(format!(
                "quota workers of tenant {:?}: its {limit} {workers} are in use in stage {}; it \
                 goes on as they get free",
                job.tenant, stage.name
            )));
        }
    }
    Ok(None)
}

/// Time from the job's deadline to its estimated end, if that is later.
pub(super) fn missed_by(job: &JobRecord, eta: Duration) -> Option<Duration> {
    let left = job.limits.deadline_ms?.saturating_sub(job.now_ms);
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    eta.checked_sub(left).filter(|late| !late.is_zero())
}

/// The workers that serve the stages of a forecast, by class of device.
pub(super) fn classes(
    shared: &Shared,
    pools: &[PoolId],
    loads: &[StageLoad],
) -> Vec<Vec<v1::ClassForecast>> {
    let (crew, rates) = (shared.crew.get(), shared.rates.get());
    let of = |(pool, passes): (&PoolId, f64)| {
        let class = |(device_class, members): (String, Crew)| v1::ClassForecast {
            workers: members.workers(pool),
            seconds_per_image: members
                .seconds_per_pass(pool, &rates)
                .map(|seconds| seconds * passes),
            device_class,
        };
        crew.classes(pool).into_iter().map(class).collect()
    };
    pools.iter().zip(passes(loads)).map(of).collect()
}
