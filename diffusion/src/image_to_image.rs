//! Starts from a given picture instead of from noise: image-to-image (Meng et al. 2021, "SDEdit")
//! and inpainting.
//!
//! As in the reference's pipelines for DeepFloyd IF, only the last ⌊steps · strength⌋ of `steps`
//! are visited. The picture gets noise up to the level of the first of them, in the way of that
//! sampler. With a mask, pixels outside the mask (0) are those of the given picture, without noise,
//! at every step: each step takes them from the x before. So they are unchanged in the final
//! picture. This differs from RePaint and from most inpainting of latents, where kept pixels get
//! noise.

use tch::Tensor;

use crate::error::RenderError;
use crate::layers::Torch;
use crate::sampler::Level;
use crate::settings::{RowInput, SamplerSettings};

/// Checks that a row's picture and mask are present if needed, and valid.
pub(crate) fn check(settings: &SamplerSettings, row: &RowInput) -> Result<(), RenderError> {
    let (height, width) = (settings.height, settings.width);
    match (&row.init_image, settings.sampling.strength) {
        (None, None) => {}
        (Some(image), Some(_)) => {
            image.expect("init_image", &[3, height, width])?;
            image.expect_within("init_image", -1.0, 1.0)?;
        }
        (Some(_), None) => {
            return Err(RenderError::invalid("init_image", "accepted only with a strength"));
        }
        (None, Some(_)) => {
            return Err(RenderError::invalid("init_image", "needed where there is a strength"));
        }
    }
    match (&row.mask, &row.init_image) {
        (None, _) => Ok(()),
        (Some(_), None) => {
            Err(RenderError::invalid("mask", "accepted only with a picture to keep, init_image"))
        }
        (Some(mask), Some(_)) => {
            mask.expect("mask", &[1, height, width])?;
            mask.expect_within("mask", 0.0, 1.0)
        }
    }
}

/// Where a mask, `[images, 1, height, width]`, requests repainting: bool `[images, 3, height,
/// width]`. Values in between count as the nearer end, as in the reference.
pub(crate) fn repainted(mask: &Tensor) -> Torch<Tensor> {
    mask.f_ge(0.5)?.f_expand([-1, 3, -1, -1], false)
}

/// x at the first timestep: `picture` with `noise` up to `level`; where `mask` is false, the
/// picture unchanged.
pub(crate) fn begin(
    picture: &Tensor,
    noise: &Tensor,
    level: Level,
    mask: Option<&Tensor>,
) -> Torch<Tensor> {
    let noised = picture.f_mul_scalar(level.signal)?.f_add_(&noise.f_mul_scalar(level.noise)?)?;
    keep(noised, picture, mask)
}

/// `next`, with the pixels outside the mask from `before`.
///
/// This selects values and adds no products, so kept pixels keep their bits, and rows without a
/// mask have the same bits as alone.
pub(crate) fn keep(next: Tensor, before: &Tensor, mask: Option<&Tensor>) -> Torch<Tensor> {
    match mask {
        Some(mask) => next.f_where_self(mask, before),
        None => Ok(next),
    }
}
