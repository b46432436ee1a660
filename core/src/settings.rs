//! Settings of a job: a user's request with the cascade's defaults filled in.

use serde::{Deserialize, Serialize};

use crate::{
    cascade::CascadeSpec,
    course::Course,
    defaults::is_default,
    digest::FieldHasher,
    error::UserError,
    extent::Extent,
    fit::Fit,
    id::StageName,
    output::{Output, OutputRequest},
    sampling::{Place, Sampling},
    start::Start,
};

pub use crate::request::{SettingsRequest, StageRequest};

/// One stage's settings with every value known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSettings {
    /// The stage.
    pub stage: StageName,
    /// Edge of its output in pixels, if that is square.
    pub size: u32,
    /// Width and height of its output, if that is not a square of `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<Extent>,
    /// How it is sampled. Its fields are written beside the others, without a name of its own.
    #[serde(flatten)]
    pub sampling: Sampling,
}

/// A job's settings with every value known: the stages its images pass, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What the images start from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub start: Start,
    /// How a picture of another shape is made to fit. `None` in jobs that start from no picture,
    /// and in jobs from before fits existed, whose pictures have the right shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// How the final picture is stored. Not written where it is a plain PNG, so that such jobs keep
    /// their digests.
    #[serde(default, skip_serializing_if = "Output::is_plain")]
    pub output: Output,
    /// At least one; the last one's size is the picture's.
    pub stages: Vec<StageSettings>,
}

impl StageSettings {
    /// The default settings of stage number `position` of a cascade.
    ///
    /// # Errors
    /// The wrong key of `cascade.toml`. Never for a cascade that was parsed.
    ///
    /// # Panics
    /// If there is no such stage.
    pub fn defaults(cascade: &CascadeSpec, position: usize) -> Result<Self, UserError> {
        let sampling = cascade.sampling(position)?;
        let stage = &cascade.stages[position];
        Ok(Self { stage: stage.name.clone(), size: stage.size, extent: None, sampling })
    }

    /// Width and height of its output.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent.unwrap_or(Extent::square(self.size))
    }

    /// Adds every value to a digest, as the JSON that reads back to the same settings. Different
    /// settings have different digests, and a new field here is covered automatically.
    #[must_use]
    pub fn hash(&self, hasher: FieldHasher) -> FieldHasher {
        hasher.json(self)
    }
}

impl From<&StageSettings> for StageRequest {
    /// The request that gives the same settings.
    fn from(settings: &StageSettings) -> Self {
        settings.sampling.as_request(&settings.stage)
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

    /// Width and height of the low-resolution picture that the first stage gets, if images start
    /// from one.
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
        self.stages.iter().any(|stage| stage.sampling.guided())
    }

    /// Fills in the cascade's defaults and checks every value.
    ///
    /// # Errors
    /// The first wrong field, such as `settings.size` or `settings.stages[i].steps`.
    pub fn resolve(request: &SettingsRequest, cascade: &CascadeSpec) -> Result<Self, UserError> {
        let course = Course::plan(request, cascade)?;
        let mut settings = Self::begin(&request.fit, &request.output, &course, cascade)?;
        settings.lay(&course, &request.stages)?;
        settings.check_whole()?;
        Ok(settings)
    }

    /// The cascade's defaults in the stages of a course.
    pub(crate) fn begin(
        fit: &str,
        output: &OutputRequest,
        course: &Course<'_>,
        cascade: &CascadeSpec,
    ) -> Result<Self, UserError> {
        let fit = self::fit(fit, course.start)?;
        let output = output.resolve("settings.output")?;
        let mut stages = Vec::with_capacity(course.stages.len());
        for (position, extent) in (course.begin..).zip(&course.extents) {
            let mut stage = StageSettings::defaults(cascade, position)?;
            stage.extent = *extent;
            let is_super_resolution = stage.sampling.noise_level.is_some();
            stage.sampling.strength = course.start.default_strength(is_super_resolution);
            stages.push(stage);
        }
        Ok(Self { start: course.start, fit, output, stages })
    }

    /// Applies the requested values to the stages that run.
    pub(crate) fn lay(
        &mut self,
        course: &Course<'_>,
        wanted: &[StageRequest],
    ) -> Result<(), UserError> {
        for (position, one) in wanted.iter().enumerate() {
            let path = |key: &str| format!("settings.stages[{position}].{key}");
            if wanted[..position].iter().any(|other| other.stage == one.stage) {
                return Err(UserError::invalid(
                    path("stage"),
                    format!(
                        "{} is {:?}, which is listed before; accepted: each stage at most once",
                        path("stage"),
                        one.stage
                    ),
                ));
            }
            let running = self.stages.iter_mut().zip(course.stages);
            let Some((stage, spec)) =
                running.into_iter().find(|(stage, _)| stage.stage.as_str() == one.stage)
            else {
                let names: Vec<_> = course.stages.iter().map(|stage| stage.name.as_str()).collect();
                return Err(UserError::invalid(
                    path("stage"),
                    format!("{} is {:?}; accepted: {}", path("stage"), one.stage, names.join(", ")),
                ));
            };
            let place = Place { stage: &stage.stage, path: &path };
            stage.sampling.apply(one, &place)?;
            stage.sampling.check_schedules(spec.schedule_lengths(), &place)?;
        }
        Ok(())
    }

    /// Checks that every stage runs at least one step, and that the file format supports the
    /// picture's size.
    pub(crate) fn check_whole(&self) -> Result<(), UserError> {
        self.stages.iter().try_for_each(|stage| stage.sampling.check_steps_left(&stage.stage))?;
        self.output.check_extent("settings.output.format", self.extent())
    }
}

/// The requested fit, or the default. Only for jobs with pictures to fit.
fn fit(name: &str, start: Start) -> Result<Option<Fit>, UserError> {
    if start.takes_picture() {
        return if name.is_empty() { Ok(Some(Fit::default())) } else { name.parse().map(Some) };
    }
    if name.is_empty() {
        return Ok(None);
    }
    let message = format!(
        "settings.fit is {name:?}, but the job starts from {start}; \
         accepted: none, because the job has no picture to fit"
    );
    Err(UserError::invalid("settings.fit", message))
}

#[cfg(test)]
mod tests;
