//! The command line's words: commands, flags, and what their help says. No logic.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::stage_flags::StageFlags;

/// Renders pictures from prompts with Imagen-style cascades: on this machine, or on a farm.
#[derive(Debug, Parser)]
#[command(name = "darkroom", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print JSON for machines: one document, or one a line where there are many
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the farm is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Address of a running farm, host:port; several separated by commas are tried in turn
    #[arg(long, global = true, env = "DARKROOM_FARM", value_name = "ADDRESS")]
    pub(crate) farm: Option<String>,
    /// Folder with the state of this machine's farm
    #[arg(long, global = true, env = "DARKROOM_STATE", value_name = "DIR", default_value = ".darkroom")]
    pub(crate) state: PathBuf,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Render prompts and write the pictures; runs a farm for the occasion where none is running
    Render(RenderArgs),
    /// Run the whole farm in this process until it is told to stop
    Up(UpArgs),
    /// Submit a job to a running farm and print its id
    Submit(SubmitArgs),
    /// Show a job: its state, progress, and why it waits
    Status(JobArgs),
    /// Follow a job until it ends
    Watch(WatchArgs),
    /// List jobs, or the images of one
    Ls(LsArgs),
    /// Download a job's finished pictures; run again, it fetches what is missing
    Get(GetArgs),
    /// Prove that a finished job is whole: its manifest, and every picture that it lists
    Verify(VerifyArgs),
    /// End a job: nothing new starts, running work stops at its next step
    Cancel(JobArgs),
    /// Take back what no worker has started
    Pause(JobArgs),
    /// Go on with a paused job
    Resume(JobArgs),
    /// Run a job's dead and cancelled images again
    Retry(RetryArgs),
    /// List the workers
    Workers,
    /// Ask a worker or an encoder to finish what it runs, take nothing new, and leave; nothing of it costs a failure
    Drain(DrainArgs),
    /// List the cascades the farm serves
    Cascades,
    /// Show the farm: its id, its version, how long its leases last, and what its sweeps had to mend
    Farm,
    /// Render a picture again from its own metadata and say whether the pixels are identical
    Rerender(RerenderArgs),
    /// Look at a cascade on disk
    #[command(subcommand)]
    Model(ModelCommand),
    /// Print a completion script for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

/// What to draw and how; shared by `render` and `submit`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RequestArgs {
    /// Pictures per prompt
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) images: Option<u32>,
    /// Seed of the first picture; the next has the next. Chosen and told when absent
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Edge of the pictures in pixels: one of the cascade's stage sizes (64, 256, 1024)
    #[arg(long, value_name = "PIXELS")]
    pub(crate) size: Option<u32>,
    /// Width of the pictures, where they are not square; the stages before keep their shape
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) width: Option<u32>,
    /// Height of the pictures, where they are not square
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) height: Option<u32>,
    /// What the pictures should not show
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) negative: Option<String>,
    /// What the super-resolution stages read instead of the prompt: a style
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) style: Option<String>,
    /// Picture to start from: PNG, JPEG or WebP of any size; without --width and --height the pictures get its shape, as
    /// far as the cascade can make it
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Mask as big as the image: strokes in white or one colour are painted anew, what is black or transparent stays
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
    /// What becomes of an image of another shape than the pictures': crop cuts off both sides, pad makes the rest black
    /// (with a mask, it is painted anew), stretch changes its proportions, exact refuses it [default: crop]
    #[arg(long, value_name = "FIT", value_parser = ["crop", "pad", "stretch", "exact"])]
    pub(crate) fit: Option<String>,
    /// Begin with this super-resolution stage, which is given the image as its low-resolution picture
    #[arg(long, value_name = "STAGE")]
    pub(crate) from: Option<String>,
    /// Name or digest of the cascade, or its folder
    #[arg(long, env = "DARKROOM_CASCADE", value_name = "NAME|DIR")]
    pub(crate) cascade: Option<String>,
    #[command(flatten)]
    pub(crate) stages: StageFlags,
}

