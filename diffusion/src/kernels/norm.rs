//! Group normalisation, the time's scale and shift, and an activation, in two passes over a
//! channels-last picture.
//!
//! The first pass sums each channel over fixed runs of pixels, and the sums are joined in f64, in
//! order. The second computes a · x + b and the activation. Both depend only on the row, not on the
//! batch, nor on the threads that compute the runs.

#![expect(
    unsafe_code,
    reason = "raw pointers into pictures, bounded by the shapes checked on entry"
)]

use super::pool;
use super::vector::{Element, MOST_LANES, Simd, exp, first, normal_cdf};
use crate::layers::Activation;

/// Pixels whose sums stay in f32.
const RUN: usize = 256;

/// A picture to normalise, `[rows, pixels, channels]`; several are joined in their channels.
#[derive(Clone, Copy)]
pub(crate) struct Joined<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) channels: usize,
    /// Factor of the picture.
    pub(crate) factor: f32,
}

/// Learned weights over all channels of all sources.
pub(crate) struct Affine<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    /// For each row: one plus the scale of every channel, then the shift of every channel.
    pub(crate) steering: Option<&'a [f32]>,
    /// For each row, added to every channel before everything else.
    pub(crate) added: Option<&'a [f32]>,
}

/// Normalises `rows` pictures of `pixels` pixels into `out`, `[rows, pixels, channels of all
/// sources]`.
///
/// # Panics
/// When a slice's length does not match the shapes.
pub(crate) fn run<S: Simd, E: Element>(
    threads: usize,
    sources: &[Joined<'_, E>],
    (rows, pixels): (usize, usize),
    affine: &Affine<'_>,
    activation: Option<Activation>,
    out: &mut [E],
) {
    assert!(S::runs_here(), "the caller asks first");
    let channels: usize = sources.iter().map(|source| source.channels).sum();
    for source in sources {
        assert_eq!(source.data.len(), rows * pixels * source.channels, "source");
    }
    assert_eq!(out.len(), rows * pixels * channels, "output");
    assert_eq!((affine.weight.len(), affine.bias.len()), (channels, channels), "weights");
    assert!(affine.groups > 0 && channels.is_multiple_of(affine.groups), "groups");
    if let Some(steering) = affine.steering {
        assert_eq!(steering.len(), rows * 2 * channels, "steering");
    }
    if let Some(added) = affine.added {
        assert_eq!(added.len(), rows * channels, "added");
    }
    if rows * pixels == 0 {
        return;
    }
    let runs = pixels.div_ceil(RUN);
    let mut sums = vec![0.0_f32; rows * runs * 2 * channels];
    let place = Shared(sums.as_mut_ptr());
    pool::run(threads, rows * runs, &|piece| {
        let (row, from) = (piece / runs, piece % runs * RUN);
        let count = RUN.min(pixels - from);
        let mut at = piece * 2 * channels;
        for source in sources {
            // SAFETY: the pixels lie within the row, and each piece has its own sums.
            unsafe {
                let data = source.data.as_ptr().add((row * pixels + from) * source.channels);
                let (sums, squares) = (place.at(at), place.at(at + channels));
                S::run(
                    #[inline(always)]
                    || sum_channels::<S, E>(data, source.channels, count, sums, squares),
                );
            }
            at += source.channels;
        }
    });
    let lines: Vec<f32> = (0..rows)
        .flat_map(|row| {
            let sums = &sums[row * runs * 2 * channels..(row + 1) * runs * 2 * channels];
            line(sums, sources, channels, pixels, affine, row)
        })
        .collect();
    let place = Shared(out.as_mut_ptr());
    pool::run(threads, rows * runs, &|piece| {
        let (row, from) = (piece / runs, piece % runs * RUN);
        let count = RUN.min(pixels - from);
        let (slope, offset) =
            lines[row * 2 * channels..(row + 1) * 2 * channels].split_at(channels);
        let mut channel = 0;
        for source in sources {
            let pixel = row * pixels + from;
            // SAFETY: the pixels lie within the row, and each piece writes its own.
            unsafe {
                let map = Map {
                    from: source.data.as_ptr().add(pixel * source.channels),
                    to: place.at(pixel * channels + channel),
                    channels: source.channels,
                    stride: channels,
                    count,
                    slope: &slope[channel..channel + source.channels],
                    offset: &offset[channel..channel + source.channels],
                };
                map.activated::<S>(activation);
            }
            channel += source.channels;
        }
    });
}

/// An address to which several threads write different parts.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: every piece of work writes elements of its own.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `index` lies within the allocation.
    unsafe fn at(&self, index: usize) -> *mut T {
        unsafe { self.0.add(index) }
    }
}

