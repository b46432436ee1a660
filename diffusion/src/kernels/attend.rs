//! Attention with vector instructions: softmax(scale · q kᵀ + bias) v, for each row and head
//! separately.
//!
//! Keys and values are packed like a layer's weights, so both products are those of a linear layer.
//! Between the products, a query's scores stay in the second-level cache. A query's sums run over
//! head channels, then over keys, in order and in f32. So its bits depend only on its own row,
//! whatever else is computed.

#![expect(
    unsafe_code,
    reason = "raw pointers into strided sequences, bounded by the shapes checked on entry"
)]

use std::marker::PhantomData;

use super::conv::accumulate;
use super::pool;
use super::scratch::Scratch;
use super::vector::{Element, Mask, Simd, exp, first};

/// Queries whose scores are kept at the same time.
const QUERIES: usize = 32;

/// Keys and values are packed again for every piece of work, so a piece has at least this many
/// queries.
const PIECE: usize = 128;

/// Heads side by side in the channels of positions, `[rows, length, heads · head_dim]`, anywhere in
/// memory.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a, E> {
    first: *const E,
    length: usize,
    /// Elements from one row to the next, and from one position to the next.
    strides: [usize; 2],
    of: PhantomData<&'a [E]>,
}

// SAFETY: it is only read, as the slice it stands for would be.
unsafe impl<E: Sync> Sync for Sequence<'_, E> {}

impl<E> Sequence<'_, E> {
    /// # Safety
    /// For `'a`, memory holds the channels of every position of every row that [`run`] is asked
    /// for.
    pub(super) unsafe fn new(first: *const E, length: usize, strides: [usize; 2]) -> Self {
        Self { first, length, strides, of: PhantomData }
    }

    /// # Safety
    /// The place lies within the sequence.
    unsafe fn at(&self, row: usize, position: usize, channel: usize) -> *const E {
        unsafe { self.first.add(row * self.strides[0] + position * self.strides[1] + channel) }
    }
}

/// The queries, and the keys and values that they attend to.
pub(super) struct Attending<'a, E> {
    pub(super) rows: usize,
    pub(super) heads: usize,
    /// A multiple of [`Element::STEP`].
    pub(super) head_dim: usize,
    pub(super) query: Sequence<'a, E>,
    /// Keys and their values, as several sequences that are joined.
    pub(super) pairs: &'a [[Sequence<'a, E>; 2]],
    /// Above 0.
    pub(super) scale: f32,
    /// `[heads, queries, keys]`, added to the scaled scores.
    pub(super) bias: Option<&'a [f32]>,
    /// How many keys each row sees, from the first on; `None`: all.
    pub(super) seen: Option<&'a [usize]>,
}

struct Place<E>(*mut E);

// SAFETY: each piece writes its own queries' and head's channels.
unsafe impl<E: Send> Sync for Place<E> {}

/// Writes `[rows, queries, heads · head_dim]`.
///
/// # Panics
/// When the shapes do not match.
pub(super) fn run<S: Simd, E: Element>(threads: usize, task: &Attending<'_, E>, out: &mut [E]) {
    assert!(S::runs_here(), "the caller asks first");
    let (queries, keys) = (task.query.length, task.keys());
    assert_eq!(task.head_dim % E::STEP, 0, "channels of a head");
    assert_eq!(out.len(), task.rows * queries * task.heads * task.head_dim, "output");
    assert!(task.bias.is_none_or(|bias| bias.len() == task.heads * queries * keys), "bias");
    assert!(
        task.seen
            .is_none_or(|seen| seen.len() == task.rows && seen.iter().all(|seen| *seen <= keys)),
        "keys seen"
    );
    assert!(task.pairs.iter().all(|[keys, values]| keys.length == values.length), "values");
    if out.is_empty() {
        return;
    }
    let alone = task.rows * task.heads;
    // If there are fewer heads than threads need, each head's queries are divided.
    let chunks = (4 * threads).div_ceil(alone).min(queries / PIECE).max(1);
    let each = queries.div_ceil(chunks).next_multiple_of(S::WHOLE_TILES);
    let chunks = queries.div_ceil(each);
    let out = Place(out.as_mut_ptr());
    let out = &out;
    pool::run(threads, alone * chunks, &|piece| {
        let (at, from) = (piece / chunks, piece % chunks * each);
        // SAFETY: the CPU was asked; row, head and queries are within the shapes checked above.
        unsafe {
            let (row, head) = (at / task.heads, at % task.heads);
            task.head::<S>(row, head, from..queries.min(from + each), out.0);
        }
    });
}