/// `darkroom render`.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// What to draw; several prompts make one job
    #[arg(required = true, value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,
    /// Folder for the pictures, made if it is not there. They are named by index: 000000.png, …; where pictures of
    /// something else have those names, numbering goes on behind them
    #[arg(short, long, value_name = "DIR", default_value = "renders")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// What the parts of an embedded farm run on.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MachineArgs {
    /// cpu or cuda:N; the first CUDA device that works, else the CPU, when absent
    #[arg(long, env = "DARKROOM_DEVICE")]
    pub(crate) device: Option<String>,
    /// f32 or bf16; chosen for the device when absent. A picture that the farm has already is used again, whatever format
    /// it was made in
    #[arg(long, env = "DARKROOM_DTYPE")]
    pub(crate) dtype: Option<String>,
    /// Threads of the model on the CPU; all cores when absent
    #[arg(long, env = "DARKROOM_THREADS")]
    pub(crate) threads: Option<usize>,
    /// On a GPU, launch every operation by itself instead of replaying recorded CUDA graphs; the pictures are the same
    #[arg(long, env = "DARKROOM_EAGER")]
    pub(crate) eager: bool,
    /// Memory that the weights of the models kept loaded may take together; on a GPU three quarters of what is free at the
    /// start, on a CPU no limit when absent
    #[arg(long, env = "DARKROOM_MODEL_MEMORY_MIB", value_name = "MIB")]
    pub(crate) model_memory_mib: Option<u64>,
    /// Largest batch of every stage; measured or chosen per stage when absent
    #[arg(long, value_name = "ROWS")]
    pub(crate) batch: Option<usize>,
    /// What renders: `fake` draws noise without a model, for load tests and tests of everything else
    #[arg(long, value_enum, default_value_t, hide = true, env = "DARKROOM_RENDERER")]
    pub(crate) renderer: Renderer,
    /// Milliseconds a step takes the fake
    #[arg(long, value_name = "MS", hide = true, env = "DARKROOM_FAKE_STEP_MS", default_value_t = 0)]
    pub(crate) fake_step_ms: u64,
    /// Seeds whose images the fake fails
    #[arg(long, value_name = "SEED", hide = true, env = "DARKROOM_FAKE_FAILING_SEED")]
    pub(crate) fake_failing_seed: Vec<u64>,
}

/// What renders.
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
    /// Address to listen on: HOST:PORT, or :PORT for every address of this machine; port 0 lets the system choose
    /// [default: 127.0.0.1:7878]
    #[arg(long, env = "DARKROOM_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<darkroom_runtime::listen::Listen>,
    /// Folder of a cascade to serve; may be repeated. The demo cascade when absent
    #[arg(long = "cascade", env = "DARKROOM_CASCADE", value_name = "DIR")]
    pub(crate) cascades: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// TOML file with any of: listen, cascades, device, dtype, threads, batch. Flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Write the log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

/// Where the help lists what is about files of prompts.
const PROMPT_FILES: &str = "Prompt files";

