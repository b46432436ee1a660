//! What every call passes before it is tonic's: a place among the calls under way, and memory for its messages.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Status, body::Body, service::Routes};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;

use super::{
    Options,
    accept::{self, Busy, Seat, Seats, Unfinished},
    answer::{Answer, Place},
    budget::{Budget, Metered, Purse},
};
use crate::deadline::Deadline;

/// When a caller that was refused for lack of room may come again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a call waits for the place that another connection gives up for it.
const GIVES_WAY: Duration = Duration::from_secs(2);
/// Health checks are answered however many calls there are.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Beginnings of paths of calls of every server that may stay open for ever.
const LASTING: [&str; 2] = ["/grpc.health.v1.Health/Watch", "/grpc.reflection."];

/// All calls of a server.
#[derive(Clone)]
pub(super) struct Calls {
    inner: Deadline<Routes>,
    room: Arc<Semaphore>,
    /// Places of calls that may stay for ever.
    lasting_room: Arc<Semaphore>,
    lasting: Arc<[String]>,
    budget: Arc<Budget>,
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
            plain: options.plain.clone().into(),
            unread: options.unread,
        }
    }

    /// The calls of one connection.
    pub(super) fn on(self, place: &accept::Place) -> ConnectionCalls {
        let purse = self.budget.purse();
        ConnectionCalls { calls: self, purse, seat: Arc::clone(&place.seat), seats: Arc::clone(&place.seats) }
    }
}

/// The calls of one connection.
#[derive(Clone)]
pub(super) struct ConnectionCalls {
    calls: Calls,
    purse: Purse,
    seat: Arc<Seat>,
    seats: Arc<Seats>,
}

impl ConnectionCalls {
    /// A place among the calls of a kind. Where all are taken, the connection with most of them gives way.
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

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Service<Request<Incoming>> for ConnectionCalls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.calls.inner, cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Answering {
        if request.version() < Version::HTTP_2 {
            return Box::pin(std::future::ready(Ok(not_http2())));
        }
        let path = request.uri().path();
        let lasts = LASTING.iter().any(|part| path.starts_with(part))
            || self.calls.lasting.iter().any(|lasting| lasting == path);
        let is_health = path == HEALTH;
        let (calls, purse) = (self.calls.clone(), self.purse.clone());
        let (seats, seat) = (Arc::clone(&self.seats), Arc::clone(&self.seat));
        // The one that was asked whether it is ready is the one to call.
        let mut inner = std::mem::replace(&mut self.calls.inner, calls.inner.clone());
        Box::pin(async move {
            let connection = (&*seats, &seat);
            let lasting = match lasts {
                true => Self::enter(&calls.lasting_room, connection, Seat::lasting).await,
                false => None,
            };
            if lasts && lasting.is_none() {
                let refused = "the farm serves as many watches and streams as it can; try again";
                return Ok(busy_status(refused).into_http());
            }
            let room = match is_health {
                true => Arc::clone(&calls.room).try_acquire_owned().ok(),
                false => Self::enter(&calls.room, connection, Seat::busy).await,
            };
            if room.is_none() && !is_health {
                return Ok(busy_status("the farm answers as many calls as it can; try again").into_http());
            }
            let place = Place { _busy: Busy::new(&seat, lasts), _room: room, _lasting: lasting };
            let unfinished = (!lasts).then(|| Unfinished::new(&seat));
            let (mut parts, body) = request.into_parts();
            if calls.plain.iter().any(|path| path == parts.uri.path()) {
                parts.headers.remove("grpc-accept-encoding");
            }
            let (body, held) = Metered::new((body, unfinished), &parts, &calls.budget, purse);
            let answer = inner.call(Request::from_parts(parts, Body::new(body))).await;
            // The handler has taken what it wants of a request that came whole.
            held.release();
            answer.map(|answer| answer.map(|body| Body::new(Answer::new(body, place, calls.unread))))
        })
    }
}

/// A refusal for lack of room, which says when to come again.
pub(super) fn busy_status(message: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("BUSY", "darkroom", std::collections::HashMap::<String, String>::new());
    details.set_retry_info(Some(AGAIN));
    Status::with_error_details(tonic::Code::Unavailable, message, details)
}

fn not_http2() -> Response<Body> {
    let text = "This is a port of a Darkroom farm for gRPC, which needs HTTP/2. Use the darkroom command or a gRPC client.\n";
    let mut answer = Response::new(Body::new(http_body_util::Full::from(text)));
    *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("h2c"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
