//! The other end of a gRPC connection, as a client sees it: where it may be, what answered there, and whether trying again
//! can help.
//!
//! Between a client and a farm there may be proxies, and an address may be wrong. This module tells a farm's answer from
//! a proxy's and from that of a server that is no farm at all. It knows no service.

mod address;
mod answer;
mod channel;
mod patience;
mod probe;
mod trouble;

pub use address::{Address, Addresses};
pub use answer::Answer;
pub use channel::{Caller, Peers};
pub use patience::Patience;
pub use trouble::{Kind, Trouble, passes, refused_as_too_large};
