//! Converts settings between their messages and `core`'s types. This is the only place where the
//! fields of a stage's settings cross the wire.

use darkroom_core::{
    fit::Fit,
    output::{Format, Output, OutputRequest},
    settings::{Settings, SettingsRequest, StageRequest, StageSettings},
    start::Start,
};

use crate::v1;

impl From<&v1::StageSettings> for StageRequest {
    fn from(stage: &v1::StageSettings) -> Self {
        Self {
            stage: stage.stage.clone(),
            sampler: stage.sampler.clone(),
            steps: stage.steps,
            preset: stage.preset.clone(),
            timesteps: stage.timesteps.clone(),
            spacing: stage.spacing.clone(),
            eta: stage.eta,
            guidance_scale: stage.guidance_scale,
            guidance_schedule: stage.guidance_schedule.clone(),
            thresholding: stage.thresholding.clone(),
            noise_level: stage.noise_level,
            strength: stage.strength,
            cache_interval: stage.cache_interval,
        }
    }
}

impl From<&StageRequest> for v1::StageSettings {
    fn from(stage: &StageRequest) -> Self {
        Self {
            stage: stage.stage.clone(),
            sampler: stage.sampler.clone(),
            steps: stage.steps,
            preset: stage.preset.clone(),
            timesteps: stage.timesteps.clone(),
            spacing: stage.spacing.clone(),
            eta: stage.eta,
            guidance_scale: stage.guidance_scale,
            guidance_schedule: stage.guidance_schedule.clone(),
            thresholding: stage.thresholding.clone(),
            noise_level: stage.noise_level,
            strength: stage.strength,
            cache_interval: stage.cache_interval,
        }
    }
}

/// Every value is set. Sent as a request, it therefore gives the same settings again, even if the
/// cascade's defaults have changed.
impl From<&StageSettings> for v1::StageSettings {
    fn from(stage: &StageSettings) -> Self {
        Self::from(&StageRequest::from(stage))
    }
}

impl From<&v1::Settings> for SettingsRequest {
    fn from(settings: &v1::Settings) -> Self {
        Self {
            size: settings.size,
            width: settings.width,
            height: settings.height,
            start: match v1::Start::try_from(settings.start) {
                Ok(v1::Start::Unspecified) => String::new(),
                Ok(v1::Start::Noise) => Start::Noise.name().to_owned(),
                Ok(v1::Start::LowRes) => Start::LowRes.name().to_owned(),
                Ok(v1::Start::Picture) => Start::Picture.name().to_owned(),
                Ok(v1::Start::Masked) => Start::Masked.name().to_owned(),
                // Not checked here: the code that resolves the request refuses a wrong value, and
                // names it.
                Err(_) => settings.start.to_string(),
            },
            start_stage: settings.start_stage.clone(),
            fit: match v1::Fit::try_from(settings.fit) {
                Ok(v1::Fit::Unspecified) => String::new(),
                Ok(v1::Fit::Crop) => Fit::Crop.name().to_owned(),
                Ok(v1::Fit::Pad) => Fit::Pad.name().to_owned(),
                Ok(v1::Fit::Stretch) => Fit::Stretch.name().to_owned(),
                Ok(v1::Fit::Exact) => Fit::Exact.name().to_owned(),
                Err(_) => settings.fit.to_string(),
            },
            output: settings.output.as_ref().map(OutputRequest::from).unwrap_or_default(),
            stages: settings.stages.iter().map(StageRequest::from).collect(),
        }
    }
}

impl From<&SettingsRequest> for v1::Settings {
    fn from(request: &SettingsRequest) -> Self {
        Self {
            size: request.size,
            stages: request.stages.iter().map(v1::StageSettings::from).collect(),
            width: request.width,
            height: request.height,
            start: request
                .start
                .parse::<Start>()
                .map_or(v1::Start::Unspecified, v1::Start::from)
                .into(),
            start_stage: request.start_stage.clone(),
            fit: request.fit.parse::<Fit>().map_or(v1::Fit::Unspecified, v1::Fit::from).into(),
            output: Some(&request.output)
                .filter(|output| **output != OutputRequest::default())
                .map(v1::Output::from),
        }
    }
}

