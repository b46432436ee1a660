//! How a store is opened, besides its URL.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Prefixes of environment variables that are passed to the backends.
const ENVIRONMENT: [&str; 5] =
    ["AWS_", "GOOGLE_", "AZURE_", "SERVICE_ACCOUNT", "IDENTITY_ENDPOINT"];

/// Credentials and settings, by the names of environment variables. Only those of clouds are kept,
/// and values are never shown.
#[derive(Clone, Default)]
pub struct Environment(pub(super) BTreeMap<String, String>);

/// Options of a store, besides its URL.
#[derive(Clone, Debug)]
pub struct Options {
    /// Credentials and settings.
    pub environment: Environment,
    /// Most time to make a connection.
    pub connect: Duration,
    /// Most time without an answer before a request with a small body is sent again.
    pub silence: Duration,
    /// The same for a big body, which takes longer on a slow line.
    pub upload_silence: Duration,
    /// Most time of one request with its body.
    pub request: Duration,
    /// How often a refused or broken request is sent again.
    pub retries: usize,
    /// Pause before the first repetition; each later pause is up to twice as long.
    pub pause: Duration,
    /// No repetition starts later than this after the first try.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            environment: Environment::default(),
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            upload_silence: Duration::from_secs(30),
            request: Duration::from_secs(120),
            retries: 6,
            pause: Duration::from_millis(100),
            patience: Duration::from_secs(20),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let known = |name: &str| ENVIRONMENT.iter().any(|prefix| name.starts_with(prefix));
        Self(variables.into_iter().filter(|(name, _)| known(name)).collect())
    }
}

impl Options {
    /// The defaults, with credentials and settings from this process's environment:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …,
    /// `GOOGLE_…`, `AZURE_STORAGE_…`.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            // An empty value counts as unset.
            Some((
                name.into_string().ok()?,
                value.into_string().ok().filter(|value| !value.is_empty())?,
            ))
        };
        Self { environment: std::env::vars_os().filter_map(text).collect(), ..Self::default() }
    }
}
