//! Settings of single prompts. Equal ones are resolved once, and different ones get different
//! numbers.
//!
//! Memory is bounded: a job has a limited number of different settings of limited size, and the
//! number of remembered requests is limited too.

use std::{collections::HashMap, sync::Arc};

use darkroom_core::{
    cascade::CascadeSpec,
    digest::Digest,
    error::UserError,
    mix::Mix,
    settings::{Settings, SettingsRequest},
};
use darkroom_proto::v1;
use prost::Message;

use super::inputs::Wanted;
use crate::store::records::Variant;

/// Most different settings in a job's prompts.
const MAX_VARIANTS: usize = 1000;
/// Most bytes of all of them together, as JSON.
const MAX_BYTES: usize = 1 << 20;
/// Most requests whose result is remembered; then all are forgotten.
const MAX_KNOWN: usize = 4096;

/// The resolved settings of a prompt's images.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// With every default filled in.
    pub(super) settings: Arc<Settings>,
    /// Requirements for its picture.
    pub(super) wanted: Wanted,
    /// Number of the variant in the job; `None`: the job's own settings.
    number: Option<u32>,
}

impl Made {
    /// The job's own settings.
    pub(super) fn of_job(settings: &Settings, cascade: &CascadeSpec) -> Self {
        let wanted = Wanted::of(settings, cascade);
        Self { settings: Arc::new(settings.clone()), wanted, number: None }
    }

    /// The variant for the record.
    pub(super) fn variant(&self) -> Option<Variant> {
        self.number.map(|number| Variant { number, settings: Arc::clone(&self.settings) })
    }
}

/// The settings that prompts of a job have instead of its own.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// By the digest of the request.
    known: HashMap<Digest, Made>,
    /// By the digest of the settings.
    distinct: HashMap<Digest, Made>,
    /// Images of each variant; variant n is at index n − 1.
    images: Vec<(Arc<Settings>, u64)>,
    bytes: usize,
}

impl Overrides {
    /// The resolved settings of a prompt's images. `prompt` is its name, such as `prompts[3]`.
    pub(super) fn of_prompt(
        &mut self,
        prompt: &str,
        asked: Option<&v1::Settings>,
        (job, requested): (&Made, &SettingsRequest),
        cascade: &CascadeSpec,
    ) -> Result<Made, UserError> {
        let Some(asked) = asked else { return Ok(job.clone()) };
        let request = Digest::of(&asked.encode_to_vec());
        if let Some(known) = self.known.get(&request) {
            return Ok(known.clone());
        }
        let settings = Settings::overlaid(requested, &SettingsRequest::from(asked), cascade)
            .map_err(|error| within(prompt, &error))?;
        let made = self.told_apart(prompt, settings, job, cascade)?;
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(request, made.clone());
        Ok(made)
    }

    fn told_apart(
        &mut self,
        prompt: &str,
        settings: Settings,
        job: &Made,
        cascade: &CascadeSpec,
    ) -> Result<Made, UserError> {
        if settings == *job.settings {
            return Ok(job.clone());
        }
        let field = format!("{prompt}.settings");
        let json = serde_json::to_vec(&settings)
            .map_err(|error| UserError::invalid(&field, format!("{field}: {error}")))?;
        let digest = Digest::of(&json);
        if let Some(made) = self.distinct.get(&digest) {
            return Ok(made.clone());
        }
        if self.images.len() >= MAX_VARIANTS {
            let message = format!(
                "{field} are one too many: the job has {MAX_VARIANTS} different settings already; \
                 accepted: at most {MAX_VARIANTS}, so put the rest into another job"
            );
            return Err(UserError::invalid(field, message));
        }
        self.bytes += json.len();
        if self.bytes > MAX_BYTES {
            let message = format!(
                "{field} make {} bytes of different settings in the job; accepted: at most \
                 {MAX_BYTES}, so put the rest into another job",
                self.bytes
            );
            return Err(UserError::invalid(field, message));
        }
        let wanted = Wanted::of(&settings, cascade);
        let settings = Arc::new(settings);
        self.images.push((Arc::clone(&settings), 0));
        let made = Made { settings, wanted, number: u32::try_from(self.images.len()).ok() };
        self.distinct.insert(digest, made.clone());
        Ok(made)
    }

    /// Counts images.
    pub(super) fn count(&mut self, made: &Made, images: u32) {
        let place = made.number.and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
        if let Some((_, count)) = place.and_then(|place| self.images.get_mut(place)) {
            *count += u64::from(images);
        }
    }

    /// The sum of the counted images.
    pub(super) fn mix(&self) -> Mix {
        let mut mix = Mix::default();
        self.images.iter().for_each(|(settings, images)| mix.add(settings, *images));
        mix
    }
}

/// Core names fields from `settings` on. In a submit, they are below their prompt.
fn within(prompt: &str, error: &UserError) -> UserError {
    let field = error.field.clone().unwrap_or_default();
    let full = format!("{prompt}.{field}");
    let key = field.rsplit('.').next().unwrap_or_default();
    let rest = error.message.strip_prefix(&field).or_else(|| {
        let rest = error.message.strip_prefix(key)?;
        rest.starts_with(" is ").then_some(rest)
    });
    let message = match rest {
        Some(rest) => format!("{full}{rest}"),
        None => format!("{prompt}: {}", error.message),
    };
    UserError { field: Some(full), message, ..error.clone() }
}

#[cfg(test)]
mod tests;
