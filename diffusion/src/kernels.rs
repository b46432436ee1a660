//! This crate's own operations for CPUs with AVX2 or AVX-512: convolutions and linear layers,
//! attention, normalisation with activation, the operations between them, and the sampler's sums.
//!
//! They have two reasons. libtorch chooses kernels and splits sums by the shape of a whole batch;
//! here an output depends only on its own row, so any number of images can share a pass and any
//! number of threads a layer, with the same bits (docs/adr/0011-own-kernels.md). And they do in two
//! passes over a picture what takes libtorch eight.
//!
//! On other CPUs [`available`] is false, and networks use libtorch's operations, which are also the
//! reference in tests.

#[cfg(target_arch = "x86_64")]
mod attend;
#[cfg(target_arch = "x86_64")]
mod conv;
#[cfg(target_arch = "x86_64")]
mod instructions;
#[cfg(target_arch = "x86_64")]
mod layer;
#[cfg(target_arch = "x86_64")]
mod norm;
#[cfg(target_arch = "x86_64")]
mod packed;
#[cfg(target_arch = "x86_64")]
mod pictures;
#[cfg(target_arch = "x86_64")]
mod scratch;
#[cfg(target_arch = "x86_64")]
mod vector;
#[cfg(target_arch = "x86_64")]
mod winograd;

#[cfg(not(target_arch = "x86_64"))]
#[path = "kernels/absent.rs"]
mod layer;

mod pool;
mod threads;

pub(crate) use layer::{
    ConvKernel, ConvPart, Heads, Layout, NormKernel, Packing, Picture, Shape, attend, beside,
    blend, halve,
};
pub(crate) use threads::{OneThread, count as threads};

/// Whether this CPU has the instructions that they need, and may use them.
pub(crate) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        instructions::InstructionSet::chosen().is_some()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
