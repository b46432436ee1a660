//! What every process of the farm needs and no part of it owns: a gRPC server that starts and stops
//! cleanly, TLS, keys of clients, logging, signals, command lines, configuration files, terminal
//! output, files on any kind of mount, the room of a disk, the state folder with its lock, and requests
//! to servers that users name.
//!
//! It knows no service, no queue, no SQL and no model.

pub mod arguments;
pub mod config;
pub mod credential;
pub mod deadline;
pub mod descriptors;
pub mod disk;
pub mod files;
pub mod listen;
pub mod memory;
pub mod outgoing;
pub mod peer;
pub mod program;
pub mod secret;
pub mod server;
mod settings;
pub mod shutdown;
pub mod state_dir;
pub mod telemetry;
pub mod terminal;
pub mod tls;
mod write_through;
