//! The suites that every backend of the queue and of the store passes, and the small cascade that
//! tests use.
//!
//! A suite uses only the public trait, like any other crate. A backend runs it from `tests/all` of
//! its crate with one macro, and each check becomes a test there. Nothing that ships depends on
//! this crate.

pub mod cascade;
#[cfg(feature = "store")]
pub mod obstacles;
pub mod queue;
#[cfg(feature = "store")]
pub mod store;
