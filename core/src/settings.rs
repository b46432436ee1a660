//! Settings of a job: what a user may ask for, and what it comes to with the cascade's defaults filled in.

mod guidance;
mod preset;
mod sampler;
mod thresholding;

use serde::{Deserialize, Serialize};

use crate::{
    cascade::{CascadeSpec, StageSpec},
    digest::FieldHasher,
    error::UserError,
    extent::Extent,
    fit::Fit,
    id::StageName,
    start::{Course, Start},
};

pub use guidance::GuidanceSchedule;
pub use preset::{PRESETS, Preset};
pub use sampler::{Sampler, Spacing};
pub use thresholding::Thresholding;

/// Most denoising steps of a stage.
pub const MAX_STEPS: u32 = 1000;
/// Largest guidance weight.
pub const MAX_GUIDANCE_SCALE: f64 = 100.0;
/// The last training timestep.
pub const MAX_TIMESTEP: u32 = 999;
/// Most steps from one at which a network's deeper features are computed to the next.
pub const MAX_CACHE_INTERVAL: u32 = 100;
/// What a network pass that uses deeper features again takes, as a share of a whole one: as measured with the demo's base
/// stage on a CPU (docs/performance.md: 0.22, 0.15 and 0.17 of one at intervals of 2, 3 and 5).
pub const REUSING_PASS: f64 = 0.18;
/// Highest noise level: the last timestep of the noising schedule.
pub const MAX_NOISE_LEVEL: u32 = MAX_TIMESTEP;

/// What a user asks of one stage; `None`, or an empty list, takes the cascade's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageRequest {
    /// The stage's name.
    pub stage: String,
    /// Sampler name. Another one than the cascade's drops its preset or list of timesteps, and its eta.
    pub sampler: Option<String>,
    /// Denoising steps; drops the cascade's preset or list of timesteps.
    pub steps: Option<u32>,
    /// Name of a preset of timesteps; `steps` is its length.
    pub preset: Option<String>,
    /// The training timesteps to visit, falling; `steps` is their number.
    pub timesteps: Vec<u32>,
    /// Spacing of the timesteps, by name.
    pub spacing: Option<String>,
    /// DDIM's share of fresh noise.
    pub eta: Option<f64>,
    /// Guidance weight.
    pub guidance_scale: Option<f64>,
    /// Where the guidance weight counts, in the text form of [`GuidanceSchedule`].
    pub guidance_schedule: Option<String>,
    /// Thresholding, in the text form of [`Thresholding`].
    pub thresholding: Option<String>,
    /// Noise level of the low-resolution input.
    pub noise_level: Option<u32>,
    /// How far the picture that the stage starts from is noised, above 0 to 1.
    pub strength: Option<f64>,
    /// At every how manyth step the network's deeper features are computed.
    pub cache_interval: Option<u32>,
}

/// What a user asks of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsRequest {
    /// Edge of the final picture, pixels; 0: the last stage's.
    pub size: u32,
    /// Width of the final picture, pixels; 0: its size.
    pub width: u32,
    /// Height of the final picture, pixels; 0: its size.
    pub height: u32,
    /// What images start from, by name ([`Start`]); empty: noise, or what `start_stage` implies.
    pub start: String,
    /// The super-resolution stage that begins with the prompts' pictures; empty: all stages run.
    pub start_stage: String,
    /// How a picture of another shape is made to fit, by name ([`Fit`]); empty: it is cropped.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fit: String,
    /// Per stage, at most once each.
    pub stages: Vec<StageRequest>,
}

