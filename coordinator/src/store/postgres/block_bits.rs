//! A block of 256 neighbouring images: the changes that a transaction makes to its row in
//! `image_blocks`, and the images of a state, from its bits.
//!
//! A row counts the block's images by state and has a bit for each of them in the bits of its
//! state. An image that moves flips its bit in the bits of both states. So a transaction need not
//! read the row: it only writes which bits flip.

use darkroom_core::image_state::ImageState;

use super::{Error, rows::column};

/// Images of a block; `image_blocks` says the same.
pub(super) const BLOCK: i64 = 256;
/// Words that hold a bit for each image of a block.
const WORDS: usize = 4;

/// Images of a block, a bit for each.
type Bits = [u64; WORDS];

/// What a transaction does to a block, by [state](position).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlockDelta {
    counts: [i32; 6],
    flipped: [Bits; 6],
}

impl BlockDelta {
    /// An image goes from one state to another.
    pub(super) fn moved(&mut self, idx: i64, from: ImageState, to: ImageState) {
        self.counts[position(from)] -= 1;
        self.flip(idx, from);
        self.inserted(idx, to);
    }

    /// An image is new.
    pub(super) fn inserted(&mut self, idx: i64, state: ImageState) {
        self.counts[position(state)] += 1;
        self.flip(idx, state);
    }

    fn flip(&mut self, idx: i64, state: ImageState) {
        let offset = usize::try_from(idx.rem_euclid(BLOCK)).unwrap_or(0);
        self.flipped[position(state)][offset / 64] ^= 1 << (offset % 64);
    }

    /// Whether everything is as before.
    pub(super) fn is_nothing(&self) -> bool {
        self.counts == [0; 6] && self.flipped == [[0; WORDS]; 6]
    }

    /// Images that a state gains.
    pub(super) fn count(&self, state: usize) -> i32 {
        self.counts[state]
    }

    /// The bits of a state that flip, as the text of a `BIT (256)`: that of the first image first.
    pub(super) fn bits(&self, state: usize) -> String {
        let bit = |offset: usize| (self.flipped[state][offset / 64] >> (offset % 64)) & 1 == 1;
        (0..64 * WORDS).map(|offset| if bit(offset) { '1' } else { '0' }).collect()
    }
}

/// Place of a state among the columns.
fn position(state: ImageState) -> usize {
    match state {
        ImageState::Waiting => 0,
        ImageState::Ready => 1,
        ImageState::Dispatched => 2,
        ImageState::Done => 3,
        ImageState::Dead => 4,
        ImageState::Cancelled => 5,
    }
}

/// The images of a block whose bits are set, by their indexes, in order.
pub(super) fn set_in(block: i64, bits: &str) -> Result<impl Iterator<Item = i64>, Error> {
    if bits.len() != 64 * WORDS {
        return Err(Error::Corrupt(format!("a block of images has {} bits", bits.len())));
    }
    let set = bits.bytes().enumerate().filter(|(_, bit)| *bit == b'1');
    Ok(set.map(move |(offset, _)| block * BLOCK + column(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_moves_flips_one_bit_in_each_of_two_states() {
        let mut delta = BlockDelta::default();
        delta.moved(256 + 65, ImageState::Ready, ImageState::Dispatched);
        delta.inserted(256, ImageState::Dead);
        let set = |state: ImageState| -> Vec<i64> {
            set_in(1, &delta.bits(position(state))).expect("256 bits").collect()
        };
        assert_eq!((set(ImageState::Ready), set(ImageState::Dispatched)), (vec![321], vec![321]));
        assert_eq!((set(ImageState::Dead), set(ImageState::Done)), (vec![256], vec![]));
        assert_eq!(delta.counts, [0, -1, 1, 0, 1, 0]);
        assert!(set_in(1, "101").is_err());
    }

    #[test]
    fn an_image_that_moves_there_and_back_changes_nothing() {
        let mut delta = BlockDelta::default();
        delta.moved(7, ImageState::Dispatched, ImageState::Ready);
        assert!(!delta.is_nothing());
        delta.moved(7, ImageState::Ready, ImageState::Dispatched);
        assert!(delta.is_nothing());
    }
}
