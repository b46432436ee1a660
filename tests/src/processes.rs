//! A farm of separate processes on real servers: how to start them and ask them.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use darkroom_test_servers::{
    process::{Process, free_port},
    redis::Redis,
    s3::S3,
};
use serde_json::Value;
use tempfile::TempDir;
use tonic_health::pb::health_check_response::ServingStatus;

pub use crate::programs::health;
use crate::{
    command::Darkroom,
    eventually,
    programs::{Cascade, CoordinatorStart, MemberStart, Renderer, Told, answers},
};

/// One of the farm's programs, built beside this test.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = crate::binary().with_file_name(name);
    assert!(path.is_file(), "{} is not there: run `make test`", path.display());
    path
}

/// Settings of a farm on these servers.
#[derive(Debug)]
pub struct Settings {
    /// Working folder of its processes, with their logs.
    pub folder: TempDir,
    /// URL of the record.
    pub database: String,
    /// URL of the queue.
    pub redis: String,
    /// URL of the storage.
    pub artifacts: String,
    /// Additional environment variables of every process.
    pub environment: Vec<(String, String)>,
    /// Use the demo cascade and real models, instead of a cascade without files and the fake
    /// renderer.
    pub real: bool,
}

impl Settings {
    /// On a SQLite file, a folder, and this Redis.
    ///
    /// # Panics
    /// When there is no folder for it.
    #[must_use]
    pub fn small(redis: &Redis) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = format!("sqlite:{}", folder.path().join("farm.sqlite").display());
        let artifacts = folder.path().join("artifacts").display().to_string();
        Self {
            folder,
            database,
            redis: redis.url(),
            artifacts,
            environment: Vec::new(),
            real: false,
        }
    }

    /// The same with artifacts on this S3 server.
    #[must_use]
    pub fn on_s3(redis: &Redis, storage: &S3) -> Self {
        Self {
            artifacts: storage.url(),
            environment: storage.environment().into(),
            ..Self::small(redis)
        }
    }

    /// The command of a coordinator that listens on this port of loopback.
    #[must_use]
    pub fn coordinator(&self, port: u16) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cascade = match self.real {
            true => Cascade::Folder(here.join("../models/demo")),
            false => Cascade::Tiny,
        };
        let start = CoordinatorStart { database: &self.database, port, cascades: &[cascade] };
        let mut command = self.told().coordinator(&program("darkroom-coordinator"), &start);
        command.current_dir(self.folder.path());
        command
    }

    /// Starts a worker or an encoder of the farm whose coordinator listens on this port.
    #[must_use]
    pub fn member(&self, name: &str, port: u16, arguments: &[&str]) -> Process {
        let mut command = self.member_of(name, &format!("127.0.0.1:{port}"));
        command.args(arguments);
        Process::spawn(command, &self.folder.path().join(format!("{name}-{}.log", free_port())))
    }

    /// The command of a worker or an encoder of the farm at this address.
    #[must_use]
    pub fn member_of(&self, name: &str, farm: &str) -> Command {
        let renderer = if self.real { Renderer::Model } else { Renderer::Fake };
        let start = MemberStart { farm, cache: Path::new("cache"), renderer };
        let mut command = self.told().member(&program(name), start);
        command
            .args(if self.real { &["--device", "cpu"][..] } else { &[] })
            .current_dir(self.folder.path());
        command
    }

    fn told(&self) -> Told {
        Told {
            redis: self.redis.clone(),
            artifacts: self.artifacts.clone(),
            environment: self.environment.clone(),
        }
    }

    /// The refusal of a coordinator that cannot start: its exit code and its one line of output.
    ///
    /// # Panics
    /// When it starts, or says more than a sentence.
    #[must_use]
    pub fn refusal(&self) -> (Option<i32>, String) {
        let ended = self.coordinator(free_port()).output().expect("it runs");
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one sentence: {text}");
        assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
        (ended.status.code(), errors[0].to_owned())
    }
}

/// A worker or an encoder with a health port.
#[derive(Debug)]
pub struct Member {
    /// Address of its health.
    pub port: u16,
    /// The process.
    pub process: Process,
}

impl Member {
    /// Starts one and waits until it serves.
    #[must_use]
    pub fn start(settings: &Settings, name: &str, farm: &Coordinator, arguments: &[&str]) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let process =
            settings.member(name, farm.port, &[&["--listen", listen.as_str()], arguments].concat());
        let member = Self { port, process };
        member.until(ServingStatus::Serving);
        member
    }

    /// Waits until its health is this.
    pub fn until(&self, status: ServingStatus) {
        eventually(&format!("{status:?}: {}", self.process.log_text()), || {
            (health(self.port, "") == Some(status)).then_some(())
        });
    }
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Coordinator {
    /// Where it listens.
    pub port: u16,
    /// The process.
    pub process: Process,
}

impl Coordinator {
    /// Starts one and waits until it serves.
    #[must_use]
    pub fn start(settings: &Settings) -> Self {
        Self::start_with(settings, &[])
    }

    /// The same with further arguments.
    #[must_use]
    pub fn start_with(settings: &Settings, arguments: &[&str]) -> Self {
        let port = free_port();
        let log = settings.folder.path().join(format!("coordinator-{port}.log"));
        let mut command = settings.coordinator(port);
        command.args(arguments);
        let mut process = Process::spawn(command, &log);
        // Over TLS it is only seen that it listens: the question of health is asked in plain text.
        let serves = if arguments.contains(&"--tls-cert") {
            process.comes_to("listening", || TcpStream::connect(("127.0.0.1", port)).is_ok())
        } else {
            answers(&mut process, port)
        };
        assert!(serves, "ended before it served: {}", process.log_text());
        Self { port, process }
    }

    /// A command to it.
    #[must_use]
    pub fn darkroom(&self, settings: &Settings, arguments: &[&str]) -> Darkroom {
        let farm = format!("127.0.0.1:{}", self.port);
        Darkroom::new(settings.folder.path()).args(["--farm", &farm]).args(arguments)
    }

    /// The gRPC health of the farm.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    pub fn health(&self) -> ServingStatus {
        health(self.port, "darkroom.v1.Farm").expect("it listens")
    }

    /// The present state of a job.
    #[must_use]
    pub fn job(&self, settings: &Settings, id: &str) -> Value {
        self.darkroom(settings, &["--json", "status", id]).run().json()
    }

    /// Submits a job with this many images, and returns its id.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn submit(&self, settings: &Settings, images: &str) -> String {
        let submitted = self
            .darkroom(settings, &["--json", "submit", "a red circle", "-n", images])
            .run()
            .json();
        submitted["id"]
            .as_str()
            .or_else(|| submitted["job"]["id"].as_str())
            .expect("an id")
            .to_owned()
    }
}
