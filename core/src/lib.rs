//!
//! Pure: values in, values out. It never knows of tokio, SQL, gRPC, queues, object stores or tch, and it never
//! reads a clock, a file or the environment.

pub mod artifact;
pub mod cascade;
pub mod digest;
pub mod error;
pub mod id;
pub mod prompt;
pub mod settings;
