//! Where the mathematics runs and in which number format.
//!
//! One binary serves CPU and GPU: it links only libtorch's CPU half, and [`place`] loads `libtorch_cuda.so` when an
//! NVIDIA driver is there (or when a GPU was asked for by name). That must happen before libtorch is first asked
//! about CUDA, so every model is placed before its first tensor is made.

mod surroundings;

use std::sync::{Mutex, OnceLock, PoisonError};

use tch::{Device, Kind};

use crate::cuda;
use crate::error::LoadError;
use crate::kernels;

pub(crate) use native::open_library;

/// Raised when a change to the kernels changes bits.
const KERNELS: u32 = 4;
/// The same of those for GPUs.
const CUDA_KERNELS: u32 = 1;

/// Which device to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one that works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this index; an error if it cannot be used.
    Cuda(usize),
}

/// Which number format the networks compute in. Samplers always compute in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtypeChoice {
    /// bf16 on CUDA and on CPUs with bf16 arithmetic (avx512_bf16, AMX), else f32.
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
    /// Threads inside one operation, for the whole process; libtorch's own choice (one per core) if absent.
    pub threads: Option<usize>,
    /// Networks run on libtorch's operations alone, even where this crate has its own kernels.
    pub libtorch_only: bool,
    /// On a GPU, networks are launched operation by operation, never as recorded graphs. The bits are the same.
    pub eager: bool,
    /// Images in one forward pass on a GPU, for measurements: other numbers give other bits. The rule's when absent.
    pub images_per_pass: Option<usize>,
    /// Moves every weight by about its last bit, as this seed says: how far that moves an output is how far rounding does.
    pub disturbed: Option<u64>,
}

/// A device and a number format, settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    /// Whether networks run on this crate's own kernels.
    pub(crate) kernels: bool,
    /// Images in one forward pass on a GPU, where not the rule's.
    pub(crate) images_per_pass: Option<usize>,
    /// Whether networks on a GPU run on this crate's own CUDA kernels, where there are such.
    pub(crate) cuda_kernels: bool,
    /// Whether weights are moved by about their last bit when they are loaded, and by which seed.
    pub(crate) disturbed: Option<u64>,
}

impl Placement {
    pub(crate) fn dtype_name(self) -> &'static str {
        match self.kind {
            Kind::BFloat16 => "bf16",
            _ => "f32",
        }
    }

    pub(crate) fn device_name(self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        }
    }

    /// The class of device within which results agree bit for bit: the hardware's name and instruction set, the threads of one
    /// operation (they change how sums are split), libtorch's version, what of the libraries' settings in the environment
    /// changes bits, and the number format.
    pub(crate) fn class(self) -> String {
        self.class_with(usize::try_from(tch::get_num_threads()).unwrap_or(1))
    }

    /// The same where an operation runs on so many threads.
    pub(crate) fn class_with(self, threads: usize) -> String {
        let hardware = match self.device {
            Device::Cuda(index) if self.cuda_kernels => {
                format!("cuda/{}/kernels={CUDA_KERNELS}", gpu_model(index))
            }
            Device::Cuda(index) => format!("cuda/{}", gpu_model(index)),
            // The kernels' own bits, and those of what libtorch does on one thread beside them, depend on no count.
            _ if self.kernels => format!("cpu/{}/{}/kernels={KERNELS}", cpu_model(), cpu_capability()),
            _ => format!("cpu/{}/{}/threads={threads}", cpu_model(), cpu_capability()),
        };
        let mut parts = vec![hardware, surroundings::library(), surroundings::settings(self.device)];
        parts.retain(|part| !part.is_empty());
        parts.push(self.dtype_name().to_owned());
        parts.join("/")
    }
}

/// Settles the device and the number format, and sets the process's threads.
pub(crate) fn place(options: &LoadOptions) -> Result<Placement, LoadError> {
    native::keep_freed_memory();
    let device = match options.device {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Auto => match cuda_devices() {
            Ok(count) if *count > 0 => Device::Cuda(0),
            _ => Device::Cpu,
        },
        DeviceChoice::Cuda(index) => match cuda_devices() {
            Ok(count) if index < *count => Device::Cuda(index),
            Ok(count) => return Err(unusable(index, format!("this process sees {count} CUDA devices"))),
            Err(reason) => return Err(unusable(index, reason.clone())),
        },
    };
    settle_threads(options.threads);
    let kind = match options.dtype {
        DtypeChoice::F32 => Kind::Float,
        DtypeChoice::Bf16 => Kind::BFloat16,
        DtypeChoice::Auto if device.is_cuda() || cpu_has_bf16() => Kind::BFloat16,
        DtypeChoice::Auto => Kind::Float,
    };
    Ok(Placement {
        device,
        kind,
        kernels: false,
        images_per_pass: options.images_per_pass,
        cuda_kernels: false,
        disturbed: options.disturbed,
    })
}

/// Bytes that are free on the device that a model would be placed on, other processes' share left out; none on a CPU, and
/// where a GPU does not tell.
///
/// # Errors
/// The device cannot be used.
pub fn free_memory(options: &LoadOptions) -> Result<Option<u64>, LoadError> {
    let Device::Cuda(index) = place(options)?.device else { return Ok(None) };
    match cuda::memory(index) {
        Ok(memory) => {
            tracing::info!(device.free = memory.free, device.total = memory.total, "the device's memory");
            Ok(Some(memory.free))
        }
        Err(reason) => {
            tracing::warn!(reason, "the device does not tell how much memory it has");
            Ok(None)
        }
    }
}

