//! A farm of real processes on real servers, with a proxy between every process and every server or
//! coordinator that it asks.

use std::{
    collections::HashMap,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use darkroom_artifacts::{ArtifactStore, open};
use darkroom_test_servers::{
    clock::hours_ahead,
    postgres::Postgres,
    process::{Process, free_port, tied},
    proxy::Proxy,
    redis::{Redis, Snapshot},
    s3::S3,
};
use nix::sys::signal::Signal;

use crate::{
    disk::Disk,
    plan::{LINKS, Party, Server, Storage},
};

/// Coordinators of a farm.
const COORDINATORS: usize = 2;
/// Encoders of a farm.
const ENCODERS: usize = 2;
/// Workers of a farm; each serves all stages.
const WORKERS: usize = 4;

/// Processes that render a cascade with its networks, beside the fakes.
#[derive(Clone, Debug)]
pub struct Real {
    /// Folder of `darkroom-worker` and `darkroom-encoder`, built with libtorch.
    pub binaries: PathBuf,
    /// Folder of the cascade.
    pub cascade: PathBuf,
    /// Its name.
    pub name: String,
}

/// How the farm is run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Folder of the farm's binaries.
    pub binaries: PathBuf,
    /// Time after which a lease is over.
    pub lease: Duration,
    /// Milliseconds that a step takes the fake renderer.
    pub step_ms: f64,
    /// Where artifacts are kept.
    pub storage: Storage,
    /// A worker and an encoder that render in earnest.
    pub real: Option<Real>,
}

/// A running farm. Everything ends with it.
pub struct Cluster {
    setup: Setup,
    folder: tempfile::TempDir,
    /// The record.
    pub postgres: Postgres,
    /// The queue.
    pub redis: Redis,
    /// What was in the queue before anybody used it.
    nothing: Snapshot,
    /// The artifacts.
    pub storage: S3,
    disk: Option<Disk>,
    /// One for each process of the party.
    proxies: HashMap<(Party, Server), Vec<Proxy>>,
    members: Vec<Member>,
    ports: Vec<u16>,
}

/// One process of the farm.
struct Member {
    party: Party,
    name: String,
    process: Process,
    starts: u32,
}

impl Cluster {
    /// Starts servers, proxies and processes, and waits until the farm serves.
    ///
    /// # Errors
    /// When a binary is missing or a coordinator does not come up.
    pub fn start(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let (postgres, redis, storage) = (Postgres::start(), Redis::start(), S3::start());
        let nothing = redis.snapshot();
        let ports: Vec<_> = (0..COORDINATORS).map(|_| free_port()).collect();
        let target = |server, number: usize| match server {
            Server::Redis => redis.port(),
            Server::Postgres => postgres.port(),
            Server::Storage => storage.port(),
            Server::Coordinators => ports[number % COORDINATORS],
        };
        let extra = usize::from(setup.real.is_some());
        let parties = [
            (Party::Coordinators, COORDINATORS),
            (Party::Encoders, ENCODERS + extra),
            (Party::Workers, WORKERS + extra),
        ];
        let count = |party| parties.iter().find(|(one, _)| *one == party).map_or(0, |(_, count)| *count);
        let proxies = LINKS.map(|(party, server)| {
            let each = (0..count(party)).map(|number| Proxy::start(target(server, number))).collect();
            ((party, server), each)
        });
        let artifacts = folder.path().join("artifacts");
        std::fs::create_dir(&artifacts)?;
        let disk = if setup.storage == Storage::Folder { Disk::mount(&artifacts)? } else { None };
        let mut cluster = Self {
            setup,
            folder,
            postgres,
            redis,
            nothing,
            storage,
            disk,
            proxies: proxies.into(),
            members: Vec::new(),
            ports,
        };
        for (party, count) in parties {
            for number in 0..count {
                cluster.add(party, number)?;
                if party == Party::Coordinators {
                    cluster.wait_until_it_listens(number)?;
                }
            }
        }
        Ok(cluster)
    }

    /// Addresses of the coordinators.
    #[must_use]
    pub fn coordinators(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// Ports of the coordinators.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The proxies in a connection, one for each process.
    ///
    /// # Panics
    /// When it is none of [`LINKS`].
    #[must_use]
    pub fn proxies(&self, party: Party, server: Server) -> &[Proxy] {
        &self.proxies[&(party, server)]
    }

    /// The disk of the artifacts, where they are on one of their own.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Processes whose clocks are wrong: an hour ahead, an hour behind.
    #[must_use]
    pub fn wrong_clocks(&self) -> (usize, usize) {
        let of = |hours| {
            self.members.iter().enumerate().filter(|(position, _)| self.clock(*position) == hours).count()
        };
        (of(1), of(-1))
    }

    /// Hours by which a process's clock is ahead.
    fn clock(&self, position: usize) -> i8 {
        let member = &self.members[position];
        let number = self.members[..position].iter().filter(|other| other.party == member.party).count();
        clock(&self.setup, member.party, number)
    }

    /// How many processes a party has.
    #[must_use]
    pub fn count(&self, party: Party) -> usize {
        self.members.iter().filter(|member| member.party == party).count()
    }

    /// Kills a process and starts it again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn kill(&mut self, party: Party, number: usize) -> Result<()> {
        let position = self.position(party, number);
        self.members[position].process.kill();
        self.start_again(position)
    }

