//! Commands about pictures: fetched, looked at, checked, rendered again.

use std::path::PathBuf;

use clap::Args;

use super::machine::MachineArgs;

/// `darkroom get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// Folder for the pictures; created if necessary [default: renders/JOB]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace files that have a picture's name and other content
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Name files by this template: {custom_id}, {seed}, {index}, {line}, {job}, {label:KEY};
    /// {index:06} for six digits, {{ and }} for braces. Every name is checked before anything is
    /// written [default: the index]
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) name: Option<String>,
    /// Download what this stage made (base, sr256) of every image that has passed it, finished or
    /// not [default folder: renders/JOB/STAGE]
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Option<String>,
    /// Scale pictures down to a longer edge of 16, 32, 64, 128, 256 or 512 pixels; the recipe stays
    /// out [default folder: renders/JOB/PIXELS]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) max_edge: Option<u32>,
}

/// `darkroom image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// The image's index in its job, counted from 0
    pub(crate) index: u64,
}

/// `darkroom map`.
#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// Only images that changed after this version, unless they are too many
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) changed_since: u64,
}

/// Edge of a sheet's thumbnails in pixels, unless another is asked for.
pub(crate) const TILE: u32 = 64;

/// `darkroom sheet`.
#[derive(Debug, Args)]
pub(crate) struct SheetArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// Index of the first image
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub(crate) from: u64,
    /// Number of images
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) count: u32,
    /// Edge of a thumbnail in pixels, 16 to 128
    #[arg(long, value_name = "PIXELS", default_value_t = TILE)]
    pub(crate) tile: u32,
    /// Thumbnails in a row; about square when absent
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) columns: u32,
    /// Show what this stage made, instead of the first that is as large as a thumbnail
    #[arg(long, value_name = "STAGE")]
    pub(crate) stage: Option<String>,
    /// File for the sheet
    #[arg(short, long, value_name = "FILE", default_value = "sheet.png")]
    pub(crate) out: PathBuf,
    /// Replace the file where it holds something else
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// `darkroom verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    /// How many pictures are checked at the same time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) at_once: usize,
}

/// `darkroom rerender`.
#[derive(Debug, Args)]
pub(crate) struct RerenderArgs {
    /// A picture that Darkroom rendered
    pub(crate) file: PathBuf,
    /// The picture that it started from, if there was one
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// The mask that it was painted with, if there was one
    #[arg(long, value_name = "FILE")]
    pub(crate) mask: Option<PathBuf>,
    /// Folder of the cascade [default: the demo cascade]
    #[arg(long, env = "DARKROOM_CASCADE", value_name = "DIR")]
    pub(crate) cascade: Option<String>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}