/// Gives what the process has freed back to the device, for what is loaded next.
pub(crate) fn give_back(placement: Placement) {
    match placement.device {
        Device::Cuda(_) => {
            if let Err(reason) = cuda::give_back() {
                tracing::debug!(reason, "freed memory stays with libtorch");
            }
        }
        _ => give_freed_memory_back(),
    }
}

/// Gives freed memory back to the system once: while weights are loaded, holes between them are of no use.
pub(crate) fn give_freed_memory_back() {
    native::give_freed_memory_back();
}

/// The same for a network, which runs on this crate's own kernels where they are there.
pub(crate) fn place_network(options: &LoadOptions) -> Result<Placement, LoadError> {
    let placement = place(options)?;
    let own = !options.libtorch_only;
    let kernels = placement.device == Device::Cpu && own && kernels::available();
    let cuda_kernels = match placement.device {
        Device::Cuda(index) => own && cuda::kernels(index).is_some(),
        _ => false,
    };
    Ok(Placement { kernels, cuda_kernels, ..placement })
}

/// Held while threads are counted or set: libtorch keeps a number for each thread, and one for threads that it has not
/// met yet, which setting any changes too.
static THREADS: Mutex<()> = Mutex::new(());

/// Sets the calling thread's threads of one operation, and those of threads to come; or finds them.
fn settle_threads(wanted: Option<usize>) {
    let _lock = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    match wanted {
        Some(threads) => tch::set_num_threads(threads.clamp(1, 1024) as i32),
        // Asking makes libtorch settle it for this thread.
        None => {
            let _ = tch::get_num_threads();
        }
    }
}

/// Leave for a new thread to have its own number of threads of one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnThreads(i32);

impl OwnThreads {
    /// To be called on the new thread.
    pub(crate) fn take(self) {
        tch::set_num_threads(self.0);
    }
}

/// Lets new threads have `threads` threads of one operation each, while they [take](OwnThreads::take) it within `start`;
/// this thread, and all others that come later, have as many as before.
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

/// How many CUDA devices can be used, or why none can; found out once.
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
            tracing::warn!(reason, "convolutions in f32 round to TF32, and may differ from run to run");
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

/// The widest instruction set that libtorch and oneDNN dispatch on here.
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
    let name =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(':').nth(1));
    word(name.unwrap_or(std::env::consts::ARCH))
}

fn gpu_model(index: usize) -> String {
    let mut models: Vec<_> = std::fs::read_dir("/proc/driver/nvidia/gpus")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("information"))
        .collect();
    models.sort();
    let text = models.get(index).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let name = text.lines().find(|line| line.starts_with("Model:")).and_then(|line| line.split(':').nth(1));
    word(name.unwrap_or("unknown"))
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

/// The calls to the C library that neither std nor tch offers.
#[expect(unsafe_code, reason = "dlopen and mallopt have no safe wrapper; no pointer outlives the calls")]
mod native {
    use std::ffi::{CStr, CString, c_void};
    use std::ptr::NonNull;
    use std::sync::Once;

    /// Loads a shared library for the rest of the process, with its symbols visible to the libraries loaded before.
    pub(crate) fn open_library(name: &str) -> Result<NonNull<c_void>, String> {
        let name = CString::new(name).map_err(|error| error.to_string())?;
        // SAFETY: `name` is a valid C string for the whole call. The library's initialisers register libtorch's
        // CUDA half and touch nothing of ours. The handle is never closed: the library stays loaded.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if let Some(handle) = NonNull::new(handle) {
            return Ok(handle);
        }
        // SAFETY: after a failed dlopen, dlerror gives a C string that stays valid until the next dl call.
        let message = unsafe {
            let message = libc::dlerror();
            if message.is_null() {
                None
            } else {
                Some(CStr::from_ptr(message).to_string_lossy().into_owned())
            }
        };
        Err(message.unwrap_or_else(|| "unknown reason".to_owned()))
    }

    /// Tells glibc to keep large freed blocks for the next allocation instead of giving them back to the system.
    ///
    /// A denoising step allocates and frees the same few large blocks hundreds of times. Given back each time, each
    /// costs a page fault per 4 KiB: on two cores that made element-wise operations five to eight times slower.
    /// A process that sets `MALLOC_MMAP_MAX_` or `MALLOC_TRIM_THRESHOLD_` itself is left alone.
    pub(super) fn keep_freed_memory() {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                let set = |name| std::env::var_os(name).is_some();
                if set("MALLOC_MMAP_MAX_") || set("MALLOC_TRIM_THRESHOLD_") {
                    return;
                }
                // SAFETY: mallopt takes plain integers and is safe to call at any time.
                unsafe {
                    libc::mallopt(libc::M_MMAP_MAX, 0);
                    libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
                    libc::mallopt(libc::M_TOP_PAD, 64 << 20);
                }
            });
        }
    }

    /// Gives back what [`keep_freed_memory`] has kept so far.
    pub(super) fn give_freed_memory_back() {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            // SAFETY: malloc_trim takes a plain integer and is safe to call at any time, from any thread.
            unsafe { libc::malloc_trim(0) };
        }
    }
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
}
