//! Classifier-free guidance (Ho & Salimans 2022), and at which steps it counts.

use tch::Tensor;

use crate::error::RenderError;
use crate::layers::Torch;
use crate::sampler::Guided;

/// The picture's channels; a network with twice as many gives a variance after them.
pub(crate) const CHANNELS: i64 = 3;

/// Splits the network's output and moves the conditional prediction away from the unconditional one:
/// u + scale · (c − u), on the first three channels. The variance is the conditional half's.
///
/// `output` holds the unconditional rows, then the conditional rows; with a scale of 1, only the conditional ones.
pub(crate) fn guide(output: &Tensor, scale: f64) -> Torch<Guided> {
    let (rows, channels, ..) = output.size4()?;
    let variance =
        |rows: &Tensor| (channels == 2 * CHANNELS).then(|| rows.f_narrow(1, CHANNELS, CHANNELS)).transpose();
    if !is_guided(scale) {
        return Ok(Guided { mean: output.f_narrow(1, 0, CHANNELS)?, variance: variance(output)? });
    }
    let unconditional = output.f_narrow(0, 0, rows / 2)?.f_narrow(1, 0, CHANNELS)?;
    let conditional_rows = output.f_narrow(0, rows / 2, rows / 2)?;
    let conditional = conditional_rows.f_narrow(1, 0, CHANNELS)?;
    let mean = conditional.f_sub(&unconditional)?.f_mul_scalar_(scale)?.f_add_(&unconditional)?;
    Ok(Guided { mean, variance: variance(&conditional_rows)? })
}

/// At which steps the weight counts. Where the weight is 1, only the conditional half runs, at half the cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum GuidanceSchedule {
    /// At all.
    #[default]
    Constant,
    /// At training timesteps `from` to `to`, both included; elsewhere it is 1 (Kynkäänniemi et al. 2024).
    Timesteps {
        /// The lowest.
        from: u32,
        /// The highest.
        to: u32,
    },
    /// At step i of n where `from` ≤ i/n < `to`; elsewhere it is 1.
    Steps {
        /// 0…1.
        from: f64,
        /// 0…1, above `from`.
        to: f64,
    },
    /// At the first steps, then at every second one, a low weight coming first (Ho et al. 2022, Imagen Video).
    Oscillating {
        /// Steps before it oscillates.
        first: usize,
        /// The low weight.
        low: f64,
    },
}

impl GuidanceSchedule {
    /// Whether any step may need the unconditional half when `scale` is the weight.
    pub(crate) fn guided(self, scale: f64) -> bool {
        is_guided(scale) || matches!(self, Self::Oscillating { low, .. } if is_guided(low))
    }

    pub(crate) fn check(self) -> Result<(), RenderError> {
        let (valid, accepted) = match self {
            Self::Constant => (true, ""),
            Self::Timesteps { from, to } => (from <= to, "from at most to"),
            Self::Steps { from, to } => (from >= 0.0 && from < to && to <= 1.0, "0 to 1, from below to"),
            Self::Oscillating { low, .. } => (low.is_finite(), "a finite low weight"),
        };
        if valid {
            return Ok(());
        }
        Err(RenderError::invalid("guidance_schedule", format!("{self:?}; accepted: {accepted}")))
    }

    /// The weight of every step of a stage that visits `timesteps`.
    pub(crate) fn weights(self, scale: f64, timesteps: &[u32]) -> Vec<f64> {
        let steps = timesteps.len() as f64;
        let weight = |(index, timestep): (usize, &u32)| match self {
            Self::Constant => scale,
            Self::Timesteps { from, to } if (from..=to).contains(timestep) => scale,
            Self::Steps { from, to } if (from..to).contains(&(index as f64 / steps)) => scale,
            Self::Timesteps { .. } | Self::Steps { .. } => 1.0,
            Self::Oscillating { first, low } if index >= first && (index - first).is_multiple_of(2) => low,
            Self::Oscillating { .. } => scale,
        };
        timesteps.iter().enumerate().map(weight).collect()
    }
}

/// Whether a scale needs the unconditional half at all.
pub(crate) fn is_guided(scale: f64) -> bool {
    scale != 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_schedule_weighs_its_steps() {
        let timesteps = [900, 700, 500, 300, 100];
        let weights = |schedule: GuidanceSchedule| schedule.weights(5.0, &timesteps);
        assert_eq!(weights(GuidanceSchedule::Constant), [5.0; 5]);
        let of = |from, to| weights(GuidanceSchedule::Timesteps { from, to });
        assert_eq!(of(300, 700), [1.0, 5.0, 5.0, 5.0, 1.0], "both ends are in");
        assert_eq!(of(301, 699), [1.0, 1.0, 5.0, 1.0, 1.0]);
        let of = |from, to| weights(GuidanceSchedule::Steps { from, to });
        assert_eq!(of(0.2, 0.6), [1.0, 5.0, 5.0, 1.0, 1.0], "the end is not in");
        assert_eq!(of(0.0, 1.0), [5.0; 5]);
        let of = |first, low| weights(GuidanceSchedule::Oscillating { first, low });
        assert_eq!(of(2, 1.0), [5.0, 5.0, 1.0, 5.0, 1.0]);
        assert_eq!(of(0, 2.0), [2.0, 5.0, 2.0, 5.0, 2.0]);
        assert_eq!(of(9, 2.0), [5.0; 5]);
    }

    #[test]
    fn guidance_acts_on_the_picture_and_leaves_the_conditional_variance() {
        let output = Tensor::from_slice(&(0..12).map(|v| v as f32).collect::<Vec<_>>()).view([2, 6, 1, 1]);
        let guided = guide(&output, 3.0).unwrap();
        let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.contiguous().view([-1])).unwrap();
        assert_eq!(values(&guided.mean), [18.0, 19.0, 20.0]);
        assert_eq!(values(&guided.variance.unwrap()), [9.0, 10.0, 11.0]);
        let single = guide(&output.narrow(0, 1, 1), 1.0).unwrap();
        assert_eq!(values(&single.mean), [6.0, 7.0, 8.0]);
    }
}
