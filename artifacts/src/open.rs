//! Opening a store by URL: a folder, S3, Google Cloud Storage, Azure, memory.
//!
//! Credentials come from the environment, under the names that each cloud's own tools read, and never from the URL:
//! URLs end up in logs, process lists and files.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path as FilePath,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use darkroom_core::error::{Code, UserError};
use object_store::{
    BackoffConfig, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, path::Path, prefix::PrefixStore, signer::Signer,
};
use url::Url;

use crate::{
    answer::Answer,
    blob::{ArtifactStore, Backend},
};

/// Name of the setting in errors.
pub(crate) const FIELD: &str = "artifacts";

/// What the environment may say: variables that begin so are handed to the backends.
const ENVIRONMENT: [&str; 5] = ["AWS_", "GOOGLE_", "AZURE_", "SERVICE_ACCOUNT", "IDENTITY_ENDPOINT"];

/// Credentials and settings, by the names of environment variables; only those of clouds are kept, and values are never
/// shown.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// What a store is opened with, besides its URL.
#[derive(Clone, Debug)]
pub struct Options {
    /// Credentials and settings.
    pub environment: Environment,
    /// Longest time to make a connection.
    pub connect: Duration,
    /// Longest silence of the store before a request of a small body is given up and sent again.
    pub silence: Duration,
    /// The same while a big body is sent, which takes its time on a slow line.
    pub upload_silence: Duration,
    /// Longest time of one request, its body included.
    pub request: Duration,
    /// How often a refused or broken request is sent again.
    pub retries: usize,
    /// Pause before it is sent again; each later one is up to twice as long.
    pub pause: Duration,
    /// No retry starts later than this after the first try.
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
    /// The defaults, with credentials and settings from this process's environment: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …, `GOOGLE_…`, `AZURE_STORAGE_…`.
    #[must_use]
    pub fn from_env() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            // Set to nothing is as good as unset.
            Some((name.into_string().ok()?, value.into_string().ok().filter(|value| !value.is_empty())?))
        };
        Self { environment: std::env::vars_os().filter_map(text).collect(), ..Self::default() }
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: self.pause,
                max_backoff: Duration::from_secs(5),
                base: 2.0,
            },
            max_retries: self.retries,
            retry_timeout: self.patience,
        }
    }

    /// Settings of the HTTP client, then of the environment: later ones win.
    fn settings(&self, prefix: &str) -> Settings {
        let time = |time: Duration| format!("{}ms", time.as_millis());
        let client = [
            ("connect_timeout", time(self.connect)),
            ("read_timeout", time(self.silence)),
            ("timeout", time(self.request)),
        ];
        let client = client.into_iter().map(|(name, value)| (name.to_owned(), value));
        let environment = self.environment.0.iter().filter(|(name, _)| name.starts_with(prefix));
        let environment = environment.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        Settings(client.chain(environment).collect())
    }
}

/// Names and values as `object_store` reads them; later ones win.
struct Settings(Vec<(String, String)>);

impl Settings {
    fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn get(&self, names: &[&str]) -> Option<&str> {
        let found = names.iter().find_map(|wanted| self.0.iter().rev().find(|(name, _)| name == wanted));
        found.map(|(_, value)| value.as_str())
    }

    fn is_set(&self, names: &[&str]) -> bool {
        self.get(names).is_some_and(|value| matches!(value, "true" | "1" | "yes" | "on" | "t" | "y"))
    }

    fn apply<B, K: FromStr>(&self, builder: B, with: impl Fn(B, K, &str) -> B) -> B {
        self.0.iter().fold(builder, |builder, (name, value)| match name.parse() {
            Ok(key) => with(builder, key, value),
            Err(_) => builder,
        })
    }
}

impl ArtifactStore {
    /// Opens the store at `url`. Nothing is contacted yet; [`check`](Self::check) does that.
    ///
    /// - a path or `file:///path`: a folder, created if absent; it may be shared by several machines
    /// - `s3://bucket/prefix`, with `?endpoint=…&region=…&allow_http=true&path_style=true`
    /// - `gs://bucket/prefix`, `az://container/prefix?account=…`
    /// - `memory:`: for tests
    ///
    /// # Errors
    /// One sentence naming what is wrong with the URL or the environment.
    pub fn open(url: &str, options: &Options) -> Result<Self, UserError> {
        if url.trim().is_empty() {
            return Err(wrong(format!("artifacts is {url:?}; {ACCEPTED}")));
        }
        if url == "memory:" || url == "memory://" {
            return Ok(Self::in_memory());
        }
        if !url.contains("://") {
            return folder(FilePath::new(url));
        }
        // The URL is not repeated: what is wrong with it may be a secret.
        let parsed =
            Url::parse(url).map_err(|error| wrong(format!("artifacts is no URL: {error}; {ACCEPTED}")))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong(
                "artifacts holds a user name or password; credentials belong into the environment",
            ));
        }
        match parsed.scheme() {
            "file" => match parsed.to_file_path() {
                Ok(path) => folder(&path),
                Err(()) => Err(wrong("artifacts is a file URL with a host; accepted: file:///path")),
            },
            "s3" | "gs" | "az" => {
                let patient = Options { silence: options.upload_silence, ..options.clone() };
                Ok(cloud(&parsed, options)?.uploading_through(&cloud(&parsed, &patient)?))
            }
            scheme => Err(wrong(format!("artifacts begins with {scheme}://; {ACCEPTED}"))),
        }
    }
}