impl From<&Settings> for v1::Settings {
    fn from(settings: &Settings) -> Self {
        let extent = settings.extent();
        let first = settings.stages.first().filter(|_| settings.start == Start::LowRes);
        Self {
            size: settings.size(),
            stages: settings.stages.iter().map(v1::StageSettings::from).collect(),
            width: extent.width,
            height: extent.height,
            start: v1::Start::from(settings.start).into(),
            start_stage: first.map_or_else(String::new, |stage| stage.stage.to_string()),
            fit: settings.fit.map_or(v1::Fit::Unspecified, v1::Fit::from).into(),
            output: Some(v1::Output::from(settings.output)),
        }
    }
}

impl From<&v1::Output> for OutputRequest {
    fn from(output: &v1::Output) -> Self {
        let name = |format: Format| format.name().to_owned();
        Self {
            format: match v1::PictureFormat::try_from(output.format) {
                Ok(v1::PictureFormat::Unspecified) => String::new(),
                Ok(v1::PictureFormat::Png) => name(Format::Png),
                Ok(v1::PictureFormat::Jpeg) => name(Format::Jpeg),
                Ok(v1::PictureFormat::Webp) => name(Format::WebP),
                // Not checked here: the code that resolves the request refuses a wrong value, and
                // names it.
                Err(_) => output.format.to_string(),
            },
            compression_level: output.compression_level,
            quality: output.quality,
        }
    }
}

impl From<&OutputRequest> for v1::Output {
    fn from(request: &OutputRequest) -> Self {
        let format = Format::ALL.into_iter().find(|format| format.name() == request.format);
        Self {
            format: format.map_or(v1::PictureFormat::Unspecified, v1::PictureFormat::from).into(),
            compression_level: request.compression_level,
            quality: request.quality,
        }
    }
}

impl From<Output> for v1::Output {
    fn from(output: Output) -> Self {
        Self::from(&OutputRequest::from(output))
    }
}

impl From<Format> for v1::PictureFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Png => Self::Png,
            Format::Jpeg => Self::Jpeg,
            Format::WebP => Self::Webp,
        }
    }
}

impl v1::PictureFormat {
    /// The format, if this version knows it. Older farms name no format, and store PNGs.
    #[must_use]
    pub fn known(self) -> Format {
        match self {
            Self::Unspecified | Self::Png => Format::Png,
            Self::Jpeg => Format::Jpeg,
            Self::Webp => Format::WebP,
        }
    }
}

impl From<Start> for v1::Start {
    fn from(start: Start) -> Self {
        match start {
            Start::Noise => Self::Noise,
            Start::LowRes => Self::LowRes,
            Start::Picture => Self::Picture,
            Start::Masked => Self::Masked,
        }
    }
}

