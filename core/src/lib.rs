//! Darkroom's domain: what jobs, images, stages and cascades are, and the rules they follow.
//!
//! Pure: values in, values out. It never knows of tokio, SQL, gRPC, queues, object stores or tch, and it never
//! reads a clock, a file or the environment.

pub mod artifact;
pub mod caption;
pub mod cascade;
pub mod conduct;
pub mod digest;
pub mod error;
pub mod extent;
pub mod fair_share;
pub mod fit;
pub mod forecast;
pub mod guard;
pub mod id;
pub mod image_state;
pub mod job_state;
pub mod label;
pub mod picture_text;
pub mod prompt;
pub mod retry;
pub mod settings;
pub mod shape;
pub mod shown;
pub mod start;
