//! The farm's messages as JSON documents with stable field names, and as lines for people.

use std::collections::BTreeMap;

use darkroom_core::shown::shown;
use darkroom_proto::v1;
use serde::Serialize;

use crate::forecast::{self, CheckView, ForecastView};

#[derive(Serialize)]
pub(crate) struct JobView {
    pub(crate) id: String,
    name: String,
    state: &'static str,
    cascade: String,
    cascade_digest: String,
    priority: &'static str,
    tenant: String,
    seed: Option<u64>,
    images: u64,
    images_done: u64,
    images_dead: u64,
    images_cancelled: u64,
    stages: Vec<StageView>,
    /// How pictures to start from were made to fit; nothing where none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    fit: Option<&'static str>,
    width: u32,
    height: u32,
    settings: Vec<SettingsView>,
    waiting_for: String,
    tasks_ahead: u64,
    eta_seconds: Option<f64>,
    forecast: Option<ForecastView>,
    first_forecast: Option<ForecastView>,
    forecast_check: Option<CheckView>,
    deadline: Option<f64>,
    deadline_missed_by_seconds: Option<f64>,
    max_workers: Option<u32>,
    max_failed_images: Option<u64>,
    end_code: String,
    end_reason: String,
    created_at: Option<f64>,
    finished_at: Option<f64>,
    version: u64,
    generation: u32,
    manifest_key: String,
    manifest_sha256: String,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct StageView {
    stage: String,
    done: u64,
    dispatched: u64,
    total: u64,
    images_per_second: f64,
}

#[derive(Serialize)]
pub(crate) struct SettingsView {
    stage: String,
    sampler: Option<String>,
    steps: Option<u32>,
    preset: Option<String>,
    timesteps: Vec<u32>,
    spacing: Option<String>,
    eta: Option<f64>,
    guidance_scale: Option<f64>,
    guidance_schedule: Option<String>,
    thresholding: Option<String>,
    noise_level: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strength: Option<f64>,
    cache_interval: Option<u32>,
}

/// The name of a fit.
pub(crate) fn fit(fit: v1::Fit) -> Option<&'static str> {
    match fit {
        v1::Fit::Unspecified => None,
        v1::Fit::Crop => Some("crop"),
        v1::Fit::Pad => Some("pad"),
        v1::Fit::Stretch => Some("stretch"),
        v1::Fit::Exact => Some("exact"),
    }
}

impl From<&v1::Job> for JobView {
    fn from(job: &v1::Job) -> Self {
        let spec = job.spec.clone().unwrap_or_default();
        Self {
            id: job.id.clone(),
            name: spec.name.clone(),
            state: job_state(job.state()),
            cascade: spec.cascade.clone(),
            cascade_digest: job.cascade_digest.clone(),
            priority: match spec.priority() {
                v1::Priority::Interactive => "interactive",
                v1::Priority::Batch | v1::Priority::Unspecified => "batch",
            },
            tenant: spec.tenant.clone(),
            seed: spec.seed,
            images: job.images,
            images_done: job.images_done,
            images_dead: job.images_dead,
            images_cancelled: job.images_cancelled,
            stages: job
                .stages
                .iter()
                .map(|stage| StageView {
                    stage: stage.stage.clone(),
                    done: stage.done,
                    dispatched: stage.dispatched,
                    total: stage.total,
                    images_per_second: stage.images_per_second,
                })
                .collect(),
            fit: job.effective_settings.as_ref().and_then(|settings| fit(settings.fit())),
            width: job.effective_settings.as_ref().map_or(0, |settings| settings.width),
            height: job.effective_settings.as_ref().map_or(0, |settings| settings.height),
            settings: job
                .effective_settings
                .iter()
                .flat_map(|settings| &settings.stages)
                .map(SettingsView::from)
                .collect(),
            waiting_for: job.waiting_for.clone(),
            tasks_ahead: job.tasks_ahead,
            eta_seconds: job.eta.as_ref().map(duration_seconds),
            forecast: job.forecast.as_ref().map(ForecastView::from),
            first_forecast: job.first_forecast.as_ref().map(ForecastView::from),
            forecast_check: job.forecast_check.as_ref().map(CheckView::from),
            deadline: spec.deadline.as_ref().map(unix_seconds),
            deadline_missed_by_seconds: job.deadline_missed_by.as_ref().map(duration_seconds),
            max_workers: Some(spec.max_workers).filter(|workers| *workers > 0),
            max_failed_images: spec.max_failed_images,
            end_code: job.end_code.clone(),
            end_reason: job.end_reason.clone(),
            created_at: job.created_at.as_ref().map(unix_seconds),
            finished_at: job.finished_at.as_ref().map(unix_seconds),
            version: job.version,
            generation: job.generation,
            manifest_key: job.manifest_key.clone(),
            manifest_sha256: job.manifest_sha256.clone(),
            notes: job.notes.clone(),
        }
    }
}

