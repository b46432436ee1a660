//! HAProxy in front of a farm. It cuts streams that are quiet for some time.

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;

use crate::process::{Process, find_program, free_port, listens, tied};

/// HAProxy on a free port of loopback, which forwards gRPC to another port.
#[derive(Debug)]
pub struct Haproxy {
    // Declared before the folder, so that the server ends before the folder is removed.
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl Haproxy {
    /// Starts one in front of port `target`. It cuts streams that are quiet for `quiet`.
    ///
    /// # Panics
    /// When it cannot be started; a test cannot go on without it.
    #[must_use]
    pub fn start(target: u16, quiet: Duration) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("darkroom-haproxy-")
            .tempdir()
            .expect("a temporary folder");
        let (port, quiet) = (free_port(), quiet.as_millis());
        let text = format!(
            "global\n  maxconn 100\n  log stdout format raw local0\n\
             defaults\n  mode http\n  log global\n  option httplog\n  timeout connect 2s\n  timeout client {quiet}ms\n  \
             timeout server {quiet}ms\n\
             frontend farm\n  bind 127.0.0.1:{port} proto h2\n  default_backend farm\n\
             backend farm\n  server farm 127.0.0.1:{target} proto h2\n"
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text).expect("the configuration can be written");
        let program = find_program(&["haproxy"], &[PathBuf::from("/usr/sbin")], "haproxy");
        let mut command = tied(program.unwrap_or_else(|error| panic!("{error}")));
        command.arg("-db").arg("-f").arg(file);
        let mut process = Process::spawn(command, &folder.path().join("log"));
        process.wait_until("HAProxy listened", || listens(port));
        Self { process, port, _folder: folder }
    }

    /// Its port of loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One line for every call that ended, with its path.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }
}
