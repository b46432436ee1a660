//! Makes jobs and images from the columns that have the same form in both databases.

use std::sync::Arc;

use darkroom_core::{
    digest::Digest,
    id::{ImageId, JobId},
    image_state::ImageProgress,
    mix::Mix,
    settings::Settings,
};

use super::{
    Error,
    columns::{from_json, image_seed, number, parse, seed},
    forecast::KeptForecast,
    limits::Limits,
    records::{
        Extras, ImageFailure, ImageRecord, JobEnd, JobRecord, Manifest, Output, Pace,
        PicturesRemoved, StageCounters, labels_from_json, naming,
    },
    row::row,
    spent,
};

row! {
    /// Columns of a job that have the same form in both databases.
    pub(super) struct JobColumns {
        pub(super) seq: i64,
        tenant: String,
        client_request_id: Option<String>,
        name: String,
        labels: Option<String>,
        state: String,
        follow: Option<String>,
        settings: String,
        mix: Option<String>,
        requested: String,
        seed: i64,
        created_ms: i64,
        finished_ms: Option<i64>,
        manifest: Option<String>,
        manifest_key: Option<String>,
        deadline_ms: Option<i64>,
        max_failed: Option<i64>,
        end_code: Option<String>,
        end_reason: Option<String>,
        now_ms: i64,
        pace_ms: Option<i64>,
        forecast_ms: Option<i64>,
        forecast: Option<String>,
        spent: Option<String>,
        device_us: i64,
        version: i64,
        pub(super) images: i64,
        done: i64,
        dead: i64,
        cancelled: i64,
        no_reuse: bool,
        pictures_removed_ms: Option<i64>,
        pictures_removed_by: Option<String>,
    }
}

/// The rest of a job, in the domain's types.
pub(super) struct JobRest {
    pub(super) id: JobId,
    pub(super) priority: u8,
    pub(super) cascade: Digest,
    pub(super) encoder: Digest,
    pub(super) generation: u32,
    pub(super) max_workers: Option<u32>,
    pub(super) manifest_sha256: Option<Digest>,
    /// Number of tasks that had passed each stage when its pace was recorded.
    pub(super) pace: Option<Vec<u64>>,
    pub(super) stages: Vec<StageCounters>,
}

impl JobColumns {
    pub(super) fn record(self, rest: JobRest) -> Result<JobRecord, Error> {
        let manifest = match (self.manifest.as_deref(), self.manifest_key, rest.manifest_sha256) {
            (Some("written"), Some(key), Some(sha256)) => Manifest::Written { key, sha256 },
            (Some(_), ..) => Manifest::Pending,
            (None, ..) => Manifest::None,
        };
        let end = self.end_code.zip(self.end_reason);
        let end = end
            .map(|(code, reason)| Ok::<_, Error>(JobEnd { code: parse(&code)?, reason }))
            .transpose()?;
        let was_spent = self.spent.as_deref().map(from_json).transpose()?;
        let forecast = match (self.forecast_ms, self.forecast) {
            (Some(at_ms), Some(forecast)) => {
                Some(KeptForecast { at_ms, forecast: from_json(&forecast)?, spent: was_spent })
            }
            _ => None,
        };
        let settings: Settings = from_json(&self.settings)?;
        let images = number(self.images)?;
        let mix: Mix = self.mix.as_deref().map_or(Ok(Mix::default()), from_json)?;
        let mut stages = rest.stages;
        if !mix.is_empty() {
            let rendering = stages.iter_mut().filter(|stage| !stage.name.is_encode());
            for (stage, load) in rendering.zip(mix.loads(&settings, images)) {
                stage.total = load.images;
            }
        }
        Ok(JobRecord {
            id: rest.id,
            seq: self.seq,
            tenant: self.tenant,
            name: self.name,
            labels: labels_from_json(self.labels.as_deref())?,
            client_request_id: self.client_request_id,
            priority: rest.priority,
            state: parse(&self.state)?,
            following: self.follow.is_some(),
            cascade: rest.cascade,
            encoder: rest.encoder,
            settings,
            mix,
            requested: from_json(&self.requested)?,
            seed: seed(self.seed),
            limits: Limits {
                deadline_ms: self.deadline_ms,
                max_workers: rest.max_workers,
                max_failed: self.max_failed.map(number).transpose()?,
            },
            end,
            now_ms: self.now_ms,
            pace: self.pace_ms.zip(rest.pace).map(|(at_ms, passed)| Pace { at_ms, passed }),
            forecast,
            device_seconds: spent::seconds(self.device_us),
            version: number(self.version)?,
            generation: rest.generation,
            images,
            done: number(self.done)?,
            dead: number(self.dead)?,
            cancelled: number(self.cancelled)?,
            created_ms: self.created_ms,
            finished_ms: self.finished_ms,
            manifest,
            no_reuse: self.no_reuse,
            pictures_removed: self
                .pictures_removed_ms
                .zip(self.pictures_removed_by)
                .map(|(at_ms, by)| PicturesRemoved { at_ms, by }),
            stages,
        })
    }
}

row! {
    /// Columns of an image and its prompt that have the same form in both databases.
    pub(super) struct ImageColumns {
        error_code: Option<String>,
        error: Option<String>,
        version: i64,
        text: String,
        negative: String,
        extras: Option<String>,
        custom_id: Option<String>,
        labels: Option<String>,
        line: Option<i64>,
        first_index: i64,
        first_seed: i64,
    }
}

impl ImageColumns {
    /// The image `idx` of a job.
    pub(super) fn record(
        self,
        (job, idx): (JobId, i64),
        progress: ImageProgress,
        settings: Option<Arc<Settings>>,
        outputs: Vec<Output>,
    ) -> Result<ImageRecord, Error> {
        let error = self.error_code.zip(self.error);
        let error = error.map(|(code, message)| ImageFailure { code: code.into(), message });
        Ok(ImageRecord {
            id: ImageId { job, index: number(idx)? },
            progress,
            seed: image_seed(self.first_seed, self.first_index, idx),
            prompt: self.text,
            negative: self.negative,
            extras: Extras::from_json(self.extras.as_deref())?,
            settings,
            naming: naming(self.custom_id, self.labels.as_deref(), self.line)?,
            error,
            version: number(self.version)?,
            outputs,
        })
    }
}
