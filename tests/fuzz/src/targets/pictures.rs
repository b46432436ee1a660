//! Pictures: ours as they come back with their recipes, and those of users.

use darkroom_artifacts::{
    input::{Given, Pixels, Use, memory},
    picture::{Picture, decode, encode_rgb, read_text},
};
use darkroom_core::{extent::Extent, picture_text::Recipe};

use super::messages::Rough as _;
use crate::{MEMORY, verdict::Verdict};

/// Pictures of more pixels are not written again.
const SMALL: usize = 1 << 14;

/// A picture of ours, perhaps saved by another program.
pub(super) fn pictures(data: &[u8]) -> Verdict {
    let text = read_text(data);
    let picture = match decode(data) {
        Ok(picture) => picture,
        Err(error) => {
            // The text may be readable where the pixels are not.
            recipe(text.as_deref().unwrap_or_default(), data);
            return Verdict::refused(error, data);
        }
    };
    let Picture { width, height, rgb, text } = &picture;
    assert_eq!(rgb.len(), 3 * *width as usize * *height as usize);
    let has_recipe = recipe(text, data);
    if rgb.len() <= 3 * SMALL {
        // A keyword may be one that PNG does not have.
        match encode_rgb(*width, *height, rgb, text) {
            Ok(png) => assert_eq!(decode(&png).expect("our own"), picture),
            Err(error) => drop(Verdict::refused(error, data)),
        }
    }
    Verdict::accepted(format_args!("{} {} {has_recipe}", rgb.len().ilog2_or_zero(), text.len()))
}

/// Reads a recipe, and whether there is one. What is read is written as it was read.
fn recipe(text: &[(String, String)], data: &[u8]) -> bool {
    let pairs = |text: &[(String, String)]| -> Result<Recipe, _> {
        Recipe::from_pairs(text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str())))
    };
    match pairs(text) {
        Ok(recipe) => {
            assert_eq!(pairs(&recipe.to_pairs()).as_ref(), Ok(&recipe));
            true
        }
        Err(error) => {
            super::messages::refusal(&error, data);
            false
        }
    }
}

/// A picture to start from, or a mask.
pub(super) fn inputs(data: &[u8]) -> Verdict {
    let told = memory(data);
    let before = MEMORY.current_usage();
    match Given::decode(data) {
        Ok(given) => {
            let took = MEMORY.peak_usage().saturating_sub(before) as u64;
            let told = told.expect("what is decoded has a header");
            // Small pictures take what their decoder takes.
            let most = told + (4 << 20) + 8 * data.len() as u64;
            assert!(took <= most, "it took {took} bytes; its header says at most {told}");
            for note in &given.notes {
                let bad = note.chars().find(|character| character.is_control());
                assert!(bad.is_none(), "a note has {bad:?}: {note:?}");
            }
            let extent = given.pixels.extent;
            let alpha = given.pixels.has_alpha();
            if given.pixels.extent.area() <= SMALL as u64 {
                stored(&given.pixels, data);
            }
            Verdict::accepted(format_args!(
                "{alpha} {} {} {}",
                given.orientation,
                given.notes.len(),
                extent.width.ilog2()
            ))
        }
        Err(error) => Verdict::refused(error, data),
    }
}

/// Stores what was decoded, reads it back, and fits it to a stage.
fn stored(pixels: &Pixels, data: &[u8]) {
    let png = pixels.canonical().expect("a small picture");
    assert_eq!(Pixels::stored(&png).as_ref(), Ok(pixels), "it is stored as another picture");
    if let Err(error) = pixels.check_mask() {
        drop(Verdict::refused(error, data));
    }
    let extent = Extent { width: 16, height: 8 };
    let fitted = pixels.for_stage(Use::Picture, extent, None).expect("memory");
    assert_eq!(fitted.shape, [3, 8, 16]);
    assert!(fitted.data.iter().all(|value| (-1.0..=1.0).contains(value)));
}
