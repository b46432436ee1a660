//! A small disk: a file system in memory, which only root may mount.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::geteuid;

/// A mounted disk; it is unmounted with the handle.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this many KiB at an existing folder; `None` if this process may not mount.
    #[must_use]
    pub fn mount(at: &Path, kib: u32) -> Option<Self> {
        let size = format!("size={kib}k");
        let mounted =
            geteuid().is_root() && run("mount", &["-t", "tmpfs", "-o", &size, "darkroom-test"], at);
        mounted.then(|| Self { at: at.to_owned() })
    }

    /// Gives the disk another size, in KiB: at least what is on it.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn resize(&self, kib: u32) {
        let size = format!("remount,size={kib}k");
        assert!(run("mount", &["-o", &size], &self.at), "it gets another size");
    }

    /// Makes the disk read-only.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn make_read_only(&self) {
        assert!(run("mount", &["-o", "remount,ro"], &self.at), "it becomes read-only");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy"], &self.at);
    }
}

fn run(program: &str, arguments: &[&str], at: &Path) -> bool {
    Command::new(program).args(arguments).arg(at).output().is_ok_and(|done| done.status.success())
}
