//! Operations on whole pictures between forward passes, each in one pass over memory: weighted
//! sums, and joining two pictures in their channels.

#![expect(
    unsafe_code,
    reason = "vector instructions over slices whose lengths are checked on entry"
)]

use super::pool;
use super::vector::{Element, Simd, first};

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
pub(crate) fn blend<S: Simd>(
    threads: usize,
    terms: &[(&[f32], f32)],
    limit: Option<f32>,
    out: &mut [f32],
) {
    assert!(S::runs_here(), "the caller asks first");
    for (values, _) in terms {
        assert_eq!(values.len(), out.len(), "terms");
    }
    let count = out.len();
    let place = Place(out.as_mut_ptr());
    pool::run(threads, count.div_ceil(PIECE), &|piece| {
        let from = piece * PIECE;
        let to = (from + PIECE).min(count);
        // SAFETY: the CPU was asked; `from..to` lies within every slice.
        unsafe {
            let (limit, out) = (limit.unwrap_or(f32::INFINITY), place.at(from));
            S::run(
                #[inline(always)]
                || blend_piece::<S>(terms, limit, from, to - from, out),
            );
        }
    });
}

#[inline(always)]
unsafe fn blend_piece<S: Simd>(
    terms: &[(&[f32], f32)],
    limit: f32,
    from: usize,
    count: usize,
    to: *mut f32,
) {
    unsafe {
        let (most, least) = (S::splat(limit), S::splat(-limit));
        let mut at = 0;
        while at < count {
            let mask = first::<S>(count - at);
            let mut sum = S::splat(0.0);
            for (values, factor) in terms {
                let value = f32::load_some::<S>(mask, values.as_ptr().add(from + at));
                sum = S::mul_add(value, S::splat(*factor), sum);
            }
            // If one operand is NaN, these return the second.
            let bounded = S::max(least, S::min(most, sum));
            f32::store_some::<S>(to.add(at), mask, bounded);
            at += S::LANES;
        }
    }
}

/// Channels of each of two pictures that are joined.
const CHANNELS: usize = 3;

/// Joins two pictures of three channels into one of six, in the network's format.
///
/// # Panics
/// When the slices' lengths do not match.
pub(crate) fn beside<S: Simd, E: Element>(
    threads: usize,
    left: &[f32],
    right: &[f32],
    out: &mut [E],
) {
    assert!(S::runs_here(), "the caller asks first");
    assert_eq!((left.len(), right.len() + left.len()), (right.len(), out.len()), "pictures");
    let count = left.len() / CHANNELS;
    let place = Place(out.as_mut_ptr());
    pool::run(threads, count.div_ceil(PIECE), &|piece| {
        let from = piece * PIECE;
        let to = (from + PIECE).min(count);
        let (left, right) =
            (&left[from * CHANNELS..to * CHANNELS], &right[from * CHANNELS..to * CHANNELS]);
        // SAFETY: the CPU was asked; pixels `from..to` lie within the output.
        unsafe {
            let out = place.at(2 * from * CHANNELS);
            S::run(
                #[inline(always)]
                || S::join_threes::<E>(left.as_ptr(), right.as_ptr(), left.len(), out),
            );
        }
    });
}
