//! A Redis server, or a Valkey server if only that is installed.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Process, find_program, free_port, tied};

/// Longest time for an answer to a command of the test.
const ANSWER: Duration = Duration::from_secs(10);

/// A server on a free port of loopback, with its files in its own folder. It saves nothing to disk
/// unless a setting or [`snapshot`](Self::snapshot) asks for it.
#[derive(Debug)]
pub struct Redis {
    // Declared before the folder, so that the server ends before the folder is removed.
    process: Option<Process>,
    port: u16,
    password: Option<String>,
    folder: TempDir,
}

/// The content of a server at some moment.
#[derive(Clone, Debug)]
pub struct Snapshot(Vec<u8>);

impl Redis {
    /// Starts an empty server.
    ///
    /// # Panics
    /// When it cannot be started; a test cannot go on without it.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with these lines in its configuration: `appendonly yes`, `maxmemory 8mb`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_on(free_port(), None, settings)
    }

    /// Starts a server that requires this password.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with_password(password: &str) -> Self {
        Self::start_on(free_port(), Some(password), &[])
    }

    /// Starts a server that follows this one.
    ///
    /// # Panics
    /// When it cannot be started, or does not follow in time.
    #[must_use]
    pub fn start_replica(&self) -> Self {
        let follows = format!("replicaof 127.0.0.1 {}", self.port);
        let mut replica = Self::start_on(free_port(), self.password.as_deref(), &[&follows]);
        let follows = |replica: &Self| {
            // While it begins to follow, it may end a connection.
            let said = replica.command(&["INFO", "replication"]);
            said.is_ok_and(|said| said.contains("master_link_status:up"))
        };
        let mut process = replica.process.take().expect("it was started");
        process.wait_until("the replica follows its master", || follows(&replica));
        replica.process = Some(process);
        replica
    }

    /// Settings for a server that writes an append-only file and syncs it every second.
    pub const EVERY_SECOND: [&'static str; 2] = ["appendonly yes", "appendfsync everysec"];

    fn start_on(port: u16, password: Option<&str>, settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("darkroom-redis-")
            .tempdir()
            .expect("a temporary folder");
        let mut text =
            format!("bind 127.0.0.1\nport {port}\ndir {}\nsave \"\"\n", folder.path().display());
        for setting in settings {
            let _ = writeln!(text, "{setting}");
        }
        if let Some(password) = password {
            let _ = writeln!(text, "requirepass {password}");
        }
        std::fs::write(folder.path().join("redis.conf"), text)
            .expect("the configuration can be written");
        let mut redis = Self { process: None, port, password: password.map(str::to_owned), folder };
        redis.launch();
        redis
    }

    fn launch(&mut self) {
        let program = find_program(&["redis-server", "valkey-server"], &[], "redis-server");
        let mut command = tied(program.unwrap_or_else(|error| panic!("{error}")));
        command.arg(self.folder.path().join("redis.conf"));
        let mut process = Process::spawn(command, &self.folder.path().join("log"));
        let ready = || self.command(&["PING"]).is_ok_and(|answer| answer == "+PONG");
        process.wait_until("the Redis server was ready", ready);
        self.process = Some(process);
    }

    /// Its port of loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the server.
    ///
    /// # Panics
    /// When it was stopped.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// Its address, password included.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The same through a proxy that listens on another port.
    #[must_use]
    pub fn url_through(&self, port: u16) -> String {
        let user =
            self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{user}127.0.0.1:{port}/")
    }

    /// Kills it, like `kill -9`. Data that is not on disk is lost.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Ends it normally.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM);
            process.wait();
        }
    }

    /// Starts it again on the same port and in the same folder. Kills it first if it still runs.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Freezes it; its connections stay open.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::SIGSTOP);
    }

    /// Continues it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.process.as_ref().expect("it runs").signal(Signal::SIGCONT);
    }

    /// Removes all its data.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn flush(&self) {
        self.must(&["FLUSHALL"]);
    }

    /// Removes the scripts from it.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn flush_scripts(&self) {
        self.must(&["SCRIPT", "FLUSH"]);
    }

    /// A snapshot of its content.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.must(&["SAVE"]);
        Snapshot(
            std::fs::read(self.folder.path().join("dump.rdb")).expect("the snapshot can be read"),
        )
    }

    /// Starts it again with the content of an older snapshot. Only for servers without an
    /// append-only file, because that would be read instead.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart_from_snapshot(&mut self, snapshot: &Snapshot) {
        self.kill();
        std::fs::write(self.folder.path().join("dump.rdb"), &snapshot.0)
            .expect("the snapshot can be written");
        self.launch();
    }

    /// Runs a command and returns its answer.
    ///
    /// # Panics
    /// When it does not answer, or with an error.
    pub fn must(&self, words: &[&str]) -> String {
        let answer = self.command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
        answer
    }

    /// Runs a command on a new connection. Returns a line as Redis sends it (`+OK`, `:1`, `-ERR …`,
    /// `*2`), or the text of a string. The members of arrays are not read.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn command(&self, words: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        if let Some(password) = &self.password {
            write_command(&mut stream, &["AUTH", password])?;
            read_answer(&mut answers)?;
        }
        write_command(&mut stream, words)?;
        read_answer(&mut answers)
    }
}

fn write_command(stream: &mut TcpStream, words: &[&str]) -> io::Result<()> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(text, "${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(text.as_bytes())
}

fn read_answer(answers: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let line = line.trim_end();
    let Some(length) = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok())
    else {
        return Ok(line.to_owned());
    };
    let mut text = vec![0; length];
    answers.read_exact(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_started_flushed_killed_and_taken_back_to_a_snapshot() {
        let mut redis = Redis::start();
        redis.must(&["SET", "a", "1"]);
        let snapshot = redis.snapshot();
        redis.flush();
        assert_eq!(redis.must(&["EXISTS", "a"]), ":0");
        redis.restart_from_snapshot(&snapshot);
        assert_eq!(redis.must(&["GET", "a"]), "1");
        redis.kill();
        assert!(redis.command(&["PING"]).is_err());
    }

    #[test]
    fn a_password_is_asked_for() {
        let redis = Redis::start_with_password("secret");
        assert_eq!(redis.must(&["PING"]), "+PONG");
        let other = Redis {
            process: None,
            port: redis.port,
            password: None,
            folder: TempDir::new().unwrap(),
        };
        assert!(other.command(&["PING"]).unwrap().starts_with("-NOAUTH"));
    }
}
