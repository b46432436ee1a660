//! What computes a network: libtorch or this crate's own kernels, on the CPU or on a GPU.
//!
//! Code asks the [`Engine`] a question instead of looking at devices and flags. So a new engine is
//! a new variant here, with an answer to each question. [`crate::rows`] says how many rows share a
//! pass.

use tch::Device;

use crate::cuda;
use crate::kernels;

/// Raise this when a change to the CPU kernels changes bits.
const KERNELS: u32 = 4;
/// The same for the GPU kernels.
const CUDA_KERNELS: u32 = 1;

/// What computes a network, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// libtorch's operations on the CPU.
    Cpu,
    /// This crate's kernels on the CPU; libtorch computes what they do not cover.
    CpuKernels,
    /// libtorch's operations on the GPU with this index.
    Cuda(usize),
    /// The same, with this crate's kernels for everything except convolutions.
    CudaKernels(usize),
}

impl Engine {
    /// The engine for networks on this machine's CPU.
    pub(crate) fn of_this_cpu() -> Self {
        if kernels::available() { Self::CpuKernels } else { Self::Cpu }
    }

    /// With this crate's kernels, if they run here.
    pub(crate) fn with_own_kernels(self) -> Self {
        match self {
            Self::Cpu => Self::of_this_cpu(),
            Self::Cuda(index) if cuda::kernels(index).is_some() => Self::CudaKernels(index),
            engine => engine,
        }
    }

    /// The device that holds the tensors.
    pub(crate) fn device(self) -> Device {
        self.gpu().map_or(Device::Cpu, Device::Cuda)
    }

    /// Index of its GPU; `None` on the CPU.
    pub(crate) fn gpu(self) -> Option<usize> {
        match self {
            Self::Cpu | Self::CpuKernels => None,
            Self::Cuda(index) | Self::CudaKernels(index) => Some(index),
        }
    }

    /// Whether a row's bits depend on that row alone. If so, any number of rows may share a pass,
    /// and results for one row's text can be reused for others. If not, a pass has a fixed number
    /// of rows.
    pub(crate) fn rows_are_independent(self) -> bool {
        match self {
            Self::CpuKernels => true,
            Self::Cpu | Self::Cuda(_) | Self::CudaKernels(_) => false,
        }
    }

    /// Whether layers use this crate's CPU kernels, with weights packed for them.
    pub(crate) fn packs_weights(self) -> bool {
        match self {
            Self::CpuKernels => true,
            Self::Cpu | Self::Cuda(_) | Self::CudaKernels(_) => false,
        }
    }

    /// This crate's kernels on its GPU.
    pub(crate) fn cuda_kernels(self) -> Option<&'static cuda::Kernels> {
        match self {
            Self::CudaKernels(index) => cuda::kernels(index),
            Self::Cpu | Self::CpuKernels | Self::Cuda(_) => None,
        }
    }

    /// Name of its device, for people.
    pub(crate) fn device_name(self) -> String {
        self.gpu().map_or_else(|| "cpu".to_owned(), |index| format!("cuda:{index}"))
    }

    /// The properties of the engine that change bits, for a processor of model `model`; this is the
    /// first part of a class of device. `threads` are the threads of one operation, which change
    /// how libtorch splits sums.
    pub(crate) fn class(self, model: &str, threads: usize) -> String {
        match self {
            Self::Cpu => format!("cpu/{model}/threads={threads}"),
            // The bits of the kernels, and of libtorch on one thread beside them, do not depend on
            // the number of threads.
            Self::CpuKernels => format!("cpu/{model}/kernels={KERNELS}"),
            Self::Cuda(_) => format!("cuda/{model}"),
            Self::CudaKernels(_) => format!("cuda/{model}/kernels={CUDA_KERNELS}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_that_give_other_bits_are_of_other_classes() {
        let all = [Engine::Cpu, Engine::CpuKernels, Engine::Cuda(1), Engine::CudaKernels(1)];
        assert_eq!(
            all.map(|engine| engine.class("m", 3)),
            ["cpu/m/threads=3", "cpu/m/kernels=4", "cuda/m", "cuda/m/kernels=1"]
        );
        assert_eq!(all.map(Engine::device_name), ["cpu", "cpu", "cuda:1", "cuda:1"]);
        for engine in all {
            let threads_count = engine.class("m", 1) != engine.class("m", 2);
            assert!(!(engine.rows_are_independent() && threads_count), "{engine:?}");
        }
    }

    #[test]
    fn own_kernels_are_taken_where_they_run_and_stay_on_the_device() {
        let cpu = Engine::Cpu.with_own_kernels();
        assert_eq!(cpu == Engine::CpuKernels, kernels::available());
        assert_eq!(cpu.with_own_kernels(), cpu);
        assert_eq!((cpu.device(), cpu.gpu()), (Device::Cpu, None));
        assert_eq!(Engine::Cuda(0).with_own_kernels().gpu(), Some(0));
    }
}
