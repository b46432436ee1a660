//! The encoder service as a process: joins a farm, encodes until a signal, drains, and leaves.

use clap::{Parser, ValueEnum};
use darkroom_core::{error::UserError, id::WorkerId};
use darkroom_member::{Computes, Face, JoinArgs, Joining, Kind, Member};
use darkroom_runtime::{listen::Listen, program, tls::ServerSettings};
use tokio_util::sync::CancellationToken;

use crate::{Handle, Machine, Options, Times, service};

/// Computes the embedding of each distinct prompt once, for the whole farm, and answers gRPC
/// `Encoder.Encode`.
#[derive(Debug, Parser)]
#[command(name = "darkroom-encoder", version, max_term_width = 100)]
pub struct EncoderArgs {
    #[command(flatten)]
    join: JoinArgs,
    /// Device: cpu or cuda:N. Default: the first CUDA device that works, otherwise the CPU
    #[arg(long, env = "DARKROOM_DEVICE")]
    device: Option<String>,
    /// Threads of the model on the CPU. Default: all cores
    #[arg(long, env = "DARKROOM_THREADS")]
    threads: Option<usize>,
    /// Most texts in one batch
    #[arg(long, env = "DARKROOM_BATCH", value_name = "TEXTS")]
    batch: Option<usize>,
    /// Seconds that a drain may take; after that, running work is stopped and handed back
    #[arg(long, env = "DARKROOM_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 20.0)]
    grace_seconds: f64,
    /// Address for gRPC: `darkroom.v1.Encoder`, health and reflection. Default: nothing is served
    #[arg(long, env = "DARKROOM_LISTEN", value_name = "HOST:PORT")]
    listen: Option<Listen>,
    #[command(flatten)]
    tls: ServerSettings,
    /// Name of this host, as `darkroom workers` shows it. Default: the system's host name
    #[arg(long, env = "DARKROOM_HOST")]
    host: Option<String>,
    /// Write the log as JSON lines
    #[arg(long)]
    pub log_json: bool,
    /// Encoder: `model`, or `fake`, which encodes without a model, for tests
    #[arg(long, value_enum, hide = true, env = "DARKROOM_RENDERER", default_value_t = EncoderKind::usual())]
    renderer: EncoderKind,
}

/// The kind of encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncoderKind {
    /// The cascade's T5.
    Model,
    /// Hashes instead of a model.
    Fake,
    /// Nothing: tasks are reported as done. For benchmarks of the farm itself.
    Noop,
}

impl EncoderKind {
    /// T5, if the program was built with it.
    fn usual() -> Self {
        if cfg!(feature = "torch") { Self::Model } else { Self::Fake }
    }
}

/// Joins the farm, works until `stop`, and drains.
///
/// # Errors
/// What prevents it from starting, or what broke it.
pub async fn run(args: EncoderArgs, stop: CancellationToken) -> Result<(), UserError> {
    let privacy = args.tls.open()?;
    let joining = Joining {
        worker: WorkerId::fresh(&host(&args)),
        kind: Kind::Encoder,
        stages: Vec::new(),
        computes: match args.renderer {
            EncoderKind::Model => Computes::Networks,
            EncoderKind::Fake | EncoderKind::Noop => Computes::Nothing,
        },
    };
    let Some(member) = darkroom_member::join(&args.join, &joining, &stop).await? else {
        return Ok(());
    };
    let encoder = start(&args, &member).await?;
    let face = Face {
        listen: args.listen,
        privacy,
        routes: encoder.routes(),
        services: &["darkroom.v1.Encoder"],
    };
    darkroom_member::work(encoder.into_loop(), face, stop).await
}

fn host(args: &EncoderArgs) -> String {
    args.host.clone().unwrap_or_else(program::host_name)
}

async fn start(args: &EncoderArgs, member: &Member) -> Result<Handle, UserError> {
    let grace = darkroom_member::grace(args.grace_seconds)?;
    let options = Options {
        host: host(args),
        signer: member.signer.clone(),
        machine: Machine { device: args.device.clone(), threads: args.threads },
        batch: args.batch,
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
    match args.renderer {
        #[cfg(feature = "torch")]
        EncoderKind::Model => service::start(options, queue, artifacts, cascades, drain).await,
        #[cfg(not(feature = "torch"))]
        EncoderKind::Model => Err(UserError::invalid(
            "renderer",
            "renderer is model; this darkroom-encoder is built without libtorch; accepted: fake",
        )),
        EncoderKind::Fake => service::start_fake(options, queue, artifacts, cascades, drain).await,
        EncoderKind::Noop => service::start_noop(options, queue, cascades, drain).await,
    }
}
