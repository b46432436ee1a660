//! Converts records to messages, and enums in both directions.

use darkroom_core::{
    cascade::Cascade,
    digest::Digest,
    error::UserError,
    forecast::{Forecast, StageForecast},
    id::StageName,
    image_state::ImageState,
    job_state::JobState,
    output::Format,
    quota::Quotas,
    settings::StageSettings,
};
use darkroom_proto::v1;
use darkroom_queue::task::WorkerCard;

use super::access::Sight;
use crate::store::{
    forecast::KeptForecast,
    limits::timestamp,
    metering::Usage,
    records::{ImageRecord, JobRecord, Manifest},
};

pub(super) fn job(job: JobRecord) -> v1::Job {
    let kept = job.forecast.as_ref();
    let first_forecast = kept.map(|kept| forecast(&kept.forecast, kept.at_ms, Vec::new()));
    let forecast_check = kept.and_then(|kept| checked(&job, kept));
    let stages = job
        .stages
        .iter()
        .zip(job.rates())
        .map(|(stage, rate)| v1::StageProgress {
            stage: stage.name.to_string(),
            done: stage.passed,
            dispatched: stage.dispatched,
            total: stage.total,
            stopped: stage.stopped,
            images_per_second: rate,
        })
        .collect();
    let (manifest, key, sha256) = match job.manifest {
        Manifest::None => (v1::ManifestState::Unspecified, String::new(), String::new()),
        Manifest::Pending => (v1::ManifestState::Pending, String::new(), String::new()),
        Manifest::Written { key, sha256 } => (v1::ManifestState::Written, key, sha256.to_string()),
    };
    let end = job.end.map(|end| (end.code.name().to_owned(), end.reason));
    let (end_code, end_reason) = end.unwrap_or_default();
    v1::Job {
        device_seconds: job.device_seconds,
        id: job.id.to_string(),
        state: job_state(job.state) as i32,
        cascade_digest: job.cascade.to_string(),
        created_at: Some(timestamp(job.created_ms)),
        finished_at: job.finished_ms.map(timestamp),
        images: job.images,
        images_done: job.done,
        images_dead: job.dead,
        images_cancelled: job.cancelled,
        stages,
        waiting_for: String::new(),
        tasks_ahead: 0,
        eta: None,
        version: job.version,
        generation: job.generation,
        manifest: manifest as i32,
        manifest_key: key,
        manifest_sha256: sha256,
        notes: Vec::new(),
        pictures_removed_at: job.pictures_removed.as_ref().map(|removed| timestamp(removed.at_ms)),
        pictures_removed_by: job.pictures_removed.map(|removed| removed.by).unwrap_or_default(),
        effective_settings: Some(v1::Settings::from(&job.settings)),
        end_code,
        end_reason,
        deadline_missed_by: None,
        forecast: None,
        first_forecast,
        forecast_check,
        spec: Some(v1::JobSpec {
            client_request_id: job.client_request_id.unwrap_or_default(),
            cascade: job.requested.cascade,
            name: job.name,
            tenant: job.tenant,
            priority: if job.priority > 0 { v1::Priority::Interactive } else { v1::Priority::Batch }
                as i32,
            settings: Some(v1::Settings::from(&job.requested.settings)),
            images_per_prompt: job.requested.images_per_prompt,
            // Set even if the coordinator chose it.
            seed: Some(job.seed),
            deadline: job.limits.deadline_ms.map(timestamp),
            max_workers: job.limits.max_workers.unwrap_or(0),
            max_failed_images: job.limits.max_failed,
            no_reuse: job.no_reuse,
            labels: job.labels,
        }),
    }
}

/// A forecast and the time when it was made; `classes` are the workers that serve each of its
/// stages.
pub(super) fn forecast(
    forecast: &Forecast,
    at_ms: i64,
    mut classes: Vec<Vec<v1::ClassForecast>>,
) -> v1::Forecast {
    classes.resize_with(forecast.stages.len(), Vec::new);
    let stage = |(stage, classes): (&StageForecast, _)| v1::StageForecast {
        stage: stage.stage.clone(),
        images: stage.images,
        seconds_per_image: stage.seconds_per_image,
        device_seconds: stage.device_seconds,
        seconds: stage.seconds,
        classes,
    };
    v1::Forecast {
        at: Some(timestamp(at_ms)),
        stages: forecast.stages.iter().zip(classes).map(stage).collect(),
        device_seconds: forecast.device_seconds,
        seconds: forecast.seconds,
    }
}

