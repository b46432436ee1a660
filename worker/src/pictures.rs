//! Users' pictures as stages need them, the last ones kept: the images of a prompt all start from the same.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_artifacts::{
    input::{Error, Pixels},
    tensor::FloatTensor,
};
use darkroom_core::{digest::Digest, extent::Extent};

/// Values kept, as many as of five pictures of 1024x1024.
const KEPT_VALUES: usize = 16 << 20;

/// What a picture is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// To start from, at this size.
    Picture(Extent),
    /// As a mask, at this size.
    Mask(Extent),
    /// As a low-resolution picture, at its own size.
    LowRes,
}

impl Use {
    /// The pixels of a file as they are wanted.
    pub(crate) fn read(self, bytes: &[u8]) -> Result<FloatTensor, Error> {
        let pixels = Pixels::decode(bytes)?;
        match self {
            Self::Picture(extent) => pixels.picture(extent),
            Self::Mask(extent) => Ok(pixels.mask(extent)),
            Self::LowRes => pixels.picture(pixels.extent),
        }
    }
}

type Id = (Digest, Use);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pictures(Mutex<VecDeque<(Id, Arc<FloatTensor>)>>);

impl Pictures {
    pub(crate) fn get(&self, id: &Id) -> Option<Arc<FloatTensor>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(known, _)| known == id).map(|(_, tensor)| Arc::clone(tensor))
    }

    /// Keeps a picture, at the cost of those that came first.
    pub(crate) fn keep(&self, id: Id, tensor: FloatTensor) -> Arc<FloatTensor> {
        let tensor = Arc::new(tensor);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((id, Arc::clone(&tensor)));
        let mut values: usize = kept.iter().map(|(_, tensor)| tensor.data.len()).sum();
        while values > KEPT_VALUES && kept.len() > 1 {
            values -= kept.pop_front().map_or(0, |(_, tensor)| tensor.data.len());
        }
        tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_first_makes_room_and_the_newest_is_always_kept() {
        let pictures = Pictures::default();
        let id = |number: u8| (Digest::of(&[number]), Use::LowRes);
        let big = |values: usize| FloatTensor { shape: vec![values], data: vec![0.0; values] };
        for number in 0..3 {
            pictures.keep(id(number), big(KEPT_VALUES / 2));
        }
        assert!(pictures.get(&id(0)).is_none());
        assert!(pictures.get(&id(1)).is_some() && pictures.get(&id(2)).is_some());
        let other = (Digest::of(&[1]), Use::Mask(Extent::square(1)));
        assert!(pictures.get(&other).is_none(), "the same file for another use");
        pictures.keep(id(3), big(2 * KEPT_VALUES));
        assert!(pictures.get(&id(3)).is_some());
    }
}
