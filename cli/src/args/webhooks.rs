//! `darkroom webhook …`.

use clap::{Args, Subcommand};

/// `darkroom webhook …`.
#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Have the farm send events to an address, and print the secret with which they are signed. It
    /// is shown this once
    Add(WebhookAddArgs),
    /// List webhooks, and how sending to each goes
    #[command(visible_alias = "ls")]
    List(WebhookListArgs),
    /// End a webhook. Events that were still to be sent to it are dropped
    Rm(WebhookRmArgs),
}

/// `darkroom webhook add`.
#[derive(Debug, Args)]
pub(crate) struct WebhookAddArgs {
    /// Where events are sent: http:// or https://
    pub(crate) url: String,
    /// Only events of this type; may be repeated: job.completed, job.failed, job.cancelled,
    /// batch.completed, batch.failed, batch.expired, batch.cancelled [default: all]
    #[arg(long = "event", value_name = "TYPE")]
    pub(crate) events: Vec<String>,
    /// For people
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// The tenant whose events it gets [default: the key's]
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
}

/// `darkroom webhook list`.
#[derive(Debug, Args)]
pub(crate) struct WebhookListArgs {
    /// Only webhooks of this tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
}

/// `darkroom webhook rm`.
#[derive(Debug, Args)]
pub(crate) struct WebhookRmArgs {
    /// The webhook's id, as `darkroom webhook list` shows it
    pub(crate) id: String,
}
