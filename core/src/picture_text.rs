//! The text metadata of a finished PNG: enough to render it again, and its parser.

use crate::{
    digest::Digest,
    error::UserError,
    settings::{GuidanceSchedule, Settings, Spacing, StageSettings, Thresholding},
};

/// Keyword of the prompt.
pub const PROMPT: &str = "darkroom.prompt";
/// Keyword of the negative prompt.
pub const NEGATIVE: &str = "darkroom.negative_prompt";
/// Keyword of the seed, in decimal.
pub const SEED: &str = "darkroom.seed";
/// Keyword of the cascade's name.
pub const CASCADE: &str = "darkroom.cascade";
/// Keyword of the cascade's digest.
pub const CASCADE_DIGEST: &str = "darkroom.cascade_digest";
/// Keyword of the settings, as JSON of [`Settings`].
pub const SETTINGS: &str = "darkroom.settings";
/// Keyword of the class of device that rendered the last stage; the worker adds it.
pub const DEVICE_CLASS: &str = "darkroom.device_class";
/// Keyword of a line for people.
pub const PARAMETERS: &str = "parameters";

/// Everything that makes a picture what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The prompt as its user wrote it.
    pub prompt: String,
    /// The negative prompt; empty is none.
    pub negative: String,
    /// The image's seed.
    pub seed: u64,
    /// Name of the cascade, for people.
    pub cascade: String,
    /// Its digest.
    pub cascade_digest: Digest,
    /// Settings with every default filled in.
    pub settings: Settings,
}

impl Recipe {
    /// The PNG's text pairs, in the order they are written.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        let settings = serde_json::to_string(&self.settings).unwrap_or_default();
        [
            (PROMPT, self.prompt.clone()),
            (NEGATIVE, self.negative.clone()),
            (SEED, self.seed.to_string()),
            (CASCADE, self.cascade.clone()),
            (CASCADE_DIGEST, self.cascade_digest.to_string()),
            (SETTINGS, settings),
            (PARAMETERS, self.line_for_people()),
        ]
        .map(|(keyword, text)| (keyword.to_owned(), text))
        .into()
    }

    /// Reads the pairs back; others are ignored.
    ///
    /// # Errors
    /// The keyword that is missing or cannot be read.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, UserError> {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let text = |keyword: &str| {
            pairs.iter().find(|(name, _)| *name == keyword).map(|(_, text)| *text).ok_or_else(|| {
                UserError::invalid(
                    keyword,
                    format!("the picture has no text {keyword}; accepted: a PNG that Darkroom rendered"),
                )
            })
        };
        let seed = text(SEED)?;
        let settings = text(SETTINGS)?;
        Ok(Self {
            prompt: text(PROMPT)?.to_owned(),
            negative: text(NEGATIVE)?.to_owned(),
            seed: seed.parse().map_err(|_| {
                UserError::invalid(SEED, format!("{SEED} is {seed:?}; accepted: 0 to {}", u64::MAX))
            })?,
            cascade: text(CASCADE)?.to_owned(),
            cascade_digest: text(CASCADE_DIGEST)?
                .parse()
                .map_err(|error: UserError| UserError::invalid(CASCADE_DIGEST, error.message))?,
            settings: serde_json::from_str(settings).map_err(|error| {
                UserError::invalid(SETTINGS, format!("{SETTINGS} cannot be read: {error}"))
            })?,
        })
    }

    fn line_for_people(&self) -> String {
        let mut line = self.prompt.clone();
        if !self.negative.is_empty() {
            line += &format!("\nNegative prompt: {}", self.negative);
        }
        line +=
            &format!("\nSeed: {}, Size: {1}x{1}, Model: {2}", self.seed, self.settings.size(), self.cascade);
        for stage in &self.settings.stages {
            line += &format!(", {}: {}", stage.stage, sampling(stage));
        }
        line
    }
}

