//! One run of `darkroom` from start to end.

use std::{
    ffi::OsStr,
    io::Read,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{DEADLINE, binary, demo_cascade};

/// A command line about to be run.
pub struct Darkroom {
    command: Command,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Darkroom {
    /// `darkroom` in `folder`, with none of the caller's settings in its environment.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self::by(Command::new(binary()), folder)
    }

    /// `darkroom` as the last command of a shell `script`, which finds it as `"$@"`.
    #[must_use]
    pub fn under(script: &str, folder: &Path) -> Self {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).arg("bash").arg(binary());
        Self::by(command, folder)
    }

    /// `darkroom render` on its own farm in `folder`, with its state in `state`: the smallest size
    /// of the demo cascade, with the fake renderer.
    #[must_use]
    pub fn render(folder: &Path) -> Self {
        let small =
            ["--state", "state", "render", "--renderer", "fake", "--size", "64", "--cascade"];
        Self::new(folder).args(small).args([demo_cascade()])
    }

    /// `darkroom rerender` in `folder`, with the fake renderer.
    #[must_use]
    pub fn rerender(folder: &Path) -> Self {
        Self::new(folder)
            .args(["rerender", "--renderer", "fake", "--cascade"])
            .args([demo_cascade()])
    }

    fn by(mut command: Command, folder: &Path) -> Self {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DARKROOM_") {
                command.env_remove(&name);
            }
        }
        // Not the keys of whoever runs the tests.
        command.env("XDG_CONFIG_HOME", folder.join("config"));
        // Its own process group, so that a shell's children end with it.
        command.process_group(0);
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { command }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Gives it standard input; without, it has none.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn input(mut self, bytes: &[u8]) -> Self {
        use std::io::{Seek as _, Write as _};
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).and_then(|()| file.rewind()).expect("written");
        self.command.stdin(file);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sends standard output somewhere else; the result then has none.
    #[must_use]
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self
    }

    /// Sends standard error somewhere else; the result then has none.
    #[must_use]
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stderr(to);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When the binary cannot be run.
    #[must_use]
    pub fn start(mut self) -> Running {
        let mut child = self.command.spawn().expect("darkroom starts");
        let stdout = child.stdout.take().map(reader);
        let stderr = child.stderr.take().map(reader);
        Running { child, stdout, stderr }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it takes longer than [`DEADLINE`].
    #[must_use]
    pub fn run(self) -> Ended {
        self.start().wait()
    }
}

/// A run that has not ended. Killed when dropped.
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a pid fits"));
        nix::sys::signal::kill(pid, signal).expect("the process is there");
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than [`DEADLINE`].
    #[must_use]
    pub fn wait(mut self) -> Ended {
        let give_up = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                break status;
            }
            if Instant::now() > give_up {
                self.end();
                let (stdout, stderr) = self.text();
                panic!(
                    "darkroom did not end within {DEADLINE:?}\nstdout: {stdout}\nstderr: {stderr}"
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = self.text();
        Ended { code: status.code(), stdout, stderr }
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a pid fits"));
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }

    fn text(&mut self) -> (String, String) {
        let join = |thread: Option<JoinHandle<String>>| {
            thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        (join(self.stdout.take()), join(self.stderr.take()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Ended {
    /// The only document it printed.
    ///
    /// # Panics
    /// When it failed, or printed something else.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The documents it printed, one a line.
    ///
    /// # Panics
    /// When it failed, or a line is not JSON.
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// The paths it printed, one a line.
    ///
    /// # Panics
    /// When it failed.
    #[must_use]
    pub fn paths(&self, folder: &Path) -> Vec<PathBuf> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.lines().map(|line| folder.join(line)).collect()
    }

    /// Checks that it was refused in the right form: this exit code, one `error: …` line with all
    /// of `words`, no backtrace and no panic.
    ///
    /// # Panics
    /// When it was not.
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let errors: Vec<_> =
            self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one sentence: {self:#?}");
        for word in words {
            assert!(errors[0].contains(word), "{word:?} is not in {:?}", errors[0]);
        }
        for forbidden in ["panicked", "RUST_BACKTRACE", "stack backtrace", "thread '"] {
            assert!(!self.stderr.contains(forbidden), "{self:#?}");
        }
    }
}
