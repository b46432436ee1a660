//! A farm of real processes on real servers, with a proxy on every connection of a process to a
//! server or coordinator.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use darkroom_artifacts::{ArtifactStore, open};
use darkroom_test_servers::{
    clock::hours_ahead,
    postgres::Postgres,
    process::{Process, free_port},
    proxy::Proxy,
    redis::{Redis, Snapshot},
    s3::S3,
};
use darkroom_tests::programs::{Cascade, CoordinatorStart, MemberStart, Renderer, Told, answers};
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

/// A worker and an encoder with real networks, beside the fakes.
#[derive(Clone, Debug)]
pub struct Real {
    /// Folder of `darkroom-worker` and `darkroom-encoder`, built with libtorch.
    pub binaries: PathBuf,
    /// Folder of the cascade.
    pub cascade: PathBuf,
    /// Its name.
    pub name: String,
}

/// Options of the farm.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Folder of the farm's binaries.
    pub binaries: PathBuf,
    /// Time after which a lease ends.
    pub lease: Duration,
    /// Milliseconds per step of the fake renderer.
    pub step_ms: f64,
    /// Where artifacts are kept.
    pub storage: Storage,
    /// A worker and an encoder with real networks.
    pub real: Option<Real>,
}

/// A running farm. Dropping it ends everything.
pub struct Cluster {
    setup: Setup,
    folder: tempfile::TempDir,
    /// The record.
    pub postgres: Postgres,
    /// The queue.
    pub redis: Redis,
    /// The queue's content before anybody used it.
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
        let count =
            |party| parties.iter().find(|(one, _)| *one == party).map_or(0, |(_, count)| *count);
        let proxies = LINKS.map(|(party, server)| {
            let each =
                (0..count(party)).map(|number| Proxy::start(target(server, number))).collect();
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
                    cluster.wait_until_it_serves(number)?;
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

    /// The disk of the artifacts, if they have their own.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Processes whose clocks are wrong: an hour ahead, an hour behind.
    #[must_use]
    pub fn wrong_clocks(&self) -> (usize, usize) {
        let of = |hours| {
            self.members
                .iter()
                .enumerate()
                .filter(|(position, _)| self.clock(*position) == hours)
                .count()
        };
        (of(1), of(-1))
    }

    /// Number of hours by which a process's clock is ahead.
    fn clock(&self, position: usize) -> i8 {
        let member = &self.members[position];
        let number =
            self.members[..position].iter().filter(|other| other.party == member.party).count();
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

    /// Starts Redis again, empty.
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

    /// Restarts processes that have ended: aborted by poison, terminated, or unable to start
    /// because a server was away. Returns their names.
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

    /// The number of the leader according to the record. Waits until there is one.
    ///
    /// # Errors
    /// When there is no leader for longer than a takeover may take.
    pub async fn leader(&mut self) -> Result<usize> {
        for _ in 0..150 {
            self.tend()?;
            let holder = self.holder();
            let says = |number: &usize| {
                let log =
                    self.members[self.position(Party::Coordinators, *number)].process.log_text();
                !holder.is_empty() && log.contains(&holder)
            };
            if let Some(leader) = (0..COORDINATORS).find(says) {
                return Ok(leader);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("nobody leads the farm")
    }

    /// The leader according to the record; empty if there is none.
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

    /// Each coordinator's log since the farm's start.
    pub fn coordinator_logs(&self) -> impl Iterator<Item = String> {
        let coordinators = self.members.iter().filter(|member| member.party == Party::Coordinators);
        coordinators.map(|member| member.process.log_text())
    }

    /// The farm's object storage, without a proxy.
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

    /// A sentence for each stream of the farm in Redis that is not empty.
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
        let mut of_party =
            self.members.iter().enumerate().filter(|(_, member)| member.party == party);
        of_party.nth(number).expect("a process of this number").0
    }

    fn start_again(&mut self, position: usize) -> Result<()> {
        let party = self.members[position].party;
        let number = self.members[..position].iter().filter(|member| member.party == party).count();
        let command = self.command(party, number)?;
        let member = &mut self.members[position];
        member.process =
            Process::spawn(command, &self.folder.path().join(format!("{}.log", member.name)));
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
        let told = self.told(party, number);
        if party == Party::Coordinators {
            return Ok(self.coordinator(&told, &program, number));
        }
        let port = self.proxies(party, Server::Coordinators)[number].port();
        let start = MemberStart {
            farm: &format!("127.0.0.1:{port}"),
            cache: &self.folder.path().join("cache"),
            renderer: if real.is_some() { Renderer::Model } else { Renderer::Fake },
        };
        let mut command = told.member(&program, start);
        // Each has its own host name, because failures on distinct hosts count separately.
        let host = format!("host{number}");
        let cascade = real.map_or("tiny", |real| real.name.as_str());
        command.args(["--host", &host, "--grace-seconds", "2", "--cascade", cascade]);
        if real.is_some() {
            command.args(["--device", "cpu", "--threads", "1"]);
        }
        if party == Party::Workers {
            command.args(["--batch", "4"]);
            if real.is_none() {
                command
                    .args(["--fake-step-ms", &self.setup.step_ms.to_string()])
                    .args(["--fake-aborting-seed", &crate::load::POISON.to_string()]);
            }
        }
        Ok(command)
    }

    /// The servers as a process finds them: each behind a proxy.
    fn told(&self, party: Party, number: usize) -> Told {
        let port = |server| self.proxies(party, server)[number].port();
        let artifacts = match self.setup.storage {
            Storage::S3 => self.storage.url_through(port(Server::Storage)),
            Storage::Folder => self.artifacts(),
        };
        let log = std::env::var("DARKROOM_LOG").unwrap_or_else(|_| "info".to_owned());
        let mut environment = vec![("DARKROOM_LOG".to_owned(), log)];
        environment.extend(self.storage.environment());
        let hours = clock(&self.setup, party, number);
        if hours != 0 {
            let wrong = hours_ahead(hours).into_iter().flatten();
            environment.extend(wrong.map(|(name, value)| (name.to_owned(), value)));
        }
        Told { redis: self.redis.url_through(port(Server::Redis)), artifacts, environment }
    }

    fn coordinator(&self, told: &Told, program: &Path, number: usize) -> Command {
        let proxy = self.proxies(Party::Coordinators, Server::Postgres)[number].port();
        let direct = format!(":{}/", self.postgres.port());
        let database = self.postgres.url().replace(&direct, &format!(":{proxy}/"));
        let mut cascades = vec![Cascade::Tiny];
        cascades.extend(self.setup.real.iter().map(|real| Cascade::Folder(real.cascade.clone())));
        let start =
            CoordinatorStart { database: &database, port: self.ports[number], cascades: &cascades };
        let mut command = told.coordinator(program, &start);
        command
            .args(["--lease-seconds", &self.setup.lease.as_secs_f64().to_string()])
            .args(["--sweep-seconds", "1"]);
        command
    }

    fn artifacts(&self) -> String {
        self.folder.path().join("artifacts").display().to_string()
    }

    fn wait_until_it_serves(&mut self, number: usize) -> Result<()> {
        let position = self.position(Party::Coordinators, number);
        let process = &mut self.members[position].process;
        ensure!(
            answers(process, self.ports[number]),
            "a coordinator did not start: {}",
            process.log_text()
        );
        Ok(())
    }
}

/// Number of hours by which a process's clock is ahead: 1 for the first worker and encoder, −1 for
/// the second worker. 0 if storage needs signatures or the system cannot do it.
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
