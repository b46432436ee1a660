//! Commands about keys: logging in and out, and for administrators keys, tenants and the audit.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `darkroom key …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and print it. It is shown this once: the farm keeps only a hash of it
    Create(KeyCreateArgs),
    /// List keys, without their secrets
    List(KeyListArgs),
    /// End a key. Calls with it are refused within seconds
    Revoke(KeyRevokeArgs),
    /// Make a key in place of another, which works for a while longer, so that its users can change
    Rotate(KeyRotateArgs),
}

/// `darkroom key create`.
#[derive(Debug, Args)]
pub(crate) struct KeyCreateArgs {
    /// The tenant whose jobs the key is for: needed with the scopes read and submit. A new tenant
    /// is added
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// What the key allows; may be repeated. read: see the tenant's jobs. submit: submit and change
    /// them too. operate: the jobs of every tenant, and the workers. admin: keys, tenants and the
    /// audit. member: join as a worker or encoder
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    pub(crate) scopes: Vec<String>,
    /// How long the key works: a span from now (90d, 12h), a time (2026-11-22T23:00:00Z), or never
    #[arg(long, value_name = "SPAN|TIME|never", default_value = "90d")]
    pub(crate) expires: String,
    /// What the key is for, such as a name
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// Write the key to this new file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE", conflicts_with = "certificate")]
    pub(crate) out: Option<PathBuf>,
    /// Make no secret: a client certificate with this subject stands for the key, like
    /// O=Studio,CN=worker-1
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) certificate: Option<String>,
}

/// `darkroom key list`.
#[derive(Debug, Args)]
pub(crate) struct KeyListArgs {
    /// Only keys of this tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Also keys that are revoked or have expired
    #[arg(long)]
    pub(crate) ended: bool,
}

/// `darkroom key revoke`.
#[derive(Debug, Args)]
pub(crate) struct KeyRevokeArgs {
    /// The key's id: the 12 characters after dk_
    pub(crate) id: String,
}

/// `darkroom key rotate`.
#[derive(Debug, Args)]
pub(crate) struct KeyRotateArgs {
    /// The key's id: the 12 characters after dk_
    pub(crate) id: String,
    /// How long the old key works on: a span (12h, 7d) of at most 30d
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    pub(crate) keep: String,
    /// How long the new key works: a span from now [default: as long as the old one was made for]
    #[arg(long, value_name = "SPAN")]
    pub(crate) expires: Option<String>,
    /// Write the new key to this new file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// `darkroom tenant …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Add a tenant, or change its settings
    Set(Box<TenantSetArgs>),
    /// Show a tenant, its quotas, and how much of each is used
    Show {
        /// Its name
        name: String,
        /// Also show the latest entries of the audit about it
        #[arg(long)]
        audit: bool,
    },
    /// List the tenants
    List,
}

/// `darkroom tenant set`.
#[derive(Debug, Args)]
pub(crate) struct TenantSetArgs {
    /// Its name
    pub(crate) name: String,
    /// Whether work done for the tenant may be used again for others: shared, or sealed, which also
    /// hides from others that a text was used before [default: unchanged]
    #[arg(long, value_name = "SHARING")]
    pub(crate) sharing: Option<String>,
    #[command(flatten)]
    pub(crate) quotas: QuotaArgs,
}

/// What the tenant may use. A flag that is not given leaves its quota as it is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Quotas (each a value, or none for no limit)")]
pub(crate) struct QuotaArgs {
    /// Images of the tenant's jobs that wait or run; more are refused
    #[arg(long, value_name = "N|none")]
    pub(crate) max_waiting: Option<String>,
    /// Images that it submits on a day (UTC); more are refused
    #[arg(long, value_name = "N|none")]
    pub(crate) images_per_day: Option<String>,
    /// Model seconds that its jobs take on a day (UTC); then its images wait until the next day
    #[arg(long, value_name = "SECONDS|none")]
    pub(crate) device_seconds_per_day: Option<String>,
    /// Size of its pictures, intermediates, uploads and files, like 50GiB or 800MB; at the limit,
    /// submits, uploads and files are refused
    #[arg(long, value_name = "SIZE|none")]
    pub(crate) stored_bytes: Option<String>,
    /// Calls with its keys; more are refused
    #[arg(long, value_name = "N|none")]
    pub(crate) requests_per_second: Option<String>,
    /// Calls that may come at once [default: as many as in a second]
    #[arg(long, value_name = "N|none")]
    pub(crate) burst: Option<String>,
    /// Workers that its images keep busy at once, in each stage; the rest waits
    #[arg(long, value_name = "N|none")]
    pub(crate) max_workers: Option<String>,
    /// Its weight in the fair share
    #[arg(long, value_name = "WEIGHT|none")]
    pub(crate) weight: Option<String>,
}

/// `darkroom retention …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Set how long something is kept after a job has ended
    Set(RetentionSetArgs),
    /// List the retention policies. Without a policy, nothing is removed for its age
    List {
        /// Only what applies to this tenant
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
    },
}

/// `darkroom retention set`.
#[derive(Debug, Args)]
pub(crate) struct RetentionSetArgs {
    /// What is removed: jobs (whole jobs with their pictures), pictures, intermediates (what is
    /// stored between stages), embeddings (of texts that no job needs), inputs (uploaded pictures
    /// that no job uses), previews (and sheets; both are made again when somebody looks), or files
    /// (of the HTTP API, and batches that have ended)
    pub(crate) subject: String,
    /// How long it is kept: a span (12h, 30d), or forever
    #[arg(value_name = "SPAN|forever")]
    pub(crate) seconds: String,
    /// Only of jobs that ended like this: done, failed or cancelled; may be repeated [default: all
    /// three]
    #[arg(long, value_name = "OUTCOME")]
    pub(crate) outcome: Vec<String>,
    /// Only this tenant's jobs, inputs or files, instead of the policy for all
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
}

/// `darkroom clean`.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Change nothing; say what the policies would remove now
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also look through storage for objects older than seven days that the record does not name
    #[arg(long)]
    pub(crate) orphans: bool,
    /// Remove those objects
    #[arg(long, requires = "orphans", conflicts_with = "dry_run")]
    pub(crate) remove: bool,
    /// Go on removing objects, although storage knows of later removals than the record. Use it
    /// only if the record was restored from a backup and is the right one
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) restored: bool,
}

/// `darkroom audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only what concerned this tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Only what was done since: a span ago (30m, 2h, 1d) or a time (2026-11-22T23:00:00Z)
    #[arg(long, value_name = "SPAN|TIME")]
    pub(crate) since: Option<String>,
    /// Only what was done with the key of this id
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// At most so many, the newest
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}