/// One row's keys and values of a head, in the form in which [`accumulate`] takes weights.
struct Packed<E> {
    /// `[keys / lanes][head_dim / STEP][lanes · STEP]`.
    keys: Scratch<E>,
    /// `[head_dim / lanes][keys / STEP][lanes · STEP]`.
    values: Scratch<E>,
    count: usize,
}

/// Queries of a head of a row, from one on.
#[derive(Clone, Copy)]
struct Queries {
    row: usize,
    head: usize,
    from: usize,
}

impl<E: Element> Attending<'_, E> {
    fn keys(&self) -> usize {
        self.pairs.iter().map(|[keys, _]| keys.length).sum()
    }

    unsafe fn head<S: Simd>(
        &self,
        row: usize,
        head: usize,
        queries: std::ops::Range<usize>,
        out: *mut E,
    ) {
        unsafe {
            let packed = S::run(
                #[inline(always)]
                || self.pack::<S>(row, head),
            );
            let blocks = packed.count.div_ceil(S::LANES);
            let most = QUERIES.min(queries.len()).next_multiple_of(S::WHOLE_TILES);
            let (mut scores, mut weights) = (
                Scratch::<f32>::new(most, blocks * S::LANES),
                Scratch::<E>::new(most, blocks * S::LANES),
            );
            for from in queries.clone().step_by(QUERIES) {
                let count = (queries.end - from).min(QUERIES);
                let at = Queries { row, head, from };
                S::run(
                    #[inline(always)]
                    || self.score::<S>(at, count, &packed, &mut scores),
                );
                let mut factors = [0.0; QUERIES];
                for (query, factor) in factors.iter_mut().enumerate().take(count) {
                    let line = scores.as_mut_ptr().add(query * scores.plane());
                    let bias = self.bias.map(|bias| {
                        bias[(head * self.query.length + from + query) * self.keys()..].as_ptr()
                    });
                    let to = weights.as_mut_ptr().add(query * weights.plane());
                    let (count, scale) = (packed.count, self.scale);
                    *factor = S::run(
                        #[inline(always)]
                        || softmax::<S, E>(line, count, scale, bias, to),
                    )
                    .recip();
                }
                S::run(
                    #[inline(always)]
                    || self.mix::<S>(at, &factors[..count], &packed, &weights, out),
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, row: usize, head: usize) -> Packed<E> {
        unsafe {
            let count = self.seen.map_or_else(|| self.keys(), |seen| seen[row]);
            let channel = head * self.head_dim;
            let places = |which: usize| -> Vec<*const E> {
                let sequences = self.pairs.iter().map(|pair| pair[which]);
                sequences
                    .flat_map(|sequence| {
                        (0..sequence.length)
                            .map(move |position| sequence.at(row, position, channel))
                    })
                    .take(count)
                    .collect()
            };
            let (keys, values) = (places(0), places(1));
            let steps = self.head_dim / E::STEP;
            let mut packed = Packed::<E> {
                keys: Scratch::new(1, count.next_multiple_of(S::LANES) * self.head_dim),
                values: Scratch::new(
                    1,
                    count.next_multiple_of(E::STEP) * self.head_dim.next_multiple_of(S::LANES),
                ),
                count,
            };
            // One multiply-and-add takes four bytes of an input, of either kind.
            let mut to = packed.keys.as_mut_ptr().cast::<u32>();
            for keys in keys.chunks(S::LANES) {
                for step in 0..steps {
                    for lane in 0..S::LANES {
                        let word = keys
                            .get(lane)
                            .map_or(0, |key| key.cast::<u32>().add(step).read_unaligned());
                        to.add(lane).write(word);
                    }
                    to = to.add(S::LANES);
                }
            }
            let mut to = packed.values.as_mut_ptr();
            for channel in (0..self.head_dim).step_by(S::LANES) {
                let mask = first::<S>(self.head_dim - channel);
                for values in values.chunks(E::STEP) {
                    let lines =
                        [0, 1].map(|place| values.get(place).map(|value| value.add(channel)));
                    S::store(to.cast(), E::interleave::<S>(mask, lines));
                    to = to.add(S::LANES * E::STEP);
                }
            }
            packed
        }
    }

    /// q kᵀ of some queries, each in a plane.
    #[inline(always)]
    unsafe fn score<S: Simd>(
        &self,
        at: Queries,
        count: usize,
        packed: &Packed<E>,
        scores: &mut Scratch<f32>,
    ) {
        let blocks = packed.count.div_ceil(S::LANES);
        // A few keys at a time, so that they stay in the first-level cache for all queries.
        for from in (0..blocks).step_by(S::BLOCKS) {
            unsafe {
                match (blocks - from).min(S::BLOCKS) {
                    1 => self.score_blocks::<S, 1>(at, count, packed, from, scores),
                    2 => self.score_blocks::<S, 2>(at, count, packed, from, scores),
                    _ => self.score_blocks::<S, 3>(at, count, packed, from, scores),
                }
            }
        }
    }

    /// The scores of `Q` blocks of keys, from block `from` on.
    #[inline(always)]
    unsafe fn score_blocks<S: Simd, const Q: usize>(
        &self,
        at: Queries,
        count: usize,
        packed: &Packed<E>,
        from: usize,
        scores: &mut Scratch<f32>,
    ) {
        for tile in (0..count).step_by(S::TILES[Q - 1]) {
            unsafe {
                match S::TILES[Q - 1] {
                    4 => self.score_tile::<S, 4, Q>(at, (tile, count), packed, from, scores),
                    6 => self.score_tile::<S, 6, Q>(at, (tile, count), packed, from, scores),
                    _ => self.score_tile::<S, 8, Q>(at, (tile, count), packed, from, scores),
                }
            }
        }
    }

    /// The scores of `P` queries from `tile` on. Queries beyond `count` are computed like the last.
    #[inline(always)]
    unsafe fn score_tile<S: Simd, const P: usize, const Q: usize>(
        &self,
        Queries { row, head, from }: Queries,
        (tile, count): (usize, usize),
        packed: &Packed<E>,
        block: usize,
        scores: &mut Scratch<f32>,
    ) {
        unsafe {
            let size = S::LANES * self.head_dim;
            let mut inputs = [packed.keys.as_ptr(); P];
            for (p, input) in inputs.iter_mut().enumerate() {
                let query = from + (tile + p).min(count - 1);
                *input = self.query.at(row, query, head * self.head_dim);
            }
            let keys = packed.keys.as_ptr().add(block * size);
            let sums = [[S::splat(0.0); P]; Q];
            let steps = self.head_dim / E::STEP;
            let sums = accumulate::<S, E, P, Q>(sums, inputs, keys, size, steps);
            let to = scores.as_mut_ptr().add(tile * scores.plane() + block * S::LANES);
            for (q, sums) in sums.into_iter().enumerate() {
                for (p, sum) in sums.into_iter().enumerate() {
                    S::store(to.add(p * scores.plane() + q * S::LANES), sum);
                }
            }
        }
    }

    /// The weighted sums of the values, times each query's factor.
    #[inline(always)]
    unsafe fn mix<S: Simd>(
        &self,
        at: Queries,
        factors: &[f32],
        packed: &Packed<E>,
        weights: &Scratch<E>,
        out: *mut E,
    ) {
        let blocks = self.head_dim.div_ceil(S::LANES);
        // Divided evenly: 4 become 2 and 2.
        let groups = blocks.div_ceil(S::BLOCKS);
        for group in 0..groups {
            let (begin, end) = (blocks * group / groups, blocks * (group + 1) / groups);
            unsafe {
                match end - begin {
                    1 => self.mix_blocks::<S, 1>(at, factors, packed, weights, begin, out),
                    2 => self.mix_blocks::<S, 2>(at, factors, packed, weights, begin, out),
                    _ => self.mix_blocks::<S, 3>(at, factors, packed, weights, begin, out),
                }
            }
        }
    }

    /// The same for `Q` blocks of channels, from block `begin` on.
    #[inline(always)]
    unsafe fn mix_blocks<S: Simd, const Q: usize>(
        &self,
        at: Queries,
        factors: &[f32],
        packed: &Packed<E>,
        weights: &Scratch<E>,
        begin: usize,
        out: *mut E,
    ) {
        for tile in (0..factors.len()).step_by(S::TILES[Q - 1]) {
            unsafe {
                match S::TILES[Q - 1] {
                    4 => self.mix_tile::<S, 4, Q>(at, (tile, factors), packed, weights, begin, out),
                    6 => self.mix_tile::<S, 6, Q>(at, (tile, factors), packed, weights, begin, out),
                    _ => self.mix_tile::<S, 8, Q>(at, (tile, factors), packed, weights, begin, out),
                }
            }
        }
    }

    /// The same for `P` queries from `tile` on. Queries without a factor are computed like the last
    /// and not stored.
    #[inline(always)]
    unsafe fn mix_tile<S: Simd, const P: usize, const Q: usize>(
        &self,
        Queries { row, head, from }: Queries,
        (tile, factors): (usize, &[f32]),
        packed: &Packed<E>,
        weights: &Scratch<E>,
        begin: usize,
        out: *mut E,
    ) {
        unsafe {
            let steps = packed.count.div_ceil(E::STEP);
            let block = steps * E::STEP * S::LANES;
            let mut inputs = [weights.as_ptr(); P];
            for (p, input) in inputs.iter_mut().enumerate() {
                *input = weights.as_ptr().add((tile + p).min(factors.len() - 1) * weights.plane());
            }
            let values = packed.values.as_ptr().add(begin * block);
            let sums = [[S::splat(0.0); P]; Q];
            let sums = accumulate::<S, E, P, Q>(sums, inputs, values, block, steps);
            for (q, sums) in sums.into_iter().enumerate() {
                let channel = (begin + q) * S::LANES;
                let mask = first::<S>(self.head_dim - channel);
                for (p, sum) in sums.into_iter().enumerate() {
                    let Some(factor) = factors.get(tile + p) else { break };
                    let place = (row * self.query.length + from + tile + p) * self.heads + head;
                    let to = out.add(place * self.head_dim + channel);
                    E::store_some::<S>(to, mask, S::mul(sum, S::splat(*factor)));
                }
            }
        }
    }
}

/// exp(scale · score + bias − the highest of those) for one query, 0 beyond the last key, and their
/// sum. The sum is NaN if a score is not finite.
#[inline(always)]
unsafe fn softmax<S: Simd, E: Element>(
    scores: *mut f32,
    count: usize,
    scale: f32,
    bias: Option<*const f32>,
    weights: *mut E,
) -> f32 {
    unsafe {
        let scale = S::splat(scale);
        let mut highest = S::splat(f32::NEG_INFINITY);
        let mut strange: Mask = 0;
        for from in (0..count).step_by(S::LANES) {
            let mask = first::<S>(count - from);
            let mut score = S::mul(S::load(scores.add(from)), scale);
            if let Some(bias) = bias {
                score = S::add(score, S::load_some(mask, bias.add(from)));
            }
            S::store(scores.add(from), score);
            strange |= mask & S::strange(score);
            highest = S::pick(mask, S::max(highest, score), highest);
        }
        let highest = S::highest(highest);
        let base = S::splat(highest);
        let mut sum = S::splat(0.0);
        for from in (0..count).step_by(S::LANES) {
            let mask = first::<S>(count - from);
            let weight = exp::<S>(S::sub(S::load(scores.add(from)), base));
            let weight = S::pick(mask, weight, S::splat(0.0));
            sum = S::add(sum, weight);
            E::store_some::<S>(weights.add(from), first::<S>(S::LANES), weight);
        }
        if strange != 0 || !highest.is_finite() { f32::NAN } else { S::sum(sum) }
    }
}
