//! The text metadata of a finished picture: enough to render it again, and its parser.

use crate::{
    digest::Digest,
    error::UserError,
    sampling::{GuidanceSchedule, Sampling, Spacing, Thresholding},
    settings::Settings,
    shown::shown,
};

/// Keyword of the prompt.
pub const PROMPT: &str = "darkroom.prompt";
/// Keyword of the negative prompt.
pub const NEGATIVE: &str = "darkroom.negative_prompt";
/// Keyword of the style, the text of the super-resolution stages; absent if that is the prompt.
pub const STYLE: &str = "darkroom.style";
/// Keyword of the SHA-256 of the picture that the image started from; absent if there was none.
pub const IMAGE: &str = "darkroom.image_sha256";
/// Keyword of the SHA-256 of the mask; absent where there was none.
pub const MASK: &str = "darkroom.mask_sha256";
/// Keyword of the seed, in decimal.
pub const SEED: &str = "darkroom.seed";
/// Keyword of the cascade's name.
pub const CASCADE: &str = "darkroom.cascade";
/// Keyword of the cascade's digest.
pub const CASCADE_DIGEST: &str = "darkroom.cascade_digest";
/// Keyword of the settings, as JSON of [`Settings`].
pub const SETTINGS: &str = "darkroom.settings";
/// Keyword of the class of device that rendered the last stage. The worker adds it.
pub const DEVICE_CLASS: &str = "darkroom.device_class";
/// Keyword of a summary in one line, for people.
pub const PARAMETERS: &str = "parameters";

/// Everything that decides a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The prompt as its user wrote it.
    pub prompt: String,
    /// The negative prompt; empty means none.
    pub negative: String,
    /// Text of the super-resolution stages, if it is not the prompt.
    pub style: Option<String>,
    /// The picture that it started from.
    pub image: Option<Digest>,
    /// The mask of the part that was painted anew.
    pub mask: Option<Digest>,
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
    /// The picture's text pairs, in the order they are written.
    ///
    /// # Panics
    /// Never: settings always have a JSON form.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(String, String)> {
        // These texts are part of the digest of the last stage's task, so there is no fallback.
        let settings = serde_json::to_string(&self.settings)
            .expect("settings are plain values, which have a JSON form");
        let pairs = [
            (PROMPT, Some(self.prompt.clone())),
            (NEGATIVE, Some(self.negative.clone())),
            (STYLE, self.style.clone()),
            (IMAGE, self.image.map(String::from)),
            (MASK, self.mask.map(String::from)),
            (SEED, Some(self.seed.to_string())),
            (CASCADE, Some(self.cascade.clone())),
            (CASCADE_DIGEST, Some(self.cascade_digest.to_string())),
            (SETTINGS, Some(settings)),
            (PARAMETERS, Some(self.line_for_people())),
        ];
        pairs.into_iter().filter_map(|(keyword, text)| Some((keyword.to_owned(), text?))).collect()
    }

    /// Reads the pairs back and ignores all others.
    ///
    /// # Errors
    /// The keyword that is missing or cannot be read.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, UserError> {
        let pairs: Vec<_> = pairs.into_iter().collect();
        let optional =
            |keyword: &str| pairs.iter().find(|(name, _)| *name == keyword).map(|(_, text)| *text);
        let text = |keyword: &str| {
            optional(keyword).ok_or_else(|| {
                UserError::invalid(
                    keyword,
                    format!(
                        "the picture has no text {keyword}; accepted: a picture that Darkroom rendered, with the metadata \
                         that it was stored with"
                    ),
                )
            })
        };
        let digest = |keyword: &str, text: &str| {
            text.parse::<Digest>().map_err(|error| {
                UserError::invalid(keyword, format!("{keyword}: {}", short(&error.message)))
            })
        };
        let input = |keyword: &str| optional(keyword).map(|text| digest(keyword, text)).transpose();
        let seed = text(SEED)?;
        let settings = text(SETTINGS)?;
        Ok(Self {
            prompt: text(PROMPT)?.to_owned(),
            // Image libraries drop empty texts, such as that of an empty negative prompt.
            negative: optional(NEGATIVE).unwrap_or_default().to_owned(),
            style: optional(STYLE).map(str::to_owned),
            image: input(IMAGE)?,
            mask: input(MASK)?,
            seed: seed.parse().map_err(|_| {
                UserError::invalid(
                    SEED,
                    format!(
                        "{SEED} is {}; accepted: 0 to {}",
                        short(&format!("{seed:?}")),
                        u64::MAX
                    ),
                )
            })?,
            cascade: text(CASCADE)?.to_owned(),
            cascade_digest: digest(CASCADE_DIGEST, text(CASCADE_DIGEST)?)?,
            settings: serde_json::from_str(settings).map_err(|error| {
                let reason = error.to_string();
                UserError::invalid(
                    SETTINGS,
                    format!("{SETTINGS} cannot be read: {}", short(&shown(&reason))),
                )
            })?,
        })
    }

    fn line_for_people(&self) -> String {
        let mut line = self.prompt.clone();
        if !self.negative.is_empty() {
            line += &format!("\nNegative prompt: {}", self.negative);
        }
        if let Some(style) = &self.style {
            line += &format!("\nStyle: {style}");
        }
        line += &format!(
            "\nSeed: {}, Size: {}, Model: {}",
            self.seed,
            self.settings.extent(),
            self.cascade
        );
        for stage in &self.settings.stages {
            line += &format!(", {}: {}", stage.stage, sampling(&stage.sampling));
        }
        line
    }
}

