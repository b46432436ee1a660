//! The settings of one prompt: what it asks for, laid over what its job asks for.
//!
//! Stage settings are applied in three layers: the cascade's defaults, what the job asks for, and
//! what the prompt asks for. A layer drops of the one below what the same request of a job would
//! drop of the cascade's defaults, so a prompt's `steps` drop its job's preset.

use crate::{
    cascade::CascadeSpec,
    course::Course,
    defaults::is_default,
    error::UserError,
    extent::Extent,
    request::{SettingsRequest, StageRequest},
    settings::Settings,
};

impl Settings {
    /// The settings of a prompt that asks for `prompt`, in a job that asks for `job`.
    ///
    /// What the prompt does not name stays as in its job. An output format replaces the job's
    /// whole. Where the prompt names only another size, its picture keeps the shape of the job's:
    /// its width and height are those that the job's stage of that size makes. What the job asks of
    /// a stage that the prompt's images do not pass is dropped.
    ///
    /// # Errors
    /// The first field of `prompt` at fault, as `settings.size` or `settings.stages[i].steps`;
    /// positions are those of the prompt's own list. `start`, `start_stage` and `fit` are refused:
    /// all images of a job start alike.
    pub fn overlaid(
        job: &SettingsRequest,
        prompt: &SettingsRequest,
        cascade: &CascadeSpec,
    ) -> Result<Self, UserError> {
        check_start(prompt)?;
        let request = outline(job, prompt, cascade)?;
        let course = Course::plan(&request, cascade)?;
        let runs = |wanted: &&StageRequest| {
            course.stages.iter().any(|stage| stage.name.as_str() == wanted.stage)
        };
        let of_job: Vec<StageRequest> = job.stages.iter().filter(runs).cloned().collect();
        let mut settings = Self::begin(&request.fit, &request.output, &course, cascade)?;
        settings.lay(&course, &of_job)?;
        settings.lay(&course, &prompt.stages)?;
        settings.check_whole()?;
        Ok(settings)
    }
}

/// Refuses what only a job can say.
fn check_start(prompt: &SettingsRequest) -> Result<(), UserError> {
    let given = [
        ("settings.start", &prompt.start),
        ("settings.start_stage", &prompt.start_stage),
        ("settings.fit", &prompt.fit),
    ];
    match given.into_iter().find(|(_, value)| !value.is_empty()) {
        Some((field, value)) => Err(UserError::invalid(
            field,
            format!(
                "{field} is {value:?}; accepted: none, because all images of a job start alike"
            ),
        )),
        None => Ok(()),
    }
}

/// Where the prompt's images begin and how big they get.
fn outline(
    job: &SettingsRequest,
    prompt: &SettingsRequest,
    cascade: &CascadeSpec,
) -> Result<SettingsRequest, UserError> {
    let last = cascade.stages.last().map_or(0, |stage| stage.size);
    let or_last = |size: u32| if size == 0 { last } else { size };
    let size = if prompt.size == 0 { job.size } else { prompt.size };
    let (from, to) = (or_last(job.size), or_last(size));
    let position = |size: u32| cascade.stages.iter().position(|stage| stage.size == size);
    let begin =
        cascade.stages.iter().position(|stage| stage.name.as_str() == job.start_stage).unwrap_or(0);
    // A size that no stage has is refused later, with those that there are.
    if let Some(end) = position(to)
        && end < begin
    {
        let sizes: Vec<_> =
            cascade.stages[begin..].iter().map(|stage| stage.size.to_string()).collect();
        let message = format!(
            "settings.size is {to}, but the job begins with stage {}; accepted: {}",
            job.start_stage,
            sizes.join(", ")
        );
        return Err(UserError::invalid("settings.size", message));
    }
    let edge = |own: u32, of_job: u32| {
        if own > 0 || of_job == 0 || from == to || position(to).is_none() {
            return Ok(if own > 0 { own } else { of_job });
        }
        let scaled = Extent::square(of_job).scaled(from, to);
        scaled.map(|extent| extent.width).ok_or_else(|| {
            let message = format!(
                "settings.size is {to}, but the job's {of_job} pixels (at size {from}) are no whole number then; accepted: \
                 another size, or width and height beside it"
            );
            UserError::invalid("settings.size", message)
        })
    };
    Ok(SettingsRequest {
        size,
        width: edge(prompt.width, job.width)?,
        height: edge(prompt.height, job.height)?,
        start: job.start.clone(),
        start_stage: job.start_stage.clone(),
        fit: job.fit.clone(),
        output: if is_default(&prompt.output) { &job.output } else { &prompt.output }.clone(),
        stages: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
