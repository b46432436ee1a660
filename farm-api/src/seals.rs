//! Seals on texts that the farm gives out and gets back: sessions of browsers, and links.

/// What a text is for. A seal for one purpose is none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It stands for a key ([`Session`](darkroom_core::session::Session)).
    Session,
    /// Whoever has it may fetch one picture.
    Link,
}

impl Purpose {
    /// Its name, which is part of what is sealed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Link => "link",
        }
    }
}

/// Makes seals with the farm's secret, so that every coordinator of the farm checks those of every
/// other one.
pub trait Seals: Send + Sync + 'static {
    /// The seal of a text. Whoever does not have the secret cannot make it.
    fn seal(&self, purpose: Purpose, text: &[u8]) -> [u8; 32];
}