impl From<Fit> for v1::Fit {
    fn from(fit: Fit) -> Self {
        match fit {
            Fit::Crop => Self::Crop,
            Fit::Pad => Self::Pad,
            Fit::Stretch => Self::Stretch,
            Fit::Exact => Self::Exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::cascade::CascadeSpec;

    use super::*;

    const CASCADE: &str = r#"
        format = 1
        name = "tiny"
        [encoder]
        folder = "text_encoder"
        tokenizer = "tokenizer"
        max_length = 20
        [[stages]]
        name = "base"
        folder = "base"
        size = 16
        sampler = "sde-dpmsolver++"
        preset = "smart27"
        guidance_scale = 3.0
        guidance_schedule = "25%..75%"
        thresholding = "dynamic:99.5:1.5"
        cache_interval = 3
        [[stages]]
        name = "sr"
        folder = "sr"
        size = 32
        sampler = "ddim"
        steps = 8
        spacing = "trailing"
        eta = 0.25
        guidance_scale = 2.0
        noise_level = 9
    "#;

    #[test]
    fn settings_told_and_asked_for_again_are_the_same_whatever_the_defaults_are_then() {
        let before = CascadeSpec::parse(CASCADE).expect("valid");
        let settings = Settings::resolve(&SettingsRequest::default(), &before).expect("defaults");
        let told = v1::Settings::from(&settings);
        let asked = SettingsRequest::from(&told);
        assert_eq!(v1::Settings::from(&asked), told);
        let mut after = before.clone();
        after.stages.swap(0, 1);
        let (first, second) = (after.stages[0].clone(), after.stages[1].clone());
        for (stage, other) in after.stages.iter_mut().zip([second, first]) {
            stage.name = other.name;
            stage.sampling.noise_level = other.sampling.noise_level;
            stage.size = other.size;
        }
        let other = Settings::resolve(&SettingsRequest::default(), &after).expect("defaults");
        assert_ne!(other, settings);
        assert_eq!(Settings::resolve(&asked, &after), Ok(settings));
    }

    #[test]
    fn a_fit_survives_the_way_there_and_back_and_a_job_from_before_has_none() {
        let cascade = CascadeSpec::parse(CASCADE).expect("valid");
        for (fit, told) in [
            ("", v1::Fit::Crop),
            ("pad", v1::Fit::Pad),
            ("stretch", v1::Fit::Stretch),
            ("exact", v1::Fit::Exact),
        ] {
            let request = SettingsRequest {
                start: "picture".to_owned(),
                fit: fit.to_owned(),
                ..SettingsRequest::default()
            };
            let settings = Settings::resolve(&request, &cascade).expect("valid");
            let message = v1::Settings::from(&settings);
            assert_eq!(message.fit(), told);
            assert_eq!(Settings::resolve(&SettingsRequest::from(&message), &cascade), Ok(settings));
            if !fit.is_empty() {
                assert_eq!(v1::Settings::from(&request).fit(), told);
            }
        }
        let unknown =
            v1::Settings { fit: 9, start: v1::Start::Picture.into(), ..v1::Settings::default() };
        let error =
            Settings::resolve(&SettingsRequest::from(&unknown), &cascade).expect_err("unknown");
        assert!(error.message.contains("settings.fit is \"9\""), "{error}");
        let noise = SettingsRequest { fit: "pad".to_owned(), ..SettingsRequest::default() };
        let error = Settings::resolve(&noise, &cascade).expect_err("nothing to fit");
        assert!(error.message.contains("starts from noise"), "{error}");
        let none = Settings::resolve(&SettingsRequest::default(), &cascade).expect("valid");
        assert_eq!(v1::Settings::from(&none).fit(), v1::Fit::Unspecified);
    }

    #[test]
    fn an_output_survives_the_way_there_and_back() {
        let cascade = CascadeSpec::parse(CASCADE).expect("valid");
        for text in ["png", "png:0", "png:9", "jpeg:1", "jpeg:100", "webp"] {
            let request =
                SettingsRequest { output: text.parse().expect(text), ..SettingsRequest::default() };
            let settings = Settings::resolve(&request, &cascade).expect("valid");
            assert_eq!(settings.output.to_string(), text);
            let message = v1::Settings::from(&settings);
            assert_eq!(Settings::resolve(&SettingsRequest::from(&message), &cascade), Ok(settings));
            assert_eq!(SettingsRequest::from(&v1::Settings::from(&request)), request);
        }
        let plain = Settings::resolve(&SettingsRequest::default(), &cascade).expect("valid");
        assert_eq!(plain.output, Output::default());
        assert_eq!(v1::Settings::from(&SettingsRequest::default()).output, None);
        let unknown = v1::Output { format: 9, ..v1::Output::default() };
        let unknown = v1::Settings { output: Some(unknown), ..v1::Settings::default() };
        let error =
            Settings::resolve(&SettingsRequest::from(&unknown), &cascade).expect_err("unknown");
        assert!(error.message.starts_with("settings.output.format is \"9\""), "{error}");
    }
}
