//! `darkroom rerender`: a picture rendered again from its own metadata, stored in its format again,
//! and compared: the bytes of both files, and their pixels.
//!
//! It always computes the picture on a separate farm in a temporary folder, so that no stored
//! output can be reused.

use std::{path::Path, process::ExitCode};

use darkroom_artifacts::picture::{self, Difference, MAX_FILE_BYTES, Picture};
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    output::Format,
    picture_text::{DEVICE_CLASS, Recipe},
    shown::shown,
};
use darkroom_proto::{json::U64, v1};
use darkroom_runtime::{
    disk::{ByteLimit, ByteSize},
    files,
    state_dir::LEAST_FREE_BYTES,
    terminal::shown_path,
};
use serde_json::json;

use crate::{
    args::{DiskArgs, RerenderArgs},
    client::Client,
    embedded::{Farm, Options},
    failure::{self, Result},
    inputs::Inputs,
    jobs,
    output::{self, Beside},
    spool::Prompts,
};

/// A picture that was rendered again.
struct Again {
    picture: Picture,
    /// Digest of the cascade that rendered it.
    cascade: String,
    /// Whether its file has the bytes of the first one.
    same_bytes: bool,
}

/// The result.
struct Comparison {
    same_cascade: bool,
    same_bytes: bool,
    difference: Difference,
    classes: (String, String),
}

