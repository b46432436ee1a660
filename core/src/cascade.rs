//! Cascades: `cascade.toml`, its stages in order, and the digests that identify them by content.

mod stage;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, FieldHasher},
    error::{Code, UserError},
    id::StageName,
    prompt::TextPreparation,
    sampling::{Place, Sampling},
    shown::shown,
};

pub use stage::StageSpec;

/// Name of the file that describes a cascade, in the cascade's folder.
pub const FILE_NAME: &str = "cascade.toml";

/// Most tokens of a text, end token and padding included. The cost of attention grows with its
/// square.
pub const MAX_TOKENS: u32 = 2048;
/// Largest edge of a stage's pictures, in pixels.
pub const MAX_SIZE: u32 = 8192;
/// Longest training schedule, in timesteps.
pub const MAX_TRAIN_TIMESTEPS: u32 = 1_000_000;
/// Most stages of a cascade.
const MAX_STAGES: usize = 16;

/// `cascade.toml`, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CascadeSpec {
    /// Version of this format: 1.
    pub format: u32,
    /// The name users submit to.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// An SPDX expression, or the name of a licence.
    #[serde(default)]
    pub licence: String,
    /// The text encoder.
    pub encoder: EncoderSpec,
    /// The diffusion stages in order, low resolution first.
    pub stages: Vec<StageSpec>,
}

/// The text encoder of a cascade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSpec {
    /// Folder of a transformers `T5EncoderModel`.
    pub folder: String,
    /// Folder with `tokenizer.json`.
    pub tokenizer: String,
    /// Tokens per text, end token and padding included.
    pub max_length: u32,
    /// How a text is prepared before it is tokenized.
    #[serde(default)]
    pub text_preparation: TextPreparation,
    /// `f32` or `bf16`. Part of the encoder's identity, because embeddings are kept for ever.
    #[serde(default = "default_encoder_dtype")]
    pub dtype: String,
}

fn default_encoder_dtype() -> String {
    "f32".to_owned()
}

/// A cascade whose files have been hashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cascade {
    /// What `cascade.toml` says.
    pub spec: CascadeSpec,
    /// SHA-256 of every model, config and tokenizer file by path relative to the cascade's folder.
    pub files: BTreeMap<String, Digest>,
}

impl CascadeSpec {
    /// Parses and checks a `cascade.toml`.
    ///
    /// # Errors
    /// One sentence that names the wrong key.
    pub fn parse(text: &str) -> Result<Self, UserError> {
        // Editors on Windows write a byte order mark in front.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut spec: Self = toml::from_str(text)
            .map_err(|error| UserError::invalid(FILE_NAME, unreadable(text, &error)))?;
        spec.check()?;
        for position in 0..spec.stages.len() {
            spec.stages[position].sampling.steps = spec.sampling(position)?.steps;
        }
        Ok(spec)
    }

    /// The default sampling of stage number `position`, checked and with defaults filled in.
    ///
    /// # Errors
    /// The wrong key. Never for a spec that [`Self::parse`] returned.
    ///
    /// # Panics
    /// If there is no such stage.
    pub fn sampling(&self, position: usize) -> Result<Sampling, UserError> {
        let stage = &self.stages[position];
        let path = |key: &str| format!("{FILE_NAME}: stages[{position}].{key}");
        stage
            .sampling
            .filled_in(stage.schedule_lengths(), &Place { stage: &stage.name, path: &path })
    }

    /// The same without the limits on what jobs may ask of its stages. These may be written in
    /// `cascade.toml` or read from the stages' configurations, and are not part of the cascade's
    /// identity.
    #[must_use]
    pub fn without_bounds(&self) -> Self {
        Self { stages: self.stages.iter().map(StageSpec::without_bounds).collect(), ..self.clone() }
    }

