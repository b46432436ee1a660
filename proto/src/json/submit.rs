//! Jobs to submit, and the answers to a submit, a forecast and an upload.

use std::collections::BTreeMap;

use darkroom_core::error::UserError;
use serde::{Deserialize, Serialize};

use super::{Bytes, Forecast, FromWire as _, Job, Settings, StageSettings, Time, U64, Word};
use crate::v1::{self, submit_job_chunk::Part};

super::requests! {
    /// One prompt of a job.
    Prompt {
        text: String,
        negative: String,
        images: u32,
        seed: Option<U64>,
        image: String,
        mask: String,
        style: String,
        custom_id: String,
        labels: BTreeMap<String, String>,
        line: U64,
        settings: Option<Settings>,
    }

    /// Everything about a job but its prompts.
    JobSpec {
        client_request_id: String,
        cascade: String,
        name: String,
        tenant: String,
        priority: Word<v1::Priority>,
        settings: Option<Settings>,
        images_per_prompt: u32,
        seed: Option<U64>,
        deadline: Option<Time>,
        max_workers: u32,
        max_failed_images: Option<U64>,
        no_reuse: bool,
        labels: BTreeMap<String, String>,
    }

    /// A whole job to submit.
    SubmitJobRequest {
        spec: Option<JobSpec>,
        prompts: Vec<Prompt>,
    }

    /// Some of the prompts of a job that is submitted as a stream.
    PromptChunk {
        prompts: Vec<Prompt>,
    }

    /// A part of a picture.
    UploadInputChunk {
        data: Bytes,
    }
}

/// A message of a job that is submitted as a stream: `{"spec": …}` first, then `{"prompts":
/// {"prompts": […]}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SubmitJobChunk {
    /// Everything but the prompts.
    Spec(Box<JobSpec>),
    /// Some of the prompts.
    Prompts(PromptChunk),
}

impl TryFrom<v1::SubmitJobChunk> for SubmitJobChunk {
    type Error = UserError;

    fn try_from(message: v1::SubmitJobChunk) -> Result<Self, UserError> {
        match message.part {
            Some(Part::Spec(spec)) => Ok(Self::Spec(Box::new(spec.into()))),
            Some(Part::Prompts(prompts)) => Ok(Self::Prompts(prompts.into())),
            None => Err(UserError::invalid("part", "part is missing; accepted: spec or prompts")),
        }
    }
}

impl From<SubmitJobChunk> for v1::SubmitJobChunk {
    fn from(form: SubmitJobChunk) -> Self {
        let part = match form {
            SubmitJobChunk::Spec(spec) => Part::Spec((*spec).into()),
            SubmitJobChunk::Prompts(prompts) => Part::Prompts(prompts.into()),
        };
        Self { part: Some(part) }
    }
}

super::answers! {
    /// A picture that is stored.
    UploadInputResponse {
        sha256: String,
        key: String,
        size_bytes: U64,
        width: u32,
        height: u32,
        is_mask: bool,
        canonical_sha256: String,
        orientation: u32,
        notes: Vec<String>,
    }
}

super::reports! {
    /// An accepted job.
    SubmitJobResponse {
        job: Option<Job>,
        existed: bool,
    }
}

super::form! {
    /// The cost of a job; `submit --dry-run`. It has only the stages of the effective settings.
    ForecastJobResponse {
        images: U64,
        cascade_digest: String,
        settings: Vec<StageSettings>,
        forecast: Option<Forecast>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    }
}

impl From<v1::ForecastJobResponse> for ForecastJobResponse {
    fn from(message: v1::ForecastJobResponse) -> Self {
        let v1::ForecastJobResponse { forecast, images, effective_settings, cascade_digest, notes } =
            message;
        Self {
            images: images.into(),
            cascade_digest,
            settings: Vec::from_wire(effective_settings.unwrap_or_default().stages),
            forecast: forecast.map(Forecast::from),
            notes,
        }
    }
}

impl From<&v1::ForecastJobResponse> for ForecastJobResponse {
    fn from(message: &v1::ForecastJobResponse) -> Self {
        message.clone().into()
    }
}
