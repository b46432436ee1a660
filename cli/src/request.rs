//! From flags to a job: checks what can be checked at once, asks the farm for its cascade's stages where flags need
//! them, and fills in the spec.

use std::path::Path;

use darkroom_artifacts::CascadeBundle;
use darkroom_core::{
    error::UserError,
    prompt::{check_prompt, check_text},
};
use darkroom_proto::v1;
use uuid::Uuid;

use crate::{
    args::RequestArgs,
    client::Client,
    failure::{self, Result},
};

/// Prompts from the command line, each checked.
pub(crate) fn prompts(texts: &[String], request: &RequestArgs) -> Result<Vec<v1::Prompt>> {
    let negative = negative(request)?;
    let prompt = |(position, text): (usize, &String)| {
        let field = if texts.len() == 1 { "prompt".to_owned() } else { format!("prompt {}", position + 1) };
        check_prompt(&field, text)?;
        Ok(v1::Prompt { text: text.clone(), negative: negative.clone(), images: 0, seed: None })
    };
    texts.iter().enumerate().map(prompt).collect()
}

/// The negative prompt, checked; empty when there is none.
pub(crate) fn negative(request: &RequestArgs) -> Result<String> {
    let text = request.negative.clone().unwrap_or_default();
    check_text("negative", &text)?;
    Ok(text)
}

/// Checks what needs no farm, so that nothing is started for a request that cannot be.
pub(crate) fn check(request: &RequestArgs) -> Result<()> {
    if let Some(images) = request.images.filter(|images| !(1..=10_000).contains(images)) {
        return Err(UserError::invalid("images", format!("images is {images}; accepted: 1 to 10000")));
    }
    if request.size == Some(0) {
        return Err(UserError::invalid(
            "size",
            "size is 0; accepted: one of the cascade's sizes (64, 256, 1024)",
        ));
    }
    Ok(())
}

/// The job these flags ask for.
pub(crate) async fn spec(client: &Client, request: &RequestArgs) -> Result<v1::JobSpec> {
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
    let settings = match chosen {
        Some(stages) => request.stages.settings(size, stages)?,
        // The farm refuses the cascade and says which it has.
        None => v1::Settings { size, stages: Vec::new() },
    };
    Ok(v1::JobSpec {
        client_request_id: Uuid::new_v4().to_string(),
        cascade,
        settings: Some(settings),
        images_per_prompt: request.images.unwrap_or(1),
        seed: request.seed,
        ..v1::JobSpec::default()
    })
}

/// What the farm knows a cascade by: a name or digest as given, or the digest of the folder given.
async fn cascade_name(given: &str) -> Result<String> {
    let path = Path::new(given);
    if !path.join(darkroom_core::cascade::FILE_NAME).is_file() {
        return Ok(given.to_owned());
    }
    let path = path.to_owned();
    let bundle = tokio::task::spawn_blocking(move || CascadeBundle::load(&path)).await;
    Ok(bundle.map_err(failure::internal)??.cascade().digest().to_string())
}
