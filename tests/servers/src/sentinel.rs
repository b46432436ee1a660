//! A Redis Sentinel: it watches a Redis server, and promotes a replica when that server is gone.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    process::{Process, find_program, free_port, tied},
    redis::Redis,
};

/// One Sentinel on a free port of loopback. It may decide a failover alone.
#[derive(Debug)]
pub struct Sentinel {
    process: Process,
    port: u16,
    master: String,
    _folder: TempDir,
}

impl Sentinel {
    /// Watches `redis` under the name `master`, which counts as gone after half a second without an
    /// answer.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(master: &str, redis: &Redis) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("darkroom-sentinel-")
            .tempdir()
            .expect("a temporary folder");
        let port = free_port();
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor {master} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {master} 500\nsentinel failover-timeout {master} 3000\n",
            folder.path().display(),
            redis.port()
        );
        let settings = folder.path().join("sentinel.conf");
        std::fs::write(&settings, text).expect("the configuration can be written");
        let program = find_program(&["redis-server", "valkey-server"], &[], "redis-server");
        let mut command = tied(program.unwrap_or_else(|error| panic!("{error}")));
        command.arg(settings).arg("--sentinel");
        let mut process = Process::spawn(command, &folder.path().join("log"));
        process.wait_until("the Sentinel is ready", || info(port).is_some());
        Self { process, port, master: master.to_owned(), _folder: folder }
    }

    /// Its port of loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of its master, in the form that the queue accepts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{}", self.port, self.master)
    }

    /// Waits until it knows this many replicas. Only known replicas can be promoted.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn until_it_knows(&mut self, replicas: usize) {
        let (port, line) = (self.port, format!("slaves={replicas},"));
        self.process.wait_until("the Sentinel knows the replicas", || {
            info(port).is_some_and(|text| text.contains(&line))
        });
    }

    /// Waits until it names the server on `port` as the master.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn until_master_is(&mut self, redis: &Redis) {
        let (port, line) = (self.port, format!("status=ok,address=127.0.0.1:{},", redis.port()));
        self.process.wait_until("the Sentinel names the new master", || {
            info(port).is_some_and(|text| text.contains(&line))
        });
    }
}

/// Its answer about its masters.
fn info(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"INFO sentinel\r\n").ok()?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).ok()?;
    let mut text = vec![0; line.trim().strip_prefix('$')?.parse().ok()?];
    answer.read_exact(&mut text).ok()?;
    String::from_utf8(text).ok()
}
