//! A change of one image, as the domain decided it and a backend has yet to write it.

use darkroom_core::image_state::ImageProgress;

/// One image's change.
pub(super) struct Move {
    pub(super) job: i64,
    pub(super) idx: i64,
    pub(super) from: ImageProgress,
    pub(super) to: ImageProgress,
    pub(super) error: LastError,
}

/// What becomes of an image's last error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LastError {
    Keep,
    Clear,
    Set { code: String, message: String },
}
