//! Why a job does not advance, and when it will end.

use std::time::Duration;

use darkroom_core::{
    forecast::{self, StageWork},
    id::StageName,
    job_state::JobState,
};
use darkroom_queue::task::PoolId;

use crate::{
    crew::Crew,
    service::{Error, Shared},
    store::records::{JobRecord, StageCounters},
};

/// What a job waits for; empty when it advances, or has ended.
pub(super) async fn waiting_for(shared: &Shared, job: &JobRecord) -> Result<String, Error> {
    match job.state {
        JobState::Paused => return Ok("paused".to_owned()),
        JobState::Active => {}
        _ => return Ok(String::new()),
    }
    let Some(cascade) = shared.cascades.get(&job.cascade) else {
        return Ok(format!("this farm does not have cascade {} any more", job.cascade.short()));
    };
    let crew = shared.crew.get();
    if let Some(limit) = reached_limit(job, &crew) {
        return Ok(limit);
    }
    if job.stages.iter().any(|stage| stage.dispatched > 0) {
        return Ok(String::new());
    }
    let ready: Vec<_> = job.stages.iter().filter(|stage| stage.ready > 0).collect();
    for stage in &ready {
        if crew.workers(&pool(job, stage)) == 0 {
            return Ok(format!("no worker serves stage {} of cascade {}", stage.name, cascade.spec.name));
        }
    }
    let Some(stage) = ready.last() else { return Ok(String::new()) };
    let ahead = shared.store.ahead(job.id, &pool(job, stage)).await?;
    if ahead == 0 {
        return Ok(String::new());
    }
    Ok(format!("waiting behind {ahead} tasks of other jobs in stage {}", stage.name))
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

/// Time to the end; `None` when the job is not active or too little is known.
pub(super) async fn eta(shared: &Shared, job: &JobRecord) -> Result<Option<Duration>, Error> {
    if job.state != JobState::Active {
        return Ok(None);
    }
    let crew = shared.crew.get();
    let open = job.images.saturating_sub(job.done + job.dead + job.cancelled);
    let work: Vec<StageWork> = job
        .stages
        .iter()
        .map(|stage| {
            let pool = pool(job, stage);
            let remaining = stage.total.saturating_sub(stage.passed);
            StageWork {
                remaining: if stage.name.is_encode() { remaining } else { remaining.min(open) },
                seconds_per_image: crew.seconds_per_image(&pool),
                workers: match job.limits.max_workers {
                    Some(limit) if !stage.name.is_encode() => crew.workers(&pool).min(u64::from(limit)),
                    _ => crew.workers(&pool),
                },
            }
        })
        .collect();
    let rivals = shared.store.active_jobs(job.priority).await?.max(1);
    let renderers =
        crew.cards().iter().filter(|card| card.pools.values().any(|served| !served.pool.stage.is_encode()));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let share = 1.0 / rivals as f64;
    let seconds = forecast::eta_seconds(&work, renderers.count() as u64, share);
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

fn pool(job: &JobRecord, stage: &StageCounters) -> PoolId {
    let digest = if stage.name.as_str() == StageName::ENCODE { job.encoder } else { job.cascade };
    PoolId { stage: stage.name.clone(), digest }
}
