//! TLS to a server that a user named, which the system's authorities must vouch for.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::system_roots;

use super::{
    error::Error,
    target::{Host, Target},
};

/// Read at the first use.
static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();

/// A client that trusts these authorities; `None` if there are no authorities.
pub(super) fn config(roots: RootCertStore) -> Option<Arc<ClientConfig>> {
    if roots.is_empty() {
        return None;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().ok()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(Arc::new(config))
}

/// Speaks TLS with a server that the system's authorities vouch for.
pub(super) async fn connect(
    target: &Target,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Error> {
    let config = CONFIG.get_or_init(|| config(system_roots())).clone();
    connect_as(target, stream, config).await
}

/// The same, with this client configuration.
pub(super) async fn connect_as(
    target: &Target,
    stream: TcpStream,
    config: Option<Arc<ClientConfig>>,
) -> Result<TlsStream<TcpStream>, Error> {
    let untrusted = |why: String| Error::Untrusted(target.shown(), why);
    let name = match target.host() {
        Host::Address(address) => ServerName::IpAddress((*address).into()),
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| untrusted("no certificate can have this name".to_owned()))?,
    };
    let config = config.ok_or_else(|| {
        untrusted(
            "this farm's machine has no certificate authorities; install ca-certificates and restart the farm"
                .to_owned(),
        )
    })?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| untrusted(error.to_string()))
}
