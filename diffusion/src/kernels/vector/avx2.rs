//! Eight lanes with AVX2 and FMA.
//!
//! It has neither masks nor bf16. Whole vectors, which are nearly all, are loaded and stored as
//! they are; a mask with fewer lanes costs a branch and some instructions. bf16 is widened to f32
//! for every product, which is exact.

use std::arch::x86_64::*;

use super::{Bf16, Element, Mask, Simd};

/// AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// The mask of a whole vector.
const ALL: Mask = 0xff;

#[target_feature(enable = "avx2,fma")]
fn run_here<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// All bits of the lanes in the mask.
#[inline(always)]
unsafe fn spread(mask: Mask) -> __m256i {
    unsafe {
        let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(mask)), bits), bits)
    }
}

/// The lower halves of the lanes are the numbers of the mask.
#[inline(always)]
unsafe fn halves(mask: Mask, from: *const Bf16) -> __m256i {
    unsafe {
        if mask == ALL {
            return _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        }
        let mut some = [0_u16; Avx2::LANES];
        for (lane, value) in some.iter_mut().enumerate() {
            if mask >> lane & 1 == 1 {
                *value = from.add(lane).cast::<u16>().read();
            }
        }
        _mm256_cvtepu16_epi32(_mm_loadu_si128(some.as_ptr().cast()))
    }
}

/// The upper half of every lane's bits, as f32.
#[inline(always)]
unsafe fn upper(pairs: __m256) -> __m256 {
    unsafe { _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// The lower half of every lane's bits, as f32.
#[inline(always)]
unsafe fn lower(pairs: __m256) -> __m256 {
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(pairs))) }
}

/// The upper and the lower half of a vector, folded onto each other, down to one number.
macro_rules! fold {
    ($vector:expr, $whole:ident, $single:ident) => {{
        let vector = $vector;
        let half = $whole(_mm256_castps256_ps128(vector), _mm256_extractf128_ps::<1>(vector));
        let quarter = $whole(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32($single(quarter, _mm_movehdup_ps(quarter)))
    }};
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const BLOCKS: usize = 2;
    // Twelve sums, two weights and an input of 16 registers.
    const TILES: [usize; 3] = [8, 6, 4];
    const WHOLE_TILES: usize = 24;
    type Vector = __m256;

    fn runs_here() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    #[inline(always)]
    unsafe fn run<R>(work: impl FnOnce() -> R) -> R {
        unsafe { run_here(work) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_some(mask: Mask, from: *const f32) -> __m256 {
        unsafe {
            if mask == ALL {
                return _mm256_loadu_ps(from);
            }
            _mm256_maskload_ps(from, spread(mask))
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn store_some(to: *mut f32, mask: Mask, value: __m256) {
        unsafe {
            if mask == ALL {
                return _mm256_storeu_ps(to, value);
            }
            _mm256_maskstore_ps(to, spread(mask), value);
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn minus_mul(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    unsafe fn whole(a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn scale(a: __m256, n: __m256) -> __m256 {
        unsafe {
            // In two factors, since 2ⁿ may be too small or too large for an f32. The first product
            // is exact.
            let n = _mm256_cvtps_epi32(n);
            let some = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, some);
            _mm256_mul_ps(_mm256_mul_ps(a, power(some)), power(rest))
        }
    }
    #[inline(always)]
    unsafe fn where_above(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) }
    }
    #[inline(always)]
    unsafe fn pick(mask: Mask, yes: __m256, no: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(spread(mask))) }
    }
    #[inline(always)]
    unsafe fn strange(a: __m256) -> Mask {
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)) as Mask }
    }
    #[inline(always)]
    unsafe fn highest(a: __m256) -> f32 {
        unsafe { fold!(a, _mm_max_ps, _mm_max_ss) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        unsafe { fold!(a, _mm_add_ps, _mm_add_ss) }
    }

    #[inline(always)]
    unsafe fn splat_pair(from: *const Bf16) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_set1_epi32(from.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn multiply_pairs(sum: __m256, inputs: __m256, weights: __m256) -> __m256 {
        unsafe {
            let sum = _mm256_fmadd_ps(lower(inputs), lower(weights), sum);
            _mm256_fmadd_ps(upper(inputs), upper(weights), sum)
        }
    }
    #[inline(always)]
    unsafe fn widen_some(mask: Mask, from: *const Bf16) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves(mask, from))) }
    }
    #[inline(always)]
    unsafe fn narrow_some(to: *mut Bf16, mask: Mask, value: __m256) {
        unsafe {
            let bits = _mm256_castps_si256(value);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            // A NaN keeps its upper bits, and is quiet.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let rounded = _mm256_blendv_ps(
                _mm256_castsi256_ps(_mm256_add_epi32(bits, half)),
                _mm256_castsi256_ps(quiet),
                _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value),
            );
            let upper = _mm256_srli_epi32::<16>(_mm256_castps_si256(rounded));
            let halves = _mm_packus_epi32(
                _mm256_castsi256_si128(upper),
                _mm256_extracti128_si256::<1>(upper),
            );
            if mask == ALL {
                return _mm_storeu_si128(to.cast(), halves);
            }
            let mut some = [0_u16; Self::LANES];
            _mm_storeu_si128(some.as_mut_ptr().cast(), halves);
            for (lane, value) in some.into_iter().enumerate() {
                if mask >> lane & 1 == 1 {
                    to.wrapping_add(lane).write(Bf16(value));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn pair_some(mask: Mask, [low, high]: [Option<*const Bf16>; 2]) -> __m256 {
        unsafe {
            let low = match low {
                Some(line) => halves(mask, line),
                None => _mm256_setzero_si256(),
            };
            let high = match high {
                Some(line) => halves(mask, line),
                None => _mm256_setzero_si256(),
            };
            _mm256_castsi256_ps(_mm256_or_si256(low, _mm256_slli_epi32::<16>(high)))
        }
    }

    #[inline(always)]
    unsafe fn join_threes<E: Element>(
        left: *const f32,
        right: *const f32,
        count: usize,
        to: *mut E,
    ) {
        for at in (0..count).step_by(3) {
            for channel in 0..3 {
                unsafe {
                    to.add(2 * at + channel).write(E::of(*left.add(at + channel)));
                    to.add(2 * at + 3 + channel).write(E::of(*right.add(at + channel)));
                }
            }
        }
    }
}

/// 2ⁿ for a whole n between −126 and 127.
#[inline(always)]
unsafe fn power(n: __m256i) -> __m256 {
    unsafe {
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
    }
}
