//! Breaking the farm on purpose: real processes and servers, faults drawn from a seed, and a
//! verdict at the end.
//!
//! [`run`] starts a farm of fakes, submits jobs, injects faults while they run, waits for the jobs
//! to end, and compares the results with the expected ones. It uses only loopback, is bounded in
//! time, and ends everything that it started.

pub mod cluster;
pub mod disk;
pub mod load;
pub mod options;
mod past;
pub mod plan;
pub mod recovery;
mod rounds;
pub mod run;
pub mod verdict;