/// One stage's settings with every value known. A field that is at its default is not written: the text of older
/// settings reads back, and their digest stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSettings {
    /// The stage.
    pub stage: StageName,
    /// Edge of its output, pixels, where that is square.
    pub size: u32,
    /// Width and height of its output, where that is no square of `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<Extent>,
    /// Sampler.
    pub sampler: Sampler,
    /// Denoising steps, 1 to [`MAX_STEPS`]; the number of `timesteps` where those are given.
    pub steps: u32,
    /// Name of the preset that `timesteps` came from, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The training timesteps to visit, falling; empty: as `spacing` spreads `steps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timesteps: Vec<u32>,
    /// Spacing of the timesteps where they are not given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spacing: Spacing,
    /// DDIM's share of fresh noise, 0 to 1; 0 with other samplers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub eta: f64,
    /// Guidance weight, 1 to [`MAX_GUIDANCE_SCALE`]; 1 is none.
    pub guidance_scale: f64,
    /// Where the guidance weight counts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guidance_schedule: GuidanceSchedule,
    /// How a predicted clean picture is bounded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub thresholding: Thresholding,
    /// Noise level, 0 to [`MAX_NOISE_LEVEL`]; super-resolution stages only.
    pub noise_level: Option<u32>,
    /// How far the user's picture is noised before the stage starts from it, above 0 to 1; only where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// At every how manyth step the network's deeper features are computed, 1 to [`MAX_CACHE_INTERVAL`]; at the steps between
    /// they are used again.
    #[serde(default = "every_step", skip_serializing_if = "is_every_step")]
    pub cache_interval: u32,
}

/// A job's settings with every value known: the stages its images pass, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What the images start from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: Start,
    /// How a picture of another shape is made to fit. `None` in jobs that start from no picture, and in those from before
    /// there was a choice, whose pictures have the shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// At least one; the last one's size is the picture's.
    pub stages: Vec<StageSettings>,
}

/// Names a key's field in a message.
type Path<'a> = &'a dyn Fn(&str) -> String;

impl StageSettings {
    /// The cascade's defaults of a stage, checked; `path` names a key's field.
    ///
    /// # Errors
    /// The first value at fault.
    pub fn defaults(spec: &StageSpec, path: Path<'_>) -> Result<Self, UserError> {
        let mut settings = Self {
            stage: spec.name.clone(),
            size: spec.size,
            extent: None,
            sampler: spec.sampler,
            steps: spec.steps,
            preset: None,
            timesteps: Vec::new(),
            spacing: Spacing::Configured,
            eta: 0.0,
            guidance_scale: spec.guidance_scale,
            guidance_schedule: spec.guidance_schedule,
            thresholding: spec.thresholding,
            noise_level: spec.noise_level,
            strength: None,
            cache_interval: 1,
        };
        let request = StageRequest {
            steps: Some(spec.steps).filter(|steps| *steps > 0),
            preset: spec.preset.clone(),
            timesteps: spec.timesteps.clone(),
            spacing: Some(spec.spacing.name().to_owned()),
            eta: Some(spec.eta),
            cache_interval: Some(spec.cache_interval),
            ..StageRequest::default()
        };
        settings.apply(&request, path)?;
        settings.check_schedules(spec, path)?;
        Ok(settings)
    }

