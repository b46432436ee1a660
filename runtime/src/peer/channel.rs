//! A gRPC channel to the first of several addresses that works. It stays with that one, and goes on to the next when a call
//! fails there.
//!
//! What is no answer of a farm's becomes a [`Status`] whose source is a [`Trouble`]: a connection that fails or breaks, a
//! proxy's answer, and a call that ends without a status. A call is sent once; trying again is the caller's part.

use std::{
    error::Error as _,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use darkroom_core::error::UserError;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tonic::{Status, body::Body, transport::Endpoint};
use tower::{BoxError, Service, ServiceExt as _, util::BoxCloneSyncService};

use super::{Address, Addresses, Answer, Kind, Trouble, probe};

/// Longest time for connecting to an address that is the only one.
const CONNECT: Duration = Duration::from_secs(5);
/// The same where there are others: a machine that is gone must not hold a call up for long.
const CONNECT_ONE_OF_MANY: Duration = Duration::from_secs(2);
/// How often the peer is asked whether it lives, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// gRPC's UNAVAILABLE, as it stands in a header.
const UNAVAILABLE: &[u8] = b"14";

/// What calls one address.
pub type Caller = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// See the module. Clones share everything.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    peers: Vec<Peer>,
    current: AtomicUsize,
    /// Whether an address where nobody ever spoke gRPC is looked at.
    probes: bool,
}

struct Peer {
    address: Address,
    caller: Caller,
    /// A gRPC answer came from there.
    answered: AtomicBool,
    trouble: Mutex<Option<Kind>>,
}

impl Peers {
    /// A channel to these addresses. Connects with the first call.
    ///
    /// # Errors
    /// When an address is no URI, which [`Addresses`] does not let happen.
    pub fn connect(addresses: &Addresses) -> Result<Self, UserError> {
        let addresses = addresses.as_slice();
        let connect = if addresses.len() > 1 { CONNECT_ONE_OF_MANY } else { CONNECT };
        let callers = addresses.iter().map(|address| {
            let endpoint = Endpoint::from_shared(address.uri()).map_err(|_| {
                UserError::invalid("farm", format!("farm is \"{address}\", which is no address"))
            })?;
            let channel = endpoint
                .connect_timeout(connect)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true)
                .connect_lazy();
            Ok((address.clone(), BoxCloneSyncService::new(channel.map_err(BoxError::from))))
        });
        let callers = callers.collect::<Result<Vec<_>, UserError>>()?;
        Ok(Self::new(callers, true))
    }

    /// A channel over callers of one's own, as tests have them; at least one.
    #[must_use]
    pub fn over(callers: Vec<(Address, Caller)>) -> Self {
        Self::new(callers, false)
    }

    fn new(callers: Vec<(Address, Caller)>, probes: bool) -> Self {
        let peer = |(address, caller)| Peer {
            address,
            caller,
            answered: AtomicBool::new(false),
            trouble: Mutex::new(None),
        };
        let peers = callers.into_iter().map(peer).collect();
        Self { shared: Arc::new(Shared { peers, current: AtomicUsize::new(0), probes }) }
    }

    /// How many addresses there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.peers.len()
    }

    /// The address that calls go to just now.
    #[must_use]
    pub fn address(&self) -> String {
        self.shared.peers[self.shared.current()].address.to_string()
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.shared.peers.iter().map(|peer| peer.address.to_string()).collect();
        f.debug_tuple("Peers").field(&addresses).finish()
    }
}

impl Service<Request<Body>> for Peers {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Whether the connection is ready is waited for within the call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Arc::clone(&self.shared).call(request))
    }
}

impl Shared {
    fn current(&self) -> usize {
        self.current.load(Ordering::Acquire) % self.peers.len()
    }

    async fn call(self: Arc<Self>, request: Request<Body>) -> Result<Response<Body>, Status> {
        let at = self.current();
        let peer = &self.peers[at];
        let kind = match peer.caller.clone().oneshot(request).await {
            Ok(response) => match Answer::of(&response) {
                None => return Ok(self.farms(at, response)),
                Some(answer) => Kind::Http(answer),
            },
            Err(error) => self.seen(at, Kind::of(&*error)).await,
        };
        Err(self.failed(at, kind))
    }

    /// A farm's answer, watched to its end.
    fn farms(self: &Arc<Self>, at: usize, response: Response<Body>) -> Response<Body> {
        let peer = &self.peers[at];
        peer.answered.store(true, Ordering::Release);
        *peer.trouble() = None;
        let told = response.headers().contains_key(Status::GRPC_STATUS);
        self.look_at(at, response.headers());
        if told {
            return response;
        }
        let shared = Arc::clone(self);
        response.map(|body| Body::new(Watched { body, shared, at, told, over: false }))
    }

    /// A farm that cannot serve just now says so itself; then the next address has its turn.
    fn look_at(&self, at: usize, headers: &HeaderMap) {
        if headers.get(Status::GRPC_STATUS).is_some_and(|status| status.as_bytes() == UNAVAILABLE) {
            self.pass_on(at);
        }
    }

    /// What listens at an address that broke the connection and never spoke gRPC.
    async fn seen(&self, at: usize, kind: Kind) -> Kind {
        let peer = &self.peers[at];
        if !self.probes || peer.answered.load(Ordering::Acquire) || !matches!(kind, Kind::Broken(_)) {
            return kind;
        }
        match probe::look(&peer.address).await {
            Some(what) => Kind::Stranger(what),
            None => kind,
        }
    }

    fn failed(&self, at: usize, kind: Kind) -> Status {
        *self.peers[at].trouble() = Some(kind.clone());
        self.pass_on(at);
        let mut troubles = vec![(self.peers[at].address.to_string(), kind)];
        let mut others = false;
        for (_, peer) in self.peers.iter().enumerate().filter(|(position, _)| *position != at) {
            match &*peer.trouble() {
                Some(kind) => troubles.push((peer.address.to_string(), kind.clone())),
                None => others = true,
            }
        }
        Trouble { at: troubles, others }.into_status()
    }

    /// Lets calls go to the next address, unless another call has seen to that.
    fn pass_on(&self, at: usize) {
        let next = (at + 1) % self.peers.len();
        let _ = self.current.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Peer {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Kind>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a farm's answer. Without a status at its end it was cut.
struct Watched {
    body: Body,
    shared: Arc<Shared>,
    at: usize,
    /// A status came.
    told: bool,
    over: bool,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.told = trailers.contains_key(Status::GRPC_STATUS);
                    self.shared.look_at(self.at, trailers);
                }
                Some(Ok(frame))
            }
            Some(Err(status)) => {
                self.over = true;
                let kind = match status.source() {
                    Some(source) => Kind::of(source),
                    None => Kind::Broken(status.message().to_owned()),
                };
                Some(Err(self.shared.failed(self.at, kind)))
            }
            None => {
                self.over = true;
                (!self.told).then(|| Err(self.shared.failed(self.at, Kind::Cut)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || (self.told && self.body.is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
