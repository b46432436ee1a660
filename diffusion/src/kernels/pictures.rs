//! Operations on whole pictures between forward passes, each in one pass over memory: weighted
//! sums, and joining two pictures in their channels.

#![expect(
    unsafe_code,
    reason = "vector instructions over slices whose lengths are checked on entry"
)]

use std::arch::x86_64::*;

use super::pool;
use super::vector::{Element, LANES, first};

/// Values per piece of work.
const PIECE: usize = 1 << 14;

struct Place<E>(*mut E);

// SAFETY: each piece writes its own values.
unsafe impl<E: Send> Sync for Place<E> {}

impl<E> Place<E> {
    /// # Safety
    /// `index` lies within what the pointer was made from.
    unsafe fn at(&self, index: usize) -> *mut E {
        unsafe { self.0.add(index) }
    }
}

/// out = Σ factor · values, summed in the given order, then kept within ±`limit`. NaN stays NaN.
///
/// # Panics
/// When the slices differ in length.
pub(crate) fn blend(threads: usize, terms: &[(&[f32], f32)], limit: Option<f32>, out: &mut [f32]) {
    assert!(super::available(), "the caller asks first");
    for (values, _) in terms {
        assert_eq!(values.len(), out.len(), "terms");
    }
    let count = out.len();
    let place = Place(out.as_mut_ptr());
    pool::run(threads, count.div_ceil(PIECE), &|piece| {
        let from = piece * PIECE;
        let to = (from + PIECE).min(count);
        // SAFETY: `available` was asked; `from..to` lies within every slice.
        unsafe {
            blend_piece(terms, limit.unwrap_or(f32::INFINITY), from, to - from, place.at(from))
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn blend_piece(
    terms: &[(&[f32], f32)],
    limit: f32,
    from: usize,
    count: usize,
    to: *mut f32,
) {
    unsafe {
        let (most, least) = (_mm512_set1_ps(limit), _mm512_set1_ps(-limit));
        let mut at = 0;
        while at < count {
            let mask = first(count - at);
            let mut sum = _mm512_setzero_ps();
            for (values, factor) in terms {
                let value = f32::load_some(mask, values.as_ptr().add(from + at));
                sum = _mm512_fmadd_ps(value, _mm512_set1_ps(*factor), sum);
            }
            // If one operand is NaN, these return the second.
            let bounded = _mm512_max_ps(least, _mm512_min_ps(most, sum));
            f32::store_some(to.add(at), mask, bounded);
            at += LANES;
        }
    }
}

/// Channels of each of two pictures that are joined.
pub(crate) const CHANNELS: usize = 3;

/// Pixels that fill a vector.
const PIXELS: usize = LANES / CHANNELS;

/// Joins two pictures of three channels into one of six, in the network's format.
///
/// # Panics
/// When the slices' lengths do not match.
pub(crate) fn beside<E: Element>(threads: usize, left: &[f32], right: &[f32], out: &mut [E]) {
    assert!(super::available(), "the caller asks first");
    assert_eq!((left.len(), right.len() + left.len()), (right.len(), out.len()), "pictures");
    let count = left.len() / CHANNELS;
    let place = Place(out.as_mut_ptr());
    pool::run(threads, count.div_ceil(PIECE), &|piece| {
        let from = piece * PIECE;
        let to = (from + PIECE).min(count);
        let (left, right) =
            (&left[from * CHANNELS..to * CHANNELS], &right[from * CHANNELS..to * CHANNELS]);
        // SAFETY: `available` was asked; pixels `from..to` lie within the output.
        unsafe { interleave(left, right, place.at(2 * from * CHANNELS)) }
    });
}

/// The source of the lanes of five pixels: 0 to 15 the left picture's, 16 to 31 the right one's.
const ORDER: [i32; 2 * LANES] = {
    let mut order = [0; 2 * LANES];
    let mut at = 0;
    while at < 2 * PIXELS * CHANNELS {
        let (pixel, channel) = (at / (2 * CHANNELS), at % (2 * CHANNELS));
        let lane = pixel * CHANNELS + channel % CHANNELS;
        order[at] = if channel < CHANNELS { lane } else { LANES + lane } as i32;
        at += 1;
    }
    order
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn interleave<E: Element>(left: &[f32], right: &[f32], to: *mut E) {
    unsafe {
        let orders =
            [_mm512_loadu_epi32(ORDER.as_ptr()), _mm512_loadu_epi32(ORDER.as_ptr().add(LANES))];
        let count = left.len();
        let mut at = 0;
        while at < count {
            let values = (PIXELS * CHANNELS).min(count - at);
            let [left, right] =
                [left, right].map(|from| f32::load_some(first(values), from.as_ptr().add(at)));
            for (half, order) in orders.into_iter().enumerate() {
                let mask = first((2 * values).saturating_sub(half * LANES));
                let joined = _mm512_permutex2var_ps(left, order, right);
                E::store_some(to.add(2 * at + half * LANES), mask, joined);
            }
            at += values;
        }
    }
}
