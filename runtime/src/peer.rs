//! The other end of a gRPC connection, as a client sees it: its address, what answered there, and
//! whether a retry can help.
//!
//! There may be proxies between a client and a farm, and an address may be wrong. This module
//! distinguishes a farm's answer from a proxy's, and from that of a server that is not a farm. It
//! knows no service.

mod address;
mod answer;
mod channel;
mod connect;
mod patience;
mod probe;
mod trouble;

pub use address::{Address, Addresses};
pub use answer::Answer;
pub use channel::{Caller, Peers};
pub use patience::Patience;
pub use trouble::{Kind, Trouble, passes, refused_as_too_large};