/// A file of prompts, and how it is read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BatchArgs {
    /// File of prompts: text with one a line, JSON lines, CSV, TSV, JSON, or COCO captions, also as .gz or .zst; `-` reads
    /// standard input. Fields of a JSON object, and columns of a table with a header: prompt, negative, images, seed, style,
    /// image, mask, custom_id (JSON: labels too); pictures lie relative to the file. Absent, null or an empty cell: what the
    /// flags say. In JSON, "" is no negative text, style, picture, mask or id, whatever the flags say
    #[arg(long, help_heading = PROMPT_FILES, value_name = "FILE", conflicts_with = "prompts")]
    pub(crate) batch: Option<PathBuf>,
    /// What the file is, whatever its name and content suggest: text, jsonl, csv, tsv, json or coco
    #[arg(long, help_heading = PROMPT_FILES, requires = "batch")]
    pub(crate) format: Option<String>,
    /// The column (or key of JSON objects) that holds the prompt; a column called prompt, caption or text when absent
    #[arg(long, help_heading = PROMPT_FILES, value_name = "NAME", requires = "batch")]
    pub(crate) column: Option<String>,
    /// Keep unknown keys of JSON objects as labels; columns of a table are always kept
    #[arg(long, help_heading = PROMPT_FILES, requires = "batch")]
    pub(crate) labels: bool,
    /// Skip lines that begin with #
    #[arg(long, help_heading = PROMPT_FILES, requires = "batch")]
    pub(crate) comments: bool,
    /// Of COCO captions take this many, always the same ones
    #[arg(long, help_heading = PROMPT_FILES, value_name = "N", requires = "batch")]
    pub(crate) sample: Option<u64>,
    /// Of COCO captions take at most this many of each image
    #[arg(long, help_heading = PROMPT_FILES, value_name = "K", requires = "batch")]
    pub(crate) per_image: Option<u64>,
    /// Another seed takes another sample [default: 0]
    #[arg(long, help_heading = PROMPT_FILES, value_name = "SEED", requires = "batch")]
    pub(crate) sample_seed: Option<u64>,
}

/// `darkroom submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// What to draw; several prompts make one job
    #[arg(value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,
    #[command(flatten)]
    pub(crate) file: BatchArgs,
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Submit nothing; say what the job would take: device seconds and time, stage by stage
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Chosen by you, so that the same submit sent twice makes one job
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Whose share of the farm it counts against
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Go before all batch work
    #[arg(long)]
    pub(crate) interactive: bool,
    /// End the job then as if it were cancelled: a span from now (30s, 90m, 2h, 1d) or a time (2026-11-22T23:00:00Z)
    #[arg(long, value_name = "SPAN|TIME")]
    pub(crate) deadline: Option<String>,
    /// Keep no more of it under way, per stage, than this many workers take in a batch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_workers: Option<u32>,
    /// End the job when more images than this have failed for good; 0: at the first
    #[arg(long, value_name = "N")]
    pub(crate) max_failed: Option<u64>,
}

/// `darkroom retry`.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// A new deadline: a span from now (30s, 90m, 2h, 1d) or a time (2026-11-22T23:00:00Z)
    #[arg(long, value_name = "SPAN|TIME", conflicts_with = "no_deadline")]
    pub(crate) deadline: Option<String>,
    /// Drop the job's deadline
    #[arg(long)]
    pub(crate) no_deadline: bool,
}

/// A command about one job.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
}

/// `darkroom drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The worker's id as `darkroom workers` lists it, or the beginning of it
    #[arg(required_unless_present = "all_of", conflicts_with = "all_of")]
    pub(crate) worker: Option<String>,
    /// Every worker and encoder of this host
    #[arg(long, value_name = "HOST")]
    pub(crate) all_of: Option<String>,
}

/// `darkroom watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// Only what changed after this version
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) after: u64,
    /// Tell of single images too
    #[arg(long)]
    pub(crate) images: bool,
}

/// `darkroom ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// List this job's images instead of jobs
    pub(crate) job: Option<String>,
    /// Only those in this state; may be repeated
    #[arg(long = "state-is", value_name = "STATE")]
    pub(crate) states: Vec<String>,
    /// At most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Beside every picture that is done a link to it in the farm's storage, which anyone can open until it expires: after
    /// a span of at most 7d
    #[arg(
        long,
        value_name = "SPAN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1h",
        requires = "job"
    )]
    pub(crate) links: Option<String>,
}

/// `darkroom get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// Folder for the pictures, made if it is not there [default: renders/JOB]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace files of these names that hold something else
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Name files by this template instead of the index: {custom_id}, {seed}, {index}, {line}, {job}, {label:KEY}; {index:06}
    /// for six digits, {{ and }} for braces. Every name is checked before anything is written
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) name: Option<String>,
}

