//! Connects to an address whose name may stand for several machines, and tries each of them in
//! turn.
//!
//! A new connection is made when the old one has ended. The address that was used last is tried
//! last: a machine that accepts connections and does nothing with them must not be the only one
//! that is ever tried.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tower::Service;

use super::Address;
use crate::{
    tls::{self, ClientTls, Fault, Stream},
    write_through::write_through,
};

/// Most time for resolving a name.
const RESOLVE: Duration = Duration::from_secs(5);
/// Most addresses of a name that are tried.
const MOST: usize = 8;

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
/// Resolves a name to addresses.
pub(super) type Resolve = Arc<dyn Fn(Address) -> Resolving + Send + Sync>;

/// The system's resolver.
pub(super) fn system() -> Resolve {
    Arc::new(|address: Address| {
        Box::pin(async move {
            let found = lookup_host((address.host.as_str(), address.port)).await?;
            Ok(found.collect())
        })
    })
}

/// Most time for connecting to one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// If it is the only one.
    pub(super) single: Duration,
    /// If there are others: a machine that is gone must not delay a call for long.
    pub(super) one_of_many: Duration,
}

/// Connects to one address by trying each of its machines in turn. Clones share which was used
/// last.
#[derive(Clone)]
pub(super) struct Connector {
    address: Address,
    times: Times,
    resolve: Resolve,
    last: Arc<Mutex<Option<IpAddr>>>,
    /// For an address at `https://`.
    tls: Option<ClientTls>,
    heard: Heard,
}

/// The alert that ended the latest connection. A call that waits for a connection learns only
/// that it closed, so the reader of the stream stores the reason here. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Option<Fault>>>);

impl Heard {
    /// What was heard, until the next connection begins.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// A stream that writes down why the other side ended it.
pub(super) struct Listening {
    stream: Stream,
    heard: Heard,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read
            && let Some(fault) = Fault::of_alert(&error.to_string())
        {
            self.heard.set(Some(fault));
        }
        read
    }
}

write_through!(Listening);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The network.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// TLS, at a machine that answers.
    #[error(transparent)]
    Tls(#[from] Fault),
}

impl Connector {
    pub(super) fn new(address: Address, times: Times, resolve: Resolve) -> Self {
        Self { address, times, resolve, last: Arc::default(), tls: None, heard: Heard::default() }
    }

    /// The same, with TLS on each connection.
    pub(super) fn with_tls(self, tls: Option<ClientTls>) -> Self {
        Self { tls, ..self }
    }

    /// What its latest connection heard.
    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    async fn connect(self) -> Result<TokioIo<Listening>, Failure> {
        self.heard.set(None);
        let resolving = timeout(RESOLVE, (self.resolve)(self.address.clone())).await;
        let found = resolving.map_err(|_| late("no answer from the name server in time"))??;
        let places = self.in_turn(found);
        let time = if places.len() > 1 { self.times.one_of_many } else { self.times.single };
        let missing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut failure = Failure::Io(missing);
        for place in places {
            match timeout(time, TcpStream::connect(place)).await {
                Ok(Ok(stream)) => {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.ip());
                    stream.set_nodelay(true)?;
                    match self.secure(stream, time).await {
                        Ok(stream) => {
                            let heard = self.heard.clone();
                            return Ok(TokioIo::new(Listening { stream, heard }));
                        }
                        Err(failed) => failure = failed,
                    }
                }
                Ok(Err(error)) => failure = error.into(),
                Err(_) => failure = late("no connection in time").into(),
            }
        }
        Err(failure)
    }

    /// Speaks TLS, if the address asks for it.
    async fn secure(&self, stream: TcpStream, time: Duration) -> Result<Stream, Failure> {
        match &self.tls {
            None => Ok(tls::plain(stream)),
            Some(tls) => match timeout(time, tls.connect(&self.address.host, stream)).await {
                Ok(agreed) => Ok(agreed?),
                Err(_) => Err(late("TLS was not agreed on in time").into()),
            },
        }
    }

    /// Each address once, starting after the one that was used last.
    fn in_turn(&self, found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut places: Vec<SocketAddr> = Vec::new();
        for place in found {
            if places.len() < MOST && !places.contains(&place) {
                places.push(place);
            }
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = places.iter().position(|place| Some(place.ip()) == last) {
            places.rotate_left(used + 1);
        }
        places
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Listening>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Listening>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    const TIMES: Times =
        Times { single: Duration::from_secs(5), one_of_many: Duration::from_millis(300) };

    fn of(port: u16, hosts: &[u8]) -> Connector {
        let places: Vec<SocketAddr> =
            hosts.iter().map(|host| SocketAddr::from(([127, 0, 0, *host], port))).collect();
        let resolve: Resolve = Arc::new(move |_| {
            let places = places.clone();
            Box::pin(async move { Ok(places) })
        });
        let address = Address { host: "farm".to_owned(), port, tls: false };
        Connector::new(address, TIMES, resolve)
    }

    async fn reached(connector: &Connector) -> io::Result<u8> {
        match connector.clone().connect().await {
            Ok(_) => {}
            Err(Failure::Io(error)) => return Err(error),
            Err(Failure::Tls(fault)) => panic!("{fault}"),
        }
        match *connector.last.lock().expect("not poisoned") {
            Some(IpAddr::V4(place)) => Ok(place.octets()[3]),
            _ => Ok(0),
        }
    }

    #[tokio::test]
    async fn each_address_of_a_name_has_its_turn_and_those_that_are_gone_are_passed_over() {
        let first = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 1), 0)).await.expect("a port");
        let port = first.local_addr().expect("bound").port();
        let third =
            TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), port)).await.expect("the same port");
        // Nobody listens at the second address.
        let connector = of(port, &[1, 2, 3, 1]);
        for expected in [1, 3, 1, 3] {
            assert_eq!(reached(&connector).await.expect("reached"), expected);
        }
        drop(third);
        for _ in 0..2 {
            assert_eq!(reached(&connector).await.expect("reached"), 1);
        }
        drop(first);
        let refused = reached(&connector).await.expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_told() {
        assert_eq!(
            reached(&of(1, &[])).await.expect_err("none").to_string(),
            "the name has no address"
        );
        let never: Resolve = Arc::new(|_| Box::pin(std::future::pending()));
        let connector = Connector { resolve: never, ..of(1, &[]) };
        tokio::time::pause();
        let error = reached(&connector).await.expect_err("no answer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