/// Slope and offset of every channel of one row: the result of normalisation and steering.
fn line<E>(
    sums: &[f32],
    sources: &[Joined<'_, E>],
    channels: usize,
    pixels: usize,
    affine: &Affine<'_>,
    row: usize,
) -> Vec<f32> {
    let factors: Vec<f64> = sources
        .iter()
        .flat_map(|source| std::iter::repeat_n(f64::from(source.factor), source.channels))
        .collect();
    let added = |channel: usize| {
        affine.added.map_or(0.0, |added| f64::from(added[row * channels + channel]))
    };
    let mut totals = vec![0.0_f64; 2 * channels];
    for run in sums.chunks_exact(2 * channels) {
        for (total, sum) in totals.iter_mut().zip(run) {
            *total += f64::from(*sum);
        }
    }
    for channel in 0..channels {
        let (sum, squares) = (
            totals[channel] * factors[channel],
            totals[channels + channel] * factors[channel].powi(2),
        );
        let added = added(channel);
        totals[channel] = sum + pixels as f64 * added;
        totals[channels + channel] = squares + 2.0 * added * sum + pixels as f64 * added * added;
    }
    let width = channels / affine.groups;
    let count = (width * pixels) as f64;
    let mut line = vec![0.0; 2 * channels];
    for group in 0..affine.groups {
        let members = group * width..(group + 1) * width;
        let sum: f64 = totals[members.clone()].iter().sum();
        let squares: f64 = totals[channels + members.start..channels + members.end].iter().sum();
        let mean = sum / count;
        // f64's max would turn NaN into 0 and hide it.
        let variance = squares / count - mean * mean;
        let variance = if variance < 0.0 { 0.0 } else { variance };
        let scale = 1.0 / (variance + affine.eps).sqrt();
        for channel in members {
            let mut slope = scale * f64::from(affine.weight[channel]);
            let mut offset = f64::from(affine.bias[channel]) - (mean - added(channel)) * slope;
            if let Some(steering) = affine.steering {
                let steering = &steering[row * 2 * channels..(row + 1) * 2 * channels];
                slope *= f64::from(steering[channel]);
                offset =
                    offset * f64::from(steering[channel]) + f64::from(steering[channels + channel]);
            }
            line[channel] = (slope * factors[channel]) as f32;
            line[channels + channel] = offset as f32;
        }
    }
    line
}

/// Sums and sums of squares of every channel over `count` pixels.
#[inline(always)]
unsafe fn sum_channels<S: Simd, E: Element>(
    data: *const E,
    channels: usize,
    count: usize,
    sums: *mut f32,
    squares: *mut f32,
) {
    unsafe {
        if let Some(side_by_side) = pixels_a_vector::<S>(channels) {
            let (mut sum, mut square) = (S::splat(0.0), S::splat(0.0));
            let values = count * channels;
            let mut at = 0;
            while at < values {
                let x = E::load_some::<S>(first::<S>(values - at), data.add(at));
                sum = S::add(sum, x);
                square = S::mul_add(x, x, square);
                at += S::LANES;
            }
            for (vector, totals) in [(sum, sums), (square, squares)] {
                let mut lanes = [0.0_f32; MOST_LANES];
                S::store(lanes.as_mut_ptr(), vector);
                for channel in 0..channels {
                    let of_channel =
                        (0..side_by_side).map(|pixel| lanes[pixel * channels + channel]);
                    totals.add(channel).write(of_channel.sum());
                }
            }
            return;
        }
        let mut channel = 0;
        while channel < channels {
            let mask = first::<S>(channels - channel);
            let (mut sum, mut square) = ([S::splat(0.0); 4], [S::splat(0.0); 4]);
            let mut pixel = 0;
            while pixel + 4 <= count {
                for lane in 0..4 {
                    let x = E::load_some::<S>(mask, data.add((pixel + lane) * channels + channel));
                    sum[lane] = S::add(sum[lane], x);
                    square[lane] = S::mul_add(x, x, square[lane]);
                }
                pixel += 4;
            }
            while pixel < count {
                let x = E::load_some::<S>(mask, data.add(pixel * channels + channel));
                sum[0] = S::add(sum[0], x);
                square[0] = S::mul_add(x, x, square[0]);
                pixel += 1;
            }
            for ([a, b, c, d], to) in [(sum, sums), (square, squares)] {
                S::store_some(to.add(channel), mask, S::add(S::add(a, b), S::add(c, d)));
            }
            channel += S::LANES;
        }
    }
}

/// The second pass over one source's run of pixels.
struct Map<'a, E> {
    from: *const E,
    to: *mut E,
    channels: usize,
    /// Channels of an output pixel.
    stride: usize,
    count: usize,
    slope: &'a [f32],
    offset: &'a [f32],
}

