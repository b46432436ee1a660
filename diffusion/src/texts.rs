//! Keeps what a network computes from a text, for all images that share the text. The images of a
//! job have one negative text, often the empty one, and those of one prompt share that prompt.

use std::cell::RefCell;

use crate::host::HostTensor;
use crate::layers::Torch;
use crate::unet::Conditioning;

/// How many texts are kept. One text takes about ten megabytes with IF-I-XL's widths.
const MOST: usize = 4;

/// The least recently used texts come first.
#[derive(Default)]
pub(crate) struct Texts(RefCell<Vec<Known>>);

struct Known {
    text: HostTensor,
    noise_level: Option<u32>,
    conditioning: Conditioning,
}

impl Texts {
    /// What a network computes from a text: kept from before, or computed by `make`.
    pub(crate) fn of(
        &self,
        text: &HostTensor,
        noise_level: Option<u32>,
        make: impl FnOnce() -> Torch<Conditioning>,
    ) -> Torch<Conditioning> {
        let mut known = self.0.borrow_mut();
        let is_it = |known: &Known| known.noise_level == noise_level && known.text == *text;
        if let Some(place) = known.iter().position(is_it) {
            let found = known.remove(place);
            let conditioning = found.conditioning.share();
            known.push(found);
            return Ok(conditioning);
        }
        let conditioning = make()?;
        if known.len() == MOST {
            known.remove(0);
        }
        known.push(Known { text: text.clone(), noise_level, conditioning: conditioning.share() });
        Ok(conditioning)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn a_text_is_made_once_for_all_that_share_it_and_the_oldest_of_many_again() {
        let (texts, made) = (Texts::default(), Cell::new(0));
        let text = |value: f32| HostTensor { shape: vec![1, 2], data: vec![value, 0.0] };
        let of = |value: f32, level: Option<u32>| {
            let make = || {
                made.set(made.get() + 1);
                let keys = Tensor::full([1, 2], f64::from(value), (Kind::Float, Device::Cpu));
                Ok(Conditioning::new(None, vec![(keys.shallow_clone(), keys)]))
            };
            let conditioning = texts.of(&text(value), level, make).unwrap();
            (conditioning.text[0].0.double_value(&[0, 0]), made.get())
        };
        assert_eq!([of(1.0, None), of(1.0, None), of(2.0, None)], [(1.0, 1), (1.0, 1), (2.0, 2)]);
        assert_eq!(of(1.0, Some(3)), (1.0, 3), "another noise level is another thing");
        assert_eq!([of(4.0, None), of(1.0, None)], [(4.0, 4), (1.0, 4)]);
        assert_eq!(of(5.0, None), (5.0, 5), "the fifth drops the least recently used one");
        assert_eq!([of(1.0, None), of(2.0, None)], [(1.0, 5), (2.0, 6)]);
    }
}
