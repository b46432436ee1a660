//! Settings of a job and of its stages, in requests and in answers.

use super::Word;
use crate::v1;

super::answers! {
    /// Sampling settings of one stage. In a request, an absent field takes the cascade's default.
    #[serde(deny_unknown_fields)]
    StageSettings {
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
}

super::requests! {
    /// How the final picture is stored.
    Output {
        format: Word<v1::PictureFormat>,
        compression_level: Option<u32>,
        quality: Option<u32>,
    }

    /// Settings that all images of a job share, or the settings of one prompt: size, width, height,
    /// stages, and an output, which replaces the job's as a whole.
    Settings {
        size: u32,
        width: u32,
        height: u32,
        start: Word<v1::Start>,
        start_stage: String,
        fit: Word<v1::Fit>,
        output: Option<Output>,
        stages: Vec<StageSettings>,
    }
}
