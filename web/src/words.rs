//! How texts from outside are repeated in errors.

use darkroom_core::shown::{shortened, shown, shown_bytes};
use http::HeaderValue;

/// How much of a text is repeated, bytes.
const REPEATED: usize = 100;

/// A text from outside, safe to show, and shortened if it is long.
pub(crate) fn told(text: &str) -> String {
    shortened(&shown(text), REPEATED).into_owned()
}

/// The same of a header.
pub(crate) fn told_header(value: &HeaderValue) -> String {
    shortened(&shown_bytes(value.as_bytes()), REPEATED).into_owned()
}
