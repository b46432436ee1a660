//! Why a server that a user named has not answered.

/// Why there is no answer: one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// No address of the name is allowed.
    #[error(
        "{0} has no public address, and this farm sends nothing to loopback, link-local and private addresses"
    )]
    NotAllowed(String),
    /// Nobody answers there.
    #[error("{0} cannot be connected to: {1}")]
    Unreachable(String, String),
    /// The server is not who it should be, or does not speak TLS.
    #[error("{0} is not trusted over TLS: {1}")]
    Untrusted(String, String),
    /// The connection ended, or what came is not HTTP.
    #[error("{0} ended the connection before it had answered: {1}")]
    Broken(String, String),
    /// It took too long.
    #[error("{0} did not answer within {1} s")]
    TimedOut(String, u64),
}