impl<E: Element> Map<'_, E> {
    unsafe fn activated<S: Simd>(&self, activation: Option<Activation>) {
        unsafe {
            match activation {
                None => S::run(
                    #[inline(always)]
                    || self.apply::<S, 0>(),
                ),
                Some(Activation::Silu) => S::run(
                    #[inline(always)]
                    || self.apply::<S, 1>(),
                ),
                Some(Activation::Gelu) => S::run(
                    #[inline(always)]
                    || self.apply::<S, 2>(),
                ),
                Some(Activation::Relu) => S::run(
                    #[inline(always)]
                    || self.apply::<S, 3>(),
                ),
                Some(Activation::Mish) => S::run(
                    #[inline(always)]
                    || self.apply::<S, 4>(),
                ),
            }
        }
    }

    #[inline(always)]
    unsafe fn apply<S: Simd, const ACTIVATION: u8>(&self) {
        unsafe {
            if let Some(side_by_side) = pixels_a_vector::<S>(self.channels) {
                return self.apply_side_by_side::<S, ACTIVATION>(side_by_side);
            }
            let mut channel = 0;
            while channel < self.channels {
                let mask = first::<S>(self.channels - channel);
                let slope = f32::load_some::<S>(mask, self.slope.as_ptr().add(channel));
                let offset = f32::load_some::<S>(mask, self.offset.as_ptr().add(channel));
                for pixel in 0..self.count {
                    let x = E::load_some::<S>(mask, self.from.add(pixel * self.channels + channel));
                    let y = activate::<S, ACTIVATION>(S::mul_add(x, slope, offset));
                    E::store_some::<S>(self.to.add(pixel * self.stride + channel), mask, y);
                }
                channel += S::LANES;
            }
        }
    }

    /// The same for several pixels in one vector.
    #[inline(always)]
    unsafe fn apply_side_by_side<S: Simd, const ACTIVATION: u8>(&self, side_by_side: usize) {
        unsafe {
            let (slope, offset) = (repeated(self.slope), repeated(self.offset));
            let (slope, offset) = (S::load(slope.as_ptr()), S::load(offset.as_ptr()));
            let of_pixel = first::<S>(self.channels);
            let mut pixel = 0;
            while pixel < self.count {
                let pixels = side_by_side.min(self.count - pixel);
                let mask = first::<S>(pixels * self.channels);
                let x = E::load_some::<S>(mask, self.from.add(pixel * self.channels));
                let y = activate::<S, ACTIVATION>(S::mul_add(x, slope, offset));
                if self.stride == self.channels {
                    E::store_some::<S>(self.to.add(pixel * self.stride), mask, y);
                } else {
                    for lane in (0..pixels).map(|one| one * self.channels) {
                        // Lane `lane` is the pixel's first. What comes before it is masked out,
                        // wherever that is.
                        let to = self.to.wrapping_add((pixel + lane / self.channels) * self.stride);
                        E::store_some::<S>(to.wrapping_sub(lane), of_pixel << lane, y);
                    }
                }
                pixel += side_by_side;
            }
        }
    }
}