    fn check(&self) -> Result<(), UserError> {
        let wrong = |field: &str, message: String| {
            Err(UserError::invalid(field, format!("{FILE_NAME}: {message}")))
        };
        if self.format != 1 {
            return wrong("format", format!("format is {}; accepted: 1", self.format));
        }
        if crate::prompt::is_blank(&self.name) || self.name.len() > 64 {
            return wrong("name", format!("name is {:?}; accepted: 1 to 64 characters", self.name));
        }
        if !matches!(self.encoder.dtype.as_str(), "f32" | "bf16") {
            return wrong(
                "encoder.dtype",
                format!("encoder.dtype is {:?}; accepted: f32, bf16", self.encoder.dtype),
            );
        }
        let length = self.encoder.max_length;
        if !(2..=MAX_TOKENS).contains(&length) {
            return wrong(
                "encoder.max_length",
                format!(
                    "encoder.max_length is {length}; accepted: 2 to {MAX_TOKENS} tokens, the end token included"
                ),
            );
        }
        if self.stages.is_empty() || self.stages.len() > MAX_STAGES {
            let count = self.stages.len();
            return wrong(
                "stages",
                format!("there are {count} stages; accepted: 1 to {MAX_STAGES}"),
            );
        }
        for (position, stage) in self.stages.iter().enumerate() {
            let field = format!("stages[{position}]");
            if stage.name.is_encode()
                || self.stages[..position].iter().any(|other| other.name == stage.name)
            {
                return wrong(
                    &field,
                    format!(
                        "{field}.name is {}, which is taken; accepted: a unique name, not encode",
                        stage.name
                    ),
                );
            }
            stage.check_bounds(&field)?;
            if position > 0 && stage.size <= self.stages[position - 1].size {
                return wrong(
                    &field,
                    format!("{field}.size is {}; accepted: more than the stage before", stage.size),
                );
            }
            if stage.sampling.noise_level.is_some() != (position > 0) {
                return wrong(
                    &field,
                    format!(
                        "{field}.noise_level must be set in super-resolution stages and no others"
                    ),
                );
            }
            if let Some(multiple) = stage
                .size_multiple
                .filter(|multiple| *multiple == 0 || !stage.size.is_multiple_of(*multiple))
            {
                return wrong(
                    &field,
                    format!(
                        "{field}.size_multiple is {multiple}; accepted: a divisor of size {}",
                        stage.size
                    ),
                );
            }
            self.sampling(position)?;
        }
        Ok(())
    }

    /// The stage called `name`, with its position.
    ///
    /// # Errors
    /// `NotFound`; the message lists the stages of the cascade.
    pub fn stage(&self, name: &StageName) -> Result<(usize, &StageSpec), UserError> {
        self.stages.iter().enumerate().find(|(_, stage)| &stage.name == name).ok_or_else(|| {
            let names: Vec<_> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
            UserError::new(
                Code::NotFound,
                "UNKNOWN_STAGE",
                format!("cascade {} has no stage {name}; it has {}", self.name, names.join(", ")),
            )
        })
    }
}

/// One sentence with the line; the library's own text has several lines, with a piece of the file.
fn unreadable(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(0, |before| before.matches('\n').count()) + 1;
    let reason = error.message().trim().lines().collect::<Vec<_>>().join("; ");
    format!("{FILE_NAME} cannot be read: line {line}: {}", shown(&reason))
}

impl StageSpec {
    /// Checks the numbers that have no other check.
    fn check_bounds(&self, field: &str) -> Result<(), UserError> {
        let timesteps = 2..=MAX_TRAIN_TIMESTEPS;
        for (key, value, accepted) in [
            ("size", Some(self.size), 1..=MAX_SIZE),
            ("train_timesteps", self.train_timesteps, timesteps.clone()),
            ("noise_timesteps", self.noise_timesteps, timesteps),
        ] {
            if let Some(value) = value.filter(|value| !accepted.contains(value)) {
                let field = format!("{field}.{key}");
                let (least, most) = (accepted.start(), accepted.end());
                let message =
                    format!("{FILE_NAME}: {field} is {value}; accepted: {least} to {most}");
                return Err(UserError::invalid(field, message));
            }
        }
        Ok(())
    }

    fn without_bounds(&self) -> Self {
        Self { size_multiple: None, train_timesteps: None, noise_timesteps: None, ..self.clone() }
    }
}

