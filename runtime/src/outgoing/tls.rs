//! TLS to a server that a user named, which the system's authorities must vouch for.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    error::Error,
    target::{Host, Target},
};

/// Read at the first use.
static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();

fn config() -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    // A certificate of the system that cannot be read is one that nobody is trusted by.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().ok()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

pub(super) async fn connect(
    target: &Target,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let untrusted = |why: String| Error::Untrusted(target.shown(), why);
    let name = match target.host() {
        Host::Address(address) => ServerName::IpAddress((*address).into()),
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| untrusted("no certificate can have this name".to_owned()))?,
    };
    let config = CONFIG.get_or_init(config).clone();
    let config = config.ok_or_else(|| untrusted("TLS cannot be set up".to_owned()))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| untrusted(error.to_string()))
}
