//! Logs: to standard error, for people or as JSON lines, filtered by `DARKROOM_LOG`.

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Name of the environment variable that holds the filter, in tracing's own syntax: `info,darkroom_worker=debug`.
pub const FILTER: &str = "DARKROOM_LOG";

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is malformed.
    #[error(
        "{FILTER} is {text:?}, which is no filter: {source}; accepted: levels by module, like info,darkroom_worker=debug"
    )]
    Filter {
        /// What it holds.
        text: String,
        /// Why it was refused.
        source: ParseError,
    },
}

/// Starts logging for the process; later calls change nothing. `default` holds where `DARKROOM_LOG` is not set.
///
/// # Errors
/// When `DARKROOM_LOG` is set and malformed.
pub fn init(default: &str, format: Format) -> Result<(), Error> {
    let text = std::env::var(FILTER).ok().filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&text).map_err(|source| Error::Filter { text, source })?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    // A second initialisation, as in tests that share a process, is no fault.
    let _ = match format {
        Format::Human => registry.with(layer.with_target(false)).try_init(),
        Format::Json => registry.with(layer.json()).try_init(),
    };
    Ok(())
}
