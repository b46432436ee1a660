//! How values from outside are repeated in errors.

use std::borrow::Cow;

use darkroom_core::shown::shown;

/// How much of a value is repeated, bytes.
const REPEATED: usize = 100;

/// The beginning of a text from outside, safe to show.
pub(super) fn told(text: &str) -> Cow<'_, str> {
    shown(&text[..text.floor_char_boundary(REPEATED)])
}
