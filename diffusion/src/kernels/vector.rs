//! Vectors of f32: eight lanes with AVX2, sixteen with AVX-512. And the number formats of pictures
//! and weights, f32 and bf16.
//!
//! Kernels are written once, over [`Simd`]. Each is compiled for every instruction set: its body is
//! inlined into [`Simd::run`], whose code has the set's instructions.

#![expect(
    unsafe_code,
    reason = "vector instructions and raw pointers; each function says what its caller owes"
)]

mod avx2;
mod avx512;

pub(crate) use avx2::Avx2;
pub(crate) use avx512::Avx512;

/// Lanes of the widest vector.
pub(crate) const MOST_LANES: usize = 16;

/// Lanes of a vector, one bit each, the first lane lowest.
pub(crate) type Mask = u16;

/// An instruction set.
///
/// # Safety of every function
/// The CPU has the instructions ([`Simd::runs_here`]), and the call is inlined into the work of
/// [`Simd::run`]. (Elsewhere it computes the same, slowly.) Pointers are valid for the lanes in the
/// mask, or for all lanes if there is no mask.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Lanes of a vector.
    const LANES: usize;
    /// The most blocks of lanes whose sums are computed together; at most three.
    const BLOCKS: usize;
    /// How many cells (pixels, tiles or queries) are computed together with one, two and three
    /// blocks of lanes: 4, 6 or 8. Their sums fill the registers.
    const TILES: [usize; 3];
    /// A multiple of all [`Self::TILES`].
    const WHOLE_TILES: usize;
    /// `LANES` numbers in f32.
    type Vector: Copy;

    /// Whether this CPU has the instructions.
    fn runs_here() -> bool;

    /// Runs work that is compiled for this instruction set, if everything in it is inlined.
    unsafe fn run<R>(work: impl FnOnce() -> R) -> R;

    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// Lanes outside the mask become 0.
    unsafe fn load_some(mask: Mask, from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, value: Self::Vector);
    unsafe fn store_some(to: *mut f32, mask: Mask, value: Self::Vector);

    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a · b + c, rounded once.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// c − a · b, rounded once.
    unsafe fn minus_mul(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// If one operand is NaN, the second.
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// If one operand is NaN, the second.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn abs(a: Self::Vector) -> Self::Vector;
    /// To the nearest whole number.
    unsafe fn whole(a: Self::Vector) -> Self::Vector;
    /// a · 2ⁿ, rounded once, for a whole n between −150 and 130.
    unsafe fn scale(a: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// `yes` in lanes in which a > b, and `no` in others.
    unsafe fn where_above(
        a: Self::Vector,
        b: Self::Vector,
        yes: Self::Vector,
        no: Self::Vector,
    ) -> Self::Vector;
    /// `yes` in the lanes of the mask, and `no` in others.
    unsafe fn pick(mask: Mask, yes: Self::Vector, no: Self::Vector) -> Self::Vector;
    /// Lanes that hold NaN.
    unsafe fn strange(a: Self::Vector) -> Mask;
    unsafe fn highest(a: Self::Vector) -> f32;
    unsafe fn sum(a: Self::Vector) -> f32;

    /// The same four bytes in every lane.
    unsafe fn splat_pair(from: *const Bf16) -> Self::Vector;
    /// sum + Σ of both products of each lane's pairs.
    unsafe fn multiply_pairs(
        sum: Self::Vector,
        inputs: Self::Vector,
        weights: Self::Vector,
    ) -> Self::Vector;
    unsafe fn widen_some(mask: Mask, from: *const Bf16) -> Self::Vector;
    /// To nearest, ties to even.
    unsafe fn narrow_some(to: *mut Bf16, mask: Mask, value: Self::Vector);
    /// Pairs of each lane's numbers of two lines; a missing line is 0.
    unsafe fn pair_some(mask: Mask, lines: [Option<*const Bf16>; 2]) -> Self::Vector;

    /// Joins `count` values of two pictures of three channels, pixel by pixel, into six channels.
    unsafe fn join_threes<E: Element>(
        left: *const f32,
        right: *const f32,
        count: usize,
        to: *mut E,
    );
}

/// The type of a number in pictures and weights.
///
/// # Safety of every function
/// That of [`Simd`].
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Neighbouring inputs per multiply-and-add.
    const STEP: usize;
    const ZERO: Self;

    unsafe fn load_some<S: Simd>(mask: Mask, from: *const Self) -> S::Vector;
    unsafe fn store_some<S: Simd>(to: *mut Self, mask: Mask, value: S::Vector);
    /// The next `STEP` inputs, in every lane.
    unsafe fn broadcast<S: Simd>(from: *const Self) -> S::Vector;
    /// `STEP` weights for each lane's output.
    unsafe fn weights<S: Simd>(from: *const Self) -> S::Vector;
    /// sum + Σ inputs · weights.
    unsafe fn multiply_add<S: Simd>(
        sum: S::Vector,
        inputs: S::Vector,
        weights: S::Vector,
    ) -> S::Vector;
    /// Lanes of `STEP` neighbours each, from as many lines; a missing line is 0.
    unsafe fn interleave<S: Simd>(mask: Mask, lines: [Option<*const Self>; 2]) -> S::Vector;
    fn of(value: f32) -> Self;

    /// [`Self::of`] for many values, with the rounding used for stored pictures.
    fn round<S: Simd>(values: &[f32], to: &mut [Self]) {
        assert_eq!(values.len(), to.len(), "values");
        assert!(S::runs_here(), "the caller asks first");
        for (values, to) in values.chunks(S::LANES).zip(to.chunks_mut(S::LANES)) {
            let mask = first::<S>(values.len());
            let (from, to) = (values.as_ptr(), to.as_mut_ptr());
            // SAFETY: the CPU was asked; the mask names the lanes that both chunks have.
            unsafe {
                S::run(
                    #[inline(always)]
                    || Self::store_some::<S>(to, mask, S::load_some(mask, from)),
                );
            }
        }
    }
}

