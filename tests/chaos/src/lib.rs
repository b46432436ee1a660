//! Breaking the farm on purpose: real processes and servers, faults drawn from a seed, and a verdict at the end.
//!
//! [`run`] starts a farm of fakes, gives it jobs, injects faults while they run, lets it come to rest, and compares
//! what it made with what it should have made. It talks to loopback only, is bounded in time, and ends what it started.

pub mod cluster;
pub mod disk;
pub mod load;
mod past;
pub mod plan;
pub mod recovery;
mod rounds;
pub mod run;
pub mod verdict;