/// Renders the picture again. Exits with 1 when a pixel differs.
pub(crate) async fn rerender(args: RerenderArgs, as_json: bool) -> Result<ExitCode> {
    let bytes = files::read(&args.file, MAX_FILE_BYTES)
        .map_err(|unread| failure::file("file", "read", &args.file, &unread.into()))?;
    let before = decode(&args.file, &bytes)?;
    let found = Format::of_bytes(&bytes);
    let pairs = before.text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
    let recipe = Recipe::from_pairs(pairs).map_err(|error| UserError {
        message: format!("{}: {}", shown_path(&args.file), error.message),
        ..error
    })?;

    let mut inputs = Inputs::default();
    named_input(&mut inputs, "image", recipe.image, args.image.as_deref())?;
    named_input(&mut inputs, "mask", recipe.mask, args.mask.as_deref())?;

    let state = tempfile::tempdir().map_err(failure::internal)?;
    // One picture in a folder that goes away at the end.
    let disk = DiskArgs {
        disk_budget: Some(ByteLimit::None),
        disk_floor: Some(ByteSize(LEAST_FREE_BYTES)),
        ..DiskArgs::default()
    };
    let cascade = args.cascade.as_deref();
    let options = Options::for_occasion(state.path(), cascade, args.machine, disk)?;
    let farm = Farm::start(options).await?;
    let client = farm.client()?;
    let rendered = render(&client, &recipe, &inputs).await;
    let ended = farm.shut_down().await;
    let (after, digest) = rendered?;
    ended?;

    let same_bytes = bytes == after;
    let after = Again { picture: decode(&args.file, &after)?, cascade: digest, same_bytes };
    let comparison = compare(&recipe, &before, &after)?;
    let mut told = Beside::default();
    if let Some(format) = found.filter(|found| *found != recipe.settings.output.format()) {
        output::note(&format!(
            "{} is a {format} now; it was stored as {}",
            shown_path(&args.file),
            recipe.settings.output
        ));
    }
    told.print(|| report(&args.file, &recipe, &comparison, as_json));
    told.end()?;
    Ok(if comparison.difference.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file for a hash in the recipe, if the recipe has one.
fn named_input(
    inputs: &mut Inputs,
    flag: &str,
    wanted: Option<Digest>,
    given: Option<&Path>,
) -> Result<()> {
    let message = match (wanted, given) {
        (None, None) => return Ok(()),
        (None, Some(path)) => {
            format!(
                "{flag} is {}, but the picture was made without one; accepted: none",
                shown_path(path)
            )
        }
        (Some(wanted), None) => {
            format!("{flag} is missing; accepted: the file of SHA-256 {wanted}, as --{flag} FILE")
        }
        (Some(wanted), Some(path)) => {
            // A recipe has the hash of the stored form. A recipe from before there was a stored
            // form has the hash of the sent file.
            if inputs.picture(flag, path)? == wanted {
                return Ok(());
            }
            match Inputs::canonical(flag, path)? {
                found if found == wanted => return Ok(()),
                found => format!(
                    "{flag} is {}, which is stored as SHA-256 {found}; accepted: the picture stored as {wanted}",
                    shown_path(path)
                ),
            }
        }
    };
    Err(UserError::invalid(flag, message))
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Picture> {
    let path = shown_path(path);
    picture::decode(bytes).map_err(|error| {
        let message = match error {
            // It says what would be accepted.
            picture::Error::File(error) => format!("{path} {error}"),
            error => format!(
                "{path} cannot be read: {error}; accepted: a picture that Darkroom rendered"
            ),
        };
        UserError::invalid("file", message)
    })
}

/// The picture of this recipe, rendered now, and the digest of the cascade that rendered it.
async fn render(client: &Client, recipe: &Recipe, inputs: &Inputs) -> Result<(Vec<u8>, String)> {
    inputs.send(client).await?;
    let spec = v1::JobSpec {
        client_request_id: uuid::Uuid::new_v4().to_string(),
        // Every value is given, whatever the cascade's defaults are now.
        settings: Some(v1::Settings::from(&recipe.settings)),
        images_per_prompt: 1,
        priority: v1::Priority::Interactive.into(),
        ..v1::JobSpec::default()
    };
    let prompt = v1::Prompt {
        text: recipe.prompt.clone(),
        negative: recipe.negative.clone(),
        images: 1,
        seed: Some(recipe.seed),
        style: recipe.style.clone().unwrap_or_default(),
        image: recipe.image.map_or_else(String::new, String::from),
        mask: recipe.mask.map_or_else(String::new, String::from),
        ..v1::Prompt::default()
    };
    let mut job = client.submit(spec, Prompts::of([prompt])?).await?.job;
    let mut watch = client.watch(&job.id, 0, false);
    while let Some(event) = watch.next().await? {
        job = event.job.unwrap_or(job);
    }
    jobs::outcome(&job)?;
    Ok((client.fetch(&job.id, 0).await?, job.cascade_digest))
}

fn compare(recipe: &Recipe, before: &Picture, again: &Again) -> Result<Comparison> {
    let after = &again.picture;
    if (before.width, before.height) != (after.width, after.height) {
        return Err(UserError::new(
            Code::FailedPrecondition,
            "OTHER_SIZE",
            format!(
                "the picture is {}×{} pixels and was rendered again at {}×{}; it was changed since it was rendered",
                before.width, before.height, after.width, after.height
            ),
        ));
    }
    let class = |picture: &Picture| picture.text(DEVICE_CLASS).unwrap_or("unknown").to_owned();
    Ok(Comparison {
        same_cascade: again
            .cascade
            .parse::<Digest>()
            .is_ok_and(|digest| digest == recipe.cascade_digest),
        same_bytes: again.same_bytes,
        difference: Difference::of(&before.rgb, &after.rgb),
        classes: (class(before), class(after)),
    })
}

fn report(path: &Path, recipe: &Recipe, comparison: &Comparison, as_json: bool) -> Result<()> {
    let difference = &comparison.difference;
    let identical = difference.different == 0;
    let (was, is) = &comparison.classes;
    if as_json {
        let document = json!({
            "identical": identical,
            "identical_bytes": comparison.same_bytes,
            "format": recipe.settings.output.to_string(),
            "pixels": difference.pixels,
            "different_pixels": difference.different,
            "largest_difference": difference.largest,
            "mean_difference": difference.mean,
            "same_cascade": comparison.same_cascade,
            "same_device_class": was == is,
            "prompt": recipe.prompt,
            "seed": U64(recipe.seed),
        });
        return output::json(&output::with_path(document, "file", path));
    }
    if !comparison.same_cascade {
        output::tell(&format!(
            "note: the picture was rendered by another version of cascade {} (digest {})",
            shown(&recipe.cascade),
            recipe.cascade_digest.short()
        ));
    }
    if was != is {
        output::tell(&format!(
            "note: the picture was rendered on another class of device ({}; here {})",
            shown(was),
            shown(is)
        ));
    }
    output::line(&format!("{}: rendered again, {}", shown_path(path), said(comparison)))
}

/// What came of it, for people.
fn said(comparison: &Comparison) -> String {
    let Difference { pixels, different, largest, mean } = comparison.difference;
    if comparison.same_bytes {
        return "every byte is identical".to_owned();
    }
    if different == 0 {
        return "every pixel is identical; other bytes of the file differ".to_owned();
    }
    let mean = if mean < 0.001 { "less than 0.001".to_owned() } else { format!("{mean:.3}") };
    format!(
        "{different} pixels differ of {pixels}, by at most {largest} of 255 levels, on average by {mean}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(before: &[u8], after: &[u8]) -> Comparison {
        Comparison {
            same_cascade: true,
            same_bytes: before == after,
            difference: Difference::of(before, after),
            classes: Default::default(),
        }
    }

    #[test]
    fn a_difference_is_told_in_pixels_and_levels() {
        let before = [10_u8; 3000];
        let same = compared(&before, &before);
        assert_eq!((same.difference.different, same.difference.pixels), (0, 1000));
        assert_eq!(said(&same), "every byte is identical");
        let saved_again = Comparison { same_bytes: false, ..same };
        assert_eq!(said(&saved_again), "every pixel is identical; other bytes of the file differ");
        let mut after = before;
        (after[0], after[2], after[2999]) = (7, 11, 12);
        assert_eq!(
            said(&compared(&before, &after)),
            "2 pixels differ of 1000, by at most 3 of 255 levels, on average by 0.002"
        );
        after = before;
        after[0] = 11;
        let one = said(&compared(&before, &after));
        assert!(one.starts_with("1 pixels differ of 1000, by at most 1 "), "{one}");
        assert!(one.ends_with("less than 0.001"), "{one}");
    }
}
