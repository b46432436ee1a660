//! A gRPC channel to the first of several addresses that works. It stays with that address, and
//! moves to the next one when a call fails there. If a name stands for several machines, each of
//! them is tried, and another one when the connection ends (`connect`).
//!
//! Whatever is not a farm's answer becomes a [`Status`] whose source is a [`Trouble`]: a connection
//! that fails or breaks, a proxy's answer, and a call that ends without a status. A call is sent
//! once; the caller decides about retries.
//!
//! Each call shows the key for its address, marked so that no log has it.

use std::{
    error::Error as _,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use darkroom_core::error::UserError;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::Frame;
use tonic::{Status, body::Body, transport::Endpoint};
use tower::{BoxError, Service, ServiceExt as _, util::BoxCloneSyncService};

use super::{
    Address, Addresses, Answer, Kind, Trouble,
    connect::{self, Connector, Heard, Resolve, Times},
    probe,
};
use crate::{
    credential::{self, Credential, Credentials, Ending},
    tls::{ClientSettings, ClientTls},
};

/// Most time for connecting to an address.
const CONNECT: Times =
    Times { single: Duration::from_secs(5), one_of_many: Duration::from_secs(2) };
/// How often the peer is checked for life, and how long its answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// gRPC's UNAVAILABLE, as a header's value.
const UNAVAILABLE: &[u8] = b"14";

/// Calls one address.
pub type Caller = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// A channel to the first address that works. Clones share everything.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    peers: Vec<Peer>,
    current: AtomicUsize,
    /// Whether to probe an address where nothing has spoken gRPC yet.
    probes: bool,
    /// Who is told, once, that the key ends soon.
    tell: Option<fn(&Ending)>,
    told: AtomicBool,
}

struct Peer {
    address: Address,
    caller: Caller,
    /// The key that it is shown.
    shown: Option<Shown>,
    /// A gRPC answer has come from there.
    answered: AtomicBool,
    trouble: Mutex<Option<Kind>>,
    /// What the latest connection heard; none of callers that tests give.
    heard: Option<Heard>,
}

/// A key, and the header that shows it.
struct Shown {
    credential: Credential,
    header: HeaderValue,
}

impl Shown {
    fn new(credential: &Credential) -> Self {
        Self { credential: credential.clone(), header: credential.header() }
    }
}

impl Peers {
    /// A channel to these addresses that shows no key. It connects with the first call.
    ///
    /// # Errors
    /// When the settings of TLS cannot be used, or an address is not a URI; [`Addresses`] prevents
    /// the latter.
    pub fn connect(addresses: &Addresses, tls: &ClientSettings) -> Result<Self, UserError> {
        Self::connect_with(addresses, addresses.secure(tls)?, &Credentials::none())
    }

    /// The same with TLS that was opened before ([`Addresses::secure`]), and with keys: every call
    /// to an address shows the key for it.
    ///
    /// # Errors
    /// When an address is not a URI; [`Addresses`] prevents that.
    pub fn connect_with(
        addresses: &Addresses,
        tls: Option<ClientTls>,
        keys: &Credentials,
    ) -> Result<Self, UserError> {
        Self::connect_by(addresses, tls, keys, &connect::system())
    }

    /// The same with another resolver.
    fn connect_by(
        addresses: &Addresses,
        tls: Option<ClientTls>,
        keys: &Credentials,
        resolve: &Resolve,
    ) -> Result<Self, UserError> {
        let addresses = addresses.as_slice();
        let single = if addresses.len() > 1 { CONNECT.one_of_many } else { CONNECT.single };
        let times = Times { single, ..CONNECT };
        let callers = addresses.iter().map(|address| {
            let endpoint = Endpoint::from_shared(address.uri()).map_err(|_| {
                UserError::invalid("farm", format!("farm is \"{address}\", which is no address"))
            })?;
            let connector = Connector::new(address.clone(), times, Arc::clone(resolve))
                .with_tls(tls.clone().filter(|_| address.tls));
            let heard = connector.heard();
            let channel = endpoint
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true)
                .connect_with_connector_lazy(connector);
            let caller = BoxCloneSyncService::new(channel.map_err(BoxError::from));
            Ok(Peer::new(address.clone(), caller, Some(heard), keys))
        });
        let peers = callers.collect::<Result<Vec<_>, UserError>>()?;
        Ok(Self::new(peers, keys, true))
    }

    /// A channel over other callers, for tests; at least one.
    #[must_use]
    pub fn over(callers: Vec<(Address, Caller)>) -> Self {
        Self::over_with(callers, &Credentials::none())
    }

    /// The same with keys.
    #[must_use]
    pub fn over_with(callers: Vec<(Address, Caller)>, keys: &Credentials) -> Self {
        let unheard = |(address, caller)| Peer::new(address, caller, None, keys);
        Self::new(callers.into_iter().map(unheard).collect(), keys, false)
    }

    fn new(peers: Vec<Peer>, keys: &Credentials, probes: bool) -> Self {
        let (current, told) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { peers, current, probes, tell: keys.tell(), told }) }
    }

    /// How many addresses there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.peers.len()
    }

    /// The address that calls go to now.
    #[must_use]
    pub fn address(&self) -> String {
        self.shared.peers[self.shared.current()].address.to_string()
    }

    /// A farm's refusal, with what to do about the key that it was asked with.
    #[must_use]
    pub fn advise(&self, refusal: UserError) -> UserError {
        let peer = &self.shared.peers[self.shared.current()];
        credential::advise(refusal, &peer.address, peer.credential())
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> =
            self.shared.peers.iter().map(|peer| peer.address.to_string()).collect();
        f.debug_tuple("Peers").field(&addresses).finish()
    }
}

