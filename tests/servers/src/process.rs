//! A child process that ends with its handle, and the ports and waits that servers need.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// Longest time a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child process in a group of its own; the group is killed when the handle is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, both of its output streams appended to the file `log`.
    ///
    /// # Panics
    /// When it cannot be started; a test cannot go on without it.
    #[must_use]
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        use std::os::unix::process::CommandExt as _;
        let file = File::options().create(true).append(true).open(log).expect("the log can be written");
        let errors = file.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the process is there");
    }

    /// Sends a signal to the process and its children.
    pub fn signal_group(&self, signal: Signal) {
        let _ = killpg(self.pid(), signal);
    }

    /// Kills the process and its children, and waits for its end.
    pub fn kill(&mut self) {
        self.signal_group(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// When the system does not say.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child's status").is_none()
    }

    /// Waits for its end; the exit code, if it had one.
    ///
    /// # Panics
    /// When it takes longer than half a minute.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child's status") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the process does not end; its log: {}", self.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `ready` holds.
    ///
    /// # Panics
    /// With the log, when the process ends first or half a minute is over.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            assert!(self.runs(), "ended before {what}; its log: {}", self.log_text());
            assert!(Instant::now() < deadline, "not {what} in time; its log: {}", self.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has written so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of loopback that nobody listens on just now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Whether somebody listens on this port of loopback.
#[must_use]
pub fn listens(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// The first of `names` that is a program on the `PATH` or in one of `folders`.
///
/// # Errors
/// When there is none; the sentence says what to install.
pub fn find_program(names: &[&str], folders: &[PathBuf], package: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let everywhere: Vec<_> = folders.iter().cloned().chain(std::env::split_paths(&path)).collect();
    let found = names.iter().flat_map(|name| everywhere.iter().map(move |folder| folder.join(name)));
    found.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        let message =
            format!("{} is not installed; install it with: apt-get install -y {package}", names.join(" or "));
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}
