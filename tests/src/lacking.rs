//! Imitates a mount that lacks some system call: a shared object, loaded before the C library,
//! makes the call fail.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use nix::errno::Errno;

use crate::command::Darkroom;

/// Where calls fail.
pub struct Lacking {
    library: PathBuf,
    rules: Vec<String>,
}

impl Lacking {
    /// Nothing fails yet. The library is written to `folder`.
    ///
    /// # Panics
    /// When it cannot be compiled.
    #[must_use]
    pub fn nothing(folder: &Path) -> Self {
        let library = folder.join("lacking.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lacking.c");
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
        assert!(compiled.expect("a C compiler").success(), "the library compiles");
        Self { library, rules: Vec::new() }
    }

    /// `call` fails with `error`: link, symlink, rename, renameat2, chmod, flock, fcntl (locks),
    /// fsync, write, mmap (shared).
    #[must_use]
    pub fn call(mut self, call: &str, error: Errno) -> Self {
        self.rules.push(format!("{call}:{}", error as i32));
        self
    }

    /// `call` fails with `error` on paths that contain `part`.
    #[must_use]
    pub fn call_on(mut self, call: &str, error: Errno, part: &str) -> Self {
        self.rules.push(format!("{call}:{}:{part}", error as i32));
        self
    }

    /// A command that runs with these failures.
    #[must_use]
    pub fn on(&self, command: Darkroom) -> Darkroom {
        command.env("LD_PRELOAD", &self.library).env("DARKROOM_TEST_LACKS", self.rules.join(" "))
    }
}
