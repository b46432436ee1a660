//! Where the mathematics runs, and in which number format.
//!
//! One binary serves CPU and GPU. It links only libtorch's CPU half; [`place`] loads
//! `libtorch_cuda.so` if there is an NVIDIA driver (or if a GPU was requested by name). That must
//! happen before libtorch is first asked about CUDA, so every model is placed before its first
//! tensor is made.

#[expect(
    unsafe_code,
    reason = "dlopen and mallopt have no safe wrapper; no pointer outlives the calls"
)]
mod native;
mod surroundings;

use std::sync::{Mutex, OnceLock, PoisonError};

use tch::{Device, Kind};

use crate::cuda;
use crate::engine::Engine;
use crate::error::LoadError;

pub(crate) use native::open_library;

/// Which device to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device that works, or else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this index; an error if it cannot be used.
    Cuda(usize),
}

/// The number format of the networks. Samplers always compute in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// bf16 on CUDA and on CPUs with bf16 arithmetic (avx512_bf16, AMX), f32 elsewhere.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// bfloat16.
    Bf16,
}

/// How to load a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The device.
    pub device: DeviceChoice,
    /// The number format.
    pub dtype: DtypeChoice,
    /// Threads inside one operation, for the whole process; if absent, libtorch's own choice (one
    /// per core).
    pub threads: Option<usize>,
    /// Run networks only with libtorch's operations, even where this crate has its own kernels.
    pub libtorch_only: bool,
    /// On a GPU, launch every operation separately, never as recorded graphs. The bits are the
    /// same.
    pub eager: bool,
    /// Images per forward pass on a GPU, for measurements; other numbers give other bits. If
    /// absent, the rule decides.
    pub images_per_pass: Option<usize>,
    /// Changes every weight by about its last bit, with this seed. How far that changes an output
    /// is how far rounding can.
    pub disturbed: Option<u64>,
}

/// Which engine computes a model, and in which number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) engine: Engine,
    pub(crate) kind: Kind,
    /// Images per forward pass on a GPU, if not the rule's number.
    pub(crate) images_override: Option<usize>,
    /// Whether weights are changed by about their last bit when they are loaded, and with which
    /// seed.
    pub(crate) disturbed: Option<u64>,
}

impl Placement {
    /// An engine with a number format and defaults for everything else.
    pub(crate) const fn new(engine: Engine, kind: Kind) -> Self {
        Self { engine, kind, images_override: None, disturbed: None }
    }

    pub(crate) fn device(self) -> Device {
        self.engine.device()
    }

    pub(crate) fn dtype_name(self) -> &'static str {
        match self.kind {
            Kind::BFloat16 => "bf16",
            _ => "f32",
        }
    }

    /// The class of device within which results agree bit for bit: the hardware's name and
    /// instruction set, the threads of one operation (they change how sums are split), libtorch's
    /// version, the libraries' settings in the environment that change bits, and the number format.
    pub(crate) fn class(self) -> String {
        self.class_with(usize::try_from(tch::get_num_threads()).unwrap_or(1))
    }

    /// The same for operations on this many threads.
    pub(crate) fn class_with(self, threads: usize) -> String {
        let model = match self.engine.gpu() {
            Some(index) => gpu_model(index),
            None => format!("{}/{}", cpu_model(), cpu_capability()),
        };
        let hardware = self.engine.class(&model, threads);
        let mut parts =
            vec![hardware, surroundings::library(), surroundings::settings(self.device())];
        parts.retain(|part| !part.is_empty());
        parts.push(self.dtype_name().to_owned());
        parts.join("/")
    }
}

