//! Users' pictures as stages need them, the last ones kept: the images of a prompt all start from the same.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_artifacts::{
    input::{Error, Pixels, Use},
    tensor::FloatTensor,
};
use darkroom_core::{digest::Digest, extent::Extent};
use darkroom_queue::task::Fitting;

/// Values kept, as many as of five pictures of 1024x1024.
const KEPT_VALUES: usize = 16 << 20;

/// What is wanted of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// To start from, or as a mask.
    pub(crate) as_a: Use,
    /// At this size; `None`: at its own.
    pub(crate) extent: Option<Extent>,
    /// How it is made to fit, where its shape is another. It says the size, too.
    pub(crate) fit: Option<Fitting>,
}

impl Wanted {
    /// The pixels of a stored file as they are wanted.
    pub(crate) fn read(self, bytes: &[u8]) -> Result<FloatTensor, Error> {
        let pixels = Pixels::stored(bytes)?;
        let extent = self.fit.map(|fitting| fitting.extent).or(self.extent).unwrap_or(pixels.extent);
        pixels.for_stage(self.as_a, extent, self.fit.map(|fitting| fitting.fit))
    }
}

type Id = (Digest, Wanted);

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
        let wanted = |as_a: Use| Wanted { as_a, extent: Some(Extent::square(1)), fit: None };
        let id = |number: u8| (Digest::of(&[number]), wanted(Use::Picture));
        let big = |values: usize| FloatTensor { shape: vec![values], data: vec![0.0; values] };
        for number in 0..3 {
            pictures.keep(id(number), big(KEPT_VALUES / 2));
        }
        assert!(pictures.get(&id(0)).is_none());
        assert!(pictures.get(&id(1)).is_some() && pictures.get(&id(2)).is_some());
        let other = (Digest::of(&[1]), wanted(Use::Mask));
        assert!(pictures.get(&other).is_none(), "the same file for another use");
        pictures.keep(id(3), big(2 * KEPT_VALUES));
        assert!(pictures.get(&id(3)).is_some());
    }
}
