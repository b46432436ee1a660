//! The farm's calls, apart from how they arrive.
//!
//! [`Calls`] is one trait with a method for each call of `darkroom.v1.Farm`, and [`Members`] of
//! `darkroom.v1.Members`. Every method takes the
//! [`Caller`] and a message, and fails with core's `UserError`, which holds everything that gRPC
//! and HTTP tell about a failure. The coordinator implements it. [`CallerLayer`] says who calls,
//! and [`grpc`] serves the calls over gRPC.
//!
//! This crate knows core's words and the messages of the protocol. It never knows SQL, queues,
//! storage or models.

mod caller;
mod calls;
mod layer;

pub mod grpc;
pub mod members;

pub use caller::{Caller, Scope};
pub use calls::{Answer, Calls, Incoming, Outgoing};
pub use layer::{CallerLayer, WithCaller};
pub use members::Members;
