//! One connection from its first byte to its end, with limits on time and on HTTP.

use std::{
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    guard::Calls,
    seats::{Place, Seat},
};
use crate::{
    tls::{self, ClientCertificate, ServerTls, Stream},
    write_through::write_through,
};

/// How often a quiet connection is checked for life, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes that a peer may send before they are read: of one call, and of all calls.
const WINDOW: u32 = 256 << 10;
/// Most bytes of one call's answer that wait for the peer to read.
const SEND_BUFFER: usize = 64 << 10;
/// Most bytes of a request's headers.
const HEADERS: u32 = 8 << 10;
/// How long a connection of HTTP/1 may wait for its next request, and take for its headers: longer
/// than proxies and clients keep idle connections, so that none sends a request into one that is
/// being closed. A connection that has not greeted ends much earlier.
const HEAD: Duration = Duration::from_secs(100);
/// Bytes of buffer for HTTP/1.
const BUFFER: usize = 64 << 10;
/// How many calls a peer may cancel before they were looked at. The default of the HTTP/2 library
/// is 20, which a client with many watches exceeds when it ends. Each costs at most its headers, so
/// this many cost 4 MiB.
const TAKEN_BACK: usize = 512;
/// A peer has greeted when it has sent more than HTTP/2's preface.
const GREETING: usize = 24;

/// Requests from outside to end a connection.
pub(super) struct Ends {
    /// At once.
    pub(super) cut: CancellationToken,
    /// After the running calls.
    pub(super) shutdown: CancellationToken,
}

/// How it is to be served.
pub(super) struct Terms {
    pub(super) options: Arc<Options>,
    pub(super) ends: Ends,
    /// If absent, plain text.
    pub(super) tls: Option<ServerTls>,
    /// Where the connection came from.
    pub(super) address: IpAddr,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, place: Place, calls: Calls, terms: Terms) {
    let Terms { options, ends, tls, address } = terms;
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
    let seat = &place.seat;
    // TLS and the greeting share this time.
    let mut deadline = Instant::now() + options.handshake;
    let begun = tokio::select! {
        begun = begin(stream, tls.as_ref()) => begun,
        () = seat.cut.cancelled() => return,
        () = ends.cut.cancelled() => return,
        () = ends.shutdown.cancelled() => return,
        () = tokio::time::sleep_until(deadline) => return,
    };
    let (stream, client) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            tracing::debug!(%error, "a connection ended before TLS was agreed on");
            return;
        }
    };
    let stream = Greeting { stream, seat: Arc::clone(seat), seen: 0 };
    let calls = TowerToHyperService::new(calls.on(&place, address, client.map(Arc::new)));
    let protocol = protocol(&options);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), calls));
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(error = &*error, "a connection ended early");
                }
                return;
            }
            () = seat.cut.cancelled() => return,
            () = ends.cut.cancelled() => return,
            () = ends.shutdown.cancelled(), if !leaving => {
                leaving = true;
                deadline = Instant::now() + options.drain;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(deadline) => {
                if leaving || !seat.greeted.load(Ordering::Relaxed) {
                    return;
                }
                let now = Instant::now();
                match seat.idle_since().map(|since| since + options.idle) {
                    Some(over) if over <= now => {
                        leaving = true;
                        deadline = now + options.drain;
                        connection.as_mut().graceful_shutdown();
                    }
                    Some(over) => deadline = over,
                    None => deadline = now + options.idle,
                }
            }
        }
    }
}

/// The stream to speak HTTP on, and the certificate that the client showed.
async fn begin(
    stream: TcpStream,
    tls: Option<&ServerTls>,
) -> io::Result<(Stream, Option<ClientCertificate>)> {
    match tls {
        None => Ok((tls::plain(stream), None)),
        Some(tls) => tls.accept(stream).await,
    }
}

fn protocol(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        .max_headers(64);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(options.streams)
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS);
    protocol
}

/// A stream that records when its peer has greeted.
struct Greeting {
    stream: Stream,
    seat: Arc<Seat>,
    seen: usize,
}

impl AsyncRead for Greeting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.seen <= GREETING {
            self.seen += buffer.filled().len() - before;
            if self.seen > GREETING {
                self.seat.greeted.store(true, Ordering::Relaxed);
            }
        }
        read
    }
}

write_through!(Greeting);