impl Service<Request<Body>> for Peers {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // The call itself waits until the connection is ready.
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

    async fn call(self: Arc<Self>, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let at = self.current();
        let peer = &self.peers[at];
        if let Some(shown) = &peer.shown {
            request.headers_mut().insert(header::AUTHORIZATION, shown.header.clone());
        }
        let kind = match peer.caller.clone().oneshot(request).await {
            Ok(response) => match Answer::of(&response) {
                None => return Ok(self.farms(at, response)),
                Some(answer) => Kind::Http(answer),
            },
            Err(error) => self.seen(at, Kind::of(&*error)).await,
        };
        Err(self.failed(at, kind))
    }

    /// A farm's answer, watched until its end.
    fn farms(self: &Arc<Self>, at: usize, mut response: Response<Body>) -> Response<Body> {
        drop_broken_details(response.headers_mut());
        let peer = &self.peers[at];
        peer.answered.store(true, Ordering::Release);
        *peer.trouble() = None;
        self.warn_of_end(peer, response.headers());
        let told = response.headers().contains_key(Status::GRPC_STATUS);
        self.look_at(at, response.headers());
        if told {
            return response;
        }
        let shared = Arc::clone(self);
        response.map(|body| Body::new(Watched { body, shared, at, told, over: false }))
    }

    /// The farm itself says that it cannot serve now, so the next address is tried.
    fn look_at(&self, at: usize, headers: &HeaderMap) {
        if headers.get(Status::GRPC_STATUS).is_some_and(|status| status.as_bytes() == UNAVAILABLE) {
            self.pass_on(at);
        }
    }

    /// The farm says with its answers when the key ends.
    fn warn_of_end(&self, peer: &Peer, headers: &HeaderMap) {
        let (Some(tell), Some(used)) = (self.tell, peer.credential()) else { return };
        if let Some(ending) = Ending::of(headers, SystemTime::now(), used)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tell(&ending);
        }
    }

    /// Why the other side ended the connection, if it said so, or what listens at an address that
    /// broke it and never spoke gRPC.
    async fn seen(&self, at: usize, kind: Kind) -> Kind {
        let peer = &self.peers[at];
        if let (Kind::Broken(_) | Kind::Unreachable(_), Some(heard)) = (&kind, &peer.heard)
            && let Some(fault) = heard.fault()
        {
            return Kind::Tls(fault);
        }
        let looks = self.probes && !peer.answered.load(Ordering::Acquire) && !peer.address.tls;
        if !looks || !matches!(kind, Kind::Broken(_)) {
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

    /// Moves calls to the next address, unless another call has done that already.
    fn pass_on(&self, at: usize) {
        let next = (at + 1) % self.peers.len();
        let _ = self.current.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Peer {
    fn new(address: Address, caller: Caller, heard: Option<Heard>, keys: &Credentials) -> Self {
        Self {
            shown: keys.of(&address).map(Shown::new),
            address,
            caller,
            answered: AtomicBool::new(false),
            trouble: Mutex::new(None),
            heard,
        }
    }

    fn credential(&self) -> Option<&Credential> {
        self.shown.as_ref().map(|shown| &shown.credential)
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<Kind>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decodes an error's details, in base64 with or without padding.
const DETAILS: &str = "grpc-status-details-bin";
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Removes details that are not base64, because tonic panics on them.
fn drop_broken_details(headers: &mut HeaderMap) {
    if headers.get(DETAILS).is_some_and(|details| BASE64.decode(details.as_bytes()).is_err()) {
        headers.remove(DETAILS);
    }
}

/// The body of a farm's answer. If it has no status at its end, it was cut off.
struct Watched {
    body: Body,
    shared: Arc<Shared>,
    at: usize,
    /// Whether a status came.
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
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    drop_broken_details(trailers);
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::net::TcpListener;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    #[test]
    fn details_that_are_no_base64_are_removed_and_others_stay() {
        let after = |details: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("3"));
            headers.insert(DETAILS, http::HeaderValue::from_bytes(details).expect("a value"));
            drop_broken_details(&mut headers);
            // This panics if the details are not base64.
            let status = Status::from_header_map(&headers).expect("a status");
            (headers.contains_key(DETAILS), status.details().len())
        };
        assert_eq!(
            [after(b"AAAA"), after(b"AAA="), after(b"AAA"), after(b"")],
            [(true, 3), (true, 2), (true, 2), (true, 0)]
        );
        for broken in [&b"%%%"[..], b"A", b"AA==AA", b"\xff\xfe", b"a b"] {
            assert_eq!(after(broken), (false, 0), "{broken:?}");
        }
    }

    /// One machine of a name accepts connections and closes them: a proxy is still there, but the
    /// farm behind it is gone.
    #[tokio::test]
    async fn a_name_whose_connected_machine_dies_goes_on_with_another() {
        let dead = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 1), 0)).await.expect("a port");
        let port = dead.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = dead.accept().await {
                drop(stream);
            }
        });
        let living =
            TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await.expect("the same port");
        let (_, service) = tonic_health::server::health_reporter();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(living);
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
        );
        let resolve: Resolve = Arc::new(move |_| {
            let places = [1, 2].map(|host| SocketAddr::from(([127, 0, 0, host], port)));
            Box::pin(async move { Ok(places.to_vec()) })
        });
        let addresses = Addresses::parse(&format!("farm:{port}")).expect("an address");
        let peers = Peers::connect_by(&addresses, None, &Credentials::none(), &resolve)
            .expect("an address");
        let mut client = HealthClient::new(peers);
        let mut answered = false;
        for _ in 0..4 {
            answered |= client.check(HealthCheckRequest::default()).await.is_ok();
        }
        assert!(answered, "the other machine was never asked");
    }
}