/// Chooses the device and the number format, and sets the process's threads.
pub(crate) fn place(options: &LoadOptions) -> Result<Placement, LoadError> {
    native::keep_freed_memory();
    let engine = match options.device {
        DeviceChoice::Cpu => Engine::Cpu,
        DeviceChoice::Auto => match cuda_devices() {
            Ok(count) if *count > 0 => Engine::Cuda(0),
            _ => Engine::Cpu,
        },
        DeviceChoice::Cuda(index) => match cuda_devices() {
            Ok(count) if index < *count => Engine::Cuda(index),
            Ok(count) => {
                return Err(unusable(index, format!("this process sees {count} CUDA devices")));
            }
            Err(reason) => return Err(unusable(index, reason.clone())),
        },
    };
    settle_threads(options.threads);
    let kind = match options.dtype {
        DtypeChoice::F32 => Kind::Float,
        DtypeChoice::Bf16 => Kind::BFloat16,
        DtypeChoice::Auto if engine.gpu().is_some() || cpu_has_bf16() => Kind::BFloat16,
        DtypeChoice::Auto => Kind::Float,
    };
    let placement = Placement::new(engine, kind);
    Ok(Placement {
        images_override: options.images_per_pass,
        disturbed: options.disturbed,
        ..placement
    })
}

/// Free bytes on the device that a model would be placed on, without what other processes use.
/// `None` on a CPU, and if a GPU does not report it.
///
/// # Errors
/// The device cannot be used.
pub fn free_memory(options: &LoadOptions) -> Result<Option<u64>, LoadError> {
    let Some(index) = place(options)?.engine.gpu() else { return Ok(None) };
    match cuda::memory(index) {
        Ok(memory) => {
            tracing::info!(
                device.free = memory.free,
                device.total = memory.total,
                "the device's memory"
            );
            Ok(Some(memory.free))
        }
        Err(reason) => {
            tracing::warn!(reason, "the device does not report how much memory it has");
            Ok(None)
        }
    }
}

/// Memory of a GPU, with what other processes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMemory {
    /// Bytes in use.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The index of the GPU that this choice means; `None`: the CPU.
#[must_use]
pub fn gpu_index(choice: DeviceChoice) -> Option<usize> {
    match choice {
        DeviceChoice::Cpu => None,
        DeviceChoice::Auto => matches!(cuda_devices(), Ok(count) if *count > 0).then_some(0),
        DeviceChoice::Cuda(index) => Some(index),
    }
}

/// Memory of a GPU now. `None` if it does not report it.
#[must_use]
pub fn gpu_memory(index: usize) -> Option<GpuMemory> {
    let memory = cuda::memory(index).ok()?;
    Some(GpuMemory { used: memory.total.saturating_sub(memory.free), total: memory.total })
}

/// Gives memory that the process has freed back to the device, for whatever is loaded next.
pub(crate) fn give_back(placement: Placement) {
    if placement.engine.gpu().is_none() {
        give_freed_memory_back();
    } else if let Err(reason) = cuda::give_back() {
        tracing::debug!(reason, "freed memory stays with libtorch");
    }
}

/// Gives freed memory back to the system once. While weights are loaded, the holes between them
/// cannot be used.
pub(crate) fn give_freed_memory_back() {
    native::give_freed_memory_back();
}

/// The same for a network, which uses this crate's own kernels where they are available.
pub(crate) fn place_network(options: &LoadOptions) -> Result<Placement, LoadError> {
    let placement = place(options)?;
    if options.libtorch_only {
        return Ok(placement);
    }
    Ok(Placement { engine: placement.engine.with_own_kernels(), ..placement })
}

/// Held while thread counts are read or set: libtorch has one count per thread and one for new
/// threads, and setting any of them changes the latter too.
static THREADS: Mutex<()> = Mutex::new(());

/// Sets or reads the operation threads of the calling thread and of new threads.
fn settle_threads(wanted: Option<usize>) {
    let _lock = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    match wanted {
        Some(threads) => tch::set_num_threads(threads.clamp(1, 1024) as i32),
        // Reading makes libtorch settle the count for this thread.
        None => {
            let _ = tch::get_num_threads();
        }
    }
}

/// Permission for a new thread to have its own number of operation threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnThreads(i32);

impl OwnThreads {
    /// Called on the new thread.
    pub(crate) fn take(self) {
        tch::set_num_threads(self.0);
    }
}

/// Gives new threads `threads` operation threads each, if they [take](OwnThreads::take) them within
/// `start`. This thread, and all threads that come later, keep the number that they had.
pub(crate) fn with_threads_elsewhere<T>(threads: usize, start: impl FnOnce(OwnThreads) -> T) -> T {
    let _lock = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = tch::get_num_threads();
    let started = start(OwnThreads(threads.clamp(1, 1024) as i32));
    tch::set_num_threads(before);
    started
}

