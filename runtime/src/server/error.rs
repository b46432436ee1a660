//! Why a server did not start, or why it ended.

use std::io;

use darkroom_core::error::{Code, UserError};

/// Why a server did not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is in use.
    #[error(
        "port {port} of {host} is in use by another process; stop that one, or name a free port with --listen {other} (0 lets the system choose)"
    )]
    PortInUse {
        /// The port asked for.
        port: u16,
        /// The host asked for.
        host: String,
        /// How to ask for another port.
        other: String,
    },
    /// Other machines can reach the address, and nothing protects what is sent.
    #[error(
        "listen is {address}, which other machines can reach, and there is no TLS; set --tls-cert and --tls-key, listen on \
         127.0.0.1, or allow plain text with --plaintext"
    )]
    PlainText {
        /// The address asked for.
        address: String,
    },
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// The descriptors for reflection are broken.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Its own tasks failed.
    #[error("the gRPC server failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

impl Error {
    /// The same as a user's error about the setting `listen`.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        let (code, reason) = match self {
            Self::PortInUse { .. } => (Code::FailedPrecondition, "PORT_IN_USE"),
            Self::Listen { .. } => (Code::InvalidArgument, "CANNOT_LISTEN"),
            Self::PlainText { .. } => (Code::InvalidArgument, "PLAIN_TEXT"),
            Self::Reflection(_) | Self::Failed(_) => (Code::Internal, "SERVER_FAILED"),
        };
        UserError {
            field: Some("listen".to_owned()),
            ..UserError::new(code, reason, self.to_string())
        }
    }
}
