//! Turns flags into a job: checks what can be checked at once, asks the farm for its cascade's
//! stages if flags need them, and fills in the spec.

use std::path::Path;

use darkroom_artifacts::CascadeBundle;
use darkroom_core::{
    error::UserError,
    extent::Extent,
    fit::Fit,
    output::OutputRequest,
    prompt::{check_prompt, check_text},
    shape::{Shapes, StageShape},
};
use darkroom_proto::v1;
use darkroom_runtime::terminal::shown_path;
use uuid::Uuid;

use crate::{
    args::RequestArgs,
    client::Client,
    failure::{self, Result},
    inputs::Inputs,
    output,
};

/// Largest edge of a stage that a farm may report.
const LARGEST_STAGE: u32 = 16_384;

/// Prompts from the command line. Each is checked, and so are the pictures that they start from.
pub(crate) fn prompts(
    texts: &[String],
    request: &RequestArgs,
    inputs: &mut Inputs,
) -> Result<Vec<v1::Prompt>> {
    let template = template(request, inputs)?;
    let prompt = |(position, text): (usize, &String)| {
        let field =
            if texts.len() == 1 { "prompt".to_owned() } else { format!("prompt {}", position + 1) };
        check_prompt(&field, text)?;
        Ok(v1::Prompt { text: text.clone(), ..template.clone() })
    };
    texts.iter().enumerate().map(prompt).collect()
}

/// The requested fit.
fn fit(request: &RequestArgs, start: v1::Start) -> Result<Option<Fit>> {
    let Some(name) = &request.fit else { return Ok(None) };
    if start == v1::Start::Noise {
        let message = format!(
            "fit is {name}, but no image is given to start from; accepted: --image FILE together \
             with --fit"
        );
        return Err(UserError::invalid("fit", message));
    }
    name.parse().map(Some)
}

/// How the pictures are to be stored, where that is said.
fn output(request: &RequestArgs) -> Result<Option<OutputRequest>> {
    let parse = |text: &String| OutputRequest::parse("output-format", text);
    request.output_format.as_ref().map(parse).transpose()
}

/// Says what is done to the files, and refuses those that do not fit where they must.
fn note(
    request: &RequestArgs,
    prompts: &[v1::Prompt],
    inputs: &Inputs,
    (settings, stages): (&v1::Settings, &[v1::CascadeStage]),
) -> Result<()> {
    let (shapes, before) = shapes(request, stages);
    let square = shapes.square();
    let or_square = |edge: u32| if edge == 0 { square.width } else { edge };
    let last = Extent { width: or_square(settings.width), height: or_square(settings.height) };
    let wanted = before.map_or(Some(last), |before| last.scaled(square.width, before));
    let fit = fit(request, settings.start())?.unwrap_or_default();
    // What becomes of pictures of prompts with settings of their own the farm says.
    let plain: Vec<_> =
        prompts.iter().filter(|prompt| prompt.settings.is_none()).cloned().collect();
    if let Some(wanted) = wanted.filter(|_| fit == Fit::Exact) {
        let odd = plain.iter().filter_map(|prompt| prompt.image.parse().ok()).find_map(|name| {
            let (path, extent) = inputs.path(name).zip(inputs.extent(name))?;
            (!extent.has_shape_of(wanted)).then_some((path, extent))
        });
        if let Some((path, extent)) = odd {
            let message = format!(
                "{} has {extent} pixels; accepted with --fit exact: a picture with the shape of {wanted}, or --fit crop, pad \
                 or stretch",
                shown_path(path)
            );
            return Err(UserError::invalid("image", message));
        }
    }
    for note in inputs.notes(&plain, fit, wanted) {
        output::note(&note);
    }
    Ok(())
}

