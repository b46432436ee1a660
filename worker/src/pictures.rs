//! The form in which a stage needs a user's picture.

use darkroom_artifacts::{
    input::{Error, Pixels, Use},
    tensor::FloatTensor,
};
use darkroom_core::extent::Extent;
use darkroom_queue::task::Fitting;

/// The form in which a picture is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// As a picture to start from, or as a mask.
    pub(crate) as_a: Use,
    /// At this size; `None`: at its own size.
    pub(crate) extent: Option<Extent>,
    /// How it is made to fit if it has another shape. This includes the size.
    pub(crate) fit: Option<Fitting>,
}

impl Wanted {
    /// The pixels of a stored file in this form.
    pub(crate) fn read(self, bytes: &[u8]) -> Result<FloatTensor, Error> {
        let pixels = Pixels::stored(bytes)?;
        let extent =
            self.fit.map(|fitting| fitting.extent).or(self.extent).unwrap_or(pixels.extent);
        pixels.for_stage(self.as_a, extent, self.fit.map(|fitting| fitting.fit))
    }
}
