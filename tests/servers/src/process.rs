//! A child process that ends when its handle is dropped, or when the process with the handle ends
//! for any reason. Also ports and waits for servers.

use std::{
    ffi::OsStr,
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant, SystemTime},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, geteuid},
};

/// Longest time a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ports for servers. In a cluster, Redis also uses its port + 10,000.
const PORTS: Range<u16> = 12_000..22_000;

/// A child process in its own process group; the group is killed when the handle is dropped.
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
        let file =
            File::options().create(true).append(true).open(log).expect("the log can be written");
        let errors = file.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let name = format!("{command:?}");
        let child = started(command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal only to the process.
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
            assert!(
                Instant::now() < deadline,
                "the process does not end; its log: {}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `ready` holds.
    ///
    /// # Panics
    /// With the log, when the process ends first or half a minute is over.
    pub fn wait_until(&mut self, what: &str, ready: impl FnMut() -> bool) {
        assert!(self.comes_to(what, ready), "ended before {what}; its log: {}", self.log_text());
    }

    /// Waits until `ready` holds; false if the process ends first.
    ///
    /// # Panics
    /// With the log, when half a minute is over.
    pub fn comes_to(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            if !self.runs() {
                return false;
            }
            assert!(Instant::now() < deadline, "not {what} in time; its log: {}", self.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
        true
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

/// A command whose process is killed when the process that starts it ends, even by `kill -9`. This
/// needs `setpriv`. Start it with [`Process::spawn`].
#[must_use]
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    static SETPRIV: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| find_program(&["setpriv"], &[], "util-linux").ok());
    let Some(setpriv) = &*SETPRIV else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

type Request = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts a command on a thread that lives as long as this process. The kernel ties a child to the
/// thread that started it, and a test's thread may end before the servers that it shares with other
/// tests.
fn started(command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<mpsc::SyncSender<Request>> = LazyLock::new(|| {
        let (sender, requests) = mpsc::sync_channel::<Request>(1);
        let spawn_all = move || {
            for (mut command, answer) in requests {
                let _ = answer.send(command.spawn());
            }
        };
        std::thread::Builder::new().name("spawner".to_owned()).spawn(spawn_all).expect("a thread");
        sender
    });
    let (answer, answered) = mpsc::sync_channel(1);
    SPAWNER.send((command, answer)).expect("the spawner lives");
    answered.recv().expect("the spawner answers")
}

/// A free port of loopback. It is below the range for outgoing connections, so none of them can
/// take it before the server does. No other test gets it while this process lives.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Tests run at the same time in separate processes, so each begins its search at another port.
    let mut hasher = DefaultHasher::new();
    for _ in 0..1000 {
        (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed), SystemTime::now())
            .hash(&mut hasher);
        let port = PORTS.start + (hasher.finish() % u64::from(PORTS.end - PORTS.start)) as u16;
        if claimed(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Claims a port for this process, if no process has claimed it. The claim is a lock on a file,
/// which ends with the process. Between the choice of a port and the start of its server, nothing
/// else tells other tests that the port is taken.
fn claimed(port: u16) -> bool {
    static CLAIMS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join(format!("darkroom-test-ports-{}", geteuid()));
    std::fs::create_dir_all(&folder).expect("a folder for claims of ports");
    let file = File::create(folder.join(port.to_string())).expect("a file for the claim of a port");
    let is_ours = file.try_lock().is_ok();
    if is_ours {
        CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    }
    is_ours
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
    let found =
        names.iter().flat_map(|name| everywhere.iter().map(move |folder| folder.join(name)));
    found.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        let message = format!(
            "{} is not installed; install it with: apt-get install -y {package}",
            names.join(" or ")
        );
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: &str = "DARKROOM_TEST_HOLDS_A_SERVER";

    /// Not a real test: the process that the next test kills.
    #[test]
    fn a_process_that_holds_another() {
        let Ok(file) = std::env::var(HOLDER) else { return };
        let mut command = tied("sleep");
        command.arg("600");
        let mut held = Process::spawn(command, &Path::new(&file).with_extension("log"));
        // It is tied when setpriv has become the command.
        let name = format!("/proc/{}/comm", held.id());
        held.wait_until("tied", || std::fs::read_to_string(&name).is_ok_and(|it| it == "sleep\n"));
        std::fs::write(file, held.id().to_string()).expect("it prints the id");
        std::thread::sleep(Duration::from_secs(600));
    }

    #[test]
    fn a_port_is_given_once() {
        let port = free_port();
        assert!(!claimed(port), "port {port} could be claimed twice");
        // A lock is of the file that was opened, so this is what another process would see.
        let folder = std::env::temp_dir().join(format!("darkroom-test-ports-{}", geteuid()));
        let other = File::open(folder.join(port.to_string())).expect("the claim is a file");
        assert!(other.try_lock().is_err());
    }

    #[test]
    fn a_child_ends_with_a_parent_that_was_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("id");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command
            .args(["process::tests::a_process_that_holds_another", "--exact"])
            .env(HOLDER, &file);
        let mut holder = Process::spawn(command, &folder.path().join("log"));
        let told = || std::fs::read_to_string(&file).ok().and_then(|text| text.parse::<i32>().ok());
        holder.wait_until("told its child's id", || told().is_some());
        let child = Pid::from_raw(told().expect("told"));
        // Checks that it runs, because a zombie counts as gone.
        let runs = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        assert!(runs());
        // Only the holder, not its group.
        holder.signal(Signal::SIGKILL);
        holder.wait();
        let deadline = Instant::now() + PATIENCE;
        while runs() {
            assert!(Instant::now() < deadline, "the child outlives its parent");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