/// Compares a job's first forecast with its real cost.
fn checked(job: &JobRecord, kept: &KeptForecast) -> Option<v1::ForecastCheck> {
    let spent = kept.spent.as_ref()?;
    // The time is not compared after a retry, which may come any time later, or with cancelled
    // images, which took none.
    let whole = job.state == JobState::Done && job.generation == 1;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds between two moments of this age")]
    let seconds = job.finished_ms.filter(|_| whole).map(|end| (end - kept.at_ms) as f64 / 1000.0);
    let check = kept.forecast.check(spent, seconds);
    let ratio = |forecast: f64, real: f64| Some(real / forecast).filter(|ratio| ratio.is_finite());
    Some(v1::ForecastCheck {
        stages: check
            .stages
            .into_iter()
            .map(|stage| v1::StageCheck {
                stage: stage.stage,
                images: stage.images,
                forecast_device_seconds: stage.forecast_device_seconds,
                device_seconds: stage.device_seconds,
            })
            .collect(),
        forecast_device_seconds: check.forecast_device_seconds,
        device_seconds: check.device_seconds,
        device_seconds_ratio: ratio(check.forecast_device_seconds, check.device_seconds),
        forecast_seconds: check.seconds.map(|(forecast, _)| forecast),
        seconds: check.seconds.map(|(_, real)| real),
        seconds_ratio: check.seconds.and_then(|(forecast, real)| ratio(forecast, real)),
    })
}

/// An image of a job whose stages have these names, as a caller may see it.
pub(super) fn image(sight: Sight, stages: &[StageName], image: ImageRecord) -> v1::Image {
    let stage =
        |position: usize| stages.get(position).map_or_else(String::new, ToString::to_string);
    let done = image.progress.state == ImageState::Done;
    let picture = image.outputs.last().filter(|_| done);
    let failure = image.error.map(|failure| (failure.code.into(), failure.message));
    let (error_code, error) = failure.unwrap_or_default();
    v1::Image {
        job_id: image.id.job.to_string(),
        index: image.id.index,
        prompt: image.prompt,
        negative: image.negative,
        image: image.extras.image.map_or_else(String::new, |input| input.sha256.to_string()),
        mask: image.extras.mask.map_or_else(String::new, |input| input.sha256.to_string()),
        style: image.extras.style.unwrap_or_default(),
        custom_id: image.naming.custom_id.unwrap_or_default(),
        labels: image.naming.labels,
        line: image.naming.line.unwrap_or(0),
        settings: image.settings.as_deref().map(v1::Settings::from),
        seed: image.seed,
        state: image_state(image.progress.state) as i32,
        stage: stage(image.progress.stage),
        generation: image.progress.generation,
        dispatches: image.progress.dispatch,
        failures: image.progress.failures,
        error_code,
        error,
        key: picture.map_or_else(String::new, |output| output.artifact.key.clone()),
        size_bytes: picture.map_or(0, |output| output.artifact.size),
        sha256: picture.map_or_else(String::new, |output| output.artifact.sha256.to_string()),
        format: picture
            .and_then(|output| Format::of_key(&output.artifact.key))
            .map_or(v1::PictureFormat::Unspecified, v1::PictureFormat::from)
            .into(),
        device_class: picture.map_or_else(String::new, |output| output.device_class.clone()),
        version: image.version,
        picture_removed_at: picture.and_then(|output| output.removed_ms).map(timestamp),
        stage_seconds: image
            .outputs
            .iter()
            .map(|output| v1::StageSeconds {
                stage: stage(output.stage),
                seconds: output.seconds,
                worker: sight.of_worker(output.worker.clone()),
            })
            .collect(),
    }
}

pub(super) fn cascade(digest: &Digest, cascade: &Cascade) -> v1::Cascade {
    let stages = cascade.spec.stages.iter().enumerate().map(|(position, stage)| v1::CascadeStage {
        name: stage.name.to_string(),
        size: stage.size,
        size_multiple: stage.size_multiple.unwrap_or(0),
        train_timesteps: stage.train_timesteps.unwrap_or(0),
        noise_timesteps: stage.noise_timesteps.unwrap_or(0),
        defaults: StageSettings::defaults(&cascade.spec, position)
            .ok()
            .as_ref()
            .map(v1::StageSettings::from),
    });
    v1::Cascade {
        name: cascade.spec.name.clone(),
        digest: digest.to_string(),
        description: cascade.spec.description.clone(),
        stages: stages.collect(),
    }
}