impl Cascade {
    /// Identity of the whole cascade: every file and every value of `cascade.toml`, except
    /// description and licence.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = FieldHasher::new("cascade/2")
            .field(self.spec.name.as_bytes())
            .field(&self.encoder_digest().0);
        for (position, stage) in self.spec.stages.iter().enumerate() {
            // The names of folders and the limits on requests make no difference; every other value
            // does.
            let defaults = StageSpec { folder: String::new(), ..stage.without_bounds() };
            hasher = hasher.field(&self.stage_digest(position).0).json(&defaults);
        }
        hasher.finish()
    }

    /// Identity of the text encoder: weights, tokenizer, dtype, length, text preparation.
    #[must_use]
    pub fn encoder_digest(&self) -> Digest {
        let encoder = &self.spec.encoder;
        let hasher = FieldHasher::new("encoder/1")
            .field(encoder.dtype.as_bytes())
            .field(&encoder.max_length.to_le_bytes())
            .field(encoder.text_preparation.name().as_bytes());
        let hasher = self.hash_folder(hasher, &encoder.folder);
        self.hash_folder(hasher, &encoder.tokenizer).finish()
    }

    /// Identity of stage number `position`: its name and its files, without defaults.
    ///
    /// # Panics
    /// If there is no such stage.
    #[must_use]
    pub fn stage_digest(&self, position: usize) -> Digest {
        let stage = &self.spec.stages[position];
        let hasher = FieldHasher::new("stage/1").field(stage.name.as_str().as_bytes());
        self.hash_folder(hasher, &stage.folder).finish()
    }

    fn hash_folder(&self, mut hasher: FieldHasher, folder: &str) -> FieldHasher {
        let prefix = format!("{}/", folder.trim_end_matches('/'));
        for (path, digest) in self.files.iter().filter(|(path, _)| path.starts_with(&prefix)) {
            hasher = hasher.field(&path.as_bytes()[prefix.len()..]).field(&digest.0);
        }
        hasher.field(b"end of folder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{GuidanceSchedule, Thresholding};

    const TOML: &str = r#"
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
        sampler = "ddim"
        steps = 4
        guidance_scale = 3.0
        [[stages]]
        name = "sr1"
        folder = "sr1"
        size = 32
        sampler = "dpmsolver++"
        steps = 4
        guidance_scale = 1.0
        noise_level = 50
    "#;

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, Digest> {
        pairs.iter().map(|(path, text)| ((*path).to_owned(), Digest::of(text.as_bytes()))).collect()
    }

    #[test]
    fn one_changed_file_changes_its_stage_and_the_cascade_only() {
        let spec = CascadeSpec::parse(TOML).expect("valid");
        let before = Cascade {
            spec: spec.clone(),
            files: files(&[("base/unet/w", "1"), ("sr1/unet/w", "2")]),
        };
        let after = Cascade { spec, files: files(&[("base/unet/w", "1"), ("sr1/unet/w", "3")]) };
        assert_ne!(before.digest(), after.digest());
        assert_eq!(before.stage_digest(0), after.stage_digest(0));
        assert_ne!(before.stage_digest(1), after.stage_digest(1));
        assert_eq!(before.encoder_digest(), after.encoder_digest());
    }

    #[test]
    fn a_stage_may_carry_every_default() {
        let more = r#"sampler = "ddpm"
        preset = "fast27"
        guidance_schedule = "200..800"
        thresholding = "dynamic:99.5:1.5""#;
        let spec =
            CascadeSpec::parse(&TOML.replacen("sampler = \"ddim\"\n        steps = 4", more, 1));
        let spec = spec.expect("valid");
        let written = &spec.stages[0].sampling;
        assert_eq!((written.steps, written.preset.as_deref()), (27, Some("fast27")));
        let defaults = spec.sampling(0).expect("checked");
        assert_eq!((defaults.timesteps.len(), defaults.timesteps[1]), (27, 800));
        assert_eq!(defaults.guidance_schedule, GuidanceSchedule::Timesteps { from: 200, to: 800 });
        assert_eq!(defaults.thresholding, Thresholding::Dynamic { percentile: 99.5, max: 1.5 });
        let mut cascade = Cascade { spec, files: files(&[("base/unet/w", "1")]) };
        let before = cascade.digest();
        cascade.spec.stages[0].sampling.guidance_schedule = GuidanceSchedule::Constant;
        assert_ne!(cascade.digest(), before);
        cascade.spec.stages[0].sampling.guidance_schedule =
            GuidanceSchedule::Timesteps { from: 200, to: 800 };
        assert_eq!(cascade.digest(), before);
        let json = serde_json::to_string(&cascade).expect("writes");
        assert_eq!(serde_json::from_str::<Cascade>(&json).expect("reads"), cascade);
    }

    #[test]
    fn a_byte_order_mark_in_front_is_no_part_of_it() {
        let plain = CascadeSpec::parse(TOML).expect("valid");
        assert_eq!(CascadeSpec::parse(&format!("\u{feff}{TOML}")).expect("valid"), plain);
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        for (from, to, field) in [
            ("format = 1", "format = 2", "format"),
            ("size = 32", "size = 8", "stages[1]"),
            ("name = \"sr1\"", "name = \"encode\"", "stages[1]"),
            ("noise_level = 50", "", "stages[1]"),
            (
                "steps = 4\n        guidance_scale = 1.0",
                "steps = 0\n        guidance_scale = 1.0",
                "stages[1].steps",
            ),
            ("size = 32", "size = 32\n        size_multiple = 24", "stages[1]"),
            ("steps = 4", "steps = 4\n        train_timesteps = 3", "stages[0].steps"),
            ("size = 32", "size = 32\n        noise_timesteps = 50", "stages[1].noise_level"),
            ("max_length = 20", "max_length = 20\n        colour = 3", FILE_NAME),
            ("max_length = 20", "max_length = 0", "encoder.max_length"),
            ("max_length = 20", "max_length = 1", "encoder.max_length"),
            ("max_length = 20", "max_length = 2049", "encoder.max_length"),
            ("max_length = 20", "max_length = 4294967295", "encoder.max_length"),
            ("max_length = 20", "max_length = -1", FILE_NAME),
            ("size = 16", "size = 0", "stages[0].size"),
            ("size = 32", "size = 4294967295", "stages[1].size"),
            ("size = 32", "size = 32\n        train_timesteps = 0", "stages[1].train_timesteps"),
            (
                "size = 32",
                "size = 32\n        noise_timesteps = 4294967295",
                "stages[1].noise_timesteps",
            ),
            ("steps = 4", "steps = 4294967295", "stages[0].steps"),
            ("guidance_scale = 3.0", "guidance_scale = nan", "stages[0].guidance_scale"),
            ("guidance_scale = 3.0", "guidance_scale = inf", "stages[0].guidance_scale"),
            ("guidance_scale = 3.0", "guidance_scale = -1.0", "stages[0].guidance_scale"),
            ("guidance_scale = 3.0", "guidance_scale = 1e9", "stages[0].guidance_scale"),
            ("steps = 4", "steps = 4\n        eta = nan", "stages[0].eta"),
            ("steps = 4", "steps = 4\n        eta = inf", "stages[0].eta"),
            ("steps = 4", "steps = 4\n        thresholding = \"dynamic:nan:1.5\"", FILE_NAME),
            ("steps = 4", "steps = 4\n        thresholding = \"dynamic:99.5:inf\"", FILE_NAME),
            ("steps = 4", "steps = 4\n        thresholding = \"static:1e9\"", FILE_NAME),
            ("steps = 4", "steps = 4\n        thresholding = \"static:0\"", FILE_NAME),
            (
                "steps = 4",
                "steps = 4\n        cache_interval = 4294967295",
                "stages[0].cache_interval",
            ),
            (
                "steps = 4",
                "steps = 4\n        timesteps = [4294967295, 3, 2, 1]",
                "stages[0].timesteps",
            ),
            ("noise_level = 50", "noise_level = 4294967295", "stages[1].noise_level"),
            ("size = 32", "size = 32\n        size_multiple = 4294967295", "stages[1]"),
            ("steps = 4", "", "stages[0].steps"),
            ("steps = 4", "preset = \"fast27\"", "stages[0].preset"),
            ("steps = 4", "steps = 4\n        eta = 1.5", "stages[0].eta"),
            ("steps = 4", "steps = 4\n        spacing = \"karras\"", FILE_NAME),
            ("steps = 4", "steps = 4\n        thresholding = \"dynamic\"", FILE_NAME),
            ("guidance_scale = 1.0", "guidance_scale = 1.0\n        eta = 0.5", "stages[1].eta"),
            ("steps = 4", "steps = 4\n        cache_interval = 0", "stages[0].cache_interval"),
            (
                "guidance_scale = 1.0",
                "guidance_scale = 1.0\n        timesteps = [9, 9]",
                "stages[1].timesteps",
            ),
            (
                "guidance_scale = 1.0",
                "guidance_scale = 1.0\n        preset = \"fast27\"",
                "stages[1].steps",
            ),
        ] {
            let text = TOML.replacen(from, to, 1);
            assert_ne!(text, TOML, "{from}");
            let error = CascadeSpec::parse(&text).expect_err(to);
            assert!(error.field.as_deref().unwrap_or("").ends_with(field), "{error:?}");
        }
    }
}
