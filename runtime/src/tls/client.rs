//! A client's trust, and the certificate that it shows.

use std::{
    fmt, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use darkroom_core::error::{Code, UserError};
use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    crypto::ring,
    pki_types::{ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::{
    fault::Fault,
    pem::{Named, date},
    stream::Stream,
};

/// The only protocol that a client of a farm speaks.
const HTTP2: &[u8] = b"h2";
/// Most names of a certificate that a sentence repeats.
const NAMES: usize = 8;

/// The authorities that the system trusts.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A certificate of the system that cannot be read is one that nobody is trusted by.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A client's TLS. Clones share it. The files are read once.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    pub(super) fn open(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Self, UserError> {
        let mut roots = system_roots();
        if let Some(path) = ca {
            roots.add_parsable_certificates(Named::read("ca", path)?.authorities()?);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                UserError::new(Code::Internal, "INTERNAL", format!("TLS cannot be set up: {error}"))
            })?
            .with_root_certificates(roots);
        let mut config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = Named::read("client-cert", certificate)?;
                let key = Named::read("client-key", key)?;
                key.warn_if_others_may_read();
                certificate.warn_of_dates();
                config
                    .with_client_auth_cert(certificate.certificates()?, key.key()?)
                    .map_err(|error| match error {
                        Error::InconsistentKeys(_) => key.wrong(&format!(
                            "which is not the key of {}; accepted: the key that the certificate was made for",
                            certificate.shown()
                        )),
                        Error::InvalidCertificate(_) => certificate.wrong("which cannot be used"),
                        error => key.wrong(&format!("whose key cannot be used: {error}")),
                    })?
            }
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// Speaks TLS with the farm at `host`. The caller limits the time.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> Result<Stream, Fault> {
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned())
            .map_err(|_| Fault::NoName(host.to_owned()))?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, stream).await.map_err(|error| fault(&error, host))?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(Fault::NoHttp2);
        }
        Ok(Either::Right(Box::new(stream.into())))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

fn fault(error: &io::Error, host: &str) -> Fault {
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Fault::Ended,
            _ => Fault::Other(error.to_string()),
        };
    };
    match cause {
        Error::InvalidCertificate(wrong) => certificate(wrong, host),
        Error::InvalidMessage(_) => Fault::PlainText,
        Error::AlertReceived(_) => {
            let text = cause.to_string();
            Fault::of_alert(&text).unwrap_or(Fault::Other(text))
        }
        other => Fault::Other(other.to_string()),
    }
}

fn certificate(wrong: &CertificateError, host: &str) -> Fault {
    let at = |time: &UnixTime| date(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match wrong {
        // A bad signature: an authority of that name is trusted, but has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Fault::UnknownAuthority,
        CertificateError::ExpiredContext { time, not_after } => {
            Fault::Expired { until: at(not_after), now: at(time) }
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            Fault::NotYetValid { from: at(not_before), now: at(time) }
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            Fault::WrongName { wanted: host.to_owned(), names: names(presented) }
        }
        other if other.to_string().contains("CaUsedAsEndEntity") => Fault::OwnAuthority,
        other => Fault::Other(format!("its certificate is refused: {other}")),
    }
}

/// What a certificate is for, from rustls's list (`DnsName("farm.example.org")`).
fn names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').escape_debug().to_string()
    };
    match presented {
        [] => "no name".to_owned(),
        some => some.iter().take(NAMES).map(plain).collect::<Vec<_>>().join(", "),
    }
}
