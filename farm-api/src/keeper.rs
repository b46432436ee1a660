//! Who knows the callers: what a request shows, and what is found out about it.

use std::net::IpAddr;

use async_trait::async_trait;
use darkroom_core::{
    error::{Code, UserError},
    key::Key,
    session::Session,
};
use http::Extensions;

use crate::Caller;

/// Finds out who calls. A coordinator asks its record.
#[async_trait]
pub trait Keeper: Send + Sync + 'static {
    /// The caller that shows this proof.
    ///
    /// # Errors
    /// UNAUTHENTICATED, with reason `UNKNOWN_KEY` or `EXPIRED_KEY`; or what keeps it from finding
    /// out.
    async fn known(&self, proof: &Proof) -> Result<Known, UserError>;

    /// Begins a session, which stands for the key from then on, and says whose key it is.
    ///
    /// # Errors
    /// As [`Keeper::known`].
    async fn begin_session(&self, _key: &Key) -> Result<(Session, Known), UserError> {
        Err(UserError::new(Code::FailedPrecondition, "NO_SESSIONS", "this server has no sessions"))
    }

    /// Counts a call of this caller, which may make it.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, with the time to wait, if its tenant makes too many.
    fn admit(&self, _caller: &Caller) -> Result<(), UserError> {
        Ok(())
    }
}

/// What shows who calls.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A key.
    Key(Key),
    /// A session that a key began.
    Session(Session),
    /// A client certificate that one of the server's authorities has signed: its subject.
    Certificate(String),
}

/// A caller, and until when.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who calls.
    pub caller: Caller,
    /// When the key ends, in seconds since 1970; `None`: never.
    pub expires: Option<i64>,
}

/// Who is at the other end of the connection. Servers keep this in the extensions of a request.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub address: Option<IpAddr>,
    /// Subject of the certificate that it has shown.
    pub certificate: Option<String>,
}

/// Reads the peer from the extensions that a server has made.
pub type PeerOf = fn(&Extensions) -> Peer;
