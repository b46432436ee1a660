//! One connection: from its first byte to its end, within the limits of time and of HTTP.

use std::{
    io,
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
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    accept::{Place, Seat},
    guard::Calls,
};

/// How often a quiet connection is asked whether it lives, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes that a peer may send before they are read, of one call and of all.
const WINDOW: u32 = 256 << 10;
/// Bytes of one call's answer that wait for a peer to read.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes of a request's headers.
const HEADERS: u32 = 8 << 10;
/// Bytes of buffer for HTTP/1.
const BUFFER: usize = 64 << 10;
/// Calls that a peer may take back before they were looked at. HTTP/2's implementation allows 20, which a client with
/// many watches exceeds when it ends; each costs at most its headers, so that this many cost 4 MiB.
const TAKEN_BACK: usize = 512;
/// A peer has greeted once it has sent more than HTTP/2's preface.
const GREETING: usize = 24;

/// What ends a connection from outside.
pub(super) struct Ends {
    /// At once.
    pub(super) cut: CancellationToken,
    /// After the calls under way.
    pub(super) shutdown: CancellationToken,
}

/// How long it may do what.
pub(super) struct Times {
    pub(super) options: Arc<Options>,
    pub(super) ends: Ends,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, place: Place, calls: Calls, times: Times) {
    let Times { options, ends } = times;
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE));
    let seat = &place.seat;
    // TLS would begin here, within the time for the greeting.
    let stream = Greeting { stream, seat: Arc::clone(seat), seen: 0 };
    let calls = TowerToHyperService::new(calls.on(&place));
    let protocol = protocol(&options);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), calls));
    let mut deadline = Instant::now() + options.handshake;
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

fn protocol(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.handshake)
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

/// A stream that notes when its peer has greeted.
struct Greeting {
    stream: TcpStream,
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

impl AsyncWrite for Greeting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
