//! Commands about jobs: which, and which of their images.

use clap::Args;

/// A command about one job.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
}

/// Where the help lists what names images of a job.
const SOME_IMAGES: &str = "Only some images";

/// Flags that name images of a job; all that are given must hold.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SomeImagesArgs {
    /// Images by index: 3,7,10-20
    #[arg(long, help_heading = SOME_IMAGES, value_name = "LIST", value_delimiter = ',')]
    pub(crate) images: Vec<String>,
    /// Images in this state; may be repeated
    #[arg(long = "state-is", help_heading = SOME_IMAGES, value_name = "STATE")]
    pub(crate) states: Vec<String>,
    /// Images whose latest failure has this code; may be repeated
    #[arg(long = "code", help_heading = SOME_IMAGES, value_name = "CODE")]
    pub(crate) codes: Vec<String>,
    /// Images whose prompt has this label; may be repeated
    #[arg(long = "label", help_heading = SOME_IMAGES, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Images whose prompt or custom id contains this text, in any case
    #[arg(long, help_heading = SOME_IMAGES, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Change nothing; say how many images would change
    #[arg(long, help_heading = SOME_IMAGES)]
    pub(crate) dry_run: bool,
}

/// `darkroom cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) some: SomeImagesArgs,
}

/// `darkroom rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The jobs' ids, as `submit` printed them
    #[arg(required = true, value_name = "JOB")]
    pub(crate) job: Vec<String>,
    /// Cancel a job first that has not ended
    #[arg(long)]
    pub(crate) cancel: bool,
}

/// `darkroom retry`.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// The job's id, as `submit` printed it
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) some: SomeImagesArgs,
    /// Render done images again whose picture is missing in storage or damaged, from their last
    /// intact stage; reads every picture
    #[arg(long, help_heading = SOME_IMAGES, conflicts_with_all = ["states", "codes"])]
    pub(crate) lost: bool,
    /// A new deadline: a span from now (30s, 90m, 2h, 1d) or a time (2026-11-22T23:00:00Z)
    #[arg(long, value_name = "SPAN|TIME", conflicts_with = "no_deadline")]
    pub(crate) deadline: Option<String>,
    /// Remove the job's deadline
    #[arg(long)]
    pub(crate) no_deadline: bool,
}

/// `darkroom watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The job's id, as `submit` printed it; the whole farm when absent
    pub(crate) job: Option<String>,
    /// Of the whole farm, only this tenant's jobs
    #[arg(long, value_name = "TENANT", conflicts_with = "job")]
    pub(crate) tenant: Option<String>,
    /// Of the whole farm, only what changed since this cursor, which --json prints with every event
    #[arg(long, value_name = "CURSOR", conflicts_with = "job")]
    pub(crate) cursor: Option<String>,
    /// Only what changed after this version
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    pub(crate) after: u64,
    /// Show changes of single images too
    #[arg(long)]
    pub(crate) images: bool,
}

/// `darkroom ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// List the images of this job instead of jobs
    pub(crate) job: Option<String>,
    /// List only those in this state; may be repeated [default: all states]
    #[arg(long = "state-is", value_name = "STATE")]
    pub(crate) states: Vec<String>,
    /// Only jobs with this label, or images whose prompts have it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Only jobs whose name or prompts contain this text, or images whose prompts do, in any case
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Only jobs whose name contains this text, in any case
    #[arg(long, value_name = "TEXT", conflicts_with = "job", allow_hyphen_values = true)]
    pub(crate) name: Option<String>,
    /// Only this tenant's jobs
    #[arg(long, value_name = "TENANT", conflicts_with = "job")]
    pub(crate) tenant: Option<String>,
    /// Only jobs created then or later: a span before now (30s, 90m, 2h, 1d) or a time
    /// (2026-11-22T23:00:00Z)
    #[arg(long, value_name = "SPAN|TIME", conflicts_with = "job")]
    pub(crate) since: Option<String>,
    /// Only jobs created before then: a span before now, or a time
    #[arg(long, value_name = "SPAN|TIME", conflicts_with = "job")]
    pub(crate) until: Option<String>,
    /// The oldest job first
    #[arg(long, conflicts_with = "job")]
    pub(crate) oldest_first: bool,
    /// Begin with the image of this index
    #[arg(long = "from", value_name = "INDEX", requires = "job", conflicts_with = "changed_since")]
    pub(crate) from_index: Option<u64>,
    /// Only images that changed after this version of the job, in order of their changes
    #[arg(
        long,
        value_name = "VERSION",
        requires = "job",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) changed_since: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Print a link to every finished picture in the farm's storage. Anyone can open it until it
    /// expires, after this span (at most 1d; 1h if none is given)
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
