//! A worker as a process: it joins a farm, serves stages until a signal, drains, and leaves.

use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use darkroom_core::{
    error::UserError,
    id::{StageName, WorkerId},
};
use darkroom_member::{Computes, Face, JoinArgs, Joining, Kind, Member};
use darkroom_runtime::{listen::Listen, program, tls::ServerSettings};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{FakeOptions, Handle, Machine, Options, Times, service};

/// Runs stages of a farm's cascades on this machine: leases tasks from Redis, renders them, and
/// stores the results.
///
/// SIGTERM drains: waiting tasks are handed back. Running ones finish within the grace period;
/// after that they are stopped and handed back.
#[derive(Debug, Parser)]
#[command(name = "darkroom-worker", version, max_term_width = 100)]
pub struct WorkerArgs {
    #[command(flatten)]
    join: JoinArgs,
    /// Serve only this stage; may be repeated [default: all stages, later ones first]
    #[arg(long = "stage", env = "DARKROOM_STAGES", value_name = "NAME", value_delimiter = ',')]
    stages: Vec<String>,
    /// Device: cpu or cuda:N [default: the first CUDA device that works, otherwise the CPU]
    #[arg(long, env = "DARKROOM_DEVICE")]
    device: Option<String>,
    /// Number format: f32 or bf16 [default: chosen for the device]
    #[arg(long, env = "DARKROOM_DTYPE")]
    dtype: Option<String>,
    /// Threads of the model on the CPU [default: all cores]
    #[arg(long, env = "DARKROOM_THREADS")]
    threads: Option<usize>,
    /// On a GPU, launch every operation separately instead of replaying recorded CUDA graphs. The
    /// pictures are the same
    #[arg(long, env = "DARKROOM_EAGER")]
    eager: bool,
    /// Most memory for the weights of all loaded models, MiB. If another model needs room, the
    /// least recently used one is dropped [default: on a GPU three quarters of what is free at the
    /// start, on a CPU no limit]
    #[arg(long, env = "DARKROOM_MODEL_MEMORY_MIB", value_name = "MIB")]
    model_memory_mib: Option<u64>,
    /// Most images per batch, for every stage [default: learned by measuring]
    #[arg(long, env = "DARKROOM_BATCH", value_name = "ROWS")]
    batch: Option<usize>,
    /// Seconds that a drain may take; after that, running work is stopped at its next step and
    /// handed back
    #[arg(long, env = "DARKROOM_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 20.0)]
    grace_seconds: f64,
    /// Address for gRPC health [default: nothing is served]
    #[arg(long, env = "DARKROOM_LISTEN", value_name = "HOST:PORT")]
    listen: Option<Listen>,
    #[command(flatten)]
    tls: ServerSettings,
    /// Name of this host, as results and `darkroom workers` show it [default: the system's host
    /// name]
    #[arg(long, env = "DARKROOM_HOST")]
    host: Option<String>,
    /// Write the log as JSON lines
    #[arg(long)]
    pub log_json: bool,
    #[command(flatten)]
    fake: FakeArgs,
}

/// The renderer for tests of the farm and load tests.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For tests")]
pub struct FakeArgs {
    /// Renderer: `model`, or `fake`, which draws noise without a model
    #[arg(long, value_enum, hide = true, env = "DARKROOM_RENDERER", default_value_t = RendererKind::usual())]
    renderer: RendererKind,
    /// Milliseconds that the fake takes per step
    #[arg(
        long,
        value_name = "MS",
        hide = true,
        env = "DARKROOM_FAKE_STEP_MS",
        default_value_t = 0.0
    )]
    fake_step_ms: f64,
    /// Seeds whose images fail in the fake
    #[arg(
        long,
        value_name = "SEED",
        hide = true,
        env = "DARKROOM_FAKE_FAILING_SEED",
        value_delimiter = ','
    )]
    fake_failing_seed: Vec<u64>,
    /// Seeds that make the fake abort its process, like a crash inside a driver
    #[arg(
        long,
        value_name = "SEED",
        hide = true,
        env = "DARKROOM_FAKE_ABORTING_SEED",
        value_delimiter = ','
    )]
    fake_aborting_seed: Vec<u64>,
}

/// The kind of renderer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RendererKind {
    /// The cascade's networks.
    Model,
    /// Noise without a model.
    Fake,
    /// Nothing: tasks are reported as done. For benchmarks of the farm itself.
    Noop,
}

impl RendererKind {
    /// The networks, if the program was built with them.
    fn usual() -> Self {
        if cfg!(feature = "torch") { Self::Model } else { Self::Fake }
    }
}

/// Joins the farm, works until `stop`, and drains.
///
/// # Errors
/// What prevents it from starting, or what broke it.
pub async fn run(args: WorkerArgs, stop: CancellationToken) -> Result<(), UserError> {
    let privacy = args.tls.open()?;
    let joining = Joining {
        worker: WorkerId::fresh(&host(&args)),
        kind: Kind::Worker,
        stages: stages(&args)?,
        computes: match args.fake.renderer {
            RendererKind::Model => Computes::Networks,
            RendererKind::Fake | RendererKind::Noop => Computes::Nothing,
        },
    };
    let Some(member) = darkroom_member::join(&args.join, &joining, &stop).await? else {
        return Ok(());
    };
    let worker = start(&args, &member).await?;
    let face = Face { listen: args.listen, privacy, routes: Routes::default(), services: &[] };
    darkroom_member::work(worker, face, stop).await
}

fn host(args: &WorkerArgs) -> String {
    args.host.clone().unwrap_or_else(program::host_name)
}

fn stages(args: &WorkerArgs) -> Result<Vec<StageName>, UserError> {
    let stage = |name: &String| {
        StageName::try_from(name.clone())
            .map_err(|error| UserError::invalid("stage", error.to_string()))
    };
    args.stages.iter().map(stage).collect()
}

async fn start(args: &WorkerArgs, member: &Member) -> Result<Handle, UserError> {
    let grace = darkroom_member::grace(args.grace_seconds)?;
    let options = Options {
        host: host(args),
        signer: member.signer.clone(),
        stages: stages(args)?,
        machine: Machine {
            device: args.device.clone(),
            dtype: args.dtype.clone(),
            threads: args.threads,
            eager: args.eager,
            model_memory: args.model_memory_mib.map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
        },
        batch: args.batch,
        cache: Some(args.join.cache.clone()),
        times: Times {
            heartbeat: Some(member.heartbeat()),
            grace: Some(grace),
            ..Times::default()
        },
    };
    let (queue, artifacts, cascades) =
        (member.queue.clone(), member.artifacts.clone(), &member.cascades);
    // `work` starts the drain, so that health can report it first.
    let drain = CancellationToken::new();
    match args.fake.renderer {
        #[cfg(feature = "torch")]
        RendererKind::Model => service::start(options, queue, artifacts, cascades, drain).await,
        #[cfg(not(feature = "torch"))]
        RendererKind::Model => Err(UserError::invalid(
            "renderer",
            "renderer is model; this darkroom-worker is built without libtorch; accepted: fake",
        )),
        RendererKind::Fake => {
            let fake = FakeOptions {
                step: Duration::try_from_secs_f64(args.fake.fake_step_ms / 1e3).unwrap_or_default(),
                failing_seeds: args.fake.fake_failing_seed.clone(),
                aborting_seeds: args.fake.fake_aborting_seed.clone(),
                ..FakeOptions::default()
            };
            service::start_fake(options, fake, queue, artifacts, cascades, drain).await
        }
        RendererKind::Noop => service::start_noop(options, queue, cascades, drain).await,
    }
}
