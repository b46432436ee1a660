//! The farm's calls, apart from how they arrive.
//!
//! [`Calls`] is one trait with a method for each call of `darkroom.v1.Farm`, and [`Members`] of
//! `darkroom.v1.Members`. Every method takes the
//! [`Caller`] and a message, and fails with core's `UserError`, which holds everything that gRPC
//! and HTTP tell about a failure. [`AdminCalls`] is the same for `darkroom.v1.Admin`. The
//! coordinator implements both. [`CallerLayer`] says who calls,
//! and [`grpc`] serves the calls over gRPC.
//!
//! This crate knows core's words and the messages of the protocol. It never knows SQL, queues,
//! storage or models.

mod admin_calls;
mod caller;
mod calls;
mod cookie;
mod keeper;
mod layer;
mod rule;
mod seals;
mod standing;

pub mod batches;
pub mod grpc;
pub mod members;

pub use admin_calls::AdminCalls;
pub use batches::Batches;
pub use caller::Caller;
pub use calls::{Answer, Calls, Incoming, Outgoing};
pub use cookie::{Cookie, authority};
pub use darkroom_core::scope::Scope;
pub use keeper::{Keeper, Known, Peer, PeerOf, Proof};
pub use layer::{CallerLayer, HttpRoute, WithCaller};
pub use members::Members;
pub use rule::Rule;
pub use seals::{Purpose, Seals};
pub use standing::{Standing, while_it_stands};
