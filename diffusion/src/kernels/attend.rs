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

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::conv::accumulate;
use super::pool;
use super::scratch::Scratch;
use super::vector::{Element, LANES, exp, first};

/// Queries per tile.
const TILE: usize = 8;

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
pub(super) fn run<E: Element>(threads: usize, task: &Attending<'_, E>, out: &mut [E]) {
    assert!(super::available(), "the caller asks first");
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
    let each = queries.div_ceil(chunks).next_multiple_of(TILE);
    let chunks = queries.div_ceil(each);
    let out = Place(out.as_mut_ptr());
    let out = &out;
    pool::run(threads, alone * chunks, &|piece| {
        let (at, from) = (piece / chunks, piece % chunks * each);
        // SAFETY: `available` was asked; row, head and queries are within the shapes checked above.
        unsafe {
            task.head(at / task.heads, at % task.heads, from..queries.min(from + each), out.0);
        }
    });
}

/// One row's keys and values of a head, in the form in which [`accumulate`] takes weights.
struct Packed<E> {
    /// `[keys / 16][head_dim / STEP][16 · STEP]`.
    keys: Scratch<E>,
    /// `[head_dim / 16][keys / STEP][16 · STEP]`.
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

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn head(&self, row: usize, head: usize, queries: std::ops::Range<usize>, out: *mut E) {
        unsafe {
            let packed = self.pack(row, head);
            let blocks = packed.count.div_ceil(LANES);
            let most = QUERIES.min(queries.len()).next_multiple_of(TILE);
            let (mut scores, mut weights) = (
                Scratch::<f32>::new(most, blocks * LANES),
                Scratch::<E>::new(most, blocks * LANES),
            );
            for from in queries.clone().step_by(QUERIES) {
                let count = (queries.end - from).min(QUERIES);
                let at = Queries { row, head, from };
                self.score(at, count, &packed, &mut scores);
                let mut factors = [0.0; QUERIES];
                for (query, factor) in factors.iter_mut().enumerate().take(count) {
                    let line = scores.as_mut_ptr().add(query * scores.plane());
                    let bias = self.bias.map(|bias| {
                        bias[(head * self.query.length + from + query) * self.keys()..].as_ptr()
                    });
                    let to = weights.as_mut_ptr().add(query * weights.plane());
                    *factor = softmax(line, packed.count, self.scale, bias, to).recip();
                }
                self.mix(at, &factors[..count], &packed, &weights, out);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn pack(&self, row: usize, head: usize) -> Packed<E> {
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
                keys: Scratch::new(1, count.next_multiple_of(LANES) * self.head_dim),
                values: Scratch::new(
                    1,
                    count.next_multiple_of(E::STEP) * self.head_dim.next_multiple_of(LANES),
                ),
                count,
            };
            // One multiply-and-add takes four bytes of an input, of either kind.
            let mut to = packed.keys.as_mut_ptr().cast::<u32>();
            for keys in keys.chunks(LANES) {
                for step in 0..steps {
                    for lane in 0..LANES {
                        let word = keys
                            .get(lane)
                            .map_or(0, |key| key.cast::<u32>().add(step).read_unaligned());
                        to.add(lane).write(word);
                    }
                    to = to.add(LANES);
                }
            }
            let mut to = packed.values.as_mut_ptr();
            for channel in (0..self.head_dim).step_by(LANES) {
                let mask = first(self.head_dim - channel);
                for values in values.chunks(E::STEP) {
                    let lines =
                        [0, 1].map(|place| values.get(place).map(|value| value.add(channel)));
                    _mm512_storeu_ps(to.cast(), E::interleave(mask, lines));
                    to = to.add(LANES * E::STEP);
                }
            }
            packed
        }
    }

    /// q kᵀ of some queries, each in a plane.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn score(
        &self,
        Queries { row, head, from }: Queries,
        count: usize,
        packed: &Packed<E>,
        scores: &mut Scratch<f32>,
    ) {
        unsafe {
            let blocks = packed.count.div_ceil(LANES);
            let block = LANES * self.head_dim;
            let query = |query: usize| {
                self.query.at(row, from + query.min(count - 1), head * self.head_dim)
            };
            // A few keys at a time, so that they stay in the first-level cache for all queries.
            for at in (0..blocks).step_by(3) {
                let keys = packed.keys.as_ptr().add(at * block);
                for tile in (0..count).step_by(TILE) {
                    let inputs = std::array::from_fn(|place| query(tile + place));
                    let to = scores.as_mut_ptr().add(tile * scores.plane() + at * LANES);
                    let (plane, steps) = (scores.plane(), self.head_dim / E::STEP);
                    let store = |p: usize, q: usize, sum| {
                        _mm512_storeu_ps(to.add(p * plane + q * LANES), sum)
                    };
                    match blocks - at {
                        1 => product::<E, 1>(inputs, keys, block, steps, store),
                        2 => product::<E, 2>(inputs, keys, block, steps, store),
                        _ => product::<E, 3>(inputs, keys, block, steps, store),
                    }
                }
            }
        }
    }

