//! The text metadata of a finished PNG: enough to render it again, and its parser.

use crate::{digest::Digest, error::UserError, settings::Settings};

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
            line += &format!(
                ", {}: {} {} steps guidance {}",
                stage.stage, stage.sampler, stage.steps, stage.guidance_scale
            );
            if let Some(level) = stage.noise_level {
                line += &format!(" noise level {level}");
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sampler, StageSettings};

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
                    steps: 20,
                    guidance_scale: 7.300000000000001,
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
        assert!(line.contains("dpmsolver++ 20 steps guidance 7.3"), "{line}");
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
