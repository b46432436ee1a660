//! How the programs of a farm are started: the one place that knows the flags and the variables
//! that join them.
//!
//! [`processes`](crate::processes) starts farms for tests with it, `darkroom-chaos` the farm that
//! it breaks, and `darkroom-bench` the farm that it measures. Each of them chooses the servers that
//! a process gets: the real ones, or a proxy in front of each. `tools/farm.sh`, which users run,
//! starts its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use darkroom_test_servers::process::{Process, tied};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Longest time for an answer about health.
const ANSWER: Duration = Duration::from_secs(10);

/// The settings of every process of a farm.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// URL of the queue.
    pub redis: String,
    /// URL of the storage.
    pub artifacts: String,
    /// Variables beside these.
    pub environment: Vec<(String, String)>,
}

/// The further settings of a coordinator.
#[derive(Clone, Debug)]
pub struct CoordinatorStart<'a> {
    /// URL of the record.
    pub database: &'a str,
    /// The port of loopback that it listens on.
    pub port: u16,
    /// What the farm renders.
    pub cascades: &'a [Cascade],
}

/// A cascade that a coordinator publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cascade {
    /// A small one that has no files: only a renderer that needs none can render it.
    Tiny,
    /// A folder.
    Folder(PathBuf),
}

/// The further settings of a worker or an encoder.
#[derive(Clone, Copy, Debug)]
pub struct MemberStart<'a> {
    /// Address of a coordinator.
    pub farm: &'a str,
    /// Folder of the cascades that it fetches.
    pub cache: &'a Path,
    /// What computes.
    pub renderer: Renderer,
}

/// What computes in a worker or an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renderer {
    /// The networks of the cascade.
    Model,
    /// Noise that depends on the task alone.
    Fake,
    /// Nothing: every task is done at once.
    Noop,
}

impl Renderer {
    /// The arguments that ask for it.
    #[must_use]
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Model => &[],
            Self::Fake => &["--renderer", "fake"],
            Self::Noop => &["--renderer", "noop"],
        }
    }
}

impl Told {
    /// A program of the farm. Of the caller's own settings it has the log's alone. It ends with the
    /// process that starts it, by [`Process::spawn`].
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = tied(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("DARKROOM_") && text != "DARKROOM_LOG" {
                command.env_remove(&name);
            }
        }
        command
            .env("DARKROOM_REDIS", &self.redis)
            .env("DARKROOM_ARTIFACTS", &self.artifacts)
            .env("NO_COLOR", "1")
            // Not the keys of whoever runs this.
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// `darkroom-coordinator`, of a farm without keys.
    #[must_use]
    pub fn coordinator(&self, program: &Path, start: &CoordinatorStart<'_>) -> Command {
        let mut command = self.command(program);
        command
            .env("DARKROOM_DATABASE", start.database)
            .env("DARKROOM_OPEN", "1")
            .args(["--listen", &format!("127.0.0.1:{}", start.port)]);
        for cascade in start.cascades {
            match cascade {
                Cascade::Tiny => command
                    .arg("--without-files")
                    .arg("--cascade")
                    .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("cascades/tiny")),
                Cascade::Folder(folder) => command.arg("--cascade").arg(folder),
            };
        }
        command
    }

    /// `darkroom-worker` or `darkroom-encoder`.
    #[must_use]
    pub fn member(&self, program: &Path, start: MemberStart<'_>) -> Command {
        let mut command = self.command(program);
        command.args(["--farm", start.farm, "--cache"]).arg(start.cache);
        command.args(start.renderer.arguments());
        command
    }
}

/// Waits until a program that was started answers on this port; false if it ends first. A
/// coordinator takes its port first of all, so that a second one on it is refused at once, and
/// answers when its farm can be used.
///
/// # Panics
/// With its log, when it takes longer than half a minute.
pub fn answers(process: &mut Process, port: u16) -> bool {
    process.comes_to("answering", || health(port, "").is_some())
}

/// The answer of gRPC health on this port of loopback about a service, or about the process if the
/// name is empty. `None` while nobody answers.
///
/// # Panics
/// When no thread can be started.
#[must_use]
pub fn health(port: u16, service: &str) -> Option<ServingStatus> {
    let address = format!("http://127.0.0.1:{port}");
    let ask = async {
        let endpoint = Endpoint::from_shared(address).expect("an address");
        let endpoint = endpoint.connect_timeout(ANSWER).timeout(ANSWER);
        let mut client = HealthClient::new(endpoint.connect().await.ok()?);
        let request = HealthCheckRequest { service: service.to_owned() };
        Some(client.check(request).await.ok()?.into_inner().status())
    };
    // On a thread of its own: the caller's may belong to a runtime.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(ask)
        });
        asking.join().expect("the question is asked")
    })
}