/// `darkroom verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// Pictures checked at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) at_once: usize,
}

/// `darkroom rerender`.
#[derive(Debug, Args)]
pub(crate) struct RerenderArgs {
    /// A picture that Darkroom rendered
    pub(crate) file: PathBuf,
    /// The picture that it started from, if it started from one
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// The mask of what was painted anew, if there was one
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
    /// Folder of the cascade; the demo cascade when absent
    #[arg(long, env = "DARKROOM_CASCADE", value_name = "DIR")]
    pub(crate) cascade: Option<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// `darkroom model …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Replay reference traces and compare every tensor
    Check(ModelCheckArgs),
    /// Make a cascade's folder out of local Hugging Face folders: a stage I pipeline, super-resolution pipelines, a T5
    Import(ImportArgs),
    /// Show a cascade's stages, parameters, memory, digest, and the configuration keys that are ignored
    Info(ModelInfoArgs),
    /// Print the token ids of each line of standard input, the end token included; with --json lines are JSON strings,
    /// and answers JSON lists
    Tokenize(TokenizeArgs),
}

/// `darkroom model import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Folders in Hugging Face's layout, or a cache's (models--OWNER--NAME), in any order
    #[arg(required = true, value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// Folder of the cascade to make; named like the cascade when absent
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The cascade's name; the stage I folder's when absent
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Which set of weights to take where a folder has several: fp32, fp16, bf16; or for one part only: encode=fp16.
    /// fp32, the plain one, when absent, else fp16, else bf16
    #[arg(long = "variant", value_name = "[PART=]NAME")]
    pub(crate) variants: Vec<String>,
    /// Number format of the encoder, part of its identity: f32 or bf16; bf16 above a billion parameters when absent
    #[arg(long, value_name = "DTYPE", value_parser = ["f32", "bf16"])]
    pub(crate) encoder_dtype: Option<String>,
    /// What is done to a text before it is tokenized: none, lowercase-strip (as IF always does), …
    #[arg(long, value_name = "NAME", default_value = "lowercase-strip")]
    pub(crate) text_preparation: String,
    /// Copy the weights instead of linking to them
    #[arg(long)]
    pub(crate) copy: bool,
    /// Take keys of configurations that nobody knows as not there, instead of refusing them
    #[arg(long)]
    pub(crate) ignore_unknown_keys: bool,
}

/// `darkroom model info`.
#[derive(Debug, Args)]
pub(crate) struct ModelInfoArgs {
    /// The cascade's folder
    pub(crate) cascade: PathBuf,
    /// Load one part (encode, or a stage's name) and show its peak of resident memory
    #[arg(long, value_name = "PART")]
    pub(crate) load: Option<String>,
    /// With --load: cpu or cuda:N
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// With --load: f32 or bf16
    #[arg(long)]
    pub(crate) dtype: Option<String>,
}

/// `darkroom model tokenize`.
#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// The cascade's folder
    pub(crate) cascade: PathBuf,
    /// All tokens, also those that do not fit into the encoder's length
    #[arg(long)]
    pub(crate) whole: bool,
    /// Prepare the texts as the cascade says (lower case, no blanks around) before
    #[arg(long)]
    pub(crate) prepare: bool,
}

/// `darkroom model check`.
#[derive(Debug, Args)]
pub(crate) struct ModelCheckArgs {
    /// The cascade's folder
    pub(crate) cascade: PathBuf,
    /// Trace files
    #[arg(required = true, value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,
    /// Largest accepted difference of a tensor's values
    #[arg(long, default_value_t = 2e-4)]
    pub(crate) tolerance: f64,
    /// cpu or cuda:N
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// f32 or bf16
    #[arg(long)]
    pub(crate) dtype: Option<String>,
}