fn unusable(index: usize, message: String) -> LoadError {
    LoadError::Device { device: format!("cuda:{index}"), message }
}

/// How many CUDA devices can be used, or why none can. This is tested once.
fn cuda_devices() -> &'static Result<usize, String> {
    static DEVICES: OnceLock<Result<usize, String>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        open_library("libcuda.so.1").map_err(|reason| format!("no NVIDIA driver ({reason})"))?;
        open_library("libtorch_cuda.so")
            .map_err(|reason| format!("libtorch's CUDA half could not be loaded ({reason})"))?;
        if !tch::Cuda::is_available() {
            return Err("libtorch sees no CUDA device".to_owned());
        }
        if let Err(reason) = cuda::be_exact() {
            tracing::warn!(
                reason,
                "convolutions in f32 round to TF32, and may differ from run to run"
            );
        }
        Ok(tch::Cuda::device_count().max(0) as usize)
    })
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bf16() -> bool {
    // Every CPU with AMX has avx512_bf16 too.
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_has_bf16() -> bool {
    false
}

/// The widest instruction set that libtorch and oneDNN use here.
fn cpu_capability() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains(" amx_bf16")) {
            "amx"
        } else if cpu_has_bf16() {
            "avx512-bf16"
        } else if std::arch::is_x86_feature_detected!("avx512f") {
            "avx512"
        } else if std::arch::is_x86_feature_detected!("avx2") {
            "avx2"
        } else {
            "sse"
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(':').nth(1));
    word(name.unwrap_or(std::env::consts::ARCH))
}

/// The model of the GPU with this index in the process. The driver is asked, because
/// `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` give cards other numbers than the system does,
/// and a card may be partitioned.
fn gpu_model(index: usize) -> String {
    match native::gpu_name("libcuda.so.1", index) {
        Ok(name) => word(&name),
        Err(reason) => {
            tracing::warn!(
                reason,
                "the driver does not name the device, so the system's list is used"
            );
            word(&one_of(installed_gpus()))
        }
    }
}

/// The models of this machine's GPUs, from the driver's files.
fn installed_gpus() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let read = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("information")).ok()?;
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(model.trim().to_owned())
    };
    entries.filter_map(read).collect()
}

/// A name for one of these if it is unknown which one: no machine with other cards has that name.
fn one_of(mut models: Vec<String>) -> String {
    models.sort();
    models.dedup();
    if models.is_empty() { "unknown".to_owned() } else { models.join(" or ") }
}

/// One lower-case word of letters, digits and dashes.
fn word(name: &str) -> String {
    let parts: Vec<String> = name
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_refused_with_a_reason() {
        if matches!(cuda_devices(), Ok(count) if *count > 0) {
            return;
        }
        let options = LoadOptions { device: DeviceChoice::Cuda(0), ..LoadOptions::default() };
        let error = place(&options).expect_err("no CUDA device here");
        assert_eq!(error.code(), "device-unusable");
        assert!(error.to_string().contains("cuda:0"), "{error}");
    }

    #[test]
    fn automatic_choices_settle_on_something() {
        let placement = place(&LoadOptions::default()).expect("a CPU is always there");
        assert!(!placement.class().is_empty());
        assert_eq!(word(" AMD EPYC(tm) 9B14 "), "amd-epyc-tm-9b14");
    }

    #[test]
    fn cards_that_are_not_told_apart_are_not_taken_for_one_of_them() {
        let names =
            |models: &[&str]| word(&one_of(models.iter().map(|&model| model.to_owned()).collect()));
        assert_eq!(names(&["NVIDIA H200", "NVIDIA H200"]), "nvidia-h200");
        assert_eq!(names(&["NVIDIA H200", "NVIDIA A100"]), "nvidia-a100-or-nvidia-h200");
        assert_eq!(names(&["NVIDIA A100", "NVIDIA H200"]), names(&["NVIDIA H200", "NVIDIA A100"]));
        assert_eq!(names(&[]), "unknown");
    }
}
