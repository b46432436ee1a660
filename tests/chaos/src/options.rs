//! Options of a run.

use std::time::Duration;

use crate::{cluster::Setup, plan::Fault};

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of faults, moods and pauses.
    pub seed: u64,
    /// Jobs per round. Another round begins if all end before the last fault.
    pub jobs: u32,
    /// Images per job.
    pub images: u32,
    /// Faults to choose from.
    pub faults: Vec<Fault>,
    /// Most faults.
    pub most_faults: usize,
    /// Longest pause between two faults.
    pub pause: Duration,
    /// Images of the real job, if the farm has real workers.
    pub real_images: u32,
    /// Longest time for the jobs to end, faults included.
    pub limit: Duration,
    /// The farm.
    pub setup: Setup,
}