fn cloud(url: &Url, options: &Options) -> Result<ArtifactStore, UserError> {
    match url.scheme() {
        "s3" => s3(url, options),
        "gs" => google(url, options),
        _ => azure(url, options),
    }
}

const ACCEPTED: &str =
    "accepted: a folder, file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";

fn wrong(message: impl Into<String>) -> UserError {
    UserError::invalid(FIELD, message)
}

fn folder(path: &FilePath) -> Result<ArtifactStore, UserError> {
    ArtifactStore::local(path).map_err(|error| UserError {
        field: Some(FIELD.to_owned()),
        ..UserError::new(
            Code::FailedPrecondition,
            "ARTIFACTS_UNUSABLE",
            format!("artifacts folder {}: {error}", path.display()),
        )
    })
}

fn s3(url: &Url, options: &Options) -> Result<ArtifactStore, UserError> {
    let mut settings = options.settings("AWS_");
    // Only single objects are deleted here, and not every S3 knows the other way.
    settings.set("aws_disable_bulk_delete", "true");
    let accepted = ["endpoint", "region", "allow_http", "path_style", "conditional_put", "skip_signature"];
    for (name, value) in parameters(url, &accepted)? {
        match name.as_str() {
            // Stronger than every variable that names an endpoint.
            "endpoint" => settings.set("aws_endpoint_url_s3", &value),
            "path_style" => settings.set(
                "aws_virtual_hosted_style_request",
                if matches!(value.as_str(), "true" | "1") { "false" } else { "true" },
            ),
            name => settings.set(&format!("aws_{name}"), &value),
        }
    }
    let endpoint = settings
        .get(&["aws_endpoint_url_s3"])
        .or_else(|| settings.get(&["aws_endpoint_url", "aws_endpoint"]));
    let at = check_endpoint(endpoint, settings.is_set(&["aws_allow_http", "allow_http"]))?;
    let given = [
        "aws_access_key_id",
        "aws_web_identity_token_file",
        "aws_container_credentials_relative_uri",
        "aws_container_credentials_full_uri",
        "aws_metadata_endpoint",
    ];
    let place = Place {
        bucket: bucket(url)?,
        prefix: prefix(url)?,
        name: name(url, &at),
        creates: settings.get(&["aws_conditional_put"]).is_none_or(|value| value.trim() != "disabled"),
        has_credentials: settings.get(&given).is_some() || settings.is_set(&["aws_skip_signature"]),
    };
    let builder =
        settings.apply(AmazonS3Builder::new(), |builder, key, value| builder.with_config(key, value));
    let store = builder.with_bucket_name(&place.bucket).with_retry(options.retry()).build();
    Ok(place.store(store.map_err(|error| unusable(&error))?, options))
}

fn google(url: &Url, options: &Options) -> Result<ArtifactStore, UserError> {
    let mut settings = options.settings("GOOGLE_");
    if let Some(path) = options.environment.0.get("SERVICE_ACCOUNT") {
        settings.set("google_service_account", path);
    }
    for (name, value) in parameters(url, &["endpoint", "allow_http", "skip_signature"])? {
        match name.as_str() {
            "endpoint" => settings.set("google_base_url", &value),
            name => settings.set(&format!("google_{name}"), &value),
        }
    }
    let at = check_endpoint(settings.get(&["google_base_url"]), settings.is_set(&["google_allow_http"]))?;
    let place = Place::new(url, &at)?;
    let builder = GoogleCloudStorageBuilder::new();
    let builder = settings.apply(builder, |builder, key, value| builder.with_config(key, value));
    let store = builder.with_bucket_name(&place.bucket).with_retry(options.retry()).build();
    Ok(place.store(store.map_err(|error| unusable(&error))?, options))
}

