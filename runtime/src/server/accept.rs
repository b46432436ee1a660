//! Accepts connections. A new one gets a place (`seats`) and is served, or is closed at once.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use super::{Options, connection, guard::Calls, seats::Seats};
use crate::{deadline::Deadline, descriptors, listen::Listener, tls::ServerTls};

/// Pause after the system could not accept because descriptors or memory ran out.
const BREATHER: Duration = Duration::from_millis(100);

/// Accepts connections and serves them.
#[derive(Clone)]
pub(super) struct Door {
    options: Arc<Options>,
    seats: Arc<Seats>,
    calls: Calls,
    connections: TaskTracker,
    /// Ends every connection at once.
    cut: CancellationToken,
}

impl Door {
    pub(super) fn new(options: Options, calls: Deadline<Routes>) -> Self {
        let most =
            options.connections.min(descriptors::for_connections(descriptors::raise())).max(1);
        let calls = Calls::new(&options, calls);
        Self {
            options: Arc::new(options),
            seats: Arc::new(Seats::new(most)),
            calls,
            connections: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts on every socket until `shutdown`, and keeps the certificate up to date meanwhile.
    pub(super) fn open(&self, listener: Listener, shutdown: &CancellationToken) -> JoinSet<()> {
        let mut open = JoinSet::new();
        if let Some(tls) = listener.tls.clone() {
            let shutdown = shutdown.clone();
            open.spawn(async move {
                shutdown.run_until_cancelled(tls.watch()).await;
            });
        }
        for socket in listener.sockets {
            open.spawn(self.clone().accept(socket, listener.tls.clone(), shutdown.clone()));
        }
        open
    }

    /// Resolves when no connection is left. Call it after accepting has stopped.
    pub(super) async fn emptied(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    async fn accept(
        self,
        socket: TcpListener,
        tls: Option<ServerTls>,
        shutdown: CancellationToken,
    ) {
        let mut failing = false;
        loop {
            let descriptor = tokio::select! {
                descriptor = self.seats.descriptor() => descriptor,
                () = shutdown.cancelled() => return,
            };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // The peer has already left, which is no error.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "connections cannot be accepted; retrying");
                    }
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
            };
            if std::mem::take(&mut failing) {
                tracing::info!("connections are accepted again");
            }
            let address = peer.ip().to_canonical();
            let Some(place) = self.seats.admit(address, descriptor) else {
                continue;
            };
            let ends = connection::Ends { cut: self.cut.clone(), shutdown: shutdown.clone() };
            let served = connection::serve(
                stream,
                place,
                self.calls.clone(),
                connection::Terms {
                    options: Arc::clone(&self.options),
                    ends,
                    tls: tls.clone(),
                    address,
                },
            );
            self.connections.spawn(served);
        }
    }
}
