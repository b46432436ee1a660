//! T5's element-wise parts on the host, each in one pass over memory: RMSNorm, and the activation
//! of the gated feed-forward. libtorch needs five and two passes for them, and its tanh alone costs
//! as much as a third of a matrix product.
//!
//! Sums have a fixed order, and every fused multiply-add is written as one, so the bits do not
//! depend on the vector width that the compiler or the CPU has.
#![expect(
    unsafe_code,
    reason = "a tensor's memory is read and written in place; each use says why that is sound"
)]

use half::bf16;
use tch::{Device, Kind, Tensor};

use crate::layers::Torch;

/// Partial sums of a row: sixteen lanes, whatever the width of the vectors.
const LANES: usize = 16;

/// A number format of a network.
trait Float: Copy {
    fn widen(self) -> f32;
    fn round(value: f32) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }
}

impl Float for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// To nearest, ties to even. It omits the branch for NaN of the crate `half`, which cannot be
    /// vectorised: NaN may become infinity here, and an embedding with either is refused.
    #[inline(always)]
    fn round(value: f32) -> Self {
        let bits = value.to_bits();
        Self::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }
}

/// Whether these tensors can be processed here: on the host, in the same format, contiguous.
pub(super) fn fits(tensors: &[&Tensor]) -> bool {
    let kind = tensors[0].kind();
    matches!(kind, Kind::Float | Kind::BFloat16)
        && tensors.iter().all(|x| {
            x.device() == Device::Cpu && x.kind() == kind && x.is_contiguous() && x.numel() > 0
        })
}

/// x / rms(x) · weight over the last dimension, in f32, rounded once. For tensors that [`fits`]
/// accepts.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Torch<Tensor> {
    let out = x.f_empty_like()?;
    match x.kind() {
        Kind::BFloat16 => normalize::<bf16>(slice(x), slice(weight), eps as f32, slice_mut(&out)),
        _ => normalize::<f32>(slice(x), slice(weight), eps as f32, slice_mut(&out)),
    }
    Ok(out)
}

/// gelu(gate) · up, with the tanh approximation, in f32, rounded once; the result replaces `gate`.
/// For tensors of one shape that [`fits`] accepts.
pub(super) fn gated_gelu(gate: Tensor, up: &Tensor) -> Tensor {
    match gate.kind() {
        Kind::BFloat16 => gate_all::<bf16>(slice_mut(&gate), slice(up)),
        _ => gate_all::<f32>(slice_mut(&gate), slice(up)),
    }
    gate
}

/// The values of a contiguous tensor on the host, in the format of its kind.
fn slice<T: Float>(x: &Tensor) -> &[T] {
    // SAFETY: `fits` was asked: the memory is the host's, contiguous, of T's format, and lives as
    // long as the tensor.
    unsafe { std::slice::from_raw_parts(x.data_ptr().cast(), x.numel()) }
}

/// The same, for writing. The caller owns the tensor, and nothing else reads it meanwhile.
#[expect(
    clippy::mut_from_ref,
    reason = "a tensor is a handle; its memory is written through it as libtorch does"
)]
fn slice_mut<T: Float>(x: &Tensor) -> &mut [T] {
    // SAFETY: as above, and the callers' tensors are fresh, so that no other slice of this memory
    // exists.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr().cast(), x.numel()) }
}

fn normalize<T: Float>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has what the function needs.
        unsafe { x86::normalize(x, weight, eps, out) };
        return;
    }
    normalize_rows(x, weight, eps, out);
}

fn gate_all<T: Float>(gate: &mut [T], up: &[T]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has what the function needs.
        unsafe { x86::gate(gate, up) };
        return;
    }
    gate_each(gate, up);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Float, gate_each, normalize_rows};

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn normalize<T: Float>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
        normalize_rows(x, weight, eps, out);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn gate<T: Float>(gate: &mut [T], up: &[T]) {
        gate_each(gate, up);
    }
}