/// The values that flags give to every prompt, checked: negative prompt, style, picture and mask;
/// empty if absent.
pub(crate) fn template(request: &RequestArgs, inputs: &mut Inputs) -> Result<v1::Prompt> {
    let negative = request.negative.clone().unwrap_or_default();
    check_text("negative", &negative)?;
    let style = request.style.clone().unwrap_or_default();
    check_text("style", &style)?;
    let mut prompt = v1::Prompt { negative, style, ..v1::Prompt::default() };
    let files = PictureFiles { image: request.image.as_deref(), mask: request.mask.as_deref() };
    set_inputs(&mut prompt, files, inputs)?;
    Ok(prompt)
}

/// The files that a prompt starts from.
#[derive(Clone, Copy)]
pub(crate) struct PictureFiles<'a> {
    pub(crate) image: Option<&'a Path>,
    pub(crate) mask: Option<&'a Path>,
}

/// Writes the picture and the mask into a prompt.
pub(crate) fn set_inputs(
    prompt: &mut v1::Prompt,
    files: PictureFiles<'_>,
    inputs: &mut Inputs,
) -> Result<()> {
    let PictureFiles { image, mask } = files;
    let image = image.map(|path| inputs.picture("image", path)).transpose()?;
    let mask = match (mask, image) {
        (None, _) => None,
        (Some(path), Some(image)) => Some(inputs.mask("mask", path, image)?),
        (Some(path), None) => {
            let message = format!(
                "mask is {} without an image; accepted: a mask together with its image",
                shown_path(path)
            );
            return Err(UserError::invalid("mask", message));
        }
    };
    prompt.image = image.map_or_else(String::new, String::from);
    prompt.mask = mask.map_or_else(String::new, String::from);
    Ok(())
}

/// Refuses a fit where there is nothing to fit.
pub(crate) fn check_fit(request: &RequestArgs, prompts: &[v1::Prompt]) -> Result<()> {
    fit(request, start(prompts, request)).map(drop)
}

/// Checks what needs no farm, so that none is started for an invalid request.
pub(crate) fn check(request: &RequestArgs) -> Result<()> {
    if let Some(images) = request.images.filter(|images| !(1..=10_000).contains(images)) {
        return Err(UserError::invalid(
            "images",
            format!("images is {images}; accepted: 1 to 10000"),
        ));
    }
    if request.size == Some(0) {
        return Err(UserError::invalid(
            "size",
            "size is 0; accepted: one of the cascade's sizes (64, 256, 1024)",
        ));
    }
    output(request)?;
    request.stages.check()?;
    if request.from.is_some() && request.mask.is_some() {
        let message = "mask is given beside --from; accepted: one of the two, because with a \
            mask all stages start from the picture";
        return Err(UserError::invalid("mask", message));
    }
    Ok(())
}

/// What the prompts' images start from.
fn start(prompts: &[v1::Prompt], request: &RequestArgs) -> v1::Start {
    if request.from.is_some() {
        v1::Start::LowRes
    } else if prompts.iter().any(|prompt| !prompt.mask.is_empty()) {
        v1::Start::Masked
    } else if prompts.iter().any(|prompt| !prompt.image.is_empty()) {
        v1::Start::Picture
    } else {
        v1::Start::Noise
    }
}

/// The shapes that the running stages can make, and the size of the stage before them.
fn shapes(request: &RequestArgs, stages: &[v1::CascadeStage]) -> (Shapes, Option<u32>) {
    let size = request.size.unwrap_or(0);
    let end =
        stages.iter().position(|stage| stage.size == size).map_or(stages.len(), |last| last + 1);
    let from = |from: &String| stages[..end].iter().position(|stage| stage.name == *from);
    let begin = request.from.as_ref().and_then(from).unwrap_or(0);
    let before = begin.checked_sub(1).map(|before| stages[before].size);
    let of_before = before.map(|size| StageShape { size, multiple: 1 });
    let of_stage =
        |stage: &v1::CascadeStage| StageShape { size: stage.size, multiple: stage.size_multiple };
    (Shapes::of(of_before.into_iter().chain(stages[begin..end].iter().map(of_stage))), before)
}

