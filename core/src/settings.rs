//! Settings of a job: what a user may ask for, and what it comes to with the cascade's defaults filled in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{cascade::CascadeSpec, digest::FieldHasher, error::UserError, id::StageName};

/// Most denoising steps of a stage.
pub const MAX_STEPS: u32 = 1000;
/// Largest guidance weight.
pub const MAX_GUIDANCE_SCALE: f64 = 100.0;
/// Highest noise level: the last timestep of the noising schedule.
pub const MAX_NOISE_LEVEL: u32 = 999;

/// The samplers, by the names the field uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sampler {
    /// Ancestral sampling (Ho et al. 2020).
    #[serde(rename = "ddpm")]
    Ddpm,
    /// Deterministic, eta 0 (Song et al. 2021).
    #[serde(rename = "ddim")]
    Ddim,
    /// Second-order multistep (Lu et al. 2022).
    #[serde(rename = "dpmsolver++")]
    DpmSolverPlusPlus,
}

impl Sampler {
    /// Its name in files, on the wire and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::DpmSolverPlusPlus => "dpmsolver++",
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sampler {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        [Self::Ddpm, Self::Ddim, Self::DpmSolverPlusPlus]
            .into_iter()
            .find(|sampler| sampler.name() == name)
            .ok_or_else(|| {
                UserError::invalid(
                    "sampler",
                    format!("sampler is {name:?}; accepted: ddpm, ddim, dpmsolver++"),
                )
            })
    }
}

/// What a user asks of one stage; `None` takes the cascade's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageRequest {
    /// The stage's name.
    pub stage: String,
    /// Sampler name.
    pub sampler: Option<String>,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// Guidance weight.
    pub guidance_scale: Option<f64>,
    /// Noise level of the low-resolution input.
    pub noise_level: Option<u32>,
}

/// What a user asks of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsRequest {
    /// Edge of the final picture, pixels; 0: the last stage's.
    pub size: u32,
    /// Per stage, at most once each.
    pub stages: Vec<StageRequest>,
}

/// One stage's settings with every value known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSettings {
    /// The stage.
    pub stage: StageName,
    /// Edge of its output, pixels.
    pub size: u32,
    /// Sampler.
    pub sampler: Sampler,
    /// Denoising steps, 1 to [`MAX_STEPS`].
    pub steps: u32,
    /// Guidance weight, 1 to [`MAX_GUIDANCE_SCALE`]; 1 is none.
    pub guidance_scale: f64,
    /// Noise level, 0 to [`MAX_NOISE_LEVEL`]; super-resolution stages only.
    pub noise_level: Option<u32>,
}

/// A job's settings with every value known: the stages its images pass, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// At least one; the last one's size is the picture's.
    pub stages: Vec<StageSettings>,
}

impl StageSettings {
    /// Whether the stage runs a second, unconditional forward and so needs the negative prompt's embedding.
    #[must_use]
    pub fn guided(&self) -> bool {
        (self.guidance_scale - 1.0).abs() > 0.0
    }

    /// Adds every value to a digest. Floats by their bits.
    #[must_use]
    pub fn hash(&self, hasher: FieldHasher) -> FieldHasher {
        hasher
            .field(self.stage.as_str().as_bytes())
            .field(&self.size.to_le_bytes())
            .field(self.sampler.name().as_bytes())
            .field(&self.steps.to_le_bytes())
            .field(&self.guidance_scale.to_bits().to_le_bytes())
            .field(format!("{:?}", self.noise_level).as_bytes())
    }
}

