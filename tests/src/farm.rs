//! A farm for one test: `darkroom up` as a process on a free port, and commands that talk to it. It
//! is open, unless the test sets `DARKROOM_OPEN` to nothing: then callers need a key.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::Value;

pub use crate::programs::Renderer;
use crate::{DEADLINE, command::Darkroom, demo_cascade, eventually};

/// A running farm. Killed when dropped.
pub struct Farm {
    child: Child,
    folder: PathBuf,
    /// Where it listens.
    pub address: String,
}

impl Farm {
    /// Starts a farm on `folder/state` and waits until it serves.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path, renderer: Renderer) -> Self {
        Self::start_with(folder, renderer, &[])
    }

    /// Starts a farm with additional environment variables.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(folder: &Path, renderer: Renderer, env: &[(&str, &str)]) -> Self {
        Self::start_at(folder, renderer, env, "127.0.0.1:0")
    }

    /// Starts a farm that listens on `address`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_at(
        folder: &Path,
        renderer: Renderer,
        env: &[(&str, &str)],
        address: &str,
    ) -> Self {
        let mut command = Command::new(crate::binary());
        command.envs(env.iter().copied());
        Self::launch(command, folder, renderer, address, &[])
    }

    /// Starts a farm as the last command of a shell `script`, which runs it as `exec "$@"`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_under(script: &str, folder: &Path, renderer: Renderer) -> Self {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).arg("bash").arg(crate::binary());
        Self::launch(command, folder, renderer, "127.0.0.1:0", &[])
    }

    /// Starts a farm that serves these cascades beside the demo cascade.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_cascades(folder: &Path, renderer: Renderer, cascades: &[&Path]) -> Self {
        Self::launch(Command::new(crate::binary()), folder, renderer, "127.0.0.1:0", cascades)
    }

    fn launch(
        mut command: Command,
        folder: &Path,
        renderer: Renderer,
        address: &str,
        cascades: &[&Path],
    ) -> Self {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(folder.join("farm.log"))
            .expect("a log beside the state");
        if !command.get_envs().any(|(name, _)| name == "DARKROOM_OPEN") {
            command.env("DARKROOM_OPEN", "1");
        }
        command
            .args(["up", "--json", "--listen", address, "--state", "state", "--cascade"])
            .arg(demo_cascade())
            .args(renderer.arguments())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        for cascade in cascades {
            command.arg("--cascade").arg(cascade);
        }
        let mut child = command.spawn().expect("darkroom starts");
        let stdout = child.stdout.take().expect("piped");
        let (send, first_line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = send.send(line);
        });
        let line = first_line.recv_timeout(DEADLINE).expect("the farm says where it listens");
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(folder.join("farm.log")).unwrap_or_default();
            panic!("the farm did not start: {line:?}\n{log}");
        };
        let address = said["address"].as_str().expect("an address").to_owned();
        Self { child, folder: folder.to_owned(), address }
    }

    /// A command to this farm.
    #[must_use]
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Darkroom {
        Darkroom::new(&self.folder).args(["--farm", &self.address]).args(arguments)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, like a power cut.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Asks it to end and gives its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        let status =
            eventually("the farm ends after SIGTERM", || self.child.try_wait().expect("asked"));
        status.code()
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("farm.log")).unwrap_or_default()
    }

    /// The present state of a job.
    #[must_use]
    pub fn job(&self, id: &str) -> Value {
        self.command(["--json", "status", id]).run().json()
    }

    /// All images of a job, in order.
    #[must_use]
    pub fn images(&self, id: &str) -> Vec<Value> {
        self.command(["--json", "ls", id]).run().json_lines()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
