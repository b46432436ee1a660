//! A request that is applied to the settings of a stage, and checked.

use super::{
    MAX_CACHE_INTERVAL, MAX_GUIDANCE_SCALE, MAX_NOISE_LEVEL, MAX_STEPS, MAX_TIMESTEP, Preset,
    Sampler, Sampling, Spacing, every_step,
};
use crate::{error::UserError, id::StageName, request::StageRequest};

/// The checks of one value of a request that need no stage: a name must be known, a number must
/// be one that some stage takes. `path` names a key's field.
///
/// # Errors
/// The value that no stage takes.
pub fn check_value(wanted: &StageRequest, path: &dyn Fn(&str) -> String) -> Result<(), UserError> {
    let stage = StageName::encode();
    let place = Place { stage: &stage, path };
    // A stage of which everything may be asked, one value at a time.
    let sampler = if wanted.eta.is_some() { Sampler::Ddim } else { Sampler::Ddpm };
    let mut any = Sampling {
        noise_level: Some(0),
        strength: Some(1.0),
        ..Sampling::plain(sampler, MAX_STEPS)
    };
    any.apply(wanted, &place)
}

/// The place of a stage's values in the request, for error messages.
pub(crate) struct Place<'a> {
    pub(crate) stage: &'a StageName,
    /// Names a key's field.
    pub(crate) path: &'a dyn Fn(&str) -> String,
}

/// The lengths of a stage's schedules, where known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScheduleLengths {
    /// Training timesteps of its schedule.
    pub(crate) train: Option<u32>,
    /// Timesteps of the schedule that noises the low-resolution input.
    pub(crate) noise: Option<u32>,
}

impl Sampling {
    /// The sampling that `cascade.toml` gives a stage, checked and filled in: a preset becomes its
    /// timesteps, and a list gives the number of steps.
    ///
    /// # Errors
    /// The first wrong value.
    pub(crate) fn filled_in(
        &self,
        lengths: ScheduleLengths,
        place: &Place<'_>,
    ) -> Result<Self, UserError> {
        let mut sampling = Self {
            preset: None,
            timesteps: Vec::new(),
            spacing: Spacing::Configured,
            eta: 0.0,
            cache_interval: every_step(),
            ..self.clone()
        };
        let request = StageRequest {
            steps: Some(self.steps).filter(|steps| *steps > 0),
            preset: self.preset.clone(),
            timesteps: self.timesteps.clone(),
            spacing: Some(self.spacing.name().to_owned()),
            eta: Some(self.eta),
            cache_interval: Some(self.cache_interval),
            ..StageRequest::default()
        };
        sampling.apply(&request, place)?;
        sampling.check_schedules(lengths, place)?;
        Ok(sampling)
    }

    /// Applies a request.
    ///
    /// # Errors
    /// The first wrong value.
    pub(crate) fn apply(
        &mut self,
        wanted: &StageRequest,
        place: &Place<'_>,
    ) -> Result<(), UserError> {
        self.apply_sampler(wanted, place)?;
        self.apply_timesteps(wanted, place)?;
        self.apply_eta(wanted.eta, place)?;
        if wanted.noise_level.is_some() && self.noise_level.is_none() {
            let message = format!(
                "stage {} has no low-resolution input; accepted: no noise_level",
                place.stage
            );
            return Err(UserError::invalid(place.field("noise_level"), message));
        }
        self.guidance_scale = wanted.guidance_scale.unwrap_or(self.guidance_scale);
        if let Some(text) = &wanted.guidance_schedule {
            self.guidance_schedule = text.parse().map_err(|error| place.of(&error))?;
        }
        if let Some(text) = &wanted.thresholding {
            self.thresholding = text.parse().map_err(|error| place.of(&error))?;
        }
        self.noise_level = wanted.noise_level.or(self.noise_level);
        self.cache_interval = wanted.cache_interval.unwrap_or(self.cache_interval);
        if let Some(strength) = wanted.strength {
            self.apply_strength(strength, place)?;
        }
        self.check_numbers(place)
    }

    fn apply_strength(&mut self, strength: f64, place: &Place<'_>) -> Result<(), UserError> {
        let field = place.field("strength");
        let message = if self.strength.is_none() {
            format!(
                "{field} is {strength}, but stage {} starts from no picture of the user; accepted: none",
                place.stage
            )
        } else if strength > 0.0 && strength <= 1.0 {
            self.strength = Some(strength);
            return Ok(());
        } else {
            format!(
                "{field} is {strength}; accepted: above 0 (the picture as it is) to 1 (noise alone)"
            )
        };
        Err(UserError::invalid(field, message))
    }

    /// Checks that the strength leaves at least one step: a stage that starts from a picture runs
    /// only its last steps.
    ///
    /// # Errors
    /// The strength leaves no step.
    pub(crate) fn check_steps_left(&self, stage: &StageName) -> Result<(), UserError> {
        let Some(strength) = self.strength else { return Ok(()) };
        let steps = f64::from(self.steps);
        if steps * strength >= 1.0 {
            return Ok(());
        }
        let message = format!(
            "strength {strength} leaves no step \
             of the {steps} steps of stage {stage}; accepted: {} to 1",
            1.0 / steps
        );
        Err(UserError::invalid("settings.stages.strength", message))
    }