impl Settings {
    /// Edge of the final picture, pixels.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.stages.last().map_or(0, |stage| stage.size)
    }

    /// Whether any stage is guided.
    #[must_use]
    pub fn guided(&self) -> bool {
        self.stages.iter().any(StageSettings::guided)
    }

    /// Fills in the cascade's defaults and checks every value.
    ///
    /// # Errors
    /// The first field at fault, as `settings.size` or `settings.stages[i].steps`.
    pub fn resolve(request: &SettingsRequest, cascade: &CascadeSpec) -> Result<Self, UserError> {
        let count = stages_up_to(request.size, cascade)?;
        let mut stages: Vec<StageSettings> = cascade.stages[..count]
            .iter()
            .map(|spec| StageSettings {
                stage: spec.name.clone(),
                size: spec.size,
                sampler: spec.sampler,
                steps: spec.steps,
                guidance_scale: spec.guidance_scale,
                noise_level: spec.noise_level,
            })
            .collect();
        for (position, wanted) in request.stages.iter().enumerate() {
            let path = |key: &str| format!("settings.stages[{position}].{key}");
            if request.stages[..position].iter().any(|other| other.stage == wanted.stage) {
                return Err(UserError::invalid(
                    path("stage"),
                    format!(
                        "{} is {:?} again; accepted: each stage at most once",
                        path("stage"),
                        wanted.stage
                    ),
                ));
            }
            let Some(stage) = stages.iter_mut().find(|stage| stage.stage.as_str() == wanted.stage) else {
                let names: Vec<_> = cascade.stages[..count].iter().map(|stage| stage.name.as_str()).collect();
                return Err(UserError::invalid(
                    path("stage"),
                    format!("{} is {:?}; accepted: {}", path("stage"), wanted.stage, names.join(", ")),
                ));
            };
            apply(stage, wanted, &path)?;
        }
        Ok(Self { stages })
    }
}

fn stages_up_to(size: u32, cascade: &CascadeSpec) -> Result<usize, UserError> {
    if size == 0 {
        return Ok(cascade.stages.len());
    }
    cascade.stages.iter().position(|stage| stage.size == size).map(|position| position + 1).ok_or_else(|| {
        let sizes: Vec<_> = cascade.stages.iter().map(|stage| stage.size.to_string()).collect();
        UserError::invalid("settings.size", format!("size is {size}; accepted: {}", sizes.join(", ")))
    })
}

fn apply(
    stage: &mut StageSettings,
    wanted: &StageRequest,
    path: &dyn Fn(&str) -> String,
) -> Result<(), UserError> {
    if let Some(name) = &wanted.sampler {
        stage.sampler =
            name.parse().map_err(|error: UserError| UserError::invalid(path("sampler"), error.message))?;
    }
    if wanted.noise_level.is_some() && stage.noise_level.is_none() {
        return Err(UserError::invalid(
            path("noise_level"),
            format!(
                "stage {} takes no noise_level; accepted: none, it has no low-resolution input",
                stage.stage
            ),
        ));
    }
    stage.steps = wanted.steps.unwrap_or(stage.steps);
    stage.guidance_scale = wanted.guidance_scale.unwrap_or(stage.guidance_scale);
    stage.noise_level = wanted.noise_level.or(stage.noise_level);
    check_stage_values(path, stage.steps, stage.guidance_scale, stage.noise_level)
}

/// Checks one stage's numbers; `path` names a key's field.
///
/// # Errors
/// The first value out of range.
pub fn check_stage_values(
    path: &dyn Fn(&str) -> String,
    steps: u32,
    guidance_scale: f64,
    noise_level: Option<u32>,
) -> Result<(), UserError> {
    if !(1..=MAX_STEPS).contains(&steps) {
        let field = path("steps");
        return Err(UserError::invalid(&field, format!("{field} is {steps}; accepted: 1 to {MAX_STEPS}")));
    }
    if !(1.0..=MAX_GUIDANCE_SCALE).contains(&guidance_scale) {
        let field = path("guidance_scale");
        return Err(UserError::invalid(
            &field,
            format!("{field} is {guidance_scale}; accepted: 1 (no guidance) to {MAX_GUIDANCE_SCALE}"),
        ));
    }
    if let Some(level) = noise_level.filter(|level| *level > MAX_NOISE_LEVEL) {
        let field = path("noise_level");
        return Err(UserError::invalid(
            &field,
            format!("{field} is {level}; accepted: 0 to {MAX_NOISE_LEVEL}"),
        ));
    }
    Ok(())
}
