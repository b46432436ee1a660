//! Classifier-free guidance (Ho & Salimans 2022).

use tch::Tensor;

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

/// Whether a scale needs the unconditional half at all.
pub(crate) fn is_guided(scale: f64) -> bool {
    scale != 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

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
