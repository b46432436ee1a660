//! The Redis backend on a real server: the suite that every backend passes, and what a server can do to it.

#[path = "redis/support.rs"]
mod support;

#[path = "redis/suite.rs"]
mod suite;
