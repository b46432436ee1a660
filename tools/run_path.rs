//! The build script of the crates that make programs: writes libtorch's folder into the run path of
//! their binaries, so that they run without `LD_LIBRARY_PATH`. Does nothing in a build without
//! libtorch.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "cargo reads what this prints, not a terminal"
)]

use std::path::PathBuf;

/// The features that bring libtorch into a crate.
const FEATURES: [&str; 2] = ["CARGO_FEATURE_TORCH", "CARGO_FEATURE_EMBEDDED"];

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-changed=../tools/run_path.rs");
    if FEATURES.iter().all(|feature| std::env::var_os(feature).is_none()) {
        return;
    }
    if std::env::var_os("CARGO_CFG_TARGET_OS").is_some_and(|os| os == "windows") {
        return;
    }
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        let lib = PathBuf::from(libtorch).join("lib");
        let lib = lib.canonicalize().unwrap_or(lib);
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
}
