//! The hardware that an encoder runs on.

/// What to run on, as a user writes it. The cascade decides the number format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `auto`, `cpu`, `cuda` or `cuda:N`; absent means `auto`.
    pub device: Option<String>,
    /// Threads inside one operation; absent means one per core.
    pub threads: Option<usize>,
}
