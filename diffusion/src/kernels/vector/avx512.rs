//! Sixteen lanes with AVX-512, with or without its bf16 instructions.

use std::arch::x86_64::*;

use super::{Bf16, Element, Mask, Simd, first};

/// AVX-512 (F, BW and VL), and its bf16 instructions if `BF16`. Without them, products of pairs
/// are two of f32.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn run_with_bf16<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn run_without<R>(work: impl FnOnce() -> R) -> R {
    work()
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = 16;
    const BLOCKS: usize = 3;
    // 24 sums, three weights and an input of 32 registers.
    const TILES: [usize; 3] = [8, 8, 8];
    const WHOLE_TILES: usize = 8;
    type Vector = __m512;

    fn runs_here() -> bool {
        std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && (!BF16 || std::arch::is_x86_feature_detected!("avx512bf16"))
    }

    #[inline(always)]
    unsafe fn run<R>(work: impl FnOnce() -> R) -> R {
        if BF16 { unsafe { run_with_bf16(work) } } else { unsafe { run_without(work) } }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_some(mask: Mask, from: *const f32) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn store_some(to: *mut f32, mask: Mask, value: __m512) {
        unsafe { _mm512_mask_storeu_ps(to, mask, value) }
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn minus_mul(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn whole(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<0x08>(a) }
    }
    #[inline(always)]
    unsafe fn scale(a: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    unsafe fn where_above(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        unsafe { _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), yes) }
    }
    #[inline(always)]
    unsafe fn pick(mask: Mask, yes: __m512, no: __m512) -> __m512 {
        unsafe { _mm512_mask_mov_ps(no, mask, yes) }
    }
    #[inline(always)]
    unsafe fn strange(a: __m512) -> Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) }
    }
    #[inline(always)]
    unsafe fn highest(a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const Bf16) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn multiply_pairs(sum: __m512, inputs: __m512, weights: __m512) -> __m512 {
        unsafe {
            if BF16 {
                let inputs = std::mem::transmute::<__m512, __m512bh>(inputs);
                let weights = std::mem::transmute::<__m512, __m512bh>(weights);
                return _mm512_dpbf16_ps(sum, inputs, weights);
            }
            let (inputs, weights) = (_mm512_castps_si512(inputs), _mm512_castps_si512(weights));
            let sum = _mm512_fmadd_ps(
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(inputs)),
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(weights)),
                sum,
            );
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_fmadd_ps(
                _mm512_castsi512_ps(_mm512_and_si512(inputs, upper)),
                _mm512_castsi512_ps(_mm512_and_si512(weights, upper)),
                sum,
            )
        }
    }
    #[inline(always)]
    unsafe fn widen_some(mask: Mask, from: *const Bf16) -> __m512 {
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn narrow_some(to: *mut Bf16, mask: Mask, value: __m512) {
        unsafe {
            let halves = if BF16 {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value))
            } else {
                let bits = _mm512_castps_si512(value);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
                // A NaN keeps its upper bits, and is quiet.
                let rounded = _mm512_mask_mov_epi32(
                    _mm512_add_epi32(bits, half),
                    Self::strange(value),
                    _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000)),
                );
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
            };
            _mm256_mask_storeu_epi16(to.cast(), mask, halves);
        }
    }
    #[inline(always)]
    unsafe fn pair_some(mask: Mask, [low, high]: [Option<*const Bf16>; 2]) -> __m512 {
        unsafe {
            let low = widened_bits(mask, low);
            let high = widened_bits(mask, high);
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        }
    }

    #[inline(always)]
    unsafe fn join_threes<E: Element>(
        left: *const f32,
        right: *const f32,
        count: usize,
        to: *mut E,
    ) {
        unsafe {
            let upper = _mm512_loadu_epi32(ORDER.as_ptr());
            let lower = _mm512_loadu_epi32(ORDER.as_ptr().add(Self::LANES));
            let mut at = 0;
            while at < count {
                let values = (PIXELS * CHANNELS).min(count - at);
                let mask = first::<Self>(values);
                let left = Self::load_some(mask, left.add(at));
                let right = Self::load_some(mask, right.add(at));
                let to = to.add(2 * at);
                let joined = _mm512_permutex2var_ps(left, upper, right);
                E::store_some::<Self>(to, first::<Self>(2 * values), joined);
                let mask = first::<Self>((2 * values).saturating_sub(Self::LANES));
                let joined = _mm512_permutex2var_ps(left, lower, right);
                E::store_some::<Self>(to.wrapping_add(Self::LANES), mask, joined);
                at += values;
            }
        }
    }
}

#[inline(always)]
unsafe fn widened_bits(mask: Mask, line: Option<*const Bf16>) -> __m512i {
    unsafe {
        match line {
            Some(line) => _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, line.cast())),
            None => _mm512_setzero_si512(),
        }
    }
}

/// Channels of each of two pictures that are joined.
const CHANNELS: usize = 3;

/// Pixels of them that fill a vector.
const PIXELS: usize = 16 / CHANNELS;

/// The source of the lanes of five pixels: 0 to 15 the left picture's, 16 to 31 the right one's.
const ORDER: [i32; 32] = {
    let mut order = [0; 32];
    let mut at = 0;
    while at < 2 * PIXELS * CHANNELS {
        let (pixel, channel) = (at / (2 * CHANNELS), at % (2 * CHANNELS));
        let lane = pixel * CHANNELS + channel % CHANNELS;
        order[at] = if channel < CHANNELS { lane } else { 16 + lane } as i32;
        at += 1;
    }
    order
};
