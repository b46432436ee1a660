//! Writes libtorch's folder into the run path of this crate's test binaries, so that they run
//! without `LD_LIBRARY_PATH`. Also builds `src/cuda/shim.cpp` into a shared library that
//! `src/cuda.rs` embeds.
//!
//! The shim needs the CUDA headers of libtorch and of the CUDA runtime. If either is missing, as
//! with a libtorch without CUDA, the library is an empty file and everything else is built as
//! usual. A GPU then runs without graphs.

#![expect(clippy::disallowed_methods, reason = "cargo reads these paths, not a terminal")]

use std::path::{Path, PathBuf};

fn main() {
    wait_for_fetch();
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/cuda/shim.cpp");
    let libtorch = std::env::var_os("LIBTORCH").map(PathBuf::from);
    if let Some(libtorch) = libtorch.as_ref().filter(|_| target_os() != "windows") {
        let lib = libtorch.join("lib");
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    let shim = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("shim.so");
    let absent = match build_shim(libtorch.as_deref(), &shim) {
        Ok(()) => String::new(),
        Err(reason) => {
            if let Err(error) = std::fs::write(&shim, []) {
                panic!("cannot write {}: {error}", shim.display());
            }
            reason
        }
    };
    println!("cargo::rustc-env=DARKROOM_LIBTORCH={}", version(libtorch.as_deref()));
    println!("cargo::rustc-env=DARKROOM_SHIM={}", shim.display());
    println!("cargo::rustc-env=DARKROOM_SHIM_ABSENT={absent}");
}

/// Waits while tools/build-render.sh fetches libtorch, because the files below may not exist yet.
fn wait_for_fetch() {
    let Ok(pid) = std::env::var("DARKROOM_FETCH_PID") else { return };
    while !pid.is_empty() && Path::new("/proc").join(&pid).exists() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

fn target_os() -> String {
    std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default()
}

/// libtorch's version, which is part of the class of device. It is in `build-version` of a separate
/// libtorch, or in `version.py` of one from Python's package.
fn version(libtorch: Option<&Path>) -> String {
    let read = |file: &str| std::fs::read_to_string(libtorch?.join(file)).ok();
    let of_python = || {
        let text = read("version.py")?;
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = '"))?;
        Some(line.trim_end_matches('\'').to_owned())
    };
    let version = read("build-version").or_else(of_python).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".+-".contains(c);
    let version: String = version.trim().chars().filter(|c| is_plain(*c)).collect();
    if version.is_empty() { "unknown".to_owned() } else { version }
}

/// Builds the shim, or returns in one line why it cannot be built.
fn build_shim(libtorch: Option<&Path>, shim: &Path) -> Result<(), String> {
    if target_os() != "linux" {
        return Err(format!("there is no CUDA on {}", target_os()));
    }
    let libtorch = libtorch.ok_or("LIBTORCH is not set")?;
    let include = libtorch.join("include");
    let graphs = include.join("ATen/cuda/CUDAGraph.h");
    if !graphs.exists() || !libtorch.join("lib/libtorch_cuda.so").exists() {
        return Err(format!("the libtorch in {} is for CPUs only", libtorch.display()));
    }
    let homes = [std::env::var_os("CUDA_HOME").map(PathBuf::from), Some("/usr/local/cuda".into())];
    let mut folders = vec![libtorch.join("../nvidia/cu13/include")];
    folders.extend(homes.into_iter().flatten().map(|home| home.join("include")));
    // Headers of two releases must not be mixed, so the first folder that has all of them is used.
    let needed = [
        "cuda.h",
        "cuda_runtime.h",
        "cuda_runtime_api.h",
        "crt/host_defines.h",
        "crt/host_config.h",
    ];
    for folder in folders.iter().filter(|folder| folder.exists()) {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let has_all = |folder: &&PathBuf| needed.iter().all(|header| folder.join(header).exists());
    let cuda = folders.iter().find(has_all).ok_or_else(|| {
        let names: Vec<String> =
            folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("the CUDA runtime's headers are in none of {}", names.join(", "))
    })?;
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let compiler = cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(1)
        .debug(false)
        .pic(true)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .try_get_compiler()
        .map_err(|error| format!("there is no C++ compiler: {error}"))?;
    let output = compiler
        .to_command()
        .args(["-shared", "-isystem"])
        .arg(&include)
        .arg("-isystem")
        .arg(cuda)
        .arg("src/cuda/shim.cpp")
        .arg("-o")
        .arg(shim)
        .output()
        .map_err(|error| format!("the C++ compiler did not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("error")).unwrap_or("no message").to_owned();
    println!(
        "cargo::warning=built without CUDA graphs: src/cuda/shim.cpp does not compile: {line}"
    );
    Err(format!("its C++ part did not compile: {line}"))
}
