//! Captions that are not cleaned.

/// Why a caption is not cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its markup would take too long to parse.
    #[error("its markup is too complex: too many tags begin with < and never end")]
    Markup,
    /// Each round of expanding its character references yields more of them.
    #[error("its character references are too complex: they are nested too deep")]
    References,
}