    /// The weighted sums of the values, times each query's factor.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn mix(
        &self,
        Queries { row, head, from }: Queries,
        factors: &[f32],
        packed: &Packed<E>,
        weights: &Scratch<E>,
        out: *mut E,
    ) {
        unsafe {
            let steps = packed.count.div_ceil(E::STEP);
            let block = steps * E::STEP * LANES;
            let blocks = self.head_dim.div_ceil(LANES);
            // Divided evenly: 4 become 2 and 2.
            let groups = blocks.div_ceil(3);
            for group in 0..groups {
                let (begin, end) = (blocks * group / groups, blocks * (group + 1) / groups);
                let values = packed.values.as_ptr().add(begin * block);
                for tile in (0..factors.len()).step_by(TILE) {
                    let of = |place: usize| (tile + place).min(factors.len() - 1);
                    let inputs = std::array::from_fn(|place| {
                        weights.as_ptr().add(of(place) * weights.plane())
                    });
                    let store = |p: usize, q: usize, sum: __m512| {
                        let Some(factor) = factors.get(tile + p) else { return };
                        let place = (row * self.query.length + from + tile + p) * self.heads + head;
                        let channel = (begin + q) * LANES;
                        let to = out.add(place * self.head_dim + channel);
                        let sum = _mm512_mul_ps(sum, _mm512_set1_ps(*factor));
                        E::store_some(to, first(self.head_dim - channel), sum);
                    };
                    match end - begin {
                        1 => product::<E, 1>(inputs, values, block, steps, store),
                        2 => product::<E, 2>(inputs, values, block, steps, store),
                        _ => product::<E, 3>(inputs, values, block, steps, store),
                    }
                }
            }
        }
    }
}

/// The sums of eight inputs with `16 · Q` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn product<E: Element, const Q: usize>(
    inputs: [*const E; TILE],
    columns: *const E,
    block: usize,
    steps: usize,
    mut store: impl FnMut(usize, usize, __m512),
) {
    unsafe {
        let sums = accumulate([[_mm512_setzero_ps(); TILE]; Q], inputs, columns, block, steps);
        for (q, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                store(p, q, sum);
            }
        }
    }
}

/// exp(scale · score + bias − the highest of those) for one query, 0 beyond the last key, and their
/// sum. The sum is NaN if a score is not finite.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn softmax<E: Element>(
    scores: *mut f32,
    count: usize,
    scale: f32,
    bias: Option<*const f32>,
    weights: *mut E,
) -> f32 {
    unsafe {
        let scale = _mm512_set1_ps(scale);
        let mut highest = _mm512_set1_ps(f32::NEG_INFINITY);
        let mut strange: __mmask16 = 0;
        for from in (0..count).step_by(LANES) {
            let mask = first(count - from);
            let mut score = _mm512_mul_ps(_mm512_loadu_ps(scores.add(from)), scale);
            if let Some(bias) = bias {
                score = _mm512_add_ps(score, _mm512_maskz_loadu_ps(mask, bias.add(from)));
            }
            _mm512_storeu_ps(scores.add(from), score);
            strange |= _mm512_mask_cmp_ps_mask::<_CMP_UNORD_Q>(mask, score, score);
            highest = _mm512_mask_max_ps(highest, mask, highest, score);
        }
        let highest = _mm512_reduce_max_ps(highest);
        let base = _mm512_set1_ps(highest);
        let mut sum = _mm512_setzero_ps();
        for from in (0..count).step_by(LANES) {
            let mask = first(count - from);
            let weight = exp(_mm512_sub_ps(_mm512_loadu_ps(scores.add(from)), base));
            let weight = _mm512_maskz_mov_ps(mask, weight);
            sum = _mm512_add_ps(sum, weight);
            E::store_some(weights.add(from), first(LANES), weight);
        }
        if strange != 0 || !highest.is_finite() { f32::NAN } else { _mm512_reduce_add_ps(sum) }
    }
}
