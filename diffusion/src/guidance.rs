//! Classifier-free guidance (Ho & Salimans 2022).

use darkroom_core::sampling::{GuidanceSchedule, is_guided};
use tch::Tensor;

use crate::error::RenderError;
use crate::layers::Torch;

/// The picture's channels; a network with twice as many also gives a variance, after them.
pub(crate) const CHANNELS: i64 = 3;

/// The network's prediction for one step, after guidance.
pub(crate) struct Guided {
    /// Noise, clean picture or velocity, `[rows, 3, height, width]`.
    pub(crate) mean: Tensor,
    /// The raw variance channels, if the network has them.
    pub(crate) variance: Option<Tensor>,
}

/// Splits the network's output and moves the conditional prediction away from the unconditional
/// one: u + scale · (c − u), on the first three channels. The variance comes from the conditional
/// half.
///
/// `output` has the unconditional rows, then the conditional rows; with a scale of 1, only the
/// conditional ones.
pub(crate) fn guide(output: &Tensor, scale: f64) -> Torch<Guided> {
    let (rows, channels, ..) = output.size4()?;
    let variance = |rows: &Tensor| {
        (channels == 2 * CHANNELS).then(|| rows.f_narrow(1, CHANNELS, CHANNELS)).transpose()
    };
    if !is_guided(scale) {
        return Ok(Guided { mean: output.f_narrow(1, 0, CHANNELS)?, variance: variance(output)? });
    }
    let unconditional = output.f_narrow(0, 0, rows / 2)?.f_narrow(1, 0, CHANNELS)?;
    let conditional_rows = output.f_narrow(0, rows / 2, rows / 2)?;
    let conditional = conditional_rows.f_narrow(1, 0, CHANNELS)?;
    let mean = conditional.f_sub(&unconditional)?.f_mul_scalar_(scale)?.f_add_(&unconditional)?;
    Ok(Guided { mean, variance: variance(&conditional_rows)? })
}

/// Whether a schedule is valid. A schedule that was parsed from a text always is; one that a
/// program made may not be.
pub(crate) fn check(schedule: GuidanceSchedule) -> Result<(), RenderError> {
    let (valid, accepted) = match schedule {
        GuidanceSchedule::Constant => (true, ""),
        GuidanceSchedule::Timesteps { from, to } => (from <= to, "from at most to"),
        GuidanceSchedule::Steps { from, to } => {
            (from >= 0.0 && from < to && to <= 100.0, "0 to 100 per cent, from below to")
        }
        GuidanceSchedule::Oscillating { low, .. } => (low.is_finite(), "a finite low weight"),
    };
    if valid {
        return Ok(());
    }
    Err(RenderError::invalid("guidance_schedule", format!("{schedule}; accepted: {accepted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_acts_on_the_picture_and_leaves_the_conditional_variance() {
        let output =
            Tensor::from_slice(&(0..12).map(|v| v as f32).collect::<Vec<_>>()).view([2, 6, 1, 1]);
        let guided = guide(&output, 3.0).unwrap();
        let values =
            |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1])).unwrap();
        assert_eq!(values(&guided.mean), [18.0, 19.0, 20.0]);
        assert_eq!(values(&guided.variance.unwrap()), [9.0, 10.0, 11.0]);
        let single = guide(&output.narrow(0, 1, 1), 1.0).unwrap();
        assert_eq!(values(&single.mean), [6.0, 7.0, 8.0]);
    }
}