    /// Width and height of its output.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent.unwrap_or(Extent::square(self.size))
    }

    /// Whether the stage runs an unconditional forward at any step and so needs the negative prompt's embedding.
    #[must_use]
    pub fn guided(&self) -> bool {
        self.guidance_schedule.guided(self.guidance_scale)
    }

    /// Network passes of one image: what its time grows with. A step with a guidance weight other than 1 has two; one
    /// that uses deeper features again counts as [`REUSING_PASS`] of a whole one. Timesteps that are not listed are taken
    /// for spread evenly.
    #[must_use]
    pub fn passes(&self) -> f64 {
        // A stage that starts from a picture runs its last steps only.
        let strength = self.strength.unwrap_or(1.0);
        let steps = (f64::from(self.steps) * strength).floor() as u32;
        let listed = self.timesteps.len().saturating_sub(steps as usize);
        let stride = f64::from(MAX_TIMESTEP + 1) * strength / f64::from(steps.max(1));
        let mut passes = 0.0;
        let mut kept = None;
        for index in 0..steps {
            let timestep = match self.timesteps.get(listed + index as usize) {
                Some(timestep) => f64::from(*timestep),
                None => (f64::from(steps - index) - 0.5) * stride,
            };
            let guided = self.guidance_schedule.guides(self.guidance_scale, (index, steps), timestep);
            let is_between = index % self.cache_interval.max(1) != 0;
            // Features are used again by steps of the same shape.
            let reused = is_between && kept == Some(guided);
            if !reused {
                kept = Some(guided);
            }
            passes += if guided { 2.0 } else { 1.0 } * if reused { REUSING_PASS } else { 1.0 };
        }
        passes
    }

    /// Adds every value to a digest, as the JSON that reads back to the same settings: no two that differ are hashed
    /// alike, and a field that is added here is covered.
    #[must_use]
    pub fn hash(&self, hasher: FieldHasher) -> FieldHasher {
        hasher.field(&serde_json::to_vec(self).unwrap_or_default())
    }

    fn apply(&mut self, wanted: &StageRequest, path: Path<'_>) -> Result<(), UserError> {
        self.apply_sampler(wanted, path)?;
        self.apply_timesteps(wanted, path)?;
        self.apply_eta(wanted.eta, path)?;
        if wanted.noise_level.is_some() && self.noise_level.is_none() {
            let field = path("noise_level");
            let message = format!(
                "stage {} takes no noise_level; accepted: none, it has no low-resolution input",
                self.stage
            );
            return Err(UserError::invalid(field, message));
        }
        self.guidance_scale = wanted.guidance_scale.unwrap_or(self.guidance_scale);
        if let Some(text) = &wanted.guidance_schedule {
            self.guidance_schedule = text.parse().map_err(|error| at(path, &error))?;
        }
        if let Some(text) = &wanted.thresholding {
            self.thresholding = text.parse().map_err(|error| at(path, &error))?;
        }
        self.noise_level = wanted.noise_level.or(self.noise_level);
        self.cache_interval = wanted.cache_interval.unwrap_or(self.cache_interval);
        if let Some(strength) = wanted.strength {
            self.apply_strength(strength, path)?;
        }
        self.check_numbers(path)
    }

    fn apply_strength(&mut self, strength: f64, path: Path<'_>) -> Result<(), UserError> {
        let field = path("strength");
        let message = if self.strength.is_none() {
            format!(
                "{field} is {strength}, but stage {} starts from no picture of the user's; accepted: none",
                self.stage
            )
        } else if strength > 0.0 && strength <= 1.0 {
            self.strength = Some(strength);
            return Ok(());
        } else {
            format!("{field} is {strength}; accepted: above 0 (the picture as it is) to 1 (noise alone)")
        };
        Err(UserError::invalid(field, message))
    }

    /// Of its steps a stage that starts from a picture runs the last ones, as many as its strength says.
    fn check_steps_left(&self) -> Result<(), UserError> {
        let Some(strength) = self.strength else { return Ok(()) };
        let steps = f64::from(self.steps);
        if steps * strength >= 1.0 {
            return Ok(());
        }
        let message = format!(
            "strength {strength} leaves none of the {steps} steps of stage {}; accepted: {} to 1",
            self.stage,
            1.0 / steps
        );
        Err(UserError::invalid("settings.stages.strength", message))
    }

    fn apply_sampler(&mut self, wanted: &StageRequest, path: Path<'_>) -> Result<(), UserError> {
        let Some(name) = &wanted.sampler else { return Ok(()) };
        let sampler = name.parse().map_err(|error| at(path, &error))?;
        if sampler != self.sampler {
            self.sampler = sampler;
            self.eta = 0.0;
            self.drop_list();
        }
        Ok(())
    }

    fn apply_timesteps(&mut self, wanted: &StageRequest, path: Path<'_>) -> Result<(), UserError> {
        let spacing: Option<Spacing> =
            wanted.spacing.as_deref().map(str::parse).transpose().map_err(|error| at(path, &error))?;
        let spread = spacing.filter(|spacing| *spacing != Spacing::Configured);
        if wanted.steps.is_some() || spread.is_some() {
            self.drop_list();
        }
        self.spacing = spacing.unwrap_or(self.spacing);
        self.steps = wanted.steps.unwrap_or(self.steps);
        let (key, list) = match &wanted.preset {
            Some(name) => ("preset", Preset::find(name).map_err(|error| at(path, &error))?.timesteps),
            None => ("timesteps", wanted.timesteps.as_slice()),
        };
        if list.is_empty() {
            return Ok(());
        }
        if !wanted.timesteps.is_empty() && wanted.timesteps != list {
            let field = path("timesteps");
            let message = format!("{field} is not the list of the preset; accepted: one of the two");
            return Err(UserError::invalid(field, message));
        }
        check_list(&path("timesteps"), list)?;
        if !self.sampler.takes_timesteps() {
            let field = path(key);
            let message = format!(
                "{field} gives timesteps, which {} takes none of; accepted: with ddpm, dpmsolver++ or sde-dpmsolver++",
                self.sampler
            );
            return Err(UserError::invalid(field, message));
        }
        if let Some(spacing) = spread {
            let field = path("spacing");
            let message = format!("{field} is {spacing} beside timesteps; accepted: one of the two");
            return Err(UserError::invalid(field, message));
        }
        let count = list.len() as u32;
        if let Some(steps) = wanted.steps.filter(|steps| *steps != count) {
            let field = path("steps");
            let message = format!("{field} is {steps} beside {count} timesteps; accepted: {count}, or none");
            return Err(UserError::invalid(field, message));
        }
        (self.steps, self.spacing) = (count, Spacing::Configured);
        (self.preset, self.timesteps) = (wanted.preset.clone(), list.to_vec());
        Ok(())
    }

    fn drop_list(&mut self) {
        self.preset = None;
        self.timesteps.clear();
    }

    fn apply_eta(&mut self, eta: Option<f64>, path: Path<'_>) -> Result<(), UserError> {
        let Some(eta) = eta else { return Ok(()) };
        let field = path("eta");
        if !(0.0..=1.0).contains(&eta) {
            let message = format!("{field} is {eta}; accepted: 0 (deterministic) to 1");
            return Err(UserError::invalid(field, message));
        }
        if eta > 0.0 && self.sampler != Sampler::Ddim {
            let message =
                format!("{field} is {eta}, which {} has no use for; accepted: with ddim", self.sampler);
            return Err(UserError::invalid(field, message));
        }
        self.eta = eta;
        Ok(())
    }

    /// Timesteps, steps and noise level against the lengths of the stage's schedules, where those are known.
    fn check_schedules(&self, spec: &StageSpec, path: Path<'_>) -> Result<(), UserError> {
        let refuse = |key: &str, what: String, accepted: String, which: &str| {
            let field = path(key);
            let message =
                format!("{field} {what}; accepted: {accepted}, by the {which} of stage {}", self.stage);
            Err(UserError::invalid(field, message))
        };
        if let Some(length) = spec.train_timesteps {
            let last = length.saturating_sub(1);
            if let Some(first) = self.timesteps.first().filter(|first| **first > last) {
                let (key, what) = match &self.preset {
                    Some(name) => ("preset", format!("is {name:?}, which has {first}")),
                    None => ("timesteps", format!("has {first}")),
                };
                return refuse(key, what, format!("timesteps of {last} to 0"), "schedule");
            }
            // DPM-Solver++ spreads one step more and drops the last.
            let most = if self.sampler.is_dpm_solver() { last } else { length };
            if self.timesteps.is_empty() && self.steps > most {
                return refuse("steps", format!("is {}", self.steps), format!("1 to {most}"), "schedule");
            }
        }
        match (self.noise_level, spec.noise_timesteps) {
            (Some(level), Some(length)) if level >= length => {
                let accepted = format!("0 to {}", length.saturating_sub(1));
                refuse("noise_level", format!("is {level}"), accepted, "noising schedule")
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self, path: Path<'_>) -> Result<(), UserError> {
        let refuse = |key: &str, value: &dyn std::fmt::Display, accepted: &str| {
            let field = path(key);
            let message = format!("{field} is {value}; accepted: {accepted}");
            Err(UserError::invalid(field, message))
        };
        if !(1..=MAX_STEPS).contains(&self.steps) {
            return refuse("steps", &self.steps, &format!("1 to {MAX_STEPS}"));
        }
        if !(1.0..=MAX_GUIDANCE_SCALE).contains(&self.guidance_scale) {
            let accepted = format!("1 (no guidance) to {MAX_GUIDANCE_SCALE}");
            return refuse("guidance_scale", &self.guidance_scale, &accepted);
        }
        if !(1..=MAX_CACHE_INTERVAL).contains(&self.cache_interval) {
            let accepted = format!("1 (no features are used again) to {MAX_CACHE_INTERVAL}");
            return refuse("cache_interval", &self.cache_interval, &accepted);
        }
        match self.noise_level {
            Some(level) if level > MAX_NOISE_LEVEL => {
                refuse("noise_level", &level, &format!("0 to {MAX_NOISE_LEVEL}"))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// Edge of the final picture, pixels.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.stages.last().map_or(0, |stage| stage.size)
    }

    /// Width and height of the final picture.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.stages.last().map_or(Extent::square(0), StageSettings::extent)
    }

    /// Width and height of the low-resolution picture that the first stage is given, where images start from one.
    #[must_use]
    pub fn low_res(&self, cascade: &CascadeSpec) -> Option<Extent> {
        let first = self.stages.first().filter(|_| self.start == Start::LowRes)?;
        let (position, _) = cascade.stage(&first.stage).ok()?;
        let before = cascade.stages.get(position.checked_sub(1)?)?;
        first.extent().scaled(first.size, before.size)
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
        let course = Course::plan(request, cascade)?;
        let fit = fit(&request.fit, course.start)?;
        let mut stages = Vec::with_capacity(course.stages.len());
        for (position, extent) in (course.begin..).zip(&course.extents) {
            let mut stage = cascade.defaults(position)?;
            stage.extent = *extent;
            stage.strength = course.start.default_strength(stage.noise_level.is_some());
            stages.push(stage);
        }
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
            let running = stages.iter_mut().zip(course.stages);
            let Some((stage, spec)) =
                running.into_iter().find(|(stage, _)| stage.stage.as_str() == wanted.stage)
            else {
                let names: Vec<_> = course.stages.iter().map(|stage| stage.name.as_str()).collect();
                return Err(UserError::invalid(
                    path("stage"),
                    format!("{} is {:?}; accepted: {}", path("stage"), wanted.stage, names.join(", ")),
                ));
            };
            stage.apply(wanted, &path)?;
            stage.check_schedules(spec, &path)?;
        }
        stages.iter().try_for_each(StageSettings::check_steps_left)?;
        Ok(Self { start: course.start, fit, stages })
    }
}

/// The fit that is asked for, or the default; only where there are pictures to fit.
fn fit(name: &str, start: Start) -> Result<Option<Fit>, UserError> {
    if start.takes_picture() {
        return if name.is_empty() { Ok(Some(Fit::default())) } else { name.parse().map(Some) };
    }
    if name.is_empty() {
        return Ok(None);
    }
    let message = format!(
        "settings.fit is {name:?}, but the job starts from {start}; accepted: none, for only pictures to start from are made to fit"
    );
    Err(UserError::invalid("settings.fit", message))
}

/// A list of timesteps falls strictly and begins below 1000, so it has at most so many.
fn check_list(field: &str, list: &[u32]) -> Result<(), UserError> {
    let refuse = |what: String| {
        let accepted = format!("falling timesteps, {MAX_TIMESTEP} to 0");
        Err(UserError::invalid(field, format!("{field} {what}; accepted: {accepted}")))
    };
    if let Some(high) = list.iter().find(|timestep| **timestep > MAX_TIMESTEP) {
        return refuse(format!("has {high}"));
    }
    match list.windows(2).find(|pair| pair[0] <= pair[1]) {
        Some(pair) => refuse(format!("has {} and then {}", pair[0], pair[1])),
        None => Ok(()),
    }
}

/// An error of a value by itself, at its place in the request.
fn at(path: Path<'_>, error: &UserError) -> UserError {
    let key = error.field.as_deref().unwrap_or_default();
    let field = path(key);
    let rest = error.message.strip_prefix(key).unwrap_or(&error.message);
    UserError::invalid(&field, format!("{field}{rest}"))
}

/// The interval at which nothing is used again.
pub(crate) fn every_step() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(crate) fn is_every_step(interval: &u32) -> bool {
    *interval == 1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