impl Element for f32 {
    const STEP: usize = 1;
    const ZERO: Self = 0.0;

    #[inline(always)]
    unsafe fn load_some<S: Simd>(mask: Mask, from: *const Self) -> S::Vector {
        unsafe { S::load_some(mask, from) }
    }
    #[inline(always)]
    unsafe fn store_some<S: Simd>(to: *mut Self, mask: Mask, value: S::Vector) {
        unsafe { S::store_some(to, mask, value) }
    }
    #[inline(always)]
    unsafe fn broadcast<S: Simd>(from: *const Self) -> S::Vector {
        unsafe { S::splat(*from) }
    }
    #[inline(always)]
    unsafe fn weights<S: Simd>(from: *const Self) -> S::Vector {
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn multiply_add<S: Simd>(
        sum: S::Vector,
        inputs: S::Vector,
        weights: S::Vector,
    ) -> S::Vector {
        unsafe { S::mul_add(inputs, weights, sum) }
    }
    #[inline(always)]
    unsafe fn interleave<S: Simd>(mask: Mask, [line, _]: [Option<*const Self>; 2]) -> S::Vector {
        unsafe {
            match line {
                Some(line) => S::load_some(mask, line),
                None => S::splat(0.0),
            }
        }
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
    unsafe fn load_some<S: Simd>(mask: Mask, from: *const Self) -> S::Vector {
        unsafe { S::widen_some(mask, from) }
    }
    #[inline(always)]
    unsafe fn store_some<S: Simd>(to: *mut Self, mask: Mask, value: S::Vector) {
        unsafe { S::narrow_some(to, mask, value) }
    }
    #[inline(always)]
    unsafe fn broadcast<S: Simd>(from: *const Self) -> S::Vector {
        unsafe { S::splat_pair(from) }
    }
    #[inline(always)]
    unsafe fn weights<S: Simd>(from: *const Self) -> S::Vector {
        unsafe { S::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn multiply_add<S: Simd>(
        sum: S::Vector,
        inputs: S::Vector,
        weights: S::Vector,
    ) -> S::Vector {
        unsafe { S::multiply_pairs(sum, inputs, weights) }
    }
    #[inline(always)]
    unsafe fn interleave<S: Simd>(mask: Mask, lines: [Option<*const Self>; 2]) -> S::Vector {
        unsafe { S::pair_some(mask, lines) }
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

/// The mask of the first `count` lanes; all lanes if a vector has no more.
#[inline(always)]
pub(crate) fn first<S: Simd>(count: usize) -> Mask {
    let all = Mask::MAX >> (MOST_LANES - S::LANES);
    if count >= S::LANES { all } else { (1 << count) - 1 }
}

/// eˣ within two units in the last place; 0 and ∞ outside f32's range.
///
/// # Safety
/// That of [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::Vector) -> S::Vector {
    unsafe {
        let x = S::min(S::max(x, S::splat(-104.0)), S::splat(89.0));
        let n = S::whole(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, so that the remainder is exact.
        let rest = S::minus_mul(n, S::splat(0.693_359_4), x);
        let rest = S::minus_mul(n, S::splat(-2.121_944_4e-4), rest);
        let mut sum = S::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
            sum = S::mul_add(sum, rest, S::splat(coefficient));
        }
        let sum = S::mul_add(sum, S::mul(rest, rest), S::add(rest, S::splat(1.0)));
        S::scale(sum, n)
    }
}

/// Φ(x) = (1 + erf(x / √2)) / 2, within 3e-7 (Abramowitz and Stegun, 7.1.26).
///
/// # Safety
/// That of [`Simd`].
#[inline(always)]
pub(crate) unsafe fn normal_cdf<S: Simd>(x: S::Vector) -> S::Vector {
    unsafe {
        let one = S::splat(1.0);
        let z = S::mul(S::abs(x), S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = S::div(one, S::mul_add(z, S::splat(0.327_591_1), one));
        let mut sum = S::splat(1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            sum = S::mul_add(sum, t, S::splat(coefficient));
        }
        let minus_square = S::mul(S::mul(z, z), S::splat(-1.0));
        // The smaller tail, computed from the magnitude.
        let tail = S::mul(S::mul(sum, t), exp::<S>(minus_square));
        let tail = S::mul(tail, S::splat(0.5));
        S::where_above(x, S::splat(0.0), S::sub(one, tail), tail)
    }
}

#[cfg(test)]
mod tests;
