//! Stores in clouds: S3, Google Cloud Storage, Azure.

use std::{
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use darkroom_core::error::UserError;
use object_store::{
    BackoffConfig, ObjectStore, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder, path::Path, prefix::PrefixStore, signer::Signer,
};
use url::Url;

use super::{Options, refusal::wrong};
use crate::{
    answer::Answer,
    blob::{ArtifactStore, Backend, Creation, Credentials, MediaTypes},
};

/// Opens the store at a URL with one of the three schemes.
pub(super) fn open(url: &Url, options: &Options) -> Result<ArtifactStore, UserError> {
    // The HTTP client has no TLS provider of its own. If another one is installed already, that
    // works too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let patient = Options { silence: options.upload_silence, ..options.clone() };
    Ok(one(url, options)?.uploading_through(&one(url, &patient)?))
}

fn one(url: &Url, options: &Options) -> Result<ArtifactStore, UserError> {
    match url.scheme() {
        "s3" => s3(url, options),
        "gs" => google(url, options),
        _ => azure(url, options),
    }
}

impl Options {
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

    /// Settings of the HTTP client, then of the environment; later ones override earlier ones.
    fn settings(&self, prefix: &str) -> Settings {
        let time = |time: Duration| format!("{}ms", time.as_millis());
        let client = [
            ("connect_timeout", time(self.connect)),
            ("read_timeout", time(self.silence)),
            ("timeout", time(self.request)),
        ];
        let client = client.into_iter().map(|(name, value)| (name.to_owned(), value));
        let environment = self.environment.0.iter().filter(|(name, _)| name.starts_with(prefix));
        let environment =
            environment.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        Settings(client.chain(environment).collect())
    }
}

/// Names and values as `object_store` reads them; later ones override earlier ones.
struct Settings(Vec<(String, String)>);

impl Settings {
    fn set(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    fn get(&self, names: &[&str]) -> Option<&str> {
        let found =
            names.iter().find_map(|wanted| self.0.iter().rev().find(|(name, _)| name == wanted));
        found.map(|(_, value)| value.as_str())
    }

    fn is_set(&self, names: &[&str]) -> bool {
        self.get(names)
            .is_some_and(|value| matches!(value, "true" | "1" | "yes" | "on" | "t" | "y"))
    }

    fn apply<B, K: FromStr>(&self, builder: B, with: impl Fn(B, K, &str) -> B) -> B {
        self.0.iter().fold(builder, |builder, (name, value)| match name.parse() {
            Ok(key) => with(builder, key, value),
            Err(_) => builder,
        })
    }
}

fn s3(url: &Url, options: &Options) -> Result<ArtifactStore, UserError> {
    let mut settings = options.settings("AWS_");
    // Only single objects are deleted here, and not every S3 supports the other way.
    settings.set("aws_disable_bulk_delete", "true");
    let accepted =
        ["endpoint", "region", "allow_http", "path_style", "conditional_put", "skip_signature"];
    for (name, value) in parameters(url, &accepted)? {
        match name.as_str() {
            // Overrides every variable that names an endpoint.
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
        creation: match settings.get(&["aws_conditional_put"]).map(str::trim) {
            Some("disabled") => Creation::Replaces,
            _ => Creation::IfAbsent,
        },
        credentials: if settings.get(&given).is_some() || settings.is_set(&["aws_skip_signature"]) {
            Credentials::GivenOrNotNeeded
        } else {
            Credentials::Missing
        },
    };
    let builder = settings
        .apply(AmazonS3Builder::new(), |builder, key, value| builder.with_config(key, value));
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
    let at = check_endpoint(
        settings.get(&["google_base_url"]),
        settings.is_set(&["google_allow_http"]),
    )?;
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

/// The place of a store in a cloud, and what is known about it.
struct Place {
    bucket: String,
    prefix: Path,
    name: String,
    creation: Creation,
    credentials: Credentials,
}

impl Place {
    fn new(url: &Url, at: &str) -> Result<Self, UserError> {
        let (bucket, prefix, name) = (bucket(url)?, prefix(url)?, name(url, at));
        let (creation, credentials) = (Creation::IfAbsent, Credentials::GivenOrNotNeeded);
        Ok(Self { bucket, prefix, name, creation, credentials })
    }

    fn store(self, store: impl ObjectStore + Signer, options: &Options) -> ArtifactStore {
        let store = Arc::new(PrefixStore::new(store, self.prefix));
        ArtifactStore::of(Backend {
            store: Arc::clone(&store) as Arc<dyn ObjectStore>,
            uploads: Arc::clone(&store) as Arc<dyn ObjectStore>,
            signer: Some(store),
            name: self.name,
            folder: None,
            bucket: Some(self.bucket),
            creation: self.creation,
            media_types: MediaTypes::Kept,
            credentials: self.credentials,
            patience: options.patience,
            versions: OnceLock::new(),
        })
    }
}

fn bucket(url: &Url) -> Result<String, UserError> {
    match url.host_str() {
        Some(host) if !host.is_empty() && url.port().is_none() => Ok(host.to_owned()),
        _ => Err(wrong(format!(
            "artifacts names no bucket; accepted: {}://bucket/prefix",
            url.scheme()
        ))),
    }
}

fn prefix(url: &Url) -> Result<Path, UserError> {
    Path::from_url_path(url.path())
        .map_err(|error| wrong(format!("artifacts has an invalid prefix: {error}")))
}

fn name(url: &Url, at: &str) -> String {
    let place = format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
    format!("{}{at}", place.trim_end_matches('/'))
}

fn parameters(url: &Url, accepted: &[&str]) -> Result<Vec<(String, String)>, UserError> {
    let found = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned()));
    let found: Vec<_> = found.collect();
    for (name, _) in &found {
        if ["key", "secret", "token", "password", "sas"]
            .iter()
            .any(|word| name.to_lowercase().contains(word))
        {
            return Err(wrong(format!(
                "artifacts has {name} in its URL; credentials belong in the environment, as \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_… or AZURE_…"
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

/// " at …" for a store's name, if an endpoint is set.
fn check_endpoint(endpoint: Option<&str>, allow_http: bool) -> Result<String, UserError> {
    let Some(text) = endpoint else { return Ok(String::new()) };
    let plain = |url: &Url| {
        url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.has_host()
    };
    let endpoint = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && plain(url))
        .ok_or_else(|| {
            wrong("the endpoint of artifacts is not a URL; accepted: https://host or http://host:port")
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
