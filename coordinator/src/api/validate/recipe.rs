//! Checks that the recipe of a prompt's pictures fits into their files.

use darkroom_artifacts::picture::{MAX_RECIPE_BYTES, recipe_bytes};
use darkroom_core::{error::UserError, output::Format, picture_text::Recipe, settings::Settings};

use crate::store::records::{NewJob, NewPrompt};

/// Refuses a prompt whose recipe is too long for its output format. A PNG has room for any.
pub(super) fn check(
    (job, settings): (&NewJob, &Settings),
    cascade: &str,
    prompt: &NewPrompt,
    path: &dyn Fn(&str) -> String,
) -> Result<(), UserError> {
    let format = settings.output.format();
    if format == Format::Png {
        return Ok(());
    }
    let recipe = Recipe {
        prompt: prompt.text.clone(),
        negative: prompt.negative.clone(),
        style: prompt.extras.style.clone(),
        image: prompt.extras.image.as_ref().map(|image| image.sha256),
        mask: prompt.extras.mask.as_ref().map(|mask| mask.sha256),
        // The longest seed, because the images of a prompt have many seeds.
        seed: u64::MAX,
        cascade: cascade.to_owned(),
        cascade_digest: job.cascade,
        settings: settings.clone(),
    };
    let bytes = recipe_bytes(&recipe.to_pairs());
    if bytes <= MAX_RECIPE_BYTES {
        return Ok(());
    }
    let field = path("text");
    let message = format!(
        "{field} makes a recipe of {bytes} bytes, together with the prompt's other texts and the settings, and a {format} \
         has room for {MAX_RECIPE_BYTES}; accepted: shorter texts, or png as the output format"
    );
    Err(UserError::invalid(field, message))
}
