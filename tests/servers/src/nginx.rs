//! nginx in front of a farm, or in place of one.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::process::{Process, find_program, free_port, listens, tied};

/// nginx on a free port of loopback, with one server that has the test's settings.
#[derive(Debug)]
pub struct Nginx {
    // Declared before the folder, so that the server ends before the folder is removed.
    process: Option<Process>,
    port: u16,
    http2: bool,
    folder: TempDir,
}

impl Nginx {
    /// Starts one that speaks HTTP/2 in plain text, with these settings in its server.
    ///
    /// # Panics
    /// When it cannot be started; a test cannot go on without it.
    #[must_use]
    pub fn start(settings: &str) -> Self {
        Self::start_with(settings, true)
    }

    /// Starts one that speaks only HTTP/1.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with_http1(settings: &str) -> Self {
        Self::start_with(settings, false)
    }

    /// Settings that forward gRPC to a port of loopback.
    #[must_use]
    pub fn passing_to(target: u16) -> String {
        format!("location / {{ grpc_pass grpc://127.0.0.1:{target}; }}")
    }

    fn start_with(settings: &str, http2: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("darkroom-nginx-")
            .tempdir()
            .expect("a temporary folder");
        let mut nginx = Self { process: None, port: free_port(), http2, folder };
        nginx.restart_with(settings);
        nginx
    }

    /// Kills it and starts it again on the same port, with other settings.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart_with(&mut self, settings: &str) {
        self.kill();
        let folder = self.folder.path().display();
        let (port, http2) = (self.port, if self.http2 { " http2" } else { "" });
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\n\
             events {{ worker_connections 128; }}\n\
             http {{\n{temporary}access_log {folder}/log;\n\
             server {{ listen 127.0.0.1:{port}{http2};\n{settings}\n}}\n}}\n"
        );
        let file = self.folder.path().join("nginx.conf");
        std::fs::write(&file, text).expect("the configuration can be written");
        let program = find_program(&["nginx"], &[PathBuf::from("/usr/sbin")], "nginx-light");
        let mut command = tied(program.unwrap_or_else(|error| panic!("{error}")));
        command.arg("-e").arg("stderr").arg("-p").arg(self.folder.path()).arg("-c").arg(file);
        let mut process = Process::spawn(command, &self.folder.path().join("log"));
        process.wait_until("nginx listened", || listens(port));
        self.process = Some(process);
    }

    /// Kills it, like a crash.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its port of loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its errors, and one line for every call that ended.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
