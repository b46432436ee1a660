//! Describes a set of weights by its headers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use super::{Weights, may_grow};
use crate::device::Placement;
use crate::engine::Engine;
use crate::layers::Torch;

/// A set of weights: the number of parameters, their formats and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsSurvey {
    /// How many numbers the network uses.
    pub parameters: usize,
    /// How many of these stay in f32, whatever format the network has.
    pub always_f32: usize,
    /// Bytes on disk of all tensors, by their stored format (`F32`, `F16`, `BF16`).
    pub stored: BTreeMap<String, u64>,
    /// Bytes on disk of tensors that the network does not use, such as a decoder beside the
    /// encoder.
    pub unused: u64,
    /// The files, an index before its shards.
    pub files: Vec<PathBuf>,
    /// The name of this set: `fp32` (the plain one), `fp16`, `bf16` or another word.
    pub variant: String,
    /// The other sets in the folder.
    pub other_variants: Vec<String>,
    /// How many numbers packing adds for this crate's kernels in f32: up to 7 for each 9 of wide
    /// convolutions.
    packing_adds_f32: usize,
    /// The same in bfloat16, in which larger networks are packed.
    packing_adds_bf16: usize,
}

impl WeightsSurvey {
    /// Bytes of memory for the network's weights in f32 or, if `bf16`, in bfloat16: on a GPU, and
    /// on CPUs without this crate's kernels. [`Self::memory_on_this_cpu`] includes what packing for
    /// the kernels adds.
    #[must_use]
    pub fn memory(&self, bf16: bool) -> u64 {
        let narrow = if bf16 { self.parameters - self.always_f32.min(self.parameters) } else { 0 };
        (narrow * 2 + (self.parameters - narrow) * 4) as u64
    }

    /// Bytes of memory for the network's weights on this machine's CPU. If the CPU supports this
    /// crate's kernels, the weights of wide 3 × 3 convolutions take up to 16/9 of their bytes, in
    /// networks of at most 2 GiB in that format. Otherwise, and without such convolutions, it is
    /// [`Self::memory`].
    #[must_use]
    pub fn memory_on_this_cpu(&self, bf16: bool) -> u64 {
        let kind = if bf16 { Kind::BFloat16 } else { Kind::Float };
        self.packed(Placement::new(Engine::of_this_cpu(), kind))
    }

    /// The same, as `placement` packs them.
    pub(crate) fn packed(&self, Placement { engine, kind, .. }: Placement) -> u64 {
        let bf16 = kind == Kind::BFloat16;
        let added = match (engine.packs_weights(), bf16) {
            (false, _) => 0,
            (true, false) => self.packing_adds_f32,
            (true, true) => self.packing_adds_bf16,
        };
        self.memory(bf16) + (added * kind.elt_size_in_bytes()) as u64
    }

    /// Adds two networks, each packed as it would be alone.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.parameters += other.parameters;
        self.always_f32 += other.always_f32;
        self.unused += other.unused;
        self.packing_adds_f32 += other.packing_adds_f32;
        self.packing_adds_bf16 += other.packing_adds_bf16;
        for (format, bytes) in &other.stored {
            *self.stored.entry(format.clone()).or_default() += bytes;
        }
        self.files.extend(other.files.iter().cloned());
        self
    }
}

impl Weights {
    /// The result so far; complete when the network has taken all its tensors.
    pub(crate) fn describe(&self) -> WeightsSurvey {
        let mut stored: BTreeMap<String, u64> = BTreeMap::new();
        let (mut unused, taken) = (0, self.taken.borrow());
        for file in &self.files {
            for (name, info) in file.header.tensors() {
                let bytes = (info.data_offsets.1 - info.data_offsets.0) as u64;
                *stored.entry(format!("{:?}", info.dtype)).or_default() += bytes;
                if !taken.contains(&name) {
                    unused += bytes;
                }
            }
        }
        let mut variants = self.surveyed.clone().unwrap_or_default().into_iter();
        let counts = *self.counts.borrow();
        let shards =
            self.files.iter().map(|file| file.path.clone()).filter(|path| *path != self.source);
        let files = std::iter::once(self.source.clone()).chain(shards).collect();
        // Whether a network grows depends on all numbers in its files, used or not.
        let added = |kind| if may_grow(self.numbers, kind) { counts.may_grow * 7 / 9 } else { 0 };
        WeightsSurvey {
            parameters: counts.parameters,
            always_f32: counts.always_f32,
            stored,
            unused,
            files,
            variant: variants.next().unwrap_or_default(),
            other_variants: variants.collect(),
            packing_adds_f32: added(Kind::Float),
            packing_adds_bf16: added(Kind::BFloat16),
        }
    }
}

/// The placement of a surveyed network: it holds no weights and never runs.
pub(crate) fn nowhere() -> Placement {
    Placement::new(Engine::Cpu, Kind::Float)
}

/// The tensors that a survey returns. Vectors, which are small, are complete and filled with zeros,
/// because loading computes with them. All others have no rows, so that joining and transposing
/// them costs nothing.
pub(super) fn stand_in(shape: &[usize], kind: Kind) -> Torch<Tensor> {
    let mut extents: Vec<i64> = shape.iter().map(|extent| *extent as i64).collect();
    if extents.len() > 1 {
        extents[0] = 0;
    }
    Tensor::f_zeros(&extents, (kind, Device::Cpu))
}
