//! What to draw and how: one or a few prompts, or a file of them.

use std::path::PathBuf;

use clap::Args;

use super::{disk::DiskArgs, machine::MachineArgs};
use crate::stage_flags::StageFlags;

/// What to draw and how; shared by `render` and `submit`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RequestArgs {
    /// Pictures per prompt [default: 1]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) images: Option<u32>,
    /// Seed of the first picture; each further picture gets the next number [default: chosen at
    /// random and printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Edge of the pictures in pixels: one of the cascade's stage sizes (64, 256, 1024) [default:
    /// the last stage's]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) size: Option<u32>,
    /// Width of the pictures in pixels, if they are not square. All stages have the same
    /// proportions [default: the size]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) width: Option<u32>,
    /// Height of the pictures in pixels, if they are not square [default: the size]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) height: Option<u32>,
    /// Negative prompt: what the pictures should not show [default: none]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) negative: Option<String>,
    /// Style: the text of the super-resolution stages [default: the prompt]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) style: Option<String>,
    /// Picture to start from: PNG, JPEG or WebP of any size. Without --width and --height the
    /// results get its shape, as far as the cascade can make it
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Mask of the same size as the image. White or coloured strokes are painted anew; black or
    /// transparent parts stay
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
    /// How an image of another shape is made to fit: crop cuts off both sides, pad makes the rest
    /// black (with a mask, the rest is painted anew), stretch changes the proportions, exact
    /// refuses the image [default: crop]
    #[arg(long, value_name = "FIT", value_parser = ["crop", "pad", "stretch", "exact"])]
    pub(crate) fit: Option<String>,
    /// How the pictures are stored: png, png:LEVEL (0 to 9; smaller files, slower), jpeg,
    /// jpeg:QUALITY (1 to 100) or webp (lossless) [default: png; jpeg is jpeg:90]
    #[arg(long, env = "DARKROOM_OUTPUT_FORMAT", value_name = "FORMAT[:NUMBER]")]
    pub(crate) output_format: Option<String>,
    /// Begin with this super-resolution stage, which is given the image as its low-resolution
    /// picture
    #[arg(long, value_name = "STAGE")]
    pub(crate) from: Option<String>,
    /// Name or digest of the cascade, or its folder [default: the farm's first cascade; without a
    /// farm, the demo cascade]
    #[arg(long, env = "DARKROOM_CASCADE", value_name = "NAME|DIR")]
    pub(crate) cascade: Option<String>,
    /// Run every stage of every image, also where its output is stored already, as after the same
    /// prompts, seeds and settings: to compare what two runs make
    #[arg(long)]
    pub(crate) no_reuse: bool,
    #[command(flatten)]
    pub(crate) stages: StageFlags,
}

/// The heading of the help for flags about prompt files.
const PROMPT_FILES: &str = "Prompt files";

/// A file of prompts, and how it is read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BatchArgs {
    /// File of prompts: text with one prompt per line, JSON lines, CSV, TSV, JSON, or COCO
    /// captions, also as .gz or .zst; `-` reads standard input. Keys of a JSON object, and columns
    /// of a table with a header, are: prompt, negative, images, seed, style, image, mask,
    /// custom_id, and settings of the prompt alone (in JSON an object `settings`, in a table
    /// columns like settings.size, settings.output and settings.base.steps). JSON has labels too.
    /// Picture paths are relative to the file. If a value is absent, null or an empty cell, the
    /// flags apply. In JSON, "" means no negative text, style, picture, mask or id, even if a flag
    /// gives one
    #[arg(long, help_heading = PROMPT_FILES, value_name = "FILE", conflicts_with = "prompts")]
    pub(crate) batch: Option<PathBuf>,
    /// Format of the file: text, jsonl, csv, tsv, json or coco [default: detected from name and
    /// content]
    #[arg(long, help_heading = PROMPT_FILES, requires = "batch")]
    pub(crate) format: Option<String>,
    /// Column (or key of JSON objects) that holds the prompt [default: one called prompt, caption
    /// or text]
    #[arg(long, help_heading = PROMPT_FILES, value_name = "NAME", requires = "batch")]
    pub(crate) column: Option<String>,
    /// Keep unknown keys of JSON objects as labels, like the other columns of a table; at most 16
    /// per prompt
    #[arg(long, help_heading = PROMPT_FILES, requires = "batch")]
    pub(crate) labels: bool,
    /// Keep only these columns (or keys of JSON objects) as labels, even if they are named like a
    /// field, and drop the others; may be repeated
    #[arg(
        long,
        help_heading = PROMPT_FILES,
        value_name = "NAME,…",
        value_delimiter = ',',
        conflicts_with_all = ["labels", "no_labels"],
        requires = "batch"
    )]
    pub(crate) label_columns: Vec<String>,
    /// Keep no columns or keys as labels; drop those that are not fields
    #[arg(long, help_heading = PROMPT_FILES, conflicts_with = "labels", requires = "batch")]
    pub(crate) no_labels: bool,
    /// Skip lines that begin with #
    #[arg(long, help_heading = PROMPT_FILES, requires = "batch")]
    pub(crate) comments: bool,
    /// Take this many COCO captions, always the same ones [default: all]
    #[arg(long, help_heading = PROMPT_FILES, value_name = "N", requires = "batch")]
    pub(crate) sample: Option<u64>,
    /// Take at most this many COCO captions per image [default: all]
    #[arg(long, help_heading = PROMPT_FILES, value_name = "K", requires = "batch")]
    pub(crate) per_image: Option<u64>,
    /// Seed of the sample; another seed takes other captions [default: 0]
    #[arg(long, help_heading = PROMPT_FILES, value_name = "SEED", requires = "batch")]
    pub(crate) sample_seed: Option<u64>,
}

/// `darkroom render`.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Prompt: what to draw. Several prompts make one job
    #[arg(required = true, value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,
    /// Folder for the pictures, made if it is not there. They are named by index: 000000.png, …, or
    /// .jpg or .webp (--output-format); where pictures of something else have those names,
    /// numbering goes on behind them
    #[arg(short, long, value_name = "DIR", default_value = "renders")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
}

/// `darkroom submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// Prompt: what to draw. Several prompts make one job
    #[arg(value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,
    #[command(flatten)]
    pub(crate) file: BatchArgs,
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    /// Submit nothing; print what the job would take: device seconds and time, stage by stage
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// An id of your choice: the same submit sent twice with it makes only one job [default:
    /// random]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// A name for the job, for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A note of yours on the job, by which `darkroom ls` finds it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) job_labels: Vec<String>,
    /// Whose share of the farm it counts against
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Run before all batch work
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Cancel the job at this time: a span from now (30s, 90m, 2h, 1d) or a time
    /// (2026-11-22T23:00:00Z) [default: never]
    #[arg(long, value_name = "SPAN|TIME")]
    pub(crate) deadline: Option<String>,
    /// Most work in flight per stage: as many images as this number of workers take in one batch
    /// each [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_workers: Option<u32>,
    /// End the job when more than this many images have failed for good; 0 ends it at the first
    /// [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_failed: Option<u64>,
}
