//! Where a server listens: every program parses `--listen` here.
//!
//! `127.0.0.1:7878`, `[::1]:7878`, `localhost:7878` (every address of the name), `:7878` (every
//! address of the machine, IPv4 and IPv6). `[::]:7878` accepts IPv4 connections too, whatever the
//! system's default is.
//!
//! An address that other machines can reach is listened on with TLS, or with plain text where the
//! operator has said so, and not otherwise.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, lookup_host};

use crate::{
    server::Error,
    tls::{Privacy, ServerTls},
};

/// Most connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often to look for a port that is free at every address of a name.
const TRIES: usize = 16;

/// An address to listen on, as a user wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Every address of this machine.
    All,
    Address(SocketAddr),
    Name(String),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Address(address), port: address.port() }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let wrong = |why: &str| {
            format!(
                "{text:?} is not an address to listen on: {why}; accepted: HOST:PORT, like \
                 127.0.0.1:7878, localhost:7878, \
                 [::1]:7878, or :7878 for every address of this machine"
            )
        };
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(wrong(&format!("{scheme}:// does not belong there")));
        }
        if text.parse::<Ipv6Addr>().is_ok() && !text.starts_with('[') {
            return Err(wrong("an IPv6 address needs brackets, and a port after them"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = Some(port).filter(|_| digits).and_then(|port| port.parse().ok());
        let port: u16 = port.ok_or_else(|| wrong("the port is no number from 0 to 65535"))?;
        if host.is_empty() {
            return Ok(Self { host: Host::All, port });
        }
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !host.chars().all(named) {
            return Err(wrong(if host.contains(':') {
                "an IPv6 address needs brackets"
            } else {
                "the host is neither an address nor a name"
            }));
        }
        if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Err(wrong("the host is no IPv4 address"));
        }
        Ok(Self { host: Host::Name(host.to_owned()), port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::All => write!(f, ":{}", self.port),
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Listen {
    /// The same host with another port, written in the same way.
    fn with_port(&self, port: &str) -> String {
        match &self.host {
            Host::All => format!(":{port}"),
            Host::Address(SocketAddr::V6(address)) => format!("[{}]:{port}", address.ip()),
            Host::Address(address) => format!("{}:{port}", address.ip()),
            Host::Name(name) => format!("{name}:{port}"),
        }
    }
}

/// Listening sockets, all on one port.
#[derive(Debug)]
pub struct Listener {
    pub(crate) sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// If absent, plain text.
    pub(crate) tls: Option<ServerTls>,
}

impl Listener {
    /// Whether its connections are encrypted.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// [`Self::reachable`] as a client's `--farm` writes it: with `https://` if it speaks TLS.
    #[must_use]
    pub fn farm(&self) -> String {
        let scheme = if self.speaks_tls() { "https://" } else { "" };
        format!("{scheme}{}", self.reachable())
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.addresses.iter().all(is_here)
    }

    /// All addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its first address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// An address at which a client on this machine reaches it.
    #[must_use]
    pub fn reachable(&self) -> SocketAddr {
        let address = self.address();
        match address.ip() {
            // A socket for both protocols is reachable by either.
            ip if ip.is_unspecified() => {
                let here = if ip.is_ipv4() || dual_stack(ip) {
                    IpAddr::V4(Ipv4Addr::LOCALHOST)
                } else {
                    IpAddr::V6(Ipv6Addr::LOCALHOST)
                };
                SocketAddr::new(here, address.port())
            }
            _ => address,
        }
    }
}

fn dual_stack(ip: IpAddr) -> bool {
    ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// Listens on every address that `listen` means. With port 0 the system chooses one port for all of
/// them.
///
/// # Errors
/// [`Error::PortInUse`], [`Error::Listen`], or [`Error::PlainText`] for an address beyond loopback
/// without TLS.
pub async fn listen(listen: &Listen, privacy: &Privacy) -> Result<Listener, Error> {
    let tls = match privacy {
        Privacy::Tls(tls) => Some(tls.clone()),
        Privacy::Loopback | Privacy::Plaintext => None,
    };
    let sockets = bind_wanted(listen, privacy).await?;
    let listener = listener(sockets, tls)
        .map_err(|source| Error::Listen { address: listen.to_string(), source })?;
    if !listener.speaks_tls() && !listener.is_loopback() {
        tracing::warn!(
            address = %listen,
            "other machines are served in plain text: anybody on the way can read and change everything; \
             --tls-cert and --tls-key prevent that"
        );
    }
    Ok(listener)
}

/// Whether only this machine can reach it.
fn is_here(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

async fn bind_wanted(listen: &Listen, privacy: &Privacy) -> Result<Vec<Socket>, Error> {
    let failed = |source| Error::Listen { address: listen.to_string(), source };
    let wanted = match &listen.host {
        Host::All => vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port)],
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let found = lookup_host((name.as_str(), listen.port)).await.map_err(failed)?;
            let mut found: Vec<_> = found.collect();
            found.sort_by_key(|address| address.is_ipv6());
            found.dedup();
            found
        }
    };
    if matches!(privacy, Privacy::Loopback) && !wanted.iter().all(is_here) {
        return Err(Error::PlainText { address: listen.to_string() });
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_all(&wanted) {
            Ok(sockets) => return Ok(sockets),
            // The port that the system chose is in use at another address of the name.
            Err(error) if in_use(&error) && listen.port == 0 && tries < TRIES => {}
            Err(error) if in_use(&error) => {
                let host = match &listen.host {
                    Host::All => "every address".to_owned(),
                    _ => listen.with_port("").trim_end_matches(':').to_owned(),
                };
                return Err(Error::PortInUse {
                    port: listen.port,
                    host,
                    other: listen.with_port("PORT"),
                });
            }
            // A machine without IPv6 gets only IPv4.
            Err(error) if listen.host == Host::All && missing(&error) => {
                let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port);
                return bind(address).map(|socket| vec![socket]).map_err(failed);
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// A socket for each of the addresses that this machine has; at least one.
fn bind_all(wanted: &[SocketAddr]) -> io::Result<Vec<Socket>> {
    let mut sockets: Vec<Socket> = Vec::new();
    let mut absent = None;
    for address in wanted {
        let mut address = *address;
        let chosen = sockets.first().map(Socket::local_addr).transpose()?;
        if let Some(chosen) = chosen.and_then(|first| first.as_socket()) {
            address.set_port(chosen.port());
        }
        match bind(address) {
            Ok(socket) => sockets.push(socket),
            // A name may have addresses of other machines, or of a protocol that is turned off.
            Err(error) if missing(&error) => absent = Some(error),
            Err(error) => return Err(error),
        }
    }
    match absent {
        Some(error) if sockets.is_empty() => Err(error),
        None if sockets.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        }
        _ => Ok(sockets),
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack(address.ip()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listener(sockets: Vec<Socket>, tls: Option<ServerTls>) -> io::Result<Listener> {
    let sockets: Vec<_> = sockets
        .into_iter()
        .map(|socket| TcpListener::from_std(socket.into()))
        .collect::<io::Result<_>>()?;
    let addresses = sockets.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    Ok(Listener { sockets, addresses, tls })
}

fn in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    fn parsed(text: &str) -> Listen {
        text.parse().expect(text)
    }

    #[test]
    fn every_form_is_read_and_written_the_same() {
        for text in [
            "127.0.0.1:7878",
            "[::1]:7878",
            "[::]:0",
            "0.0.0.0:1",
            "localhost:7878",
            ":7878",
            "a-b.c_d:1",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be() {
        let cases = [
            ("", "port is missing"),
            ("7878", "port is missing"),
            ("localhost", "port is missing"),
            ("localhost:", "from 0 to 65535"),
            ("localhost:http", "from 0 to 65535"),
            ("localhost:65536", "from 0 to 65535"),
            ("localhost:+1", "from 0 to 65535"),
            (":-1", "from 0 to 65535"),
            ("http://localhost:7878", "http:// does not belong"),
            ("::1", "needs brackets"),
            ("::1:7878", "needs brackets"),
            ("fe80::1%lo:7878", "needs brackets"),
            ("[::1]", "from 0 to 65535"),
            ("[localhost]:1", "neither an address nor a name"),
            ("256.0.0.1:7878", "no IPv4 address"),
            ("127.0.1:7878", "no IPv4 address"),
            ("host name:1", "neither an address nor a name"),
            ("*:7878", "neither an address nor a name"),
        ];
        for (text, why) in cases {
            let message = text.parse::<Listen>().expect_err(text);
            assert!(
                message.contains(why) && message.contains("accepted: HOST:PORT"),
                "{text:?}: {message}"
            );
        }
    }

    async fn reached(address: SocketAddr) {
        TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    }

    #[tokio::test]
    async fn a_name_is_listened_on_at_all_its_addresses_with_one_port() {
        let listener = listen(&parsed("localhost:0"), &Privacy::Loopback).await.expect("listen");
        let found: Vec<_> = lookup_host("localhost:0").await.expect("resolved").collect();
        for address in listener.addresses() {
            assert!(found.iter().any(|found| found.ip() == address.ip()), "{address}");
            assert_eq!(address.port(), listener.address().port());
            reached(*address).await;
        }
        // A port in use at one address counts as in use.
        let again = format!("localhost:{}", listener.address().port());
        let message =
            listen(&parsed(&again), &Privacy::Loopback).await.expect_err("taken").to_string();
        assert!(message.contains("--listen localhost:PORT"), "{message}");
    }

    #[tokio::test]
    async fn every_address_of_the_machine_takes_both_protocols() {
        for text in [":0", "[::]:0"] {
            let listener = match listen(&parsed(text), &Privacy::Plaintext).await {
                Ok(listener) => listener,
                // A machine without IPv6.
                Err(Error::Listen { source, .. }) if missing(&source) && text != ":0" => continue,
                Err(error) => panic!("{error}"),
            };
            let port = listener.address().port();
            reached(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).await;
            if listener.address().is_ipv6() {
                reached(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)).await;
            }
            assert!(listener.reachable().ip().is_loopback(), "{}", listener.reachable());
            reached(listener.reachable()).await;
        }
    }

    #[tokio::test]
    async fn a_name_or_an_address_of_nobody_here_is_refused_by_its_name() {
        for text in ["no-such-host.invalid:0", "192.0.2.1:0"] {
            let listened = listen(&parsed(text), &Privacy::Plaintext).await;
            let message = listened.expect_err(text).to_string();
            assert!(message.starts_with(&format!("cannot listen on {text}")), "{message}");
        }
    }

    #[tokio::test]
    async fn plain_text_beyond_loopback_must_be_asked_for() {
        for text in [":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let refused = listen(&parsed(text), &Privacy::Loopback).await.expect_err(text);
            let message = refused.to_string();
            assert!(matches!(refused, Error::PlainText { .. }), "{message}");
            for words in [text, "--tls-cert", "--tls-key", "--plaintext", "127.0.0.1"] {
                assert!(message.contains(words), "{message}");
            }
            assert_eq!(refused.to_user().field.as_deref(), Some("listen"));
        }
        for text in ["127.0.0.1:0", "127.3.2.1:0", "localhost:0", "[::ffff:127.0.0.1]:0"] {
            match listen(&parsed(text), &Privacy::Loopback).await {
                Ok(listener) => assert!(!listener.speaks_tls(), "{text}"),
                Err(Error::PlainText { .. }) => panic!("{text} is loopback"),
                // A machine without such an address.
                Err(_) => {}
            }
        }
    }
}
