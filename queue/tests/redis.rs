//! The Redis backend on a real server: the suite that every backend passes, and what a server can do to it.

#[path = "redis/farm.rs"]
mod farm;
#[path = "redis/faults.rs"]
mod faults;
#[path = "redis/keys.rs"]
mod keys;
#[path = "redis/network.rs"]
mod network;
#[path = "redis/places.rs"]
mod places;
#[path = "redis/sentinel.rs"]
mod sentinel;
#[path = "redis/start.rs"]
mod start;
#[path = "redis/suite.rs"]
mod suite;
#[path = "redis/support.rs"]
mod support;
#[path = "redis/tls.rs"]
mod tls;
#[path = "redis/trouble.rs"]
mod trouble;
#[path = "redis/waiting.rs"]
mod waiting;
