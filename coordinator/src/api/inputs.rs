//! The pictures that prompts name: whether the farm has them, and whether the job can start from
//! them.

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

use super::{Farm, access::Reach};
use crate::{
    error::Error,
    store::records::{Input, Remark},
};

/// A job's requirements for its prompts' pictures.
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

/// What a prompt's images start from.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) image: Option<ArtifactRef>,
    pub(super) mask: Option<ArtifactRef>,
    /// Notes about changes when these were decoded, and when they will be fitted.
    pub(super) remarks: Vec<Remark>,
}

/// The pictures named in a chunk of prompts that their job may use.
#[derive(Debug, Default)]
pub(super) struct Inputs(BTreeMap<Digest, Input>);

impl Farm {
    /// The pictures that the prompts of a job name, of those that its tenant has uploaded. An
    /// operator may use those of every tenant. Asks the record only if a prompt names a picture.
    pub(super) async fn inputs_of(
        &self,
        reach: Reach<'_>,
        tenant: &str,
        prompts: &[v1::Prompt],
    ) -> Result<Inputs, Error> {
        let named = prompts.iter().flat_map(|prompt| [&prompt.image, &prompt.mask]);
        let named: BTreeSet<Digest> = named.filter_map(|name| name.parse().ok()).collect();
        if named.is_empty() {
            return Ok(Inputs::default());
        }
        let mut known = Inputs::default();
        for owner in [Some(tenant), reach.tenant()] {
            let missing = |digest: &&Digest| !known.0.contains_key(*digest);
            let wanted: Vec<Digest> = named.iter().filter(missing).copied().collect();
            if !wanted.is_empty() {
                let found = self.front.inputs(owner, &wanted).await?;
                known.0.extend(found.into_iter().map(|input| (input.sha256, input)));
            }
        }
        Ok(known)
    }
}

impl Inputs {
    /// A prompt's picture and mask, if they meet the job's requirements. `path` gives the name of a
    /// key's field.
    pub(super) fn of_prompt(
        &self,
        prompt: &v1::Prompt,
        wanted: &Wanted,
        path: &dyn Fn(&str) -> String,
    ) -> Result<Brought, UserError> {
        if prompt.image.is_empty() && prompt.mask.is_empty() && !wanted.start.takes_picture() {
            return Ok(Brought::default());
        }
        if prompt.image.is_empty() && !prompt.mask.is_empty() {
            let field = path("image");
            let message = format!(
                "{field} is missing, but there is a mask; accepted: the picture that the mask \
                 belongs to"
            );
            return Err(UserError::invalid(field, message));
        }
        let image =
            self.named(&path("image"), &prompt.image, wanted.start.takes_picture(), wanted)?;
        let mask = self.named(&path("mask"), &prompt.mask, wanted.start.takes_mask(), wanted)?;
        if let Some(image) = image {
            check_extent(&path("image"), image, wanted)?;
        }
        if let Some((image, mask)) = image.zip(mask) {
            check_mask(&path("mask"), mask, image)?;
        }
        Ok(Brought {
            image: image.map(Input::artifact),
            mask: mask.map(Input::artifact),
            remarks: remarks(image, mask, wanted),
        })
    }

    /// The picture of that name. It must be given if it is needed, and only then.
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
                    UserError::invalid(
                        field,
                        format!("{field} is {name:?}; accepted: 64 hexadecimal digits"),
                    )
                })?;
                self.0.get(&digest).map(Some).ok_or_else(|| UserError {
                    field: Some(field.to_owned()),
                    ..UserError::new(
                        Code::NotFound,
                        "UNKNOWN_INPUT",
                        format!(
                            "{field} is {digest}, which the farm does not have; accepted: a \
                            picture sent with UploadInput"
                        ),
                    )
                })
            }
        }
    }
}

/// Notes for the user about a picture and its mask. Changes to the picture's shape also apply to
/// the mask, so they are noted once.
fn remarks(image: Option<&Input>, mask: Option<&Input>, wanted: &Wanted) -> Vec<Remark> {
    let remark = |of_mask| move |text: &String| Remark { of_mask, text: text.clone() };
    let fitted =
        image.and_then(|image| wanted.fit.unwrap_or_default().remark(image.extent, wanted.extent));
    let of_image =
        image.into_iter().flat_map(|image| &image.notes).chain(&fitted).map(remark(false));
    let of_mask = mask.into_iter().flat_map(|mask| &mask.notes).map(remark(true));
    of_image.chain(of_mask).collect()
}

/// Any size is allowed, unless the job's fit is exact.
fn check_extent(field: &str, image: &Input, wanted: &Wanted) -> Result<(), UserError> {
    let Wanted { start, fit, extent } = *wanted;
    if fit != Some(Fit::Exact) {
        return Ok(());
    }
    let (fits, accepted) = if start == Start::LowRes {
        (image.extent == extent, format!("{extent}, the size of the preceding stage's output"))
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
        let message = format!(
            "{field} has {} pixels; accepted: {}, as many as its picture",
            mask.extent, image.extent
        );
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
