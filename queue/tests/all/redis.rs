//! The Redis backend on a real server: the suite for all backends, and faults of the server.

mod damaged;
mod farm;
mod faults;
mod keys;
mod network;
mod places;
mod rights;
mod sentinel;
mod start;
mod suite;
mod support;
mod tls;
mod trouble;
mod waiting;