/// A vector's lanes with the same few values again and again.
#[inline(always)]
fn repeated(values: &[f32]) -> [f32; MOST_LANES] {
    std::array::from_fn(|lane| values[lane % values.len()])
}

/// How many pixels with so few channels fill a vector, if any number does.
#[inline(always)]
fn pixels_a_vector<S: Simd>(channels: usize) -> Option<usize> {
    (channels > 0 && channels < S::LANES && S::LANES.is_multiple_of(channels))
        .then(|| S::LANES / channels)
}

#[inline(always)]
unsafe fn activate<S: Simd, const ACTIVATION: u8>(x: S::Vector) -> S::Vector {
    unsafe {
        let one = S::splat(1.0);
        match ACTIVATION {
            1 => S::div(x, S::add(one, exp::<S>(S::sub(S::splat(0.0), x)))),
            2 => S::mul(x, normal_cdf::<S>(x)),
            // A NaN stays NaN: the comparison is then false, and x itself is the result.
            3 => S::where_above(S::splat(0.0), x, S::splat(0.0), x),
            4 => {
                // tanh(ln(1 + e)) = ((1 + e)² − 1) / ((1 + e)² + 1) with e = eˣ; from 20 on it is
                // 1.
                let e = exp::<S>(S::min(x, S::splat(20.0)));
                let n = S::mul(e, S::add(e, S::splat(2.0)));
                S::div(S::mul(x, n), S::add(n, S::splat(2.0)))
            }
            _ => x,
        }
    }
}

/// The mean of every two by two pixels: halves both `height` and `width` of `[rows, height, width,
/// channels]`.
///
/// # Panics
/// When a slice's length does not match the shapes.
pub(crate) fn halve<S: Simd, E: Element>(
    threads: usize,
    data: &[E],
    [rows, height, width, channels]: [usize; 4],
    out: &mut [E],
) {
    assert!(S::runs_here(), "the caller asks first");
    assert_eq!(data.len(), rows * height * width * channels, "source");
    let (half_height, half_width) = (height / 2, width / 2);
    assert_eq!(out.len(), rows * half_height * half_width * channels, "output");
    let place = Shared(out.as_mut_ptr());
    pool::run(threads, rows * half_height, &|line| {
        let (row, y) = (line / half_height, line % half_height);
        // SAFETY: both lines and the output line lie within their slices; each piece writes its own
        // line.
        unsafe {
            let upper = data.as_ptr().add((row * height + 2 * y) * width * channels);
            let lower = upper.add(width * channels);
            let out = place.at(line * half_width * channels);
            S::run(
                #[inline(always)]
                || halve_line::<S, E>(upper, lower, half_width, channels, out),
            );
        }
    });
}

#[inline(always)]
unsafe fn halve_line<S: Simd, E: Element>(
    upper: *const E,
    lower: *const E,
    width: usize,
    channels: usize,
    to: *mut E,
) {
    unsafe {
        let quarter = S::splat(0.25);
        for x in 0..width {
            let mut channel = 0;
            while channel < channels {
                let mask = first::<S>(channels - channel);
                let (left, right) = (2 * x * channels + channel, (2 * x + 1) * channels + channel);
                let above = S::add(
                    E::load_some::<S>(mask, upper.add(left)),
                    E::load_some::<S>(mask, upper.add(right)),
                );
                let below = S::add(
                    E::load_some::<S>(mask, lower.add(left)),
                    E::load_some::<S>(mask, lower.add(right)),
                );
                let mean = S::mul(S::add(above, below), quarter);
                E::store_some::<S>(to.add(x * channels + channel), mask, mean);
                channel += S::LANES;
            }
        }
    }
}
