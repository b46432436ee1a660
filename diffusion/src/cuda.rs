//! Functions of libtorch's CUDA half that tch does not offer: graphs, and a card's memory.
//!
//! `cuda/shim.cpp` is compiled against libtorch's headers into a shared library. This crate embeds
//! the library and loads it once libtorch's CUDA half is loaded. So the binary links none of it,
//! and the loader refuses the whole library if libtorch lacks a function that it needs. See
//! docs/adr/0018-cuda-graphs.md.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use kernels::{CudaNorm, Kernels, kernels};
use native::Shim;

mod kernels;

/// The compiled shim; empty if it could not be built.
const SHIM: &[u8] = include_bytes!(env!("DARKROOM_SHIM"));
/// Why it could not be built.
const ABSENT: &str = env!("DARKROOM_SHIM_ABSENT");

/// The shim, loaded once, or the reason why there is none. libtorch's CUDA half must be loaded
/// first.
fn shim() -> Result<&'static Shim, String> {
    static LOADED: OnceLock<Result<Shim, String>> = OnceLock::new();
    let load = || {
        if SHIM.is_empty() {
            return Err(format!("this build has no graphs: {ABSENT}"));
        }
        Shim::load(SHIM)
    };
    LOADED.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// Held while a thread records, and while one waits for a device or gives memory back: CUDA refuses
/// the second while the first goes on in the same process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of a card: the free ones, and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) free: u64,
    pub(crate) total: u64,
}

/// A card's memory now, with what other processes use.
pub(crate) fn memory(device: usize) -> Result<Memory, String> {
    shim()?.memory(device)
}

/// Makes convolutions compute f32 in f32 (by default libtorch lets them round to TF32), with
/// algorithms that give the same bits each time.
pub(crate) fn be_exact() -> Result<(), String> {
    shim()?.be_exact()
}

/// Gives memory that libtorch keeps for later use back to the card.
pub(crate) fn give_back() -> Result<(), String> {
    let _alone = alone();
    shim()?.give_back()
}

/// Makes recordings on one device.
pub(crate) struct Recorder(native::RecorderHandle);

/// A recorded pass that can be repeated on the same tensors. It must not outlive them.
pub(crate) struct Recording(native::RecordingHandle);

impl Recorder {
    pub(crate) fn new(device: usize) -> Result<Self, String> {
        shim()?.recorder(device).map(Self)
    }

    /// Runs `pass` a few times normally, so that everything that is initialised at first use is
    /// initialised, then once more while recording. The result of that last run is filled only by
    /// replays.
    ///
    /// # Errors
    /// The error of libtorch, CUDA or `pass`. The device is then as before, unless it is broken.
    pub(crate) fn record<T, E: std::fmt::Display>(
        &self,
        mut pass: impl FnMut() -> Result<T, E>,
    ) -> Result<(T, Recording), String> {
        const WARM_UPS: usize = 2;
        let (result, recording, left) = {
            let _alone = alone();
            let side = self.0.enter()?;
            for _ in 0..WARM_UPS {
                drop(pass().map_err(|error| error.to_string())?);
            }
            let open = self.0.begin()?;
            let result = pass().map_err(|error| error.to_string())?;
            let recording = open.end()?;
            (result, Recording(recording), side.leave())
        };
        // Dropped only here, where it may wait for other threads that record.
        left.map(|()| (result, recording))
    }
}

impl Recording {
    /// Starts it again on the current stream, without waiting for it.
    pub(crate) fn replay(&self) -> Result<(), String> {
        self.0.replay()
    }
}

#[expect(
    unsafe_code,
    reason = "functions of a shared library have no safe wrapper; every pointer is owned by one handle"
)]
mod native;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    /// The folder of this build's libtorch.
    fn libtorch() -> PathBuf {
        PathBuf::from(std::env::var_os("LIBTORCH").expect("cargo sets it"))
    }

    /// Names in a library's table of dynamic symbols, without those that have a version of the C or
    /// C++ library.
    fn names(library: &Path, which: &str) -> BTreeSet<String> {
        let output = Command::new("nm")
            .args(["-D", which])
            .arg(library)
            .output()
            .expect("binutils are there");
        assert!(
            output.status.success(),
            "{}: {}",
            library.to_string_lossy(),
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // Weak symbols may be absent.
        let names = lines
            .filter(|words| words[words.len() - 2] != "w")
            .filter_map(|words| words.last().copied());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn libtorch_and_the_cuda_runtime_have_every_function_that_the_shim_asks_for() {
        let cuda = libtorch().join("../nvidia/cu13");
        if SHIM.is_empty() {
            assert!(!ABSENT.is_empty());
            assert!(
                !cuda.join("include/crt").exists(),
                "with the project's own libtorch it is built: {ABSENT}"
            );
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join("shim.so");
        std::fs::write(&shim, SHIM).unwrap();
        let wanted: BTreeSet<String> = names(&shim, "--undefined-only")
            .into_iter()
            .filter(|name| !name.contains('@'))
            .collect();
        let lib = libtorch().join("lib");
        let libraries = [
            lib.join("libc10.so"),
            lib.join("libc10_cuda.so"),
            lib.join("libtorch_cpu.so"),
            lib.join("libtorch_cuda.so"),
            cuda.join("lib/libcudart.so.13"),
        ];
        let mut missing = wanted.clone();
        for library in &libraries {
            for name in names(library, "--defined-only") {
                missing.remove(name.split('@').next().unwrap());
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
        for part in
            ["CUDAGraph13capture_begin", "CUDAGraph6replay", "getStreamFromPool", "cudaMemGetInfo"]
        {
            assert!(wanted.iter().any(|name| name.contains(part)), "{part} is among {wanted:?}");
        }
    }

    #[test]
    fn where_there_is_no_cuda_each_question_is_answered_with_a_reason() {
        if tch::Cuda::is_available() {
            return;
        }
        // The last one appears if the CUDA half is loaded without a driver.
        let reasons = ["undefined symbol", "this build has no graphs", "CUDA"];
        for error in [memory(0).unwrap_err(), Recorder::new(0).err().unwrap()] {
            assert!(reasons.iter().any(|reason| error.contains(reason)), "{error}");
        }
    }
}
