//! What every process of the farm needs and no part of it owns: a gRPC server that starts and stops well, logging,
//! signals, configuration files, and the state folder with its lock.
//!
//! It knows no service, no queue, no SQL and no model.

pub mod config;
pub mod deadline;
pub mod descriptors;
pub mod listen;
pub mod program;
pub mod secret;
pub mod server;
pub mod shutdown;
pub mod state_dir;
pub mod telemetry;
