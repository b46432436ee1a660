//! Requests to servers that users name: one POST over HTTP/1.1, to addresses that are allowed.
//!
//! - Addresses are checked after the name was resolved, and exactly those that passed are connected
//!   to. So a name that resolves to another address the next time leads nowhere else.
//! - Redirects are not followed, and proxies of the environment are not used.
//! - Of an answer, a limited part is read and dropped, and the whole takes a limited time.
//!
//! It knows nothing of what is sent. Errors are told to those who named the server, so they do not
//! repeat addresses that a name resolved to.

mod address;
mod error;
mod target;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "outgoing/without_tls.rs"]
mod tls;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

pub use self::{
    address::is_public,
    error::Error,
    target::{Host, Target},
};

/// Whether this program can send over TLS.
pub const SPEAKS_TLS: bool = cfg!(feature = "tls");

/// Most addresses of a name that are tried.
const ADDRESSES: usize = 4;
/// Longest try to connect to one address.
const ONE_ADDRESS: Duration = Duration::from_secs(3);
/// Most bytes of an answer's body that are read.
const BODY: usize = 16 << 10;
/// Longest time for which an answer's body is read.
const BODY_TIME: Duration = Duration::from_secs(1);
/// Most bytes of an answer's head.
const HEAD: usize = 16 << 10;
/// Most headers of an answer.
const HEADERS: usize = 100;

/// Which servers may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowedAddresses {
    /// Only those at addresses of the internet.
    #[default]
    Public,
    /// Every one that this machine reaches.
    Anywhere,
}

impl AllowedAddresses {
    /// Whether a server at this address may be called.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Public => is_public(address),
            Self::Anywhere => true,
        }
    }
}

/// Sends a body, and returns the status of the answer.
///
/// # Errors
/// If no answer came within `limit`.
pub async fn post(
    target: &Target,
    allowed: AllowedAddresses,
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> Result<StatusCode, Error> {
    let sent = async {
        let addresses = resolve(target).await?;
        let stream = connect(target, allowed, &addresses).await?;
        if target.is_https() {
            let stream = tls::connect(target, stream).await?;
            exchange(target, stream, headers, body).await
        } else {
            exchange(target, stream, headers, body).await
        }
    };
    match timeout(limit, sent).await {
        Ok(sent) => sent,
        Err(_) => Err(Error::TimedOut(target.shown(), limit.as_secs())),
    }
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Error> {
    let name = match target.host() {
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, target.port())]),
        Host::Name(name) => name.as_str(),
    };
    match lookup_host((name, target.port())).await {
        Ok(found) => Ok(found.collect()),
        // Which resolver said what is of no use to whoever named the host.
        Err(_) => Ok(Vec::new()),
    }
}

/// Connects to one of these addresses, and never to one that is not allowed.
async fn connect(
    target: &Target,
    allowed: AllowedAddresses,
    addresses: &[SocketAddr],
) -> Result<TcpStream, Error> {
    if addresses.is_empty() {
        return Err(Error::NoAddress(target.shown()));
    }
    let tried = addresses.iter().filter(|one| allowed.allows(one.ip())).take(ADDRESSES);
    let mut failed = None;
    for address in tried {
        match timeout(ONE_ADDRESS, TcpStream::connect(address)).await {
            // The machine's own public address leads to services that only it should reach.
            Ok(Ok(stream)) if allowed == AllowedAddresses::Public && is_own(&stream) => {}
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => failed = Some(plain(&error)),
            Err(_) => failed = Some("nobody answers".to_owned()),
        }
    }
    Err(match failed {
        Some(why) => Error::Unreachable(target.shown(), why),
        None => Error::NotAllowed(target.shown()),
    })
}

/// Whether both ends of a connection have the same address, so that it stays on this machine.
fn is_own(stream: &TcpStream) -> bool {
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) => local.ip().to_canonical() == peer.ip().to_canonical(),
        _ => true,
    }
}

async fn exchange<S>(
    target: &Target,
    stream: S,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| Error::Broken(target.shown(), error.to_string());
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD).max_headers(HEADERS);
    let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = target
        .path()
        .parse()
        .map_err(|error: http::uri::InvalidUri| Error::Broken(target.shown(), error.to_string()))?;
    *request.headers_mut() = headers;
    let host = HeaderValue::try_from(target.authority());
    let host = host.map_err(|error| Error::Broken(target.shown(), error.to_string()))?;
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let answered = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        // It has been answered, whatever comes behind the head.
        let _ = timeout(BODY_TIME, drop_body(answer.into_body())).await;
        Ok(status)
    };
    // The connection ends with the answer: dropped together, no task is left behind.
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        biased;
        answered = &mut answered => answered,
        ended = connection => match ended {
            Err(error) => Err(broken(error)),
            // All of the answer has come, and waits to be read.
            Ok(()) => answered.await,
        },
    }
}

/// Reads a limited part of an answer's body.
async fn drop_body(mut body: hyper::body::Incoming) {
    let mut left = BODY;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length >= left {
            return;
        }
        left -= length;
    }
}

/// An error of the system in few words, without addresses.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
        io::ErrorKind::TimedOut => "nobody answers".to_owned(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "there is no way to it from this farm".to_owned()
        }
        kind => kind.to_string(),
    }
}

#[cfg(test)]
#[path = "outgoing/tests.rs"]
mod tests;