#[inline(always)]
fn normalize_rows<T: Float>(x: &[T], weight: &[T], eps: f32, out: &mut [T]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mut sums = [0f32; LANES];
        let lanes = x.chunks_exact(LANES);
        let rest = lanes.remainder();
        for lane in lanes {
            for (sum, value) in sums.iter_mut().zip(lane) {
                let value = value.widen();
                *sum = value.mul_add(value, *sum);
            }
        }
        for (sum, value) in sums.iter_mut().zip(rest) {
            let value = value.widen();
            *sum = value.mul_add(value, *sum);
        }
        let mean = sums.iter().sum::<f32>() / width as f32;
        let scale = (mean + eps).sqrt().recip();
        for ((out, value), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = T::round(value.widen() * scale * weight.widen());
        }
    }
}

#[inline(always)]
fn gate_each<T: Float>(gate: &mut [T], up: &[T]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = T::round(gelu(gate.widen()) * up.widen());
    }
}

/// x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), as x · sigmoid of twice the inner term.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769;
    let inner = TWICE_ROOT * x * (0.044_715 * x).mul_add(x, 1.0);
    x / (1.0 + exp(-inner))
}

/// eˣ to about one unit in the last place, between e⁻⁸⁷ and e⁸⁷; beyond that range, those limits.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding this rounds to a whole number, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2_HIGH, x));
    // Taylor series up to x⁶ on ±ln 2 / 2; the next term is below 2⁻²⁴.
    let mut series = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = rest.mul_add(series, factor);
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(127 << 23));
    series * power
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of all sizes and both signs.
    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i as f32 * 0.37).sin() * 10f32.powi(i as i32 % 7 - 4)) + 0.001)
            .collect()
    }

    #[test]
    fn an_exponential_is_one() {
        for i in -8700..=8700 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let off = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(off < 2.5e-7, "exp({x}) is off by {off:e}");
        }
        assert_eq!(exp(1000.0), exp(87.0));
        assert_eq!(exp(-1000.0), exp(-87.0));
    }

    #[test]
    fn both_are_what_libtorch_computes() {
        for (kind, tolerance) in [(Kind::Float, 2e-6), (Kind::BFloat16, 8e-3)] {
            let x = Tensor::from_slice(&values(3 * 100)).reshape([1, 3, 100]).to_kind(kind);
            let weight = Tensor::from_slice(&values(100)).to_kind(kind);
            let up = Tensor::from_slice(&values(300)).flip([0]).reshape([1, 3, 100]).to_kind(kind);
            assert!(fits(&[&x, &weight, &up]));
            assert!(!fits(&[&x.transpose(1, 2)]) && !fits(&[&x, &up.to_kind(Kind::Double)]));
            let wide = x.to_kind(Kind::Double);
            let root =
                (wide.square().mean_dim([-1i64].as_slice(), true, Kind::Double) + 1e-6).rsqrt();
            let exact = &wide * root * weight.to_kind(Kind::Double);
            near(&rms_norm(&x, &weight, 1e-6).unwrap(), &exact, tolerance);
            let exact = wide.gelu("tanh") * up.to_kind(Kind::Double);
            near(&gated_gelu(x.copy(), &up), &exact, tolerance);
        }
    }

    fn near(got: &Tensor, exact: &Tensor, tolerance: f64) {
        let off = (got.to_kind(Kind::Double) - exact).abs() / (exact.abs() + 1e-6);
        let worst = off.max().double_value(&[]);
        assert!(worst < tolerance, "{worst:e}");
    }

    #[test]
    fn vectors_give_the_bits_of_single_values() {
        let (x, up) = (values(203), values(203).into_iter().rev().collect::<Vec<_>>());
        let (mut plain, mut vector) = (x.clone(), x.clone());
        gate_each(&mut plain, &up);
        gate_all(&mut vector, &up);
        assert_eq!(plain, vector);
        let weight = &up[..29];
        let (mut plain, mut vector) = (vec![0.0; 203], vec![0.0; 203]);
        normalize_rows(&x, weight, 1e-6, &mut plain);
        normalize(&x, weight, 1e-6, &mut vector);
        assert_eq!(plain, vector);
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        for value in values(2000).into_iter().chain([
            0.0,
            -0.0,
            f32::INFINITY,
            1.0,
            1.003_906_3,
            1.011_718_8,
        ]) {
            assert_eq!(<bf16 as Float>::round(value), bf16::from_f32(value), "{value}");
        }
    }
}