/// How a stage is sampled, for people; what is at its default is not said.
#[must_use]
pub fn sampling(stage: &StageSettings) -> String {
    let mut line = format!("{} {} steps", stage.sampler, stage.steps);
    match &stage.preset {
        Some(preset) => line += &format!(" ({preset})"),
        None if !stage.timesteps.is_empty() => line += " (listed)",
        None if stage.spacing != Spacing::Configured => line += &format!(" {}", stage.spacing),
        None => {}
    }
    if stage.eta > 0.0 {
        line += &format!(" eta {}", stage.eta);
    }
    line += &format!(" guidance {}", stage.guidance_scale);
    if stage.guidance_schedule != GuidanceSchedule::Constant {
        line += &format!(" {}", stage.guidance_schedule);
    }
    if stage.thresholding != Thresholding::Configured {
        line += &format!(" thresholding {}", stage.thresholding);
    }
    if let Some(level) = stage.noise_level {
        line += &format!(" noise level {level}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Sampler;

    fn recipe() -> Recipe {
        Recipe {
            prompt: "A red circle, \"großartig\"\nabove".to_owned(),
            negative: "blur".to_owned(),
            seed: u64::MAX,
            cascade: "demo".to_owned(),
            cascade_digest: Digest::of(b"demo"),
            settings: Settings {
                stages: vec![StageSettings {
                    stage: "base".to_owned().try_into().expect("a name"),
                    size: 64,
                    sampler: Sampler::DpmSolverPlusPlus,
                    steps: 3,
                    preset: Some("short".to_owned()),
                    timesteps: vec![999, 500, 0],
                    spacing: Spacing::Trailing,
                    eta: 0.1,
                    guidance_scale: 7.300000000000001,
                    guidance_schedule: GuidanceSchedule::Oscillating { first: 2, low: 1.1 },
                    thresholding: Thresholding::Dynamic { percentile: 99.7, max: 1.3 },
                    noise_level: None,
                }],
            },
        }
    }

    #[test]
    fn a_recipe_survives_the_picture() {
        let pairs = recipe().to_pairs();
        let read = Recipe::from_pairs(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        assert_eq!(read, Ok(recipe()));
        let line = &pairs.last().expect("pairs").1;
        let stage = "base: dpmsolver++ 3 steps (short) eta 0.1 guidance 7.300000000000001 oscillating:2:1.1 \
                     thresholding dynamic:99.7:1.3";
        assert!(line.contains(stage), "{line}");
    }

    #[test]
    fn the_recipe_of_an_older_picture_is_read_and_a_newer_ones_is_refused() {
        let old = r#"{"stages":[{"stage":"base","size":64,"sampler":"ddim","steps":9,"guidance_scale":2.0,"noise_level":null}]}"#;
        let read = |settings: &str| {
            let pairs = recipe().to_pairs();
            let with = pairs
                .iter()
                .map(|(name, text)| (name.as_str(), if name == SETTINGS { settings } else { text }));
            Recipe::from_pairs(with)
        };
        let stage = read(old).expect("read").settings.stages.remove(0);
        assert_eq!((stage.spacing, stage.eta, stage.timesteps.len()), (Spacing::Configured, 0.0, 0));
        let newer = old.replace("\"steps\"", "\"colour\":\"sepia\",\"steps\"");
        assert_eq!(read(&newer).expect_err("unknown").field.as_deref(), Some(SETTINGS));
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        let pairs = recipe().to_pairs();
        for (position, (keyword, _)) in pairs.iter().enumerate().take(6) {
            let others = pairs.iter().enumerate().filter(|(other, _)| *other != position);
            let error = Recipe::from_pairs(others.map(|(_, (name, text))| (name.as_str(), text.as_str())))
                .expect_err("one is missing");
            assert_eq!(error.field.as_ref(), Some(keyword));
        }
        let broken = pairs.iter().map(|(name, text)| (name.as_str(), if name == SEED { "-1" } else { text }));
        assert_eq!(Recipe::from_pairs(broken).expect_err("broken").field.as_deref(), Some(SEED));
    }
}
