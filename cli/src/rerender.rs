//! `darkroom rerender`: a picture rendered again from its own metadata, and compared pixel by pixel.
//!
//! It always renders afresh, on a farm of its own in a temporary folder, so that no stored output can stand in.

use std::{path::Path, process::ExitCode};

use darkroom_artifacts::picture::{self, MAX_FILE_BYTES, Picture};
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    picture_text::{DEVICE_CLASS, Recipe},
    shown::shown,
};
use darkroom_proto::v1;
use darkroom_runtime::{files, terminal::shown_path};
use serde_json::json;

use crate::{
    args::RerenderArgs,
    client::Client,
    embedded::{Farm, Options},
    failure::{self, Result},
    inputs::Inputs,
    jobs,
    output::{self, Beside},
    spool::Prompts,
};

/// What came of it.
struct Comparison {
    same_cascade: bool,
    different_pixels: u64,
    largest_difference: u8,
    classes: (String, String),
}

/// Renders the picture again. Exits with 1 when a pixel differs.
pub(crate) async fn rerender(args: RerenderArgs, as_json: bool) -> Result<ExitCode> {
    let bytes = files::read(&args.file, MAX_FILE_BYTES)
        .map_err(|error| failure::file("file", "read", &args.file, &error))?;
    let before = decode(&args.file, &bytes)?;
    let pairs = before.text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
    let recipe = Recipe::from_pairs(pairs).map_err(|error| UserError {
        message: format!("{}: {}", shown_path(&args.file), error.message),
        ..error
    })?;

    let mut inputs = Inputs::default();
    named_input(&mut inputs, "image", recipe.image, args.image.as_deref())?;
    named_input(&mut inputs, "mask", recipe.mask, args.mask.as_deref())?;

    let state = tempfile::tempdir().map_err(failure::internal)?;
    let options = Options::for_occasion(state.path(), args.cascade.as_deref(), args.machine)?;
    let farm = Farm::start(options).await?;
    let client = Client::new(&farm.address().to_string())?;
    let rendered = render(&client, &recipe, &inputs).await;
    let ended = farm.shut_down().await;
    let (after, digest) = rendered?;
    ended?;

    let comparison = compare(&recipe, &before, &decode(&args.file, &after)?, digest)?;
    let mut told = Beside::default();
    told.print(|| report(&args.file, &recipe, &comparison, as_json));
    told.end()?;
    Ok(if comparison.different_pixels == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file that a recipe names by its hash, if it names one.
fn named_input(inputs: &mut Inputs, flag: &str, wanted: Option<Digest>, given: Option<&Path>) -> Result<()> {
    let message = match (wanted, given) {
        (None, None) => return Ok(()),
        (None, Some(path)) => {
            format!("{flag} is {}, but the picture was made without one; accepted: none", shown_path(path))
        }
        (Some(wanted), None) => {
            format!("{flag} is missing; accepted: the file of SHA-256 {wanted}, as --{flag} FILE")
        }
        (Some(wanted), Some(path)) => {
            // A recipe names what was stored; one from before there was a canonical form, what was sent.
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
    picture::decode(bytes).map_err(|error| {
        UserError::invalid(
            "file",
            format!("{} cannot be read: {error}; accepted: a PNG that Darkroom rendered", shown_path(path)),
        )
    })
}

/// The picture of this recipe, rendered now, and the digest of the cascade that did it.
async fn render(client: &Client, recipe: &Recipe, inputs: &Inputs) -> Result<(Vec<u8>, String)> {
    inputs.send(client).await?;
    let spec = v1::JobSpec {
        client_request_id: uuid::Uuid::new_v4().to_string(),
        // Every value as it was, whatever the cascade's defaults are now.
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

fn compare(recipe: &Recipe, before: &Picture, after: &Picture, digest: String) -> Result<Comparison> {
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
    let pixels = before.rgb.chunks_exact(3).zip(after.rgb.chunks_exact(3));
    let different = pixels.filter(|(one, other)| one != other).count();
    let largest = before.rgb.iter().zip(&after.rgb).map(|(one, other)| one.abs_diff(*other)).max();
    let class = |picture: &Picture| picture.text(DEVICE_CLASS).unwrap_or("unknown").to_owned();
    Ok(Comparison {
        same_cascade: digest.parse::<Digest>().is_ok_and(|digest| digest == recipe.cascade_digest),
        different_pixels: different as u64,
        largest_difference: largest.unwrap_or(0),
        classes: (class(before), class(after)),
    })
}

fn report(path: &Path, recipe: &Recipe, comparison: &Comparison, as_json: bool) -> Result<()> {
    let identical = comparison.different_pixels == 0;
    let (was, is) = &comparison.classes;
    if as_json {
        let document = json!({
            "identical": identical,
            "different_pixels": comparison.different_pixels,
            "largest_difference": comparison.largest_difference,
            "same_cascade": comparison.same_cascade,
            "same_device_class": was == is,
            "prompt": recipe.prompt,
            "seed": recipe.seed,
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
    output::line(&if identical {
        format!("{}: rendered again, every pixel is identical", shown_path(path))
    } else {
        format!(
            "{}: rendered again, {} pixels differ, by at most {} of 255",
            shown_path(path),
            comparison.different_pixels,
            comparison.largest_difference
        )
    })
}
