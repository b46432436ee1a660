//! A Postgres server, of the version that is installed.
//!
//! Its settings are the server's own (fsync on), so that what a test finds durable is so. Postgres refuses to run as
//! root; then it runs as `postgres` or `nobody`.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{sys::signal::Signal, unistd};
use tempfile::TempDir;

use crate::process::{Process, find_program, free_port, tied};

/// Name and password of the superuser.
const USER: &str = "darkroom";
const PASSWORD: &str = "a password: with @ and /";

/// A running server; it ends, and its folder goes, with the handle.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    settings: Vec<String>,
    owner: Option<(unistd::Uid, unistd::Gid)>,
    databases: AtomicU64,
}

impl Postgres {
    /// Starts a new, empty server on a free port of loopback, as the server is by default.
    ///
    /// # Panics
    /// When Postgres is not installed, or does not start; a test cannot go on without it.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), with settings of its own (`"fsync=off"`, `"shared_buffers=1GB"`).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            folder: tempfile::Builder::new().prefix("darkroom-postgres-").tempdir().expect("a folder"),
            programs: programs(),
            port: free_port(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            owner: unprivileged(),
            databases: AtomicU64::new(0),
        };
        server.make();
        server.run();
        server
    }

    /// A server that the tests of a process share, each with [databases](Self::create_database) of its own; it ends
    /// with the last test that holds it.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// URL of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// URL of a database.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let password = "a%20password%3A%20with%20%40%20and%20%2F";
        format!("postgres://{USER}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the postmaster.
    ///
    /// # Panics
    /// When it was stopped.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// Makes a new, empty database and returns its URL.
    ///
    /// # Panics
    /// When the server does not.
    #[must_use]
    pub fn create_database(&self) -> String {
        let name = format!("farm_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// Runs SQL as the superuser and returns what it printed, a row a line, columns between `|`.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER]);
        command.args(["-p", &self.port.to_string(), "-d", database, "-c", sql]).env("PGPASSWORD", PASSWORD);
        let done = command.output().expect("psql runs");
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Kills every process of the server at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            self.signal_children(Signal::SIGKILL);
            process.kill();
        }
    }

    /// Ends the server in order; its sessions are cut.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGINT);
            process.wait();
        }
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same port and folder.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// Stops every process of the server where it stands: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// What the server has written to its log.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal_all(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
            self.signal_children(signal);
        }
    }

    /// Each of the server's processes has a group of its own, so the group of the first does not reach them.
    fn signal_children(&self, signal: Signal) {
        let Some(process) = &self.process else { return };
        for child in children(process.id()) {
            let _ = nix::sys::signal::kill(unistd::Pid::from_raw(child), signal);
        }
    }

    fn make(&self) {
        let folder = self.folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("permissions");
        let (data, secret) = (folder.join("data"), folder.join("password"));
        fs::write(&secret, PASSWORD).expect("the password is written");
        fs::create_dir(&data).expect("a folder");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("permissions");
        if let Some((user, group)) = self.owner {
            for path in [folder, &data, &secret] {
                chown(path, Some(user.as_raw()), Some(group.as_raw())).expect("the folder changes hands");
            }
        }
        let mut command = self.command("initdb");
        command.args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-instructions"]);
        command.arg("-D").arg(&data).arg("--pwfile").arg(&secret);
        let done = command.output().expect("initdb runs");
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn run(&mut self) {
        let folder = self.folder.path();
        let mut command = self.command("postgres");
        command.arg("-D").arg(folder.join("data"));
        let port = format!("port={}", self.port);
        let fixed = ["listen_addresses=127.0.0.1", "unix_socket_directories=", &port, "max_connections=200"];
        for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let mut process = Process::spawn(command, &folder.join("log"));
        let ready = || {
            let mut command = Command::new(self.programs.join("pg_isready"));
            command.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            command.status().expect("pg_isready runs").success()
        };
        process.wait_until("ready", ready);
        self.process = Some(process);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = tied(self.programs.join(program));
        command.current_dir(self.folder.path());
        if let Some((user, group)) = self.owner {
            command.uid(user.as_raw()).gid(group.as_raw());
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder of the newest server's programs: Debian keeps each version's apart. `DARKROOM_TEST_POSTGRES` names
/// another.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("DARKROOM_TEST_POSTGRES") {
        return PathBuf::from(folder);
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let folders: Vec<PathBuf> = versions.into_iter().map(|(_, folder)| folder).collect();
    let initdb = find_program(&["initdb"], &folders, "postgresql").unwrap_or_else(|error| panic!("{error}"));
    initdb.parent().map(Path::to_owned).expect("a program lies in a folder")
}

/// Who runs the server when we are root.
fn unprivileged() -> Option<(unistd::Uid, unistd::Gid)> {
    if !unistd::geteuid().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| unistd::User::from_name(name).ok().flatten());
    let user = user.expect("a user to run Postgres as");
    Some((user.uid, user.gid))
}

/// Process ids of a process's children.
fn children(parent: u32) -> Vec<i32> {
    let is_child = |stat: &str| {
        // `pid (name) state parent …`; the name may hold anything.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_child(&stat)))
        .collect()
}
