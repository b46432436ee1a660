//! The command line: commands, flags, and their help. No logic.

mod disk;
mod farm;
mod jobs;
mod keys;
mod machine;
mod model;
mod pictures;
mod request;
mod webhooks;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use darkroom_runtime::{credential::KeySettings, tls::ClientSettings};

#[cfg(feature = "embedded")]
pub(crate) use self::{
    disk::DiskArgs,
    machine::{MachineArgs, Renderer},
    model::{ImportArgs, ModelCheckArgs, ModelInfoArgs, TokenizeArgs},
};
pub(crate) use self::{
    farm::{DrainArgs, HistoryArgs, UsageArgs},
    jobs::{CancelArgs, JobArgs, LsArgs, RetryArgs, RmArgs, SomeImagesArgs, WatchArgs},
    keys::{
        AuditArgs, CleanArgs, KeyCommand, KeyCreateArgs, KeyListArgs, KeyRotateArgs, QuotaArgs,
        RetentionCommand, RetentionSetArgs, TenantCommand, TenantSetArgs,
    },
    machine::UpArgs,
    model::ModelCommand,
    pictures::{GetArgs, ImageArgs, MapArgs, RerenderArgs, SheetArgs, TILE, VerifyArgs},
    request::{BatchArgs, RenderArgs, RequestArgs, SubmitArgs},
    webhooks::{WebhookAddArgs, WebhookCommand, WebhookListArgs},
};

/// Renders pictures from prompts with Imagen-style cascades: on this machine, or on a farm.
#[derive(Debug, Parser)]
#[command(name = "darkroom", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Print JSON for machines: one document, or one per line if there are several
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
    /// Address of a running farm, host:port or https://host:port; several separated by commas are
    /// tried in turn
    /// [default: the farm that runs on --state]
    #[arg(long, global = true, env = "DARKROOM_FARM", value_name = "ADDRESS")]
    pub(crate) farm: Option<String>,
    /// Folder with the state of this machine's farm
    #[arg(
        long,
        global = true,
        env = "DARKROOM_STATE",
        value_name = "DIR",
        default_value = ".darkroom"
    )]
    pub(crate) state: PathBuf,
    /// How to trust it.
    #[command(flatten)]
    pub(crate) tls: ClientSettings,
    /// The key to show to it.
    #[command(flatten)]
    pub(crate) key: KeySettings,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Render prompts and write the pictures. If no farm is running, a temporary one is started
    Render(RenderArgs),
    /// Run the whole farm in this process until it is stopped
    Up(UpArgs),
    /// Submit a job to a running farm and print its id
    Submit(SubmitArgs),
    /// Show a job: its state, progress, and why it waits
    Status(JobArgs),
    /// Follow a job until it ends, or the whole farm until you stop it
    Watch(WatchArgs),
    /// List jobs, or the images of one
    Ls(LsArgs),
    /// Show one image of a job, and what became of its latest attempts
    Image(ImageArgs),
    /// Show the states of all images of a job in runs, or of those that changed since a version
    Map(MapArgs),
    /// Count a job's images by the code of their last failure
    Failures(JobArgs),
    /// Download a job's finished pictures; run again, it fetches what is missing
    Get(GetArgs),
    /// Download the thumbnails of a range of a job's images as one PNG
    Sheet(SheetArgs),
    /// Prove that a finished job is whole: its manifest, and every picture that it lists
    Verify(VerifyArgs),
    /// End a job: nothing new starts, running work stops at its next step. With flags that name
    /// images, only those
    Cancel(CancelArgs),
    /// Delete jobs that have ended, with their pictures. It cannot be undone
    Rm(RmArgs),
    /// Take back what no worker has started
    Pause(JobArgs),
    /// Resume a paused job
    Resume(JobArgs),
    /// Run a job's dead and cancelled images again, or only those that flags name
    Retry(RetryArgs),
    /// Show the work of every pool: what waits, what runs, how fast it goes
    Queue,
    /// Show the past of every pool, from a row per minute that is kept for seven days
    History(HistoryArgs),
    /// List the model seconds that tenants used, by day
    Usage(UsageArgs),
    /// List the workers
    Workers,
    /// Ask a worker or an encoder to finish what it runs, take nothing new, and leave. No image is
    /// charged a failure for it
    Drain(DrainArgs),
    /// List the cascades that the farm serves
    Cascades,
    /// Show the farm: its id, version and lease, its problems, and how many jobs its sweeps had to
    /// end
    Farm,
    /// Store the key for the farm at --farm, for you alone. It is read from the terminal without
    /// being shown, or from standard input, and checked with the farm
    Login,
    /// Forget the key that is stored for the farm at --farm
    Logout,
    /// Have the farm send events, such as the end of a job, to an address
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Make, list and end keys. Needs a key with the scope admin
    #[command(subcommand)]
    Key(KeyCommand),
    /// Add, change and list tenants. Needs a key with the scope admin
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Say how long the results of ended jobs are kept. Needs a key with the scope admin
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Make the farm's cleaner work now, or say what the retention policies would remove. Needs a
    /// key with the scope admin
    Clean(CleanArgs),
    /// List who changed what, when and from where, newest first. Needs a key with the scope admin
    Audit(AuditArgs),
    /// Render a picture again from its own metadata and report whether the pixels are identical
    Rerender(RerenderArgs),
    /// Inspect, check or import a cascade on disk
    #[command(subcommand)]
    Model(ModelCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell: bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, error::ErrorKind};
    use darkroom_runtime::arguments::{sentence, with_negative_numbers};

    use super::*;

    /// The path of each command, and the long options that take a value.
    fn options(command: &Command, path: &[String], all: &mut Vec<(Vec<String>, String)>) {
        // Of an option that takes its value only behind `=`, a next word is never the value.
        let takes_next =
            |one: &&clap::Arg| one.get_action().takes_values() && !one.is_require_equals_set();
        for argument in command.get_arguments().filter(takes_next) {
            let long = argument.get_long().map(|long| (path.to_vec(), format!("--{long}")));
            all.extend(long);
        }
        for inner in command.get_subcommands() {
            let path: Vec<_> = path.iter().cloned().chain([inner.get_name().to_owned()]).collect();
            options(inner, &path, all);
        }
    }

    #[test]
    fn a_negative_number_after_an_option_is_its_value_and_is_refused_in_one_sentence() {
        let mut all = Vec::new();
        options(&Cli::command(), &["darkroom".to_owned()], &mut all);
        assert!(all.len() > 50, "{}", all.len());
        let mut refused = 0;
        for (path, option) in all {
            let line = path.iter().cloned().chain([option.clone(), "-1".to_owned()]);
            let command = with_negative_numbers(Cli::command());
            let Err(error) = command.try_get_matches_from(line) else { continue };
            let name = format!("{} {option}", path.join(" "));
            assert_ne!(error.kind(), ErrorKind::UnknownArgument, "{name}: {error}");
            if matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
                let sentence = sentence(&error).unwrap_or_default();
                let is_whole = sentence.contains("-1") && sentence.contains("; accepted: ");
                let field = option.trim_start_matches('-');
                assert!(is_whole && sentence.contains(field), "{name}: {sentence:?}");
                assert_eq!(sentence.lines().count(), 1, "{name}: {sentence:?}");
                refused += 1;
            }
        }
        assert!(refused > 5, "{refused}");
    }
}
