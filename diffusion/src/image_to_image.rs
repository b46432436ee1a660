//! Starting from a given picture instead of from noise: image-to-image (Meng et al. 2021, "SDEdit") and inpainting.
//!
//! As in the reference's pipelines for DeepFloyd IF: of `steps`, the last ⌊steps · strength⌋ are visited; the picture is
//! noised to the level of the first of them, as that sampler noises. With a mask, masked-out pixels (0) are the given
//! picture itself, without noise, at every step: each takes them from the x before. So they are in the final picture
//! as they were given. This differs from RePaint and from most inpainting of latents, where kept pixels are noised.

use tch::Tensor;

use crate::error::RenderError;
use crate::layers::Torch;
use crate::sampler::Level;
use crate::settings::{RowInput, SamplerSettings};

/// How many of the first steps a strength leaves out; none without a strength.
pub(crate) fn steps_left_out(settings: &SamplerSettings) -> Result<usize, RenderError> {
    let Some(strength) = settings.strength else { return Ok(0) };
    if !(strength > 0.0 && strength <= 1.0) {
        return Err(RenderError::invalid("strength", format!("{strength}; accepted: above 0, up to 1")));
    }
    let steps = settings.timesteps.as_ref().map_or(settings.steps, Vec::len);
    // Cut off as the reference does, 0.7 · 10 = 7 and 0.29 · 100 = 28 included.
    let visited = ((steps as f64 * strength) as usize).min(steps);
    if visited == 0 {
        let message = format!(
            "{strength} leaves none of {steps} steps; accepted: at least one step's share, 1/{steps}"
        );
        return Err(RenderError::invalid("strength", message));
    }
    Ok(steps - visited)
}

/// Whether a row's picture and mask are there when they should be, and are what they should be.
pub(crate) fn check(settings: &SamplerSettings, row: &RowInput) -> Result<(), RenderError> {
    let (height, width) = (settings.height, settings.width);
    match (&row.init_image, settings.strength) {
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

/// Where a mask, `[images, 1, height, width]`, says repaint: bool `[images, 3, height, width]`. In between, the nearer end
/// counts, as in the reference.
pub(crate) fn repainted(mask: &Tensor) -> Torch<Tensor> {
    mask.f_ge(0.5)?.f_expand([-1, 3, -1, -1], false)
}

/// x at the first timestep: `picture` with `noise` to `level`; where `mask` is false, the picture as it is.
pub(crate) fn begin(picture: &Tensor, noise: &Tensor, level: Level, mask: Option<&Tensor>) -> Torch<Tensor> {
    let noised = picture.f_mul_scalar(level.signal)?.f_add_(&noise.f_mul_scalar(level.noise)?)?;
    keep(noised, picture, mask)
}

/// `next`, with masked-out pixels from `before`.
///
/// A selection, not a sum of products: kept pixels keep their bits, and rows without a mask the bits they have alone.
pub(crate) fn keep(next: Tensor, before: &Tensor, mask: Option<&Tensor>) -> Torch<Tensor> {
    match mask {
        Some(mask) => next.f_where_self(mask, before),
        None => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(steps: usize, strength: f64) -> Result<usize, RenderError> {
        let settings = SamplerSettings { steps, strength: Some(strength), ..SamplerSettings::default() };
        steps_left_out(&settings)
    }

    #[test]
    fn the_steps_left_out_are_those_of_the_reference() {
        for (steps, strength, expected) in
            [(50, 0.7, 15), (10, 0.7, 3), (100, 0.29, 72), (25, 1.0, 0), (3, 0.34, 2), (5, 0.2, 4)]
        {
            assert_eq!(left_out(steps, strength).unwrap(), expected, "{steps} {strength}");
        }
        let listed = SamplerSettings {
            timesteps: Some(vec![900, 600, 300, 0]),
            strength: Some(0.5),
            ..SamplerSettings::default()
        };
        assert_eq!(steps_left_out(&listed).unwrap(), 2, "a list's length counts, not `steps`");
        assert_eq!(steps_left_out(&SamplerSettings::default()).unwrap(), 0);
    }

    #[test]
    fn a_strength_that_leaves_nothing_to_do_is_refused() {
        for (steps, strength) in [(25, 0.0), (25, -0.5), (25, 1.01), (25, f64::NAN), (25, 0.03)] {
            let error = left_out(steps, strength).unwrap_err();
            assert!(matches!(error, RenderError::Invalid { field: "strength", .. }), "{error}");
        }
        let message = left_out(25, 0.03).unwrap_err().to_string();
        assert_eq!(
            message,
            "strength: 0.03 leaves none of 25 steps; accepted: at least one step's share, 1/25"
        );
    }
}
