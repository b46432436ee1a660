//! What the parts of a farm in this process run on.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use darkroom_runtime::tls::ServerSettings;
#[cfg(feature = "embedded")]
use darkroom_web::SiteSettings;

use super::disk::DiskArgs;

/// What the parts of an embedded farm run on.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MachineArgs {
    /// Device: cpu or cuda:N [default: the first CUDA device that works, otherwise the CPU]
    #[arg(long, env = "DARKROOM_DEVICE")]
    pub(crate) device: Option<String>,
    /// Number format: f32 or bf16. Pictures that the farm already has are reused whatever their
    /// format [default: chosen for the device]
    #[arg(long, env = "DARKROOM_DTYPE")]
    pub(crate) dtype: Option<String>,
    /// Threads of the model on the CPU [default: all cores]
    #[arg(long, env = "DARKROOM_THREADS")]
    pub(crate) threads: Option<usize>,
    /// On a GPU, launch every operation separately instead of replaying recorded CUDA graphs. The
    /// pictures are the same
    #[arg(long, env = "DARKROOM_EAGER")]
    pub(crate) eager: bool,
    /// Most memory for the weights of all loaded models, MiB [default: on a GPU three quarters of
    /// what is free at the start, on a CPU no limit]
    #[arg(long, env = "DARKROOM_MODEL_MEMORY_MIB", value_name = "MIB")]
    pub(crate) model_memory_mib: Option<u64>,
    /// Most images per batch, for every stage [default: measured or chosen per stage]
    #[arg(long, value_name = "ROWS")]
    pub(crate) batch: Option<usize>,
    /// Renderer: `model`, or `fake`, which draws noise without a model, for load tests and tests of
    /// everything else
    #[arg(long, value_enum, default_value_t, hide = true, env = "DARKROOM_RENDERER")]
    pub(crate) renderer: Renderer,
    /// Milliseconds that the fake takes per step
    #[arg(
        long,
        value_name = "MS",
        hide = true,
        env = "DARKROOM_FAKE_STEP_MS",
        default_value_t = 0
    )]
    pub(crate) fake_step_ms: u64,
    /// Seeds whose images fail in the fake
    #[arg(long, value_name = "SEED", hide = true, env = "DARKROOM_FAKE_FAILING_SEED")]
    pub(crate) fake_failing_seed: Vec<u64>,
}

/// The kind of renderer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Renderer {
    /// The cascade's networks.
    #[default]
    Model,
    /// Noise without a model.
    Fake,
}

/// `darkroom up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Address to listen on: HOST:PORT, or :PORT for every address of this machine; port 0 lets the
    /// system choose. Beyond loopback it needs --tls-cert, or --plaintext [default: 127.0.0.1:7878]
    #[arg(long, env = "DARKROOM_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<darkroom_runtime::listen::Listen>,
    #[command(flatten)]
    pub(crate) tls: ServerSettings,
    /// Let everybody who reaches the port do everything. Without it callers need keys; commands on
    /// this machine read the farm's own key in --state
    #[arg(
        long,
        env = "DARKROOM_OPEN",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = "Keys"
    )]
    pub(crate) open: bool,
    /// Folder of a cascade to serve; may be repeated [default: the demo cascade]
    #[arg(long = "cascade", env = "DARKROOM_CASCADE", value_name = "DIR")]
    pub(crate) cascades: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    #[cfg(feature = "embedded")]
    #[command(flatten)]
    pub(crate) site: SiteSettings,
    /// Let webhooks lead to loopback, link-local and private addresses too, and to this machine's
    /// own. Whoever may submit jobs can then have this machine send POSTs to services that only it
    /// reaches
    #[arg(
        long,
        env = "DARKROOM_WEBHOOK_PRIVATE_ADDRESSES",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub(crate) webhook_private_addresses: bool,
    /// TOML file with any of: listen, tls_cert, tls_key, tls_client_ca, plaintext, open, cascades,
    /// device, dtype, threads, batch, disk_budget, disk_floor, http_hosts, public_url,
    /// device_hour_price, model_aliases, webhook_private_addresses. Flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Write the log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}
