//! What a handshake leaves: a stream, and the certificate that the client has shown.

/// A connection, encrypted or not.
#[cfg(feature = "tls")]
pub(crate) type Stream = tokio_util::either::Either<
    tokio::net::TcpStream,
    Box<tokio_rustls::TlsStream<tokio::net::TcpStream>>,
>;
/// A connection. This program encrypts none.
#[cfg(not(feature = "tls"))]
pub(crate) type Stream = tokio::net::TcpStream;

/// A connection in plain text.
#[cfg(feature = "tls")]
pub(crate) fn plain(stream: tokio::net::TcpStream) -> Stream {
    tokio_util::either::Either::Left(stream)
}

/// A connection in plain text.
#[cfg(not(feature = "tls"))]
pub(crate) fn plain(stream: tokio::net::TcpStream) -> Stream {
    stream
}

/// The certificate that a client has shown and that one of the server's client authorities has
/// signed. An extension of every request on the connection (as `Arc<ClientCertificate>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject, as RFC 4514 writes it except for the order, which is the certificate's:
    /// `O=Studio,CN=worker-1`. Special characters of a value are escaped, so two subjects with the
    /// same text are the same.
    pub subject: String,
}