/// The beginning of what a file says: a small one can have a megabyte of text, compressed.
fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How a stage is sampled, for people. Settings at their default are not mentioned.
#[must_use]
pub fn sampling(sampling: &Sampling) -> String {
    let mut line = format!("{} {} steps", sampling.sampler, sampling.steps);
    match &sampling.preset {
        Some(preset) => line += &format!(" ({preset})"),
        None if !sampling.timesteps.is_empty() => line += " (listed)",
        None if sampling.spacing != Spacing::Configured => {
            line += &format!(" {}", sampling.spacing)
        }
        None => {}
    }
    if sampling.eta > 0.0 {
        line += &format!(" eta {}", sampling.eta);
    }
    line += &format!(" guidance {}", sampling.guidance_scale);
    if sampling.guidance_schedule != GuidanceSchedule::Constant {
        line += &format!(" {}", sampling.guidance_schedule);
    }
    if sampling.thresholding != Thresholding::Configured {
        line += &format!(" thresholding {}", sampling.thresholding);
    }
    if let Some(level) = sampling.noise_level {
        line += &format!(" noise level {level}");
    }
    if let Some(strength) = sampling.strength {
        line += &format!(" strength {strength}");
    }
    if sampling.cache_interval > 1 {
        line += &format!(" features every {} steps", sampling.cache_interval);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        extent::Extent, fit::Fit, output::Output, sampling::Sampler, settings::StageSettings,
        start::Start,
    };

    fn recipe() -> Recipe {
        Recipe {
            prompt: "A red circle, \"großartig\"\nabove".to_owned(),
            negative: "blur".to_owned(),
            style: None,
            image: None,
            mask: None,
            seed: u64::MAX,
            cascade: "demo".to_owned(),
            cascade_digest: Digest::of(b"demo"),
            settings: Settings {
                start: Start::Noise,
                fit: None,
                output: Output::default(),
                stages: vec![StageSettings {
                    stage: "base".to_owned().try_into().expect("a name"),
                    size: 64,
                    extent: None,
                    sampling: Sampling {
                        preset: Some("short".to_owned()),
                        timesteps: vec![999, 500, 0],
                        spacing: Spacing::Trailing,
                        eta: 0.1,
                        guidance_scale: 7.300000000000001,
                        guidance_schedule: GuidanceSchedule::Oscillating { first: 2, low: 1.1 },
                        thresholding: Thresholding::Dynamic { percentile: 99.7, max: 1.3 },
                        cache_interval: 2,
                        ..Sampling::plain(Sampler::DpmSolverPlusPlus, 3)
                    },
                }],
            },
        }
    }

    #[test]
    fn a_recipe_survives_the_picture() {
        let pairs = recipe().to_pairs();
        let read =
            Recipe::from_pairs(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        assert_eq!(read, Ok(recipe()));
        let line = &pairs.last().expect("pairs").1;
        let stage = "base: dpmsolver++ 3 steps (short) eta 0.1 guidance 7.300000000000001 oscillating:2:1.1 \
                     thresholding dynamic:99.7:1.3 features every 2 steps";
        assert!(line.contains(stage), "{line}");
        assert_eq!(pairs.len(), 7, "absent values are not written");
    }

    #[test]
    fn the_recipe_of_an_older_picture_is_read_and_a_newer_ones_is_refused() {
        let old = r#"{"stages":[{"stage":"base","size":64,"sampler":"ddim","steps":9,"guidance_scale":2.0,"noise_level":null}]}"#;
        let read = |settings: &str| {
            let pairs = recipe().to_pairs();
            let with = pairs.iter().map(|(name, text)| {
                (name.as_str(), if name == SETTINGS { settings } else { text })
            });
            Recipe::from_pairs(with)
        };
        let mut settings = read(old).expect("read").settings;
        assert_eq!(settings.fit, None);
        assert_eq!(serde_json::to_string(&settings).expect("JSON"), old, "its digest stays");
        let stage = settings.stages.remove(0).sampling;
        assert_eq!(
            (stage.spacing, stage.eta, stage.timesteps.len()),
            (Spacing::Configured, 0.0, 0)
        );
        assert_eq!(stage.cache_interval, 1);
        let newer = old.replace("\"steps\"", "\"colour\":\"sepia\",\"steps\"");
        assert_eq!(read(&newer).expect_err("unknown").field.as_deref(), Some(SETTINGS));
    }

    #[test]
    fn what_a_picture_started_from_survives_too() {
        let mut recipe = Recipe {
            style: Some("ink".to_owned()),
            image: Some(Digest::of(b"cat")),
            mask: Some(Digest::of(b"mask")),
            ..recipe()
        };
        recipe.settings.start = Start::Masked;
        recipe.settings.fit = Some(Fit::Pad);
        recipe.settings.stages[0].extent = Some(Extent { width: 64, height: 32 });
        recipe.settings.stages[0].sampling.strength = Some(0.7);
        recipe.settings.output = Output::Jpeg { quality: 70 };
        let pairs = recipe.to_pairs();
        let read =
            Recipe::from_pairs(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        assert_eq!(read, Ok(recipe));
        let line = &pairs.last().expect("pairs").1;
        assert!(
            line.contains("Style: ink")
                && line.contains("Size: 64x32")
                && line.contains("strength 0.7"),
            "{line}"
        );
        let broken = pairs
            .iter()
            .map(|(name, text)| (name.as_str(), if name == IMAGE { "cat.png" } else { text }));
        assert_eq!(Recipe::from_pairs(broken).expect_err("broken").field.as_deref(), Some(IMAGE));
    }

    #[test]
    fn an_error_about_a_text_without_end_is_short() {
        let recipe = recipe();
        for keyword in [SEED, SETTINGS, CASCADE_DIGEST] {
            let long = ["x", "\u{1b}", "\"", "{\"x"].map(|text| text.repeat(1 << 18));
            for text in long {
                let mut pairs = recipe.to_pairs();
                pairs.iter_mut().filter(|(name, _)| name == keyword).for_each(|(_, old)| {
                    old.clone_from(&text);
                });
                let pairs = pairs.iter().map(|(name, text)| (name.as_str(), text.as_str()));
                let error = Recipe::from_pairs(pairs).unwrap_err();
                assert!(error.message.len() < 1000, "{keyword}: {} bytes", error.message.len());
                assert!(!error.message.contains(char::is_control), "{keyword}");
            }
        }
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        let pairs = recipe().to_pairs();
        for (position, (keyword, _)) in pairs.iter().enumerate().take(6) {
            if keyword == NEGATIVE {
                continue;
            }
            let others = pairs.iter().enumerate().filter(|(other, _)| *other != position);
            let error =
                Recipe::from_pairs(others.map(|(_, (name, text))| (name.as_str(), text.as_str())))
                    .expect_err("one is missing");
            assert_eq!(error.field.as_ref(), Some(keyword));
        }
        let broken = pairs
            .iter()
            .map(|(name, text)| (name.as_str(), if name == SEED { "-1" } else { text }));
        assert_eq!(Recipe::from_pairs(broken).expect_err("broken").field.as_deref(), Some(SEED));
    }
}
