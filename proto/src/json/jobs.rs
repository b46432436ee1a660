//! Jobs: asking for them, changing them, watching them.

use std::collections::BTreeMap;

use super::{
    Forecast, ForecastCheck, FromWire, Image, Output, Seconds, StageSettings, Time, U64, Word,
    duration_seconds,
};
use crate::v1;

super::requests! {
    /// Asks for a job.
    GetJobRequest { id: String, }

    /// Asks for a page of jobs.
    ListJobsRequest {
        page_size: u32,
        page_token: String,
        tenant: String,
        states: Vec<Word<v1::JobState>>,
        labels: BTreeMap<String, String>,
        name: String,
        text: String,
        created_from: Option<Time>,
        created_to: Option<Time>,
        oldest_first: bool,
    }

    /// Asks for the changes of a job.
    WatchJobRequest {
        id: String,
        after_version: U64,
        images: bool,
    }

    /// Ends a job.
    CancelJobRequest { id: String, }

    /// Deletes a job that has ended.
    DeleteJobRequest { id: String, cancel: bool, }

    /// Pauses a job.
    PauseJobRequest { id: String, }

    /// Continues a paused job.
    ResumeJobRequest { id: String, }

    /// Runs failed and cancelled images again.
    RetryJobRequest {
        id: String,
        deadline: Option<Time>,
        no_deadline: bool,
    }
}

super::answers! {
    /// A job that was deleted.
    DeleteJobResponse {
        id: String,
        tenant: String,
        deleted: bool,
    }

    /// How far a job is in one stage.
    StageProgress {
        stage: String,
        done: U64,
        dispatched: U64,
        total: U64,
        images_per_second: f64,
        stopped: U64,
    }
}

super::form! {
    /// A job, in the form that `--json` has always had: its spec and its settings in one object.
    ///
    /// It leaves out the client's request id, the requested settings (`settings` has the effective
    /// ones), the pictures of each prompt, and what the job starts from.
    Job {
        id: String,
        name: String,
        state: Word<v1::JobState>,
        cascade: String,
        cascade_digest: String,
        priority: Word<v1::Priority>,
        tenant: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        seed: Option<U64>,
        images: U64,
        images_done: U64,
        images_dead: U64,
        images_cancelled: U64,
        stages: Vec<StageProgress>,
        /// How pictures to start from were fitted. Absent: the job has none.
        #[serde(skip_serializing_if = "super::is_default")]
        fit: Word<v1::Fit>,
        width: u32,
        height: u32,
        /// How its pictures are stored. Absent in answers of older farms, which store PNGs.
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<Output>,
        settings: Vec<StageSettings>,
        waiting_for: String,
        tasks_ahead: U64,
        eta_seconds: Option<f64>,
        forecast: Option<Forecast>,
        first_forecast: Option<Forecast>,
        forecast_check: Option<ForecastCheck>,
        device_seconds: f64,
        deadline: Option<Seconds>,
        deadline_missed_by_seconds: Option<f64>,
        max_workers: Option<u32>,
        max_failed_images: Option<U64>,
        #[serde(skip_serializing_if = "super::is_default")]
        no_reuse: bool,
        end_code: String,
        end_reason: String,
        created_at: Option<Seconds>,
        finished_at: Option<Seconds>,
        version: U64,
        generation: u32,
        manifest_key: String,
        manifest_sha256: String,
        notes: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pictures_removed_at: Option<Seconds>,
        #[serde(skip_serializing_if = "String::is_empty")]
        pictures_removed_by: String,
    }
}

impl From<v1::Job> for Job {
    fn from(job: v1::Job) -> Self {
        let state = job.state();
        let spec = job.spec.unwrap_or_default();
        let priority = match spec.priority() {
            v1::Priority::Interactive => v1::Priority::Interactive,
            v1::Priority::Batch | v1::Priority::Unspecified => v1::Priority::Batch,
        };
        let settings = job.effective_settings.unwrap_or_default();
        Self {
            id: job.id,
            name: spec.name,
            state: state.into(),
            cascade: spec.cascade,
            cascade_digest: job.cascade_digest,
            priority: priority.into(),
            tenant: spec.tenant,
            labels: spec.labels,
            seed: spec.seed.map(U64),
            images: U64(job.images),
            images_done: U64(job.images_done),
            images_dead: U64(job.images_dead),
            images_cancelled: U64(job.images_cancelled),
            stages: Vec::from_wire(job.stages),
            fit: settings.fit().into(),
            width: settings.width,
            height: settings.height,
            output: settings.output.map(Output::from),
            settings: Vec::from_wire(settings.stages),
            waiting_for: job.waiting_for,
            tasks_ahead: U64(job.tasks_ahead),
            eta_seconds: job.eta.as_ref().map(duration_seconds),
            forecast: job.forecast.map(Forecast::from),
            first_forecast: job.first_forecast.map(Forecast::from),
            forecast_check: job.forecast_check.map(ForecastCheck::from),
            device_seconds: job.device_seconds,
            deadline: Option::from_wire(spec.deadline),
            deadline_missed_by_seconds: job.deadline_missed_by.as_ref().map(duration_seconds),
            max_workers: Some(spec.max_workers).filter(|workers| *workers > 0),
            max_failed_images: spec.max_failed_images.map(U64),
            no_reuse: spec.no_reuse,
            end_code: job.end_code,
            end_reason: job.end_reason,
            created_at: Option::from_wire(job.created_at),
            finished_at: Option::from_wire(job.finished_at),
            version: U64(job.version),
            generation: job.generation,
            manifest_key: job.manifest_key,
            manifest_sha256: job.manifest_sha256,
            notes: job.notes,
            pictures_removed_at: Option::from_wire(job.pictures_removed_at),
            pictures_removed_by: job.pictures_removed_by,
        }
    }
}

impl From<&v1::Job> for Job {
    fn from(job: &v1::Job) -> Self {
        job.clone().into()
    }
}

impl FromWire<v1::Job> for Job {
    fn from_wire(job: v1::Job) -> Self {
        job.into()
    }
}

super::reports! {
    /// A page of jobs.
    ListJobsResponse {
        jobs: Vec<Job>,
        next_page_token: String,
    }

    /// A change of a watched job.
    WatchEvent {
        job: Option<Job>,
        images: Vec<Image>,
        version: U64,
        end: bool,
    }
}
