//! Sixteen numbers at a time: AVX-512 for f32 and bf16 alike.

#![expect(
    unsafe_code,
    reason = "vector instructions and raw pointers; each function says what its caller owes"
)]

use std::arch::x86_64::*;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// The type of a number in pictures and weights.
///
/// # Safety of every function
/// The CPU has [`super::available`]'s instructions. Pointers are valid for the lanes in the mask.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Neighbouring inputs per multiply-and-add.
    const STEP: usize;
    const ZERO: Self;

    unsafe fn load_some(mask: __mmask16, from: *const Self) -> __m512;
    unsafe fn store_some(to: *mut Self, mask: __mmask16, value: __m512);
    /// The next `STEP` inputs, in every lane.
    unsafe fn broadcast(from: *const Self) -> __m512;
    /// `STEP` weights for each of sixteen outputs.
    unsafe fn weights(from: *const Self) -> __m512;
    /// sum + Σ inputs · weights.
    unsafe fn multiply_add(sum: __m512, inputs: __m512, weights: __m512) -> __m512;
    /// Sixteen lanes of `STEP` neighbours each, from as many lines; a missing line is 0.
    unsafe fn interleave(mask: __mmask16, lines: [Option<*const Self>; 2]) -> __m512;
    fn of(value: f32) -> Self;

    /// [`Self::of`] for many values, with the rounding used for stored pictures.
    fn round(values: &[f32], to: &mut [Self]) {
        assert_eq!(values.len(), to.len(), "values");
        assert!(super::available(), "the caller asks first");
        for (values, to) in values.chunks(LANES).zip(to.chunks_mut(LANES)) {
            let mask = first(values.len());
            // SAFETY: `available` was asked; the mask names the lanes that both chunks have.
            unsafe {
                Self::store_some(
                    to.as_mut_ptr(),
                    mask,
                    _mm512_maskz_loadu_ps(mask, values.as_ptr()),
                )
            };
        }
    }
}

impl Element for f32 {
    const STEP: usize = 1;
    const ZERO: Self = 0.0;

    #[inline(always)]
    unsafe fn load_some(mask: __mmask16, from: *const Self) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn store_some(to: *mut Self, mask: __mmask16, value: __m512) {
        unsafe { _mm512_mask_storeu_ps(to, mask, value) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const Self) -> __m512 {
        unsafe { _mm512_set1_ps(*from) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const Self) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, inputs: __m512, weights: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(inputs, weights, sum) }
    }
    #[inline(always)]
    unsafe fn interleave(mask: __mmask16, [line, _]: [Option<*const Self>; 2]) -> __m512 {
        unsafe { line.map_or(_mm512_setzero_ps(), |line| _mm512_maskz_loadu_ps(mask, line)) }
    }
    fn of(value: f32) -> Self {
        value
    }
}

/// The upper half of an f32.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

impl Element for Bf16 {
    const STEP: usize = 2;
    const ZERO: Self = Self(0);

    #[inline(always)]
    unsafe fn load_some(mask: __mmask16, from: *const Self) -> __m512 {
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn store_some(to: *mut Self, mask: __mmask16, value: __m512) {
        unsafe {
            let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value));
            _mm256_mask_storeu_epi16(to.cast(), mask, halves);
        }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const Self) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const Self) -> __m512 {
        unsafe { _mm512_loadu_ps(from.cast()) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512, inputs: __m512, weights: __m512) -> __m512 {
        unsafe {
            let inputs = std::mem::transmute::<__m512, __m512bh>(inputs);
            let weights = std::mem::transmute::<__m512, __m512bh>(weights);
            _mm512_dpbf16_ps(sum, inputs, weights)
        }
    }
    #[inline(always)]
    unsafe fn interleave(mask: __mmask16, lines: [Option<*const Self>; 2]) -> __m512 {
        unsafe {
            let [low, high] = lines.map(|line| match line {
                Some(line) => _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, line.cast())),
                None => _mm512_setzero_si512(),
            });
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        }
    }
    fn of(value: f32) -> Self {
        let bits = value.to_bits();
        // Weights that are stored in bf16 lose nothing; rounding takes three times as long.
        if bits.trailing_zeros() >= 16 {
            return Self((bits >> 16) as u16);
        }
        Self(half::bf16::from_f32(value).to_bits())
    }
}

/// The mask of the first `count` lanes; all lanes if `count` is sixteen or more.
#[inline(always)]
pub(crate) fn first(count: usize) -> __mmask16 {
    if count >= LANES { 0xffff } else { (1 << count) - 1 }
}

/// eˣ within two units in the last place; 0 and ∞ outside f32's range.
///
/// # Safety
/// The CPU has AVX-512F.
#[inline(always)]
pub(crate) unsafe fn exp(x: __m512) -> __m512 {
    unsafe {
        let x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-104.0)), _mm512_set1_ps(89.0));
        let n = _mm512_roundscale_ps::<0x08>(_mm512_mul_ps(
            x,
            _mm512_set1_ps(std::f32::consts::LOG2_E),
        ));
        // ln 2 in two parts, so that the remainder is exact.
        let rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
        let rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), rest);
        let mut sum = _mm512_set1_ps(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
            sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(coefficient));
        }
        let sum = _mm512_fmadd_ps(
            sum,
            _mm512_mul_ps(rest, rest),
            _mm512_add_ps(rest, _mm512_set1_ps(1.0)),
        );
        _mm512_scalef_ps(sum, n)
    }
}

/// Φ(x) = (1 + erf(x / √2)) / 2, within 1e-7 (Abramowitz and Stegun, 7.1.26).
///
/// # Safety
/// The CPU has AVX-512F.
#[inline(always)]
pub(crate) unsafe fn normal_cdf(x: __m512) -> __m512 {
    unsafe {
        let one = _mm512_set1_ps(1.0);
        let z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(std::f32::consts::FRAC_1_SQRT_2));
        let t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.327_591_1), one));
        let mut sum = _mm512_set1_ps(1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            sum = _mm512_fmadd_ps(sum, t, _mm512_set1_ps(coefficient));
        }
        let minus_square = _mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.0));
        // The smaller tail, computed from the magnitude.
        let tail = _mm512_mul_ps(_mm512_mul_ps(sum, t), exp(minus_square));
        let tail = _mm512_mul_ps(tail, _mm512_set1_ps(0.5));
        let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps());
        _mm512_mask_sub_ps(tail, positive, one, tail)
    }
}