    /// Starts Redis again with nothing in it, whatever snapshots of it were taken.
    pub fn restart_redis(&mut self) {
        self.redis.restart_from_snapshot(&self.nothing);
    }

    /// Sends a signal to a process.
    pub fn signal(&mut self, party: Party, number: usize, signal: Signal) {
        let position = self.position(party, number);
        if self.members[position].process.runs() {
            self.members[position].process.signal(signal);
        }
    }

    /// Starts again what has ended: aborted by poison, terminated, or refused because a server was away. Returns the
    /// names of those.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn tend(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for position in 0..self.members.len() {
            if !self.members[position].process.runs() {
                ended.push(self.members[position].name.clone());
                self.start_again(position)?;
            }
        }
        Ok(ended)
    }

    /// The number of the coordinator that leads, by the record; waits for one to lead.
    ///
    /// # Errors
    /// When nobody leads for longer than a takeover may take.
    pub async fn leader(&mut self) -> Result<usize> {
        for _ in 0..150 {
            self.tend()?;
            let holder = self.holder();
            let says = |number: &usize| {
                let log = self.members[self.position(Party::Coordinators, *number)].process.log_text();
                !holder.is_empty() && log.contains(&holder)
            };
            if let Some(leader) = (0..COORDINATORS).find(says) {
                return Ok(leader);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("nobody leads the farm")
    }

    /// Who leads, by the record; empty while nobody does.
    #[must_use]
    pub fn holder(&self) -> String {
        self.postgres.sql("postgres", "SELECT holder FROM leadership WHERE until > now()")
    }

    /// The last lines of every process's log, for a report of what went wrong.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let tail = |member: &Member| {
            let log = member.process.log_text();
            let all: Vec<_> = log.lines().collect();
            let last = all[all.len().saturating_sub(lines)..].join("\n");
            format!("--- {}\n{last}\n", member.name)
        };
        self.members.iter().map(tail).collect()
    }

    /// What each coordinator has logged since the farm's start.
    pub fn coordinator_logs(&self) -> impl Iterator<Item = String> {
        let coordinators = self.members.iter().filter(|member| member.party == Party::Coordinators);
        coordinators.map(|member| member.process.log_text())
    }

    /// The farm's object storage, not through a proxy.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_storage(&self) -> Result<ArtifactStore> {
        let environment = self.storage.environment().into_iter().collect();
        let options = open::Options { environment, ..open::Options::default() };
        let url = match self.setup.storage {
            Storage::S3 => self.storage.url(),
            Storage::Folder => self.artifacts(),
        };
        Ok(ArtifactStore::open(&url, &options)?)
    }

    /// What is left in the farm's streams in Redis, a sentence each.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn left_in_queue(&self) -> Result<Vec<String>> {
        let script = "local left = {} \
             for _, key in ipairs(redis.call('KEYS', '*')) do \
                 if redis.call('TYPE', key).ok == 'stream' and redis.call('XLEN', key) > 0 then \
                     left[#left + 1] = redis.call('XLEN', key) .. ' entries in ' .. key \
                 end \
             end \
             return table.concat(left, '\\n')";
        let left = self.redis.command(&["EVAL", script, "0"])?;
        Ok(left.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// Folder of the logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn position(&self, party: Party, number: usize) -> usize {
        let mut of_party = self.members.iter().enumerate().filter(|(_, member)| member.party == party);
        of_party.nth(number).expect("a process of this number").0
    }

    fn start_again(&mut self, position: usize) -> Result<()> {
        let party = self.members[position].party;
        let number = self.members[..position].iter().filter(|member| member.party == party).count();
        let command = self.command(party, number)?;
        let member = &mut self.members[position];
        member.process = Process::spawn(command, &self.folder.path().join(format!("{}.log", member.name)));
        member.starts += 1;
        Ok(())
    }

    fn add(&mut self, party: Party, number: usize) -> Result<()> {
        let name = format!("{party:?}-{number}").to_lowercase();
        let command = self.command(party, number)?;
        let process = Process::spawn(command, &self.folder.path().join(format!("{name}.log")));
        self.members.push(Member { party, name, process, starts: 1 });
        Ok(())
    }

    fn command(&self, party: Party, number: usize) -> Result<Command> {
        let program = match party {
            Party::Coordinators => "darkroom-coordinator",
            Party::Encoders => "darkroom-encoder",
            Party::Workers => "darkroom-worker",
        };
        let real = self.setup.real.as_ref().filter(|_| match party {
            Party::Coordinators => false,
            Party::Encoders => number >= ENCODERS,
            Party::Workers => number >= WORKERS,
        });
        let program = real.map_or(&self.setup.binaries, |real| &real.binaries).join(program);
        ensure!(program.is_file(), "{} is not there; build it first", program.display());
        let mut command = tied(program);
        command.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("DARKROOM_")));
        let port = |server| self.proxies(party, server)[number].port();
        let artifacts = match self.setup.storage {
            Storage::S3 => self.storage.url_through(port(Server::Storage)),
            Storage::Folder => self.artifacts(),
        };
        let hours = clock(&self.setup, party, number);
        if hours != 0 {
            command.envs(hours_ahead(hours).into_iter().flatten());
        }
        command
            .env("DARKROOM_REDIS", self.redis.url_through(port(Server::Redis)))
            .env("DARKROOM_ARTIFACTS", artifacts)
            .env("DARKROOM_LOG", std::env::var("DARKROOM_LOG").unwrap_or_else(|_| "info".to_owned()))
            .envs(self.storage.environment());
        match party {
            Party::Coordinators => {
                let direct = format!(":{}/", self.postgres.port());
                let database = self.postgres.url().replace(&direct, &format!(":{}/", port(Server::Postgres)));
                command
                    .env("DARKROOM_DATABASE", database)
                    .arg("--cascade")
                    .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cascades/tiny"))
                    .arg("--without-files")
                    .args(["--listen", &format!("127.0.0.1:{}", self.ports[number])])
                    .args(["--lease-seconds", &self.setup.lease.as_secs_f64().to_string()])
                    .args(["--sweep-seconds", "1"]);
                if let Some(real) = &self.setup.real {
                    command.arg("--cascade").arg(&real.cascade);
                }
            }
            Party::Encoders | Party::Workers if real.is_some() => {
                let name = real.map_or("", |real| real.name.as_str());
                self.join(&mut command, party, number).args([
                    "--cascade",
                    name,
                    "--device",
                    "cpu",
                    "--threads",
                    "1",
                ]);
                if party == Party::Workers {
                    command.args(["--batch", "4"]);
                }
            }
            Party::Encoders => {
                self.join(&mut command, party, number).args(["--renderer", "fake", "--cascade", "tiny"]);
            }
            Party::Workers => {
                self.join(&mut command, party, number)
                    .args(["--renderer", "fake", "--batch", "4", "--cascade", "tiny"])
                    .args(["--fake-step-ms", &self.setup.step_ms.to_string()])
                    .args(["--fake-aborting-seed", &crate::load::POISON.to_string()]);
            }
        }
        Ok(command)
    }

    fn artifacts(&self) -> String {
        self.folder.path().join("artifacts").display().to_string()
    }

    fn join<'a>(&self, command: &'a mut Command, party: Party, number: usize) -> &'a mut Command {
        let farm = format!("127.0.0.1:{}", self.proxies(party, Server::Coordinators)[number].port());
        // Each on a host of its own, as failures on distinct hosts are told apart.
        let host = format!("host{number}");
        let cache = self.folder.path().join("cache");
        command.args(["--farm", &farm, "--host", &host, "--grace-seconds", "2", "--cache"]).arg(cache)
    }

    fn wait_until_it_listens(&mut self, number: usize) -> Result<()> {
        let port = self.ports[number];
        let position = self.position(Party::Coordinators, number);
        for _ in 0..600 {
            // It takes its port first of all; a farm there is once the record is made.
            let is_made =
                || self.postgres.sql("postgres", "SELECT to_regclass('worker_drains') IS NOT NULL") == "t";
            if TcpStream::connect(("127.0.0.1", port)).is_ok() && is_made() {
                return Ok(());
            }
            let process = &mut self.members[position].process;
            ensure!(process.runs(), "a coordinator did not start: {}", process.log_text());
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("a coordinator does not listen: {}", self.members[position].process.log_text())
    }
}

/// Hours by which the clock of a process is ahead: of the first worker and encoder one, of the second worker minus one,
/// where nothing asks for a signature and the system can do it.
fn clock(setup: &Setup, party: Party, number: usize) -> i8 {
    if setup.storage != Storage::Folder || hours_ahead(1).is_none() {
        return 0;
    }
    match (party, number) {
        (Party::Workers | Party::Encoders, 0) => 1,
        (Party::Workers, 1) => -1,
        _ => 0,
    }
}
