//! Darkroom's domain: what jobs, images, stages and cascades are, and the rules they follow.
//!
//! Pure: values in, values out. It never knows of tokio, SQL, gRPC, queues, object stores or tch,
//! and it never reads a clock, a file or the environment.

pub mod artifact;
pub mod backoff;
pub mod batch_state;
pub mod caption;
pub mod cascade;
mod course;
mod defaults;
pub mod digest;
pub mod error;
pub mod extent;
pub mod failure_code;
pub mod fair_share;
pub mod fit;
pub mod forecast;
pub mod guard;
pub mod id;
pub mod image_command;
pub mod image_filter;
pub mod image_state;
pub mod job_filter;
pub mod job_state;
pub mod key;
pub mod label;
pub mod mix;
pub mod open_name;
pub mod output;
mod overlay;
pub mod picture_text;
pub mod prompt;
pub mod prompt_filter;
pub mod quota;
mod request;
pub mod retention;
pub mod retry;
pub mod sampling;
pub mod scope;
pub mod session;
pub mod settings;
pub mod shape;
pub mod sharing;
pub mod shown;
pub mod start;
pub mod tenant;
pub mod text_state;
pub mod thumbnail;
pub mod webhook;
pub mod worker_health;
pub mod worker_state;
