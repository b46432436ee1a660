//! Keeping a predicted clean picture within bounds.

use tch::Tensor;

use crate::layers::Torch;
use crate::schedule::Limit;

/// The bound on both sides that does not depend on the picture, if that is the whole thresholding.
pub(super) fn fixed_limit(thresholding: Limit) -> Option<f64> {
    match thresholding {
        Limit::Static { range } => Some(range),
        // s is at least 1 and at most 1, so no quantile is needed.
        Limit::Dynamic { max, .. } if max <= 1.0 => Some(1.0),
        Limit::Off | Limit::Dynamic { .. } => None,
    }
}

/// Bounds each row of `x` separately, unless [`fixed_limit`] has done it.
pub(super) fn bound(x: Tensor, thresholding: Limit) -> Torch<Tensor> {
    match thresholding {
        Limit::Off | Limit::Static { .. } => Ok(x),
        Limit::Dynamic { max, .. } if max <= 1.0 => Ok(x),
        Limit::Dynamic { ratio, max } => {
            let scale = magnitude_quantile(&x, ratio)?.f_clamp(1.0, max)?;
            let rows = scale.size()[0];
            let scale = scale.f_view([rows, 1, 1, 1])?;
            let low = scale.f_neg()?;
            x.f_clamp_tensor(Some(&low), Some(&scale))?.f_div_(&scale)
        }
    }
}

/// The quantile of each row's magnitudes, interpolated between the two nearest values like
/// torch.quantile (in f32), `[rows]`.
///
/// It selects two order statistics instead of sorting: a 1024 × 1024 picture has three million
/// values.
fn magnitude_quantile(x: &Tensor, ratio: f64) -> Torch<Tensor> {
    let (rows, channels, height, width) = x.size4()?;
    let count = channels * height * width;
    let magnitudes = x.f_permute([0, 2, 3, 1])?.f_reshape([rows, count])?.f_abs()?;
    let rank = (ratio as f32 * (count - 1) as f32).min((count - 1) as f32);
    let below = rank.floor();
    let order =
        |rank: f32| Ok::<_, tch::TchError>(magnitudes.f_kthvalue(rank as i64 + 1, 1, false)?.0);
    let lower = order(below)?;
    if rank == below {
        return Ok(lower);
    }
    lower.f_lerp(&order(below + 1.0)?, f64::from(rank - below))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn the_quantile_is_torchs() {
        for (count, ratio) in [(16 * 16, 0.95), (24 * 40, 0.995), (4, 0.5), (1, 0.3), (9, 1.0)] {
            let x = Tensor::randn([2, 3, count, 1], (Kind::Float, Device::Cpu));
            let expected =
                x.abs().view([2, -1]).quantile(&Tensor::from(ratio as f32), 1, false, "linear");
            let got = magnitude_quantile(&x, ratio).unwrap();
            assert_eq!(got, expected, "{count} {ratio}");
        }
    }

    #[test]
    fn each_row_is_scaled_by_its_own_quantile() {
        let x =
            Tensor::from_slice(&[0.5f32, -4.0, 0.25, -0.5]).view([2, 1, 1, 2]).repeat([1, 3, 1, 1]);
        let got = bound(x, Limit::Dynamic { ratio: 1.0, max: 2.0 }).unwrap();
        let row =
            |index| Vec::<f32>::try_from(got.select(0, index).select(0, 0).view([-1])).unwrap();
        assert_eq!(row(0), [0.25, -1.0], "s is clamped to 2");
        assert_eq!(row(1), [0.25, -0.5], "s is at least 1");
    }

    #[test]
    fn with_a_maximum_of_one_it_is_a_clamp() {
        let x = Tensor::randn([2, 3, 8, 8], (Kind::Float, Device::Cpu)) * 3.0;
        let settle = |thresholding| {
            let limited = super::super::weighted(&[(&x, 1.0)], fixed_limit(thresholding)).unwrap();
            bound(limited, thresholding).unwrap()
        };
        assert_eq!(settle(Limit::Dynamic { ratio: 0.9, max: 1.0 }), x.clamp(-1.0, 1.0));
        assert_eq!(settle(Limit::Static { range: 0.5 }), x.clamp(-0.5, 0.5));
        assert_eq!(settle(Limit::Off), x);
    }
}
