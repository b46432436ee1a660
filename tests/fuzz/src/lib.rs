//! Fuzzing: everything that reads bytes from outside, with mutated bytes.
//!
//! A [target](targets) is a function of bytes that panics where a promise is broken: no panic,
//! bounded memory and time, a refusal is one sentence, what was written is read back. Two drivers
//! call it: [`drive`] here, which needs nothing but a stable compiler, and libFuzzer in `fuzz/`,
//! which sees coverage. Both use the same [mutations](mutation), which know the formats, and the
//! same [corpora](corpus).
//!
//! It knows no processes, servers or networks: those are in `tests/`.

pub mod corpus;
pub mod drive;
pub mod measure;
pub mod mutation;
pub mod seeds;
pub mod targets;
pub mod verdict;

/// Counts the memory that a target takes.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
