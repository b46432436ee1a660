//! TLS for servers and clients: settings, files in PEM, and the streams that come of them.
//!
//! With the feature `tls`, a listener serves a certificate that is read again when its files change
//! ([`ServerTls`]), and a client checks farms that are named with `https://` ([`ClientTls`]).
//! Without the feature the same settings exist, and each is refused in one sentence: the program of
//! `make render` does not compile a TLS library.
//!
//! rustls does the cryptography, with ring. This module knows neither HTTP nor what a certificate's
//! subject may do.

use std::path::{Path, PathBuf};

use clap::Args;
use darkroom_core::error::UserError;

#[cfg(feature = "tls")]
mod client;
mod fault;
#[cfg(feature = "tls")]
mod pem;
#[cfg(feature = "tls")]
mod server;
mod stream;
#[cfg(feature = "tls")]
mod subject;
#[cfg(not(feature = "tls"))]
mod without;

#[cfg(feature = "tls")]
pub(crate) use self::client::system_roots;
pub(crate) use self::stream::{Stream, plain};
#[cfg(not(feature = "tls"))]
pub use self::without::{ClientTls, ServerTls};
#[cfg(feature = "tls")]
pub use self::{client::ClientTls, server::ServerTls};
pub use self::{fault::Fault, stream::ClientCertificate};

/// Chooses the process's provider of cryptography. Every `main` calls this first, because a program
/// may link two of them, and libraries would not know which to use. A second call changes nothing.
pub fn install_provider() {
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// How the connections to a server are kept private.
#[derive(Clone, Debug, Default)]
pub enum Privacy {
    /// Plain text, and only on loopback.
    #[default]
    Loopback,
    /// Plain text, on every address.
    Plaintext,
    /// TLS alone.
    Tls(ServerTls),
}

/// How a server listens. Flags of every program that does.
#[derive(Clone, Debug, Default, Args)]
pub struct ServerSettings {
    /// PEM file with the certificate to serve, followed by those between it and its authority. TLS
    /// alone is spoken then. The file is read again when it changes
    #[arg(long, env = "DARKROOM_TLS_CERT", value_name = "FILE", help_heading = HEADING)]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the key of --tls-cert, without a password
    #[arg(long, env = "DARKROOM_TLS_KEY", value_name = "FILE", help_heading = HEADING)]
    pub tls_key: Option<PathBuf>,
    /// PEM file with the authorities whose client certificates are accepted. A client without a
    /// certificate is still served
    #[arg(long, env = "DARKROOM_TLS_CLIENT_CA", value_name = "FILE", help_heading = HEADING)]
    pub tls_client_ca: Option<PathBuf>,
    /// Listen in plain text even on an address that other machines can reach
    #[arg(
        long,
        env = "DARKROOM_PLAINTEXT",
        value_parser = clap::builder::BoolishValueParser::new(),
        help_heading = HEADING
    )]
    pub plaintext: bool,
}

/// How a client trusts a farm and shows who it is. Flags of every program that calls one.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientSettings {
    /// PEM file with an authority to trust beside the system's, for farms at https://
    #[arg(long, global = true, env = "DARKROOM_CA", value_name = "FILE", help_heading = HEADING)]
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate to show to a farm at https://
    #[arg(
        long,
        global = true,
        env = "DARKROOM_CLIENT_CERT",
        value_name = "FILE",
        help_heading = HEADING
    )]
    pub client_cert: Option<PathBuf>,
    /// PEM file with the key of --client-cert, without a password
    #[arg(
        long,
        global = true,
        env = "DARKROOM_CLIENT_KEY",
        value_name = "FILE",
        help_heading = HEADING
    )]
    pub client_key: Option<PathBuf>,
}

/// The heading of the help for these flags.
const HEADING: &str = "TLS";

impl ServerSettings {
    /// Reads the files.
    ///
    /// # Errors
    /// One sentence for a setting that lacks its partner, or for a file that cannot be used.
    pub fn open(&self) -> Result<Privacy, UserError> {
        let (certificate, key) = match pair(
            ("tls-cert", &self.tls_cert),
            ("tls-key", &self.tls_key),
        )? {
            Some(pair) => pair,
            None if self.tls_client_ca.is_some() => {
                return Err(UserError::invalid(
                    "tls-client-ca",
                    "tls-client-ca is set without tls-cert; client certificates need TLS: set tls-cert and tls-key too",
                ));
            }
            None if self.plaintext => return Ok(Privacy::Plaintext),
            None => return Ok(Privacy::Loopback),
        };
        if self.plaintext {
            return Err(UserError::invalid(
                "plaintext",
                "plaintext and tls-cert are both set; accepted: one of them",
            ));
        }
        ServerTls::open(certificate, key, self.tls_client_ca.as_deref()).map(Privacy::Tls)
    }
}

impl ClientSettings {
    /// The setting that shows that TLS is wanted, if one does.
    #[must_use]
    pub fn asked_by(&self) -> Option<&'static str> {
        let own = self.client_cert.as_ref().or(self.client_key.as_ref());
        if self.ca.is_some() { Some("ca") } else { own.map(|_| "client-cert") }
    }

    /// Refuses a setting that lacks its partner. No file is read.
    ///
    /// # Errors
    /// One sentence that names both.
    pub fn check(&self) -> Result<(), UserError> {
        self.own().map(drop)
    }

    /// Reads the files.
    ///
    /// # Errors
    /// One sentence for a setting that lacks its partner, and for a file that cannot be used.
    pub fn open(&self) -> Result<ClientTls, UserError> {
        ClientTls::open(self.ca.as_deref(), self.own()?)
    }

    fn own(&self) -> Result<Option<(&Path, &Path)>, UserError> {
        pair(("client-cert", &self.client_cert), ("client-key", &self.client_key))
    }
}

/// Two settings, of which both or neither is set.
fn pair<'a>(
    (one, first): (&str, &'a Option<PathBuf>),
    (other, second): (&str, &'a Option<PathBuf>),
) -> Result<Option<(&'a Path, &'a Path)>, UserError> {
    let alone = |set: &str, missing: &str| {
        Err(UserError::invalid(
            missing,
            format!("{set} is set without {missing}; accepted: both, or neither"),
        ))
    };
    match (first.as_deref(), second.as_deref()) {
        (Some(first), Some(second)) => Ok(Some((first, second))),
        (None, None) => Ok(None),
        (Some(_), None) => alone(one, other),
        (None, Some(_)) => alone(other, one),
    }
}