    fn apply_sampler(&mut self, wanted: &StageRequest, place: &Place<'_>) -> Result<(), UserError> {
        let Some(name) = &wanted.sampler else { return Ok(()) };
        let sampler = name.parse().map_err(|error| place.of(&error))?;
        if sampler != self.sampler {
            self.sampler = sampler;
            self.eta = 0.0;
            self.drop_list();
        }
        Ok(())
    }

    fn apply_timesteps(
        &mut self,
        wanted: &StageRequest,
        place: &Place<'_>,
    ) -> Result<(), UserError> {
        let spacing: Option<Spacing> = wanted
            .spacing
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error| place.of(&error))?;
        let spread = spacing.filter(|spacing| *spacing != Spacing::Configured);
        if wanted.steps.is_some() || spread.is_some() {
            self.drop_list();
        }
        self.spacing = spacing.unwrap_or(self.spacing);
        self.steps = wanted.steps.unwrap_or(self.steps);
        let (key, list) = match &wanted.preset {
            Some(name) => {
                ("preset", Preset::find(name).map_err(|error| place.of(&error))?.timesteps)
            }
            None => ("timesteps", wanted.timesteps.as_slice()),
        };
        if list.is_empty() {
            return Ok(());
        }
        if !wanted.timesteps.is_empty() && wanted.timesteps != list {
            let field = place.field("timesteps");
            let message =
                format!("{field} differs from the preset's list; accepted: one of the two");
            return Err(UserError::invalid(field, message));
        }
        check_list(&place.field("timesteps"), list)?;
        if !self.sampler.takes_timesteps() {
            let field = place.field(key);
            let message = format!(
                "{field} gives timesteps, but {} takes none; accepted: with {}",
                self.sampler,
                Sampler::names_with_timesteps()
            );
            return Err(UserError::invalid(field, message));
        }
        if let Some(spacing) = spread {
            let field = place.field("spacing");
            let message =
                format!("{field} is {spacing} beside timesteps; accepted: one of the two");
            return Err(UserError::invalid(field, message));
        }
        let count = list.len() as u32;
        if let Some(steps) = wanted.steps.filter(|steps| *steps != count) {
            let field = place.field("steps");
            let message =
                format!("{field} is {steps} beside {count} timesteps; accepted: {count}, or none");
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

    fn apply_eta(&mut self, eta: Option<f64>, place: &Place<'_>) -> Result<(), UserError> {
        let Some(eta) = eta else { return Ok(()) };
        let field = place.field("eta");
        if !(0.0..=1.0).contains(&eta) {
            let message = format!("{field} is {eta}; accepted: 0 (deterministic) to 1");
            return Err(UserError::invalid(field, message));
        }
        if eta > 0.0 && self.sampler != Sampler::Ddim {
            let message = format!(
                "{field} is {eta}, but {} does not use eta; accepted: with ddim",
                self.sampler
            );
            return Err(UserError::invalid(field, message));
        }
        self.eta = eta;
        Ok(())
    }

    /// Checks timesteps, steps and noise level against the lengths of the stage's schedules, where
    /// those are known.
    ///
    /// # Errors
    /// The first value that is outside its schedule.
    pub(crate) fn check_schedules(
        &self,
        lengths: ScheduleLengths,
        place: &Place<'_>,
    ) -> Result<(), UserError> {
        let refuse = |key: &str, what: String, accepted: String, which: &str| {
            let field = place.field(key);
            let message = format!(
                "{field} {what}; accepted: {accepted}, by the {which} of stage {}",
                place.stage
            );
            Err(UserError::invalid(field, message))
        };
        if let Some(length) = lengths.train {
            let last = length.saturating_sub(1);
            if let Some(first) = self.timesteps.first().filter(|first| **first > last) {
                let (key, what) = match &self.preset {
                    Some(name) => ("preset", format!("is {name:?}, which has {first}")),
                    None => ("timesteps", format!("has {first}")),
                };
                return refuse(key, what, format!("timesteps of {last} to 0"), "schedule");
            }
            // DPM-Solver++ spreads one step more and drops the last one.
            let most = if self.sampler.is_dpm_solver() { last } else { length };
            if self.timesteps.is_empty() && self.steps > most {
                return refuse(
                    "steps",
                    format!("is {}", self.steps),
                    format!("1 to {most}"),
                    "schedule",
                );
            }
        }
        match (self.noise_level, lengths.noise) {
            (Some(level), Some(length)) if level >= length => {
                let accepted = format!("0 to {}", length.saturating_sub(1));
                refuse("noise_level", format!("is {level}"), accepted, "noising schedule")
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self, place: &Place<'_>) -> Result<(), UserError> {
        let refuse = |key: &str, value: &dyn std::fmt::Display, accepted: &str| {
            let field = place.field(key);
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
            let accepted = format!("1 (no features are reused) to {MAX_CACHE_INTERVAL}");
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

impl Place<'_> {
    fn field(&self, key: &str) -> String {
        (self.path)(key)
    }

    /// An error about one value, with its path in the request.
    fn of(&self, error: &UserError) -> UserError {
        let key = error.field.as_deref().unwrap_or_default();
        let field = self.field(key);
        let rest = error.message.strip_prefix(key).unwrap_or(&error.message);
        UserError::invalid(&field, format!("{field}{rest}"))
    }
}

/// A list of timesteps falls strictly and begins below 1000, so its length is bounded.
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
