//! A small disk for artifacts that can be filled: a file system in memory, which only root may
//! mount.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;

/// Size of the disk, mebibytes.
const MEBIBYTES: u64 = 4096;

/// A mounted disk; it is unmounted with the handle.
#[derive(Debug)]
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts a disk at an existing folder; `None` if this process may not mount.
    ///
    /// # Errors
    /// When root cannot mount it.
    pub fn mount(at: &Path) -> Result<Option<Self>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let size = format!("size={MEBIBYTES}m");
        let done = command("mount", &["-t", "tmpfs", "-o", &size, "darkroom-chaos"], at);
        // A container's root may not mount either.
        Ok(done.is_ok().then(|| Self { at: at.to_owned() }))
    }

    /// Leaves no room: shrinks the disk to the size of its content.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn fill(&self) -> Result<()> {
        let used =
            Command::new("df").args(["--block-size=1", "--output=used"]).arg(&self.at).output()?;
        let used = String::from_utf8_lossy(&used.stdout);
        let used: u64 =
            used.lines().nth(1).unwrap_or_default().trim().parse().context("what df says")?;
        // If something was written since the size was read, this is too small, and a little more is
        // tried.
        let mut room = used.max(4096);
        for _ in 0..100 {
            if self.resize(&format!("size={room}")).is_ok() {
                return Ok(());
            }
            room += 256 << 10;
        }
        anyhow::bail!("the disk cannot be made full")
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn free(&self) -> Result<()> {
        self.resize(&format!("size={MEBIBYTES}m"))
    }

    fn resize(&self, size: &str) -> Result<()> {
        command("mount", &["-o", &format!("remount,{size}")], &self.at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because a process that is being killed may still have a file open.
        let _ = command("umount", &["--lazy"], &self.at);
    }
}

fn command(program: &str, arguments: &[&str], at: &Path) -> Result<()> {
    let done = Command::new(program).args(arguments).arg(at).output()?;
    ensure!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
