//! Commands about the farm: its workers, its past, what tenants used.

use clap::Args;

/// `darkroom drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The worker's id as `darkroom workers` shows it, or the beginning of the id
    #[arg(required_unless_present = "all_of", conflicts_with = "all_of")]
    pub(crate) worker: Option<String>,
    /// Drain every worker and encoder of this host
    #[arg(long, value_name = "HOST")]
    pub(crate) all_of: Option<String>,
}

/// `darkroom history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// From when on: a span ago (30m, 2h, 1d) or a time (2026-11-22T23:00:00Z) [default: an hour
    /// before --until]
    #[arg(long, value_name = "SPAN|TIME")]
    pub(crate) since: Option<String>,
    /// Until when: a span ago or a time [default: now]
    #[arg(long, value_name = "SPAN|TIME")]
    pub(crate) until: Option<String>,
    /// Length of a row: whole minutes, like 1m, 10m, 1h or 1d [default: 1m]
    #[arg(long, value_name = "SPAN")]
    pub(crate) step: Option<String>,
    /// Only this stage
    #[arg(long)]
    pub(crate) stage: Option<String>,
    /// Only the cascade with this digest (of texts: the encoder), as `darkroom queue --json` prints
    /// it
    #[arg(long, value_name = "DIGEST")]
    pub(crate) cascade_digest: Option<String>,
}

/// `darkroom usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// Only this tenant
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// First day (UTC), like 2026-11-22 [default: 30 days ago]
    #[arg(long, value_name = "DAY")]
    pub(crate) since: Option<String>,
    /// Last day (UTC) [default: today]
    #[arg(long, value_name = "DAY")]
    pub(crate) until: Option<String>,
}