fn azure(url: &Url, options: &Options) -> Result<ArtifactStore, UserError> {
    let mut settings = options.settings("AZURE_");
    if let Some(endpoint) = options.environment.0.get("IDENTITY_ENDPOINT") {
        settings.set("azure_msi_endpoint", endpoint);
    }
    for (name, value) in
        parameters(url, &["account", "endpoint", "allow_http", "use_emulator", "skip_signature"])?
    {
        match name.as_str() {
            "account" => settings.set("azure_storage_account_name", &value),
            "endpoint" => settings.set("azure_storage_endpoint", &value),
            "use_emulator" => settings.set("azure_storage_use_emulator", &value),
            name => settings.set(&format!("azure_{name}"), &value),
        }
    }
    let endpoint = settings.get(&["azure_storage_endpoint", "azure_endpoint"]);
    let at = check_endpoint(endpoint, settings.is_set(&["azure_allow_http"]))?;
    let place = Place::new(url, &at)?;
    let builder = MicrosoftAzureBuilder::new();
    let builder = settings.apply(builder, |builder, key, value| builder.with_config(key, value));
    let store = builder.with_container_name(&place.bucket).with_retry(options.retry()).build();
    Ok(place.store(store.map_err(|error| unusable(&error))?, options))
}

/// Where in a cloud a store lies, and what is known of it.
struct Place {
    bucket: String,
    prefix: Path,
    name: String,
    creates: bool,
    has_credentials: bool,
}

impl Place {
    fn new(url: &Url, at: &str) -> Result<Self, UserError> {
        let (bucket, prefix, name) = (bucket(url)?, prefix(url)?, name(url, at));
        Ok(Self { bucket, prefix, name, creates: true, has_credentials: true })
    }

    fn store(self, store: impl ObjectStore + Signer, options: &Options) -> ArtifactStore {
        let store = Arc::new(PrefixStore::new(store, self.prefix));
        ArtifactStore::of(Backend {
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            uploads: Arc::clone(&store) as Arc<dyn ObjectStore>,
            signer: Some(store),
            name: self.name,
            bucket: Some(self.bucket),
            creates: self.creates,
            has_credentials: self.has_credentials,
            patience: options.patience,
            versions: OnceLock::new(),
        })
    }
}

fn bucket(url: &Url) -> Result<String, UserError> {
    match url.host_str() {
        Some(host) if !host.is_empty() && url.port().is_none() => Ok(host.to_owned()),
        _ => Err(wrong(format!("artifacts names no bucket; accepted: {}://bucket/prefix", url.scheme()))),
    }
}

fn prefix(url: &Url) -> Result<Path, UserError> {
    Path::from_url_path(url.path())
        .map_err(|error| wrong(format!("artifacts has a prefix that is none: {error}")))
}

fn name(url: &Url, at: &str) -> String {
    let place = format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
    format!("{}{at}", place.trim_end_matches('/'))
}

fn parameters(url: &Url, accepted: &[&str]) -> Result<Vec<(String, String)>, UserError> {
    let found = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned()));
    let found: Vec<_> = found.collect();
    for (name, _) in &found {
        if ["key", "secret", "token", "password", "sas"].iter().any(|word| name.to_lowercase().contains(word))
        {
            return Err(wrong(format!(
                "artifacts has {name} in its URL; credentials belong into the environment, as AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, GOOGLE_… or AZURE_…"
            )));
        }
        if !accepted.contains(&name.as_str()) {
            return Err(wrong(format!(
                "artifacts has {name:?} in its URL; accepted: {}",
                accepted.join(", ")
            )));
        }
    }
    Ok(found)
}

/// " at …" for names of stores, if an endpoint is set.
fn check_endpoint(endpoint: Option<&str>, allow_http: bool) -> Result<String, UserError> {
    let Some(text) = endpoint else { return Ok(String::new()) };
    let plain = |url: &Url| {
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.has_host()
    };
    let endpoint = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && plain(url))
        .ok_or_else(|| {
            wrong("the endpoint of artifacts is no address; accepted: https://host or http://host:port")
        })?;
    if endpoint.scheme() == "http" && !allow_http {
        return Err(wrong(format!(
            "the endpoint {} of artifacts is not encrypted; if that is meant, add allow_http=true to the URL",
            text.trim_end_matches('/')
        )));
    }
    Ok(format!(" at {}", text.trim_end_matches('/')))
}

fn unusable(error: &object_store::Error) -> UserError {
    wrong(format!("artifacts cannot be opened: {}", Answer::of(error).sentence))
}

#[cfg(test)]
mod tests;
