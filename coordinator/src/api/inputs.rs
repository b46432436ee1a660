//! The pictures that prompts name: which of them the farm has, and whether each is what its job can start from.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_core::{
    artifact::ArtifactRef,
    cascade::CascadeSpec,
    digest::Digest,
    error::{Code, UserError},
    extent::Extent,
    fit::Fit,
    settings::Settings,
    start::Start,
};
use darkroom_proto::v1;

use super::Farm;
use crate::{service::Error, store::records::Input};

/// What a job asks of its prompts' pictures.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    start: Start,
    fit: Option<Fit>,
    extent: Extent,
}

impl Wanted {
    pub(super) fn of(settings: &Settings, cascade: &CascadeSpec) -> Self {
        let extent = settings.low_res(cascade).unwrap_or_else(|| settings.extent());
        Self { start: settings.start, fit: settings.fit, extent }
    }
}

/// The pictures that a chunk of prompts names and the farm has.
#[derive(Debug, Default)]
pub(super) struct Inputs(BTreeMap<Digest, Input>);

impl Farm {
    /// Asks the record only where a prompt names something.
    pub(super) async fn inputs_of(&self, prompts: &[v1::Prompt]) -> Result<Inputs, Error> {
        let named = prompts.iter().flat_map(|prompt| [&prompt.image, &prompt.mask]);
        let named: BTreeSet<Digest> = named.filter_map(|name| name.parse().ok()).collect();
        if named.is_empty() {
            return Ok(Inputs::default());
        }
        let known = self.shared.front.inputs(&named.into_iter().collect::<Vec<_>>()).await?;
        Ok(Inputs(known.into_iter().map(|input| (input.sha256, input)).collect()))
    }
}

impl Inputs {
    /// A prompt's picture and mask, if they are what the job starts from; `path` names a key's field.
    pub(super) fn of_prompt(
        &self,
        prompt: &v1::Prompt,
        wanted: &Wanted,
        path: &dyn Fn(&str) -> String,
    ) -> Result<(Option<ArtifactRef>, Option<ArtifactRef>), UserError> {
        if prompt.image.is_empty() && prompt.mask.is_empty() && !wanted.start.takes_picture() {
            return Ok((None, None));
        }
        if prompt.image.is_empty() && !prompt.mask.is_empty() {
            let field = path("image");
            let message =
                format!("{field} is missing beside a mask; accepted: the picture that the mask is of");
            return Err(UserError::invalid(field, message));
        }
        let image = self.named(&path("image"), &prompt.image, wanted.start.takes_picture(), wanted)?;
        let mask = self.named(&path("mask"), &prompt.mask, wanted.start.takes_mask(), wanted)?;
        if let Some(image) = image {
            check_extent(&path("image"), image, wanted)?;
        }
        if let Some((image, mask)) = image.zip(mask) {
            check_mask(&path("mask"), mask, image)?;
        }
        Ok((image.map(Input::artifact), mask.map(Input::artifact)))
    }

    /// The picture of that name, there where it is needed and only there.
    fn named(
        &self,
        field: &str,
        name: &str,
        needed: bool,
        wanted: &Wanted,
    ) -> Result<Option<&Input>, UserError> {
        let start = wanted.start;
        match (name, needed) {
            ("", false) => Ok(None),
            ("", true) => {
                let message = format!(
                    "{field} is missing; accepted: the SHA-256 of a picture sent with UploadInput, since the job starts \
                     from {start}"
                );
                Err(UserError::invalid(field, message))
            }
            (_, false) => {
                let message = format!(
                    "{field} is given, but the job starts from {start}; accepted: none, or another spec.settings.start"
                );
                Err(UserError::invalid(field, message))
            }
            (name, true) => {
                let digest: Digest = name.parse().map_err(|_| {
                    UserError::invalid(field, format!("{field} is {name:?}; accepted: 64 hexadecimal digits"))
                })?;
                self.0.get(&digest).map(Some).ok_or_else(|| UserError {
                    field: Some(field.to_owned()),
                    ..UserError::new(
                        Code::NotFound,
                        "UNKNOWN_INPUT",
                        format!("{field} is {digest}, which the farm does not have; accepted: what was sent with UploadInput"),
                    )
                })
            }
        }
    }
}

/// Any size will do but where the job says that pictures must have the shape.
fn check_extent(field: &str, image: &Input, wanted: &Wanted) -> Result<(), UserError> {
    let Wanted { start, fit, extent } = *wanted;
    if fit != Some(Fit::Exact) {
        return Ok(());
    }
    let (fits, accepted) = if start == Start::LowRes {
        (image.extent == extent, format!("{extent}, what the stage before would have made"))
    } else {
        (extent.has_shape_of(image.extent), format!("a picture with the shape of {extent}"))
    };
    if fits {
        return Ok(());
    }
    let message = format!(
        "{field} has {} pixels, and settings.fit is exact; accepted: {accepted}, or fit crop, pad or stretch",
        image.extent
    );
    Err(UserError::invalid(field, message))
}

fn check_mask(field: &str, mask: &Input, image: &Input) -> Result<(), UserError> {
    if mask.extent != image.extent {
        let message =
            format!("{field} has {} pixels; accepted: {}, as many as its picture", mask.extent, image.extent);
        return Err(UserError::invalid(field, message));
    }
    if !mask.is_mask {
        let message = format!(
            "{field} is dark everywhere, or has many colours; accepted: strokes in white or one colour on black or transparent, \
             which are painted anew"
        );
        return Err(UserError::invalid(field, message));
    }
    Ok(())
}