impl From<&v1::StageSettings> for SettingsView {
    fn from(settings: &v1::StageSettings) -> Self {
        Self {
            stage: settings.stage.clone(),
            sampler: settings.sampler.clone(),
            steps: settings.steps,
            preset: settings.preset.clone(),
            timesteps: settings.timesteps.clone(),
            spacing: settings.spacing.clone(),
            eta: settings.eta,
            guidance_scale: settings.guidance_scale,
            guidance_schedule: settings.guidance_schedule.clone(),
            thresholding: settings.thresholding.clone(),
            noise_level: settings.noise_level,
            strength: settings.strength,
            cache_interval: settings.cache_interval,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct ImageView {
    index: u64,
    state: &'static str,
    stage: String,
    prompt: String,
    negative: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    style: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mask: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    custom_id: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    seed: u64,
    generation: u32,
    dispatches: u64,
    failures: u32,
    error_code: String,
    error: String,
    key: String,
    size_bytes: u64,
    sha256: String,
    device_class: String,
    version: u64,
    stage_seconds: Vec<StageSecondsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<LinkView>,
}

#[derive(Serialize)]
struct LinkView {
    url: String,
    expires_at: Option<f64>,
}

#[derive(Serialize)]
struct StageSecondsView {
    stage: String,
    seconds: f64,
    worker: String,
}

impl From<&v1::Image> for ImageView {
    fn from(image: &v1::Image) -> Self {
        Self {
            index: image.index,
            state: image_state(image.state()),
            stage: image.stage.clone(),
            prompt: image.prompt.clone(),
            negative: image.negative.clone(),
            style: image.style.clone(),
            image: image.image.clone(),
            mask: image.mask.clone(),
            custom_id: image.custom_id.clone(),
            labels: image.labels.clone(),
            line: Some(image.line).filter(|line| *line > 0),
            seed: image.seed,
            generation: image.generation,
            dispatches: image.dispatches,
            failures: image.failures,
            error_code: image.error_code.clone(),
            error: image.error.clone(),
            key: image.key.clone(),
            size_bytes: image.size_bytes,
            sha256: image.sha256.clone(),
            device_class: image.device_class.clone(),
            version: image.version,
            stage_seconds: image
                .stage_seconds
                .iter()
                .map(|stage| StageSecondsView {
                    stage: stage.stage.clone(),
                    seconds: stage.seconds,
                    worker: stage.worker.clone(),
                })
                .collect(),
            link: None,
        }
    }
}

impl ImageView {
    /// With a link to its picture.
    pub(crate) fn linked(self, link: &v1::SignImageResponse) -> Self {
        let expires_at = link.expires_at.as_ref().map(unix_seconds);
        Self { link: Some(LinkView { url: link.url.clone(), expires_at }), ..self }
    }
}

#[derive(Serialize)]
pub(crate) struct WorkerView {
    id: String,
    host: String,
    device: String,
    device_class: String,
    cascade_digest: String,
    state: String,
    tasks_leased: u64,
    tasks_done: u64,
    busy: f64,
    last_seen: Option<f64>,
    aside_reason: String,
    aside_until: Option<f64>,
    trouble: String,
    stages: Vec<WorkerStageView>,
}

#[derive(Serialize)]
struct WorkerStageView {
    stage: String,
    batch_cap: u32,
    seconds_per_image: f64,
}

impl From<&v1::Worker> for WorkerView {
    fn from(worker: &v1::Worker) -> Self {
        Self {
            id: worker.id.clone(),
            host: worker.host.clone(),
            device: worker.device.clone(),
            device_class: worker.device_class.clone(),
            cascade_digest: worker.cascade_digest.clone(),
            state: worker.state.clone(),
            tasks_leased: worker.tasks_leased,
            tasks_done: worker.tasks_done,
            busy: worker.busy,
            last_seen: worker.last_seen.as_ref().map(unix_seconds),
            aside_reason: worker.aside_reason.clone(),
            aside_until: worker.aside_until.as_ref().map(unix_seconds),
            trouble: worker.trouble.clone(),
            stages: worker
                .stages
                .iter()
                .map(|stage| WorkerStageView {
                    stage: stage.stage.clone(),
                    batch_cap: stage.batch_cap,
                    seconds_per_image: stage.seconds_per_image,
                })
                .collect(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct FarmView {
    id: String,
    version: String,
    lease_seconds: f64,
    cascades: Vec<String>,
    jobs_overlooked: u64,
}

impl From<&v1::GetFarmResponse> for FarmView {
    fn from(farm: &v1::GetFarmResponse) -> Self {
        Self {
            id: farm.farm_id.clone(),
            version: farm.version.clone(),
            lease_seconds: farm.lease_seconds,
            cascades: farm.cascades.iter().map(|cascade| cascade.name.clone()).collect(),
            jobs_overlooked: farm.jobs_overlooked,
        }
    }
}

#[derive(Serialize)]
pub(crate) struct CascadeView {
    name: String,
    digest: String,
    description: String,
    stages: Vec<CascadeStageView>,
}

#[derive(Serialize)]
struct CascadeStageView {
    name: String,
    size: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_multiple: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_timesteps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    noise_timesteps: Option<u32>,
    defaults: Option<SettingsView>,
}

impl From<&v1::Cascade> for CascadeView {
    fn from(cascade: &v1::Cascade) -> Self {
        Self {
            name: cascade.name.clone(),
            digest: cascade.digest.clone(),
            description: cascade.description.clone(),
            stages: cascade
                .stages
                .iter()
                .map(|stage| CascadeStageView {
                    name: stage.name.clone(),
                    size: stage.size,
                    size_multiple: Some(stage.size_multiple).filter(|multiple| *multiple > 0),
                    train_timesteps: Some(stage.train_timesteps).filter(|count| *count > 0),
                    noise_timesteps: Some(stage.noise_timesteps).filter(|count| *count > 0),
                    defaults: stage.defaults.as_ref().map(SettingsView::from),
                })
                .collect(),
        }
    }
}

/// A job's state as text, in JSON and on screen.
pub(crate) fn job_state(state: v1::JobState) -> &'static str {
    match state {
        v1::JobState::Unspecified => "unknown",
        v1::JobState::Receiving => "receiving",
        v1::JobState::Active => "active",
        v1::JobState::Paused => "paused",
        v1::JobState::Done => "done",
        v1::JobState::Failed => "failed",
        v1::JobState::Cancelled => "cancelled",
    }
}

/// An image's state as text, in JSON and on screen.
pub(crate) fn image_state(state: v1::ImageState) -> &'static str {
    match state {
        v1::ImageState::Unspecified => "unknown",
        v1::ImageState::Waiting => "waiting",
        v1::ImageState::Ready => "ready",
        v1::ImageState::Dispatched => "dispatched",
        v1::ImageState::Done => "done",
        v1::ImageState::Dead => "dead",
        v1::ImageState::Cancelled => "cancelled",
    }
}

/// One line about a job.
pub(crate) fn job_line(job: &v1::Job) -> String {
    let name = job.spec.as_ref().map(|spec| spec.name.as_str()).unwrap_or_default();
    let mut line =
        format!("{}  {:<9}  {}/{}", shown(&job.id), job_state(job.state()), job.images_done, job.images);
    if job.images_dead > 0 {
        line += &format!("  {} failed", job.images_dead);
    }
    if !name.is_empty() {
        line += &format!("  {}", shown(name));
    }
    match job.spec.as_ref().and_then(|spec| spec.deadline.as_ref()) {
        Some(deadline) if !terminal(job.state()) => line += &format!("  deadline {deadline}"),
        _ => {}
    }
    if !job.end_reason.is_empty() {
        line += &format!("  ({})", shown(&job.end_reason));
    }
    line
}

/// Several lines about a job.
pub(crate) fn job_text(job: &v1::Job) -> String {
    let mut text = job_line(job);
    for stage in &job.stages {
        text += &format!("\n  {:<8} {}/{}", shown(&stage.stage), stage.done, stage.total);
        if stage.dispatched > 0 {
            text += &format!(", {} with workers", stage.dispatched);
        }
        if stage.images_per_second > 0.0 {
            text += &format!(", {:.2} images/s", stage.images_per_second);
        }
        text += &forecast::stage_left(job.forecast.as_ref(), &stage.stage);
    }
    if let Some(eta) = &job.eta {
        text += &format!("\n  about {} left", span(duration_seconds(eta)));
    }
    if let Some(late) = &job.deadline_missed_by {
        text += &format!("\n  its deadline will be missed by about {}", span(duration_seconds(late)));
    }
    if !job.waiting_for.is_empty() {
        text += &format!("\n  waiting: {}", shown(&job.waiting_for));
    }
    if let Some(check) = job.forecast_check.as_ref().map(forecast::check_text).filter(|text| !text.is_empty())
    {
        text += &format!("\n  {check}");
    }
    for note in &job.notes {
        text += &format!("\n  note: {}", shown(note));
    }
    text
}

fn terminal(state: v1::JobState) -> bool {
    matches!(state, v1::JobState::Done | v1::JobState::Failed | v1::JobState::Cancelled)
}

/// Seconds for people: `8 s`, `3 min`, `2 h 5 min`.
pub(crate) fn span(seconds: f64) -> String {
    let whole = std::time::Duration::try_from_secs_f64(seconds.max(0.0)).map_or(0, |time| time.as_secs());
    match (whole / 3600, whole / 60 % 60) {
        (0, 0) => format!("{whole} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

pub(crate) fn duration_seconds(duration: &prost_types::Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) * 1e-9
}

pub(crate) fn unix_seconds(time: &prost_types::Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) * 1e-9
}
