//! A Postgres server of the installed version.
//!
//! It has the default settings (fsync on), so tests that kill it see real durability; only the
//! [shared](Postgres::shared) one, which nobody kills, has fsync off. Postgres refuses to run as
//! root; for root, it runs as `postgres` or `nobody`.

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
    time::{Duration, SystemTime},
};

use nix::{sys::signal::Signal, unistd};
use tempfile::TempDir;

use crate::{
    certificates::Certificate,
    clock::hours_ahead,
    process::{Process, find_program, free_port, tied},
};

/// A running server. Dropping the handle ends it and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    folder: Folder,
    programs: PathBuf,
    port: u16,
    settings: Vec<String>,
    environment: Vec<(&'static str, String)>,
    owner: Option<(unistd::Uid, unistd::Gid)>,
    databases: AtomicU64,
}

/// The folder of a server.
#[derive(Debug)]
enum Folder {
    /// Removed with the handle.
    Own(TempDir),
    /// Of a server that another process started, and will end.
    Others(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Others(folder) => folder,
        }
    }
}

impl Postgres {
    /// Starts a new, empty server with default settings on a free port of loopback.
    ///
    /// # Panics
    /// When Postgres is not installed, or does not start; a test cannot go on without it.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), but with an identity of its own: the others are copies of one
    /// empty server, as a primary and its standbys are.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_unrelated() -> Self {
        let mut server = Self::new(&[]);
        let (data, secret) = server.folders();
        server.initialise(&data, &secret);
        server.run();
        server
    }

    /// As [`start`](Self::start), with these settings (`"fsync=off"`, `"shared_buffers=1GB"`).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::new(settings);
        server.make();
        server.run();
        server
    }

    /// Starts one whose clock is this many hours ahead of everybody else's; `None` if Debian's package
    /// faketime is not installed.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_hours_ahead(hours: i8) -> Option<Self> {
        let environment = hours_ahead(hours)?;
        let mut server = Self::new(&[]);
        server.environment.extend(environment);
        server.make();
        server.run();
        Some(server)
    }

    /// Starts one that speaks TLS, with this certificate.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_with_certificate(certificate: &Certificate) -> Self {
        let mut server = Self::new(&[]);
        server.make();
        server.write_certificate(certificate);
        let folder = server.folder.path().display().to_string();
        server.set("ssl=on");
        server.set(&format!("ssl_cert_file={folder}/server.pem"));
        server.set(&format!("ssl_key_file={folder}/server.key"));
        server.run();
        server
    }

    /// Uses another certificate from the next start on.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_certificate(&self, certificate: &Certificate) {
        for (name, text) in
            [("server.pem", &certificate.certificate), ("server.key", &certificate.key)]
        {
            let path = self.folder.path().join(name);
            let _ = fs::remove_file(&path);
            fs::write(&path, text).expect("the certificate is written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            if let Some((user, group)) = self.owner {
                chown(&path, Some(user.as_raw()), Some(group.as_raw()))
                    .expect("the file changes hands");
            }
        }
    }

    /// Starts a standby that follows this server by streaming.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_standby(&self) -> Self {
        let mut standby = Self::new(&[]);
        standby.copy(self);
        standby.run();
        standby
    }

    /// Promotes a standby to primary.
    ///
    /// # Panics
    /// When it does not become one.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote(TRUE, 60)"), "t", "{}", self.log_text());
    }

    fn new(settings: &[&str]) -> Self {
        Self {
            process: None,
            folder: Folder::Own(
                tempfile::Builder::new().prefix("darkroom-postgres-").tempdir().expect("a folder"),
            ),
            programs: programs(),
            port: free_port(),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            environment: Vec::new(),
            owner: unprivileged(),
            databases: AtomicU64::new(0),
        }
    }

    /// A server that tests share, each with its own [databases](Self::create_database): that of the
    /// whole run where [`SHARED`] names one, and otherwise one of this process, which ends when the
    /// last test drops it. Its fsync is off: a power cut would lose data.
    ///
    /// # Panics
    /// As [`start`](Self::start), and when [`SHARED`] is no port and folder.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static HERE: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut here = HERE.lock().unwrap_or_else(PoisonError::into_inner);
        here.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::of_the_run().unwrap_or_else(Self::start_to_share));
            *here = Arc::downgrade(&server);
            server
        })
    }

    /// A server to share with other processes, by [`shared_as`](Self::shared_as).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn start_to_share() -> Self {
        // The write-ahead log is never needed after a crash here, so it need not take up a
        // gigabyte.
        Self::start_with(&["fsync=off", "max_connections=1000", "max_wal_size=128MB"])
    }

    /// What the variable [`SHARED`] must hold for other processes to use this server.
    #[must_use]
    pub fn shared_as(&self) -> String {
        format!("{} {}", self.port, self.folder.path().display())
    }

    fn of_the_run() -> Option<Self> {
        let shared = std::env::var(SHARED).ok()?;
        let (port, folder) = shared.split_once(' ').expect("a port and a folder");
        Some(Self {
            process: None,
            folder: Folder::Others(PathBuf::from(folder)),
            programs: programs(),
            port: port.parse().expect("a port"),
            settings: Vec::new(),
            environment: Vec::new(),
            owner: unprivileged(),
            databases: AtomicU64::new(0),
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
        format!("postgres://{}@127.0.0.1:{}/{database}", Self::USERINFO, self.port)
    }

    /// Name of the superuser.
    pub const USER: &'static str = "darkroom";
    /// The superuser's password.
    pub const PASSWORD: &'static str = "a password: with @ and /";
    /// The superuser and its password, as a URL has them.
    pub const USERINFO: &'static str = "darkroom:a%20password%3A%20with%20%40%20and%20%2F";

    /// The folder of its Unix socket.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds a line at the top of `pg_hba.conf`, and makes the server read it.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn allow_first(&self, line: &str) {
        let file = self.folder.path().join("data/pg_hba.conf");
        let lines = fs::read_to_string(&file).expect("pg_hba.conf");
        fs::write(&file, format!("{line}\n{lines}")).expect("pg_hba.conf is written");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the postmaster.
    ///
    /// # Panics
    /// When it is stopped.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// One of the programs that came with the server: `psql`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Makes a new, empty database and returns its URL.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn create_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = database_of(std::process::id(), number);
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url_of(&name)
    }

    /// Drops the [databases](Self::create_database) of processes that have ended; returns how many.
    /// The tests of a whole run leave hundreds, of 10 MB each.
    ///
    /// # Errors
    /// What the server said when it refused one; the others are dropped.
    pub fn drop_databases_of_ended_processes(&self) -> Result<usize, String> {
        let names = self.try_sql(
            "postgres",
            "SELECT datname FROM pg_database WHERE datname LIKE 'farm#_%' ESCAPE '#'",
        )?;
        let (mut dropped, mut refused) = (0, None);
        for name in names.lines().filter(|name| process_of(name).is_some_and(has_ended)) {
            // What the process started may hold a session for a moment longer.
            match self.try_sql("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            {
                Ok(_) => dropped += 1,
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(dropped), Err)
    }

    /// Runs SQL as the superuser and returns what it printed, a row a line, columns between `|`.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Like [`sql`](Self::sql), but returns what `psql` said if it failed.
    fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut command = Command::new(self.programs.join("psql"));
        command.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            Self::USER,
        ]);
        command
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .env("PGPASSWORD", Self::PASSWORD);
        let done = command.output().map_err(|error| format!("psql: {error}"))?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// Kills every process of the server at once, like a power cut.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            self.signal_children(Signal::SIGKILL);
            process.kill();
        }
    }

    /// Ends the server normally; its sessions are cut.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGINT);
            process.wait();
        }
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same port and
    /// folder.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// Asks the server to end when its sessions have ended, and waits until it refuses new
    /// sessions.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop_smartly(&mut self) {
        let mut process = self.process.take().expect("the server runs");
        process.signal(Signal::SIGTERM);
        process.wait_until("shutting down", || self.readiness() == Some(REJECTING));
        self.process = Some(process);
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// As [`restart`](Self::restart), for a server that refuses all sessions.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_to_reject(&mut self) {
        self.stop();
        self.run_until(REJECTING);
    }

    /// Freezes every process of the server: connections stay open, and nothing answers.
    ///
    /// # Panics
    /// When it is stopped, or is the one that the tests of a whole run share.
    pub fn pause(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Continues it after [`pause`](Self::pause).
    ///
    /// # Panics
    /// As that.
    pub fn resume(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// What the server has written to its log.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal_all(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs, and is not that of the whole run");
        process.signal(signal);
        self.signal_children(signal);
    }

    /// Each of the server's processes has its own process group, so a signal to the first group
    /// does not reach them.
    fn signal_children(&self, signal: Signal) {
        let Some(process) = &self.process else { return };
        for child in children(process.id()) {
            let _ = nix::sys::signal::kill(unistd::Pid::from_raw(child), signal);
        }
    }

    fn folders(&self) -> (PathBuf, PathBuf) {
        let folder = self.folder.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("permissions");
        let (data, secret) = (folder.join("data"), folder.join("password"));
        fs::write(&secret, Self::PASSWORD).expect("the password is written");
        fs::create_dir(&data).expect("a folder");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("permissions");
        if let Some((user, group)) = self.owner {
            for path in [folder, &data, &secret] {
                chown(path, Some(user.as_raw()), Some(group.as_raw()))
                    .expect("the folder changes hands");
            }
        }
        (data, secret)
    }

    /// Copies the files of another server, and sets this one up to follow it.
    fn copy(&self, primary: &Self) {
        let (data, _) = self.folders();
        let mut command = self.command("pg_basebackup");
        let port = primary.port;
        command.args([
            "--checkpoint=fast",
            "--wal-method=stream",
            "--write-recovery-conf",
            "--no-sync",
            "-D",
        ]);
        let (user, password) = (Self::USER, Self::PASSWORD);
        command
            .arg(&data)
            .args(["-d", &format!("host=127.0.0.1 port={port} user={user} password='{password}'")]);
        let done = command.output().expect("pg_basebackup runs");
        assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Makes an empty server: a copy of one that was made before, since tests start hundreds.
    fn make(&self) {
        let (data, secret) = self.folders();
        let template = self.template();
        if !template.is_dir() {
            self.make_template(&template, &secret);
        }
        // As root, so that the copy keeps its owner.
        copy_all(&template.join("."), &data);
    }

    fn initialise(&self, data: &Path, secret: &Path) {
        let mut command = self.command("initdb");
        command.args([
            "-U",
            Self::USER,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-instructions",
            "--no-sync",
        ]);
        command.arg("-D").arg(data).arg("--pwfile").arg(secret);
        let done = command.output().expect("initdb runs");
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Where the server that is copied lies: beside the programs that are tested, one for each
    /// version of Postgres and each user.
    fn template(&self) -> PathBuf {
        let of: Vec<_> = self.programs.iter().skip(1).map(|part| part.to_string_lossy()).collect();
        let name = format!("empty-{}-{}", of.join("-"), unistd::geteuid());
        let program = std::env::current_exe().expect("this program's path");
        program.parent().expect("a program is in a folder").join(name)
    }

    fn make_template(&self, template: &Path, secret: &Path) {
        let made = self.folder.path().join("made");
        self.initialise(&made, secret);
        // Copied first, since the two may lie on different disks. Of two that are made at once, one
        // stays.
        let parent = template.parent().expect("it is in a folder");
        let beside = tempfile::tempdir_in(parent).expect("a folder beside it").keep();
        let copy = beside.join("empty");
        copy_all(&made, &copy);
        if let Err(error) = fs::rename(&copy, template) {
            assert!(template.is_dir(), "{}: {error}", template.display());
        }
        fs::remove_dir_all(&beside).expect("the folder beside it is removed");
    }

    fn run(&mut self) {
        self.run_until(ACCEPTING);
    }

    fn run_until(&mut self, readiness: i32) {
        let mut before = self.log_text().len();
        let mut process = self.spawn();
        while !process.comes_to("ready", || self.readiness() == Some(readiness)) {
            // After a kill, sessions hold the server's memory a moment longer. Their last words may
            // come after its own, so all of this start's log is read.
            let log = self.log_text();
            let held = log.get(before..).is_some_and(|new| new.contains("shared memory block"));
            assert!(held, "ended before it was ready; its log: {log}");
            std::thread::sleep(Duration::from_millis(50));
            before = log.len();
            process = self.spawn();
        }
        self.process = Some(process);
    }

    fn spawn(&self) -> Process {
        let folder = self.folder.path();
        let mut command = self.command("postgres");
        command.arg("-D").arg(folder.join("data"));
        let port = format!("port={}", self.port);
        let sockets = format!("unix_socket_directories={}", folder.display());
        let fixed = ["listen_addresses=127.0.0.1", &sockets, &port, "max_connections=200"];
        for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::spawn(command, &folder.join("log"))
    }

    fn readiness(&self) -> Option<i32> {
        let mut command = Command::new(self.programs.join("pg_isready"));
        command.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.status().expect("pg_isready runs").code()
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

/// Copies a folder with its owners and permissions.
fn copy_all(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).output().expect("cp runs");
    assert!(done.status.success(), "cp: {}", String::from_utf8_lossy(&done.stderr));
}

/// The environment variable with the port and the folder of the server that all tests of a run share
/// (see `with-postgres`).
pub const SHARED: &str = "DARKROOM_TEST_SHARED_POSTGRES";

/// Exit codes of `pg_isready` for a server that accepts sessions, and for one that refuses them.
const ACCEPTING: i32 = 0;
const REJECTING: i32 = 1;

/// The folder with the newest server's programs; Debian has one for each version.
/// `DARKROOM_TEST_POSTGRES` overrides it.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("DARKROOM_TEST_POSTGRES") {
        return PathBuf::from(folder);
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let folders: Vec<PathBuf> = versions.into_iter().map(|(_, folder)| folder).collect();
    let initdb =
        find_program(&["initdb"], &folders, "postgresql").unwrap_or_else(|error| panic!("{error}"));
    initdb.parent().map(Path::to_owned).expect("a program is in a folder")
}

/// Name of a process's database. It contains the time, because process ids are reused.
fn database_of(process: u32, number: u64) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_millis();
    format!("farm_{now}_{process}_{number}")
}

/// The process that made a database, by the database's [name](database_of).
fn process_of(database: &str) -> Option<u32> {
    database.strip_prefix("farm_")?.split('_').nth(1)?.parse().ok()
}

fn has_ended(process: u32) -> bool {
    let is_known = |process: &str| Path::new("/proc").join(process).exists();
    is_known("self") && !is_known(&process.to_string())
}

/// The user that runs the server when we are root.
pub(crate) fn unprivileged() -> Option<(unistd::Uid, unistd::Gid)> {
    if !unistd::geteuid().is_root() {
        return None;
    }
    let user =
        ["postgres", "nobody"].iter().find_map(|name| unistd::User::from_name(name).ok().flatten());
    let user = user.expect("a user to run Postgres as");
    Some((user.uid, user.gid))
}

/// Process ids of a process's children.
fn children(parent: u32) -> Vec<i32> {
    let is_child = |stat: &str| {
        // `pid (name) state parent …`; the name may contain anything.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_child(&stat))
        })
        .collect()
}