/// Width and height of the final pictures: as requested, or the best ones for the first picture. 0
/// means the cascade's.
fn extent(
    request: &RequestArgs,
    stages: &[v1::CascadeStage],
    first: Option<(&Path, Extent)>,
) -> Result<(u32, u32)> {
    let (Some((path, first)), None, None, false) =
        (first, request.width, request.height, stages.is_empty())
    else {
        return Ok((request.width.unwrap_or(0), request.height.unwrap_or(0)));
    };
    let (shapes, before) = shapes(request, stages);
    let last = shapes.square();
    // A low-resolution picture of the size that the stage before makes.
    let whole = before
        .and_then(|before| first.scaled(before, last.width))
        .filter(|whole| shapes.has(*whole));
    let wanted = whole.unwrap_or_else(|| shapes.nearest(first));
    if request.fit.as_deref() == Some("exact") && !wanted.has_shape_of(first) {
        let message = format!(
            "{} has {first} pixels, and the cascade makes no picture of that shape; accepted with --fit exact: edges in \
             proportions of multiples of {}, or --fit crop, pad or stretch",
            shown_path(path),
            shapes.step()
        );
        return Err(UserError::invalid("image", message));
    }
    Ok(if wanted == last { (0, 0) } else { (wanted.width, wanted.height) })
}

/// The job that these flags and prompts ask for. Sends the pictures that it starts from to the
/// farm.
pub(crate) async fn spec(
    client: &Client,
    request: &RequestArgs,
    prompts: &[v1::Prompt],
    inputs: &Inputs,
) -> Result<v1::JobSpec> {
    let cascade = match &request.cascade {
        Some(cascade) => cascade_name(cascade).await?,
        None => String::new(),
    };
    let size = request.size.unwrap_or(0);
    let cascades = client.cascades().await?;
    let chosen = cascades
        .iter()
        .find(|one| cascade.is_empty() || one.name == cascade || one.digest == cascade)
        .map(|one| one.stages.as_slice());
    let stages = chosen.unwrap_or_default();
    if let Some(stage) = stages.iter().find(|stage| stage.size == 0 || stage.size > LARGEST_STAGE) {
        return Err(failure::internal(format!(
            "the farm says that stage {} makes pictures of {} pixels; accepted: 1 to {LARGEST_STAGE}",
            stage.name, stage.size
        )));
    }
    let mut settings = match chosen {
        Some(stages) => request.stages.settings(size, request.from.as_deref(), stages)?,
        // The farm refuses the cascade and lists those that it has.
        None => v1::Settings { size, ..v1::Settings::default() },
    };
    let first = prompts.iter().find_map(|prompt| {
        let name = prompt.image.parse().ok()?;
        inputs.path(name).zip(inputs.extent(name))
    });
    (settings.width, settings.height) = extent(request, stages, first)?;
    settings.set_start(start(prompts, request));
    settings.start_stage = request.from.clone().unwrap_or_default();
    settings.set_fit(fit(request, settings.start())?.map_or(v1::Fit::Unspecified, v1::Fit::from));
    settings.output = output(request)?.as_ref().map(v1::Output::from);
    if !stages.is_empty() {
        note(request, prompts, inputs, (&settings, stages))?;
    }
    inputs.send(client).await?;
    Ok(v1::JobSpec {
        client_request_id: Uuid::new_v4().to_string(),
        cascade,
        settings: Some(settings),
        images_per_prompt: request.images.unwrap_or(1),
        seed: request.seed,
        no_reuse: request.no_reuse,
        ..v1::JobSpec::default()
    })
}

/// The farm's name for a cascade: the given name or digest, or the digest of the given folder.
async fn cascade_name(given: &str) -> Result<String> {
    let path = Path::new(given);
    if !path.join(darkroom_core::cascade::FILE_NAME).is_file() {
        return Ok(given.to_owned());
    }
    let path = path.to_owned();
    let bundle = tokio::task::spawn_blocking(move || CascadeBundle::load(&path)).await;
    Ok(bundle.map_err(failure::internal)??.cascade().digest().to_string())
}
