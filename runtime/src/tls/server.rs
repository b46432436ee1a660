//! A server's certificate, key and client authorities, which are replaced together when their files
//! change.
//!
//! A change counts when it can be used. One that cannot be used is looked at twice, because the
//! certificate and its key are two files and cannot be replaced at once; then the log says why it
//! is not used, once, and what was served before is served on. Connections that are open keep what
//! they began with.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use darkroom_core::error::{Code, UserError};
use rustls::{Error, RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use super::{
    pem::Named,
    stream::{ClientCertificate, Stream},
    subject,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often the log tells of a certificate that is over, or soon.
const TELL: Duration = Duration::from_secs(24 * 3600);
/// Most bytes that are read of a peer whose connection is about to end.
const LEFT: u64 = 64 << 10;
/// Answer to a browser, or another client of HTTP/1, that does not speak TLS.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\nThis port of a Darkroom farm speaks TLS. Use https://.\n";

/// A server's TLS. Clones share the certificate.
#[derive(Clone)]
pub struct ServerTls {
    shared: Arc<Shared>,
}

struct Shared {
    paths: Paths,
    /// What new connections get.
    config: RwLock<Arc<ServerConfig>>,
    /// What the first configuration was made of.
    first: Contents,
}

#[derive(Clone)]
struct Paths {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// The files' contents.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Named,
    key: Named,
    client_ca: Option<Named>,
}

impl Paths {
    fn read(&self) -> Result<Contents, UserError> {
        let client_ca = self.client_ca.as_ref();
        Ok(Contents {
            certificate: Named::read("tls-cert", &self.certificate)?,
            key: Named::read("tls-key", &self.key)?,
            client_ca: client_ca.map(|path| Named::read("tls-client-ca", path)).transpose()?,
        })
    }
}

impl Contents {
    fn config(&self) -> Result<ServerConfig, UserError> {
        let internal = |error: &dyn fmt::Display| {
            UserError::new(Code::Internal, "INTERNAL", format!("TLS cannot be set up: {error}"))
        };
        let certificates = self.certificate.certificates()?;
        let key = self.key.key()?;
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| internal(&error))?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(file.authorities()?);
                let clients =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .allow_unauthenticated()
                        .build()
                        .map_err(|error| internal(&error))?;
                config.with_client_cert_verifier(clients)
            }
        };
        let mut config =
            config.with_single_cert(certificates, key).map_err(|error| {
                match error {
            Error::InconsistentKeys(_) => self.key.wrong(&format!(
                "which is not the key of {}; accepted: the key that the certificate was made for",
                self.certificate.shown()
            )),
            Error::InvalidCertificate(_) => self.certificate.wrong("which cannot be used"),
            error => self.key.wrong(&format!("whose key cannot be used: {error}")),
        }
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn warn(&self) {
        self.key.warn_if_others_may_read();
        self.certificate.warn_of_dates();
    }
}

impl ServerTls {
    pub(super) fn open(
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Self, UserError> {
        let paths = Paths {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: client_ca.map(Path::to_owned),
        };
        let first = paths.read()?;
        let config = first.config()?;
        first.warn();
        let config = RwLock::new(Arc::new(config));
        Ok(Self { shared: Arc::new(Shared { paths, config, first }) })
    }

    /// Speaks TLS on a new connection. The caller limits the time.
    pub(crate) async fn accept(
        &self,
        mut stream: TcpStream,
    ) -> io::Result<(Stream, Option<ClientCertificate>)> {
        if speaks_http1(&stream).await? {
            stream.write_all(SPEAK_TLS).await?;
            linger(stream).await;
            return Err(io::Error::other("the client speaks plain HTTP"));
        }
        let config = self.shared.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let accepted = TlsAcceptor::from(config).accept(stream).into_fallible().await;
        let stream = match accepted {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(error);
            }
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let client = match shown {
            None => None,
            Some(certificate) => Some(ClientCertificate {
                subject: subject::of(certificate).ok_or_else(|| {
                    io::Error::other("the client certificate has no subject that can be read")
                })?,
            }),
        };
        Ok((Either::Right(Box::new(stream.into())), client))
    }

    /// Looks at the files, for ever.
    pub(crate) async fn watch(&self) {
        let mut tried = Ok(self.shared.first.clone());
        let mut doubtful = None;
        let mut told = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let paths = self.shared.paths.clone();
            let Ok(looked) = tokio::task::spawn_blocking(move || paths.read()).await else {
                continue;
            };
            if told.elapsed() > TELL {
                told = Instant::now();
                if let Ok(contents) = &looked {
                    contents.warn();
                }
            }
            if looked == tried {
                doubtful = None;
                continue;
            }
            match looked.as_ref().map_err(Clone::clone).and_then(Contents::config) {
                Ok(config) => {
                    *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) =
                        Arc::new(config);
                    tracing::info!("new connections get the certificate that was just read");
                    if let Ok(contents) = &looked {
                        contents.warn();
                    }
                    (tried, doubtful) = (looked, None);
                }
                Err(error) if doubtful.as_ref() == Some(&looked) => {
                    tracing::warn!(
                        reason = error.message,
                        "changed certificate files cannot be used; the earlier ones stay in use"
                    );
                    (tried, doubtful) = (looked, None);
                }
                Err(_) => doubtful = Some(looked),
            }
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(&self.shared.paths.certificate).finish()
    }
}

/// Ends a connection so that its peer can read why: what the peer has sent already is read first,
/// or the system would reset the connection and the reason with it.
async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(&mut stream.take(LEFT), &mut tokio::io::sink()).await;
}

/// Whether the first bytes are those of an HTTP/1 request. They are not taken. HTTP/2 without TLS
/// gets TLS's own answer.
async fn speaks_http1(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 4];
    let length = stream.peek(&mut first).await?;
    Ok(matches!(&first[..length], b"GET " | b"HEAD" | b"POST" | b"PUT " | b"OPTI" | b"CONN"))
}
