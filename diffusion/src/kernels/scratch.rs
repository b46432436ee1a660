//! Memory that one piece of work writes and reads again: several planes of numbers, laid out for
//! the first-level cache.

use std::mem::MaybeUninit;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    _bytes: [MaybeUninit<u8>; 64],
}

/// Uninitialised planes of numbers. Each begins at a cache line, and no two planes compete for the
/// same places of the first-level cache, because planes are read side by side.
pub(crate) struct Scratch<E> {
    lines: Vec<Line>,
    /// Elements from one plane to the next.
    plane: usize,
    of: std::marker::PhantomData<E>,
}

impl<E> Scratch<E> {
    pub(crate) fn new(planes: usize, size: usize) -> Self {
        // With odd multiples of 256 bytes, sixteen planes share no set of 4 KiB.
        let plane_bytes = ((size * size_of::<E>()).div_ceil(256) | 1) * 256;
        let lines = Vec::with_capacity(planes * plane_bytes / size_of::<Line>());
        Self { lines, plane: plane_bytes / size_of::<E>(), of: std::marker::PhantomData }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut E {
        self.lines.as_mut_ptr().cast()
    }

    pub(crate) fn as_ptr(&self) -> *const E {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn plane(&self) -> usize {
        self.plane
    }
}
