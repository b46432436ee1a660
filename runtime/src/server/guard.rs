//! What every call must get before tonic sees it: a place among the running calls, and memory for
//! its messages.

use std::{
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{body::Body, service::Routes};
use tower::Service;

use super::{
    Options, OverWeb, Web,
    answer::{Answer, Place},
    budget::{Budget, Holding, Metered, Purse},
    refusal::{busy_status, not_http2},
    seats::{self, Busy, Seat, Seats, Unfinished},
};
use crate::{deadline::Deadline, tls::ClientCertificate};

/// How long a call waits until another connection gives up a place.
const GIVES_WAY: Duration = Duration::from_secs(2);
/// Health checks are answered whatever the number of calls.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Prefixes of paths of calls that may stay open for ever, in every server.
const LASTING: [&str; 2] = ["/grpc.health.v1.Health/Watch", "/grpc.reflection."];

/// The address that a connection came from. An extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The memory that a request's body counts for. An extension of every request.
///
/// It is given back when the answer begins. A handler that waits long after it has read the body
/// should give it back itself.
#[derive(Clone)]
pub struct BodyMemory(Holding);

impl BodyMemory {
    /// Gives it back.
    pub fn release(&self) {
        self.0.release();
    }
}

/// All calls of a server.
#[derive(Clone)]
pub(super) struct Calls {
    inner: Deadline<Routes>,
    room: Arc<Semaphore>,
    /// Places for calls that may stay open for ever.
    lasting_room: Arc<Semaphore>,
    lasting: Arc<[String]>,
    budget: Arc<Budget>,
    web: Option<Web>,
    plain: Arc<[String]>,
    unread: Duration,
}

impl Calls {
    pub(super) fn new(options: &Options, inner: Deadline<Routes>) -> Self {
        Self {
            inner,
            room: Arc::new(Semaphore::new(options.calls)),
            lasting_room: Arc::new(Semaphore::new((options.calls * 3 / 4).max(1))),
            lasting: options.lasting.iter().chain(&options.limits.long).cloned().collect(),
            budget: Arc::new(Budget::new(options)),
            web: options.web,
            plain: options.plain.clone().into(),
            unread: options.unread,
        }
    }

    /// The calls of one connection, whose client is at `address` and has shown `client`.
    pub(super) fn on(
        self,
        place: &seats::Place,
        address: IpAddr,
        client: Option<Arc<ClientCertificate>>,
    ) -> ConnectionCalls {
        let purse = self.budget.purse();
        ConnectionCalls {
            calls: self,
            purse,
            address: ClientAddress(address),
            client,
            seat: Arc::clone(&place.seat),
            seats: Arc::clone(&place.seats),
        }
    }
}

/// The calls of one connection.
#[derive(Clone)]
pub(super) struct ConnectionCalls {
    calls: Calls,
    purse: Purse,
    address: ClientAddress,
    client: Option<Arc<ClientCertificate>>,
    seat: Arc<Seat>,
    seats: Arc<Seats>,
}

impl ConnectionCalls {
    /// A place among the calls of a kind. If all are in use, the connection with the most of them
    /// gives way.
    async fn enter(
        room: &Arc<Semaphore>,
        (seats, seat): (&Seats, &Arc<Seat>),
        count: fn(&Seat) -> usize,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return Some(permit);
        }
        if !seats.cut_heaviest(seat, count) {
            return None;
        }
        tokio::time::timeout(GIVES_WAY, Arc::clone(room).acquire_owned()).await.ok()?.ok()
    }
}

/// The refusal of a call for which there is no room.
fn busy(web: Option<OverWeb>, message: &str) -> Response<Body> {
    match web {
        Some(web) => web.busy(message),
        None => busy_status(message).into_http(),
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Service<Request<Incoming>> for ConnectionCalls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.calls.inner, cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Answering {
        let path = request.uri().path();
        let web = OverWeb::of(self.calls.web, (request.method(), path), request.headers());
        if web.is_none() && request.version() < Version::HTTP_2 {
            return Box::pin(std::future::ready(Ok(not_http2())));
        }
        let lasts = LASTING.iter().any(|part| path.starts_with(part))
            || self.calls.lasting.iter().any(|lasting| lasting == path)
            || web.is_some_and(|OverWeb(request)| request.lasts || request.is_long());
        let is_health = web.is_none() && path == HEALTH;
        let (calls, purse) = (self.calls.clone(), self.purse.clone());
        let (address, client) = (self.address, self.client.clone());
        let (seats, seat) = (Arc::clone(&self.seats), Arc::clone(&self.seat));
        // The service that reported ready must be the one that is called.
        let mut inner = std::mem::replace(&mut self.calls.inner, calls.inner.clone());
        Box::pin(async move {
            let connection = (&*seats, &seat);
            let lasting = match lasts {
                true => Self::enter(&calls.lasting_room, connection, Seat::lasting).await,
                false => None,
            };
            if lasts && lasting.is_none() {
                let refused = "the farm serves as many watches and streams as it can; try again";
                return Ok(busy(web, refused));
            }
            let room = match is_health {
                true => Arc::clone(&calls.room).try_acquire_owned().ok(),
                false => Self::enter(&calls.room, connection, Seat::busy).await,
            };
            if room.is_none() && !is_health {
                return Ok(busy(web, "the farm answers as many calls as it can; try again"));
            }
            let place = Place { _busy: Busy::new(&seat, lasts), _room: room, _lasting: lasting };
            let unfinished = (!lasts).then(|| Unfinished::new(&seat));
            let (mut parts, body) = request.into_parts();
            if calls.plain.iter().any(|path| path == parts.uri.path()) {
                parts.headers.remove("grpc-accept-encoding");
            }
            parts.extensions.insert(address);
            if let Some(client) = client {
                parts.extensions.insert(client);
            }
            if let Some(web) = web {
                parts.extensions.insert(web);
            }
            let (body, held) = Metered::new((body, unfinished), &parts, &calls.budget, purse);
            parts.extensions.insert(BodyMemory(held.clone()));
            let answer = inner.call(Request::from_parts(parts, Body::new(body))).await;
            // The handler has read what it needs of a complete request.
            held.release();
            answer
                .map(|answer| answer.map(|body| Body::new(Answer::new(body, place, calls.unread))))
        })
    }
}
