//! A farm of real processes for `make bench-farm`: Redis and Postgres with durable settings, a
//! coordinator, and the encoders and workers that are asked for. All of it ends with this program.
//!
//! It prints one line of JSON when the farm serves: where everything is, and the process ids. Then
//! each line on standard input is a request of JSON, and is answered by a line:
//!
//! - `{"start": "worker", "renderer": "noop", "arguments": ["--batch", "256"]}` starts
//!   `darkroom-worker` (or `"encoder"`) and answers with its `id`;
//! - `{"stop": "worker"}` ends a process in order, `"coordinator"` and `"postgres"` too.
//!
//! It ends with its input.

#![expect(clippy::print_stdout, reason = "a tool for us, read by bench-farm")]

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Parser;
use darkroom_core::shown::shown_path;
use darkroom_test_servers::{
    postgres::Postgres,
    process::{Process, free_port},
    redis::Redis,
};
use darkroom_tests::programs::{Cascade, CoordinatorStart, MemberStart, Renderer, Told, answers};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Redis as the documentation recommends it.
const REDIS: [&str; 3] = ["appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"];
/// Postgres with room for a big job.
const POSTGRES: [&str; 2] = ["shared_buffers=512MB", "max_wal_size=4GB"];

#[derive(Debug, Parser)]
struct Args {
    /// Folder of the farm's programs
    #[arg(long)]
    binaries: PathBuf,
    /// The cascade that the farm renders; a small one without files when absent
    #[arg(long)]
    cascade: Option<PathBuf>,
    /// A further setting of Postgres, such as `track_commit_timestamp=on`
    #[arg(long)]
    postgres: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Request {
    Start {
        start: Member,
        renderer: Computes,
        #[serde(default)]
        arguments: Vec<String>,
    },
    Stop {
        stop: String,
    },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Member {
    Encoder,
    Worker,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Computes {
    Model,
    Noop,
}

struct Farm {
    // Before the folder, so that they are gone when that is removed.
    processes: BTreeMap<String, Process>,
    postgres: Postgres,
    redis: Redis,
    binaries: PathBuf,
    address: String,
    told: Told,
    folder: TempDir,
}

impl Farm {
    fn start(args: Args) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("darkroom-bench-").tempdir()?;
        let settings: Vec<&str> =
            POSTGRES.into_iter().chain(args.postgres.iter().map(String::as_str)).collect();
        let (redis, postgres) = (Redis::start_with(&REDIS), Postgres::start_with(&settings));
        let told = Told {
            redis: redis.url(),
            artifacts: as_setting(folder.path().join("artifacts"))?,
            environment: vec![("DARKROOM_LOG".to_owned(), "warn".to_owned())],
        };
        let port = free_port();
        let has_files = args.cascade.is_some();
        let cascade = args.cascade.map_or(Cascade::Tiny, Cascade::Folder);
        let start = CoordinatorStart { database: &postgres.url(), port, cascades: &[cascade] };
        let mut command = told.coordinator(&args.binaries.join("darkroom-coordinator"), &start);
        if has_files {
            // Members of a benchmark may make up what they store.
            command.arg("--without-files");
        }
        let mut coordinator = Process::spawn(command, &folder.path().join("coordinator.log"));
        if !answers(&mut coordinator, port) {
            return Err(io::Error::other(coordinator.log_text()));
        }
        Ok(Self {
            processes: BTreeMap::from([("coordinator".to_owned(), coordinator)]),
            postgres,
            redis,
            binaries: args.binaries,
            address: format!("127.0.0.1:{port}"),
            told,
            folder,
        })
    }

    /// Where everything is.
    fn facts(&self) -> Value {
        json!({
            "folder": self.folder.path(),
            "address": self.address,
            "redis": self.told.redis,
            "redis_port": self.redis.port(),
            "database": self.postgres.url(),
            "psql": self.postgres.program("psql"),
            "processes": {
                "redis": self.redis.id(),
                "postgres": self.postgres.id(),
                "coordinator": self.processes["coordinator"].id(),
            },
        })
    }

    fn answer(&mut self, request: Request) -> io::Result<Value> {
        match request {
            Request::Start { start, renderer, arguments } => {
                let (name, program) = match start {
                    Member::Encoder => ("encoder", "darkroom-encoder"),
                    Member::Worker => ("worker", "darkroom-worker"),
                };
                let renderer = match renderer {
                    Computes::Model => Renderer::Model,
                    Computes::Noop => Renderer::Noop,
                };
                let cache = self.folder.path().join("cache");
                let member = MemberStart { farm: &self.address, cache: &cache, renderer };
                let mut command = self.told.member(&self.binaries.join(program), member);
                command.args(arguments);
                let log = self.folder.path().join(format!("{name}.log"));
                let process = Process::spawn(command, &log);
                let id = process.id();
                self.processes.insert(name.to_owned(), process);
                Ok(json!({ "id": id }))
            }
            Request::Stop { stop } if stop == "postgres" => {
                self.postgres.stop();
                Ok(json!({}))
            }
            Request::Stop { stop } => {
                let process = self.processes.remove(&stop);
                let Some(mut process) = process else {
                    return Err(io::Error::other(format!("no process is called {stop}")));
                };
                process.signal(Signal::SIGTERM);
                process.wait();
                Ok(json!({}))
            }
        }
    }
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    exists(&args.binaries)?;
    let mut farm = Farm::start(args)?;
    say(&farm.facts())?;
    for line in io::stdin().lines() {
        let answer = farm.answer(serde_json::from_str(&line?)?)?;
        say(&answer)?;
    }
    Ok(())
}

fn say(value: &Value) -> io::Result<()> {
    println!("{value}");
    io::stdout().flush()
}

/// A folder as the farm's programs are told of it.
fn as_setting(folder: PathBuf) -> io::Result<String> {
    let text = folder.into_os_string().into_string();
    text.map_err(|_| io::Error::other("TMPDIR has a name that is not UTF-8"))
}

/// Names the folder when the programs are not there.
fn exists(binaries: &Path) -> io::Result<()> {
    let program = binaries.join("darkroom-coordinator");
    match program.is_file() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} is not there", shown_path(&program)))),
    }
}
