//! What mutations take from, and chance.

use mutatis::Rng;

/// Everything that a mutation may take from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// Words and bytes that mean something in the input.
    pub words: &'a [&'a [u8]],
    /// Other inputs.
    pub others: &'a [Vec<u8>],
    /// Most bytes of an input.
    pub most: usize,
}

/// One of several, at random.
pub(super) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> Option<&'a T> {
    rng.gen_index(from.len()).and_then(|place| from.get(place))
}

/// True once in `of` times.
pub(super) fn once_in(rng: &mut Rng, of: usize) -> bool {
    rng.gen_index(of) == Some(0)
}