pub(super) fn worker(card: &WorkerCard, now_ms: i64) -> v1::Worker {
    let stages = card.pools.values().map(|served| v1::WorkerStage {
        stage: served.pool.stage.to_string(),
        batch_cap: served.batch_cap,
        seconds_per_image: served.seconds_per_image,
        running: served.running,
        mean_batch: served.mean_batch,
    });
    let rendered = card.pools.values().find(|served| !served.pool.stage.is_encode());
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of an age, saturating")]
    let age_ms = (card.seen_seconds_ago * 1000.0) as i64;
    v1::Worker {
        id: card.id.to_string(),
        host: card.host.clone(),
        device: card.device.clone(),
        device_class: card.device_class.clone(),
        cascade_digest: rendered.map_or_else(String::new, |served| served.pool.digest.to_string()),
        stages: stages.collect(),
        last_seen: Some(timestamp(now_ms.saturating_sub(age_ms))),
        tasks_leased: card.leased,
        tasks_done: card.done,
        busy: card.busy,
        state: card.state.clone().into(),
        aside_reason: String::new(),
        aside_until: None,
        trouble: card.trouble.clone(),
        memory: card
            .memory
            .map(|memory| v1::DeviceMemory { used_bytes: memory.used, total_bytes: memory.total }),
        tasks_failed: card.failed,
        blamed_images: 0,
        version: card.version.clone(),
    }
}

pub(super) fn job_state_from(number: i32) -> Result<JobState, UserError> {
    match v1::JobState::try_from(number) {
        Ok(v1::JobState::Active) => Ok(JobState::Active),
        Ok(v1::JobState::Paused) => Ok(JobState::Paused),
        Ok(v1::JobState::Done) => Ok(JobState::Done),
        Ok(v1::JobState::Failed) => Ok(JobState::Failed),
        Ok(v1::JobState::Cancelled) => Ok(JobState::Cancelled),
        Ok(v1::JobState::Unspecified | v1::JobState::Receiving) | Err(_) => {
            Err(UserError::invalid(
                "states",
                format!(
                    "states contains {number}; accepted: 2 active, 3 paused, 4 done, 5 failed, 6 cancelled"
                ),
            ))
        }
    }
}

pub(super) fn image_state_from(number: i32) -> Result<ImageState, UserError> {
    match v1::ImageState::try_from(number) {
        Ok(v1::ImageState::Waiting) => Ok(ImageState::Waiting),
        Ok(v1::ImageState::Ready) => Ok(ImageState::Ready),
        Ok(v1::ImageState::Dispatched) => Ok(ImageState::Dispatched),
        Ok(v1::ImageState::Done) => Ok(ImageState::Done),
        Ok(v1::ImageState::Dead) => Ok(ImageState::Dead),
        Ok(v1::ImageState::Cancelled) => Ok(ImageState::Cancelled),
        Ok(v1::ImageState::Unspecified) | Err(_) => Err(UserError::invalid(
            "states",
            format!(
                "states contains {number}; accepted: 1 waiting, 2 ready, 3 dispatched, 4 done, 5 dead, 6 cancelled"
            ),
        )),
    }
}

pub(super) fn job_state(state: JobState) -> v1::JobState {
    match state {
        JobState::Receiving => v1::JobState::Receiving,
        JobState::Active => v1::JobState::Active,
        JobState::Paused => v1::JobState::Paused,
        JobState::Done => v1::JobState::Done,
        JobState::Failed => v1::JobState::Failed,
        JobState::Cancelled => v1::JobState::Cancelled,
    }
}

pub(super) fn image_state(state: ImageState) -> v1::ImageState {
    match state {
        ImageState::Waiting => v1::ImageState::Waiting,
        ImageState::Ready => v1::ImageState::Ready,
        ImageState::Dispatched => v1::ImageState::Dispatched,
        ImageState::Done => v1::ImageState::Done,
        ImageState::Dead => v1::ImageState::Dead,
        ImageState::Cancelled => v1::ImageState::Cancelled,
    }
}

/// A tenant's quotas.
pub(super) fn quotas(quotas: Quotas) -> v1::Quotas {
    let Quotas {
        images_waiting,
        images_per_day,
        device_seconds_per_day,
        stored_bytes,
        requests_per_second,
        burst,
        workers,
        weight,
    } = quotas;
    v1::Quotas {
        images_waiting,
        images_per_day,
        device_seconds_per_day,
        stored_bytes,
        requests_per_second,
        burst,
        workers,
        weight,
    }
}

/// What a tenant uses.
pub(super) fn usage(usage: Usage) -> v1::QuotaUsage {
    v1::QuotaUsage {
        images_waiting: usage.images_waiting,
        images_today: usage.images_today,
        device_seconds_today: usage.device_seconds_today,
        stored_bytes: usage.stored_bytes,
        day_ends: Some(timestamp(usage.day_ends_ms())),
    }
}
