//! Who gets a connection: at most so many at a time, of which one that is idle gives way to a new one.
//!
//! A thousand idle connections must not keep a health check out. So when all places are taken, the connection that has
//! been idle longest is closed, first of the address that has most; where none is idle, an address that holds many gives
//! one up to an address that holds few; and where that does not help either, the new one is closed.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

use super::{Options, connection, guard::Calls};
use crate::{deadline::Deadline, descriptors, listen::Listener};

/// Pause after the system could not accept: it has no descriptors or no memory.
const BREATHER: Duration = Duration::from_millis(100);

/// Connections beyond the most that may be about to close.
const CLOSING: usize = 64;

/// A connection that was let in.
pub(super) struct Seat {
    peer: IpAddr,
    /// Ends the connection at once.
    pub(super) cut: CancellationToken,
    /// Whether the peer has said which protocol it speaks.
    pub(super) greeted: AtomicBool,
    /// Calls under way.
    busy: AtomicUsize,
    /// Those of them that may stay open for ever, and those whose request has not come whole.
    lasting: AtomicUsize,
    idle_since: Mutex<Instant>,
}

impl Seat {
    fn new(peer: IpAddr) -> Self {
        Self {
            peer,
            cut: CancellationToken::new(),
            greeted: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            lasting: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
        }
    }

    /// Since when it has no call; `None` while it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::Acquire) == 0).then_some(since)
    }

    /// Calls under way.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Acquire)
    }

    /// Those of them that may stay open for ever, or whose request has not come whole.
    pub(super) fn lasting(&self) -> usize {
        self.lasting.load(Ordering::Acquire)
    }

    /// Whether its calls, if it has any, are all such as may stay open for ever, or have not come whole.
    fn only_lasts(&self) -> bool {
        self.busy.load(Ordering::Acquire) <= self.lasting.load(Ordering::Acquire)
    }
}

/// A call under way on a connection, until dropped.
pub(super) struct Busy {
    seat: Arc<Seat>,
    lasts: bool,
}

impl Busy {
    /// `lasts`: the call may stay open for ever.
    pub(super) fn new(seat: &Arc<Seat>, lasts: bool) -> Self {
        seat.busy.fetch_add(1, Ordering::AcqRel);
        if lasts {
            seat.lasting.fetch_add(1, Ordering::AcqRel);
        }
        Self { seat: Arc::clone(seat), lasts }
    }
}

#[cfg(test)]
impl Busy {
    pub(super) fn for_test() -> Self {
        Self::new(&Arc::new(Seat::new(IpAddr::from([127, 0, 0, 1]))), false)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.seat.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if self.lasts {
            self.seat.lasting.fetch_sub(1, Ordering::AcqRel);
        }
        self.seat.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A call whose request has not come whole, until dropped.
pub(super) struct Unfinished(Arc<Seat>);

impl Unfinished {
    pub(super) fn new(seat: &Arc<Seat>) -> Self {
        seat.lasting.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(seat))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.lasting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All connections.
pub(super) struct Seats {
    most: usize,
    taken: Mutex<BTreeMap<u64, Arc<Seat>>>,
    next: std::sync::atomic::AtomicU64,
    full: AtomicBool,
    /// Connections whose descriptors are open, those that were told to end among them.
    open: AtomicUsize,
}

/// A place among the connections, until dropped.
pub(super) struct Place {
    pub(super) seats: Arc<Seats>,
    number: u64,
    pub(super) seat: Arc<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
        self.seats.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection that has most calls by this count, the oldest of several, where it has at least two more than
    /// `seat`: who takes place after place gives way to who has none. Says whether it did.
    pub(super) fn cut_heaviest(&self, seat: &Arc<Seat>, count: fn(&Seat) -> usize) -> bool {
        let mut taken = self.taken();
        let heaviest = taken.iter().max_by_key(|(number, other)| (count(other), std::cmp::Reverse(**number)));
        let Some((number, _)) = heaviest.filter(|(_, other)| count(other) > count(seat) + 1) else {
            return false;
        };
        let number = *number;
        if let Some(heaviest) = taken.remove(&number) {
            heaviest.cut.cancel();
        }
        true
    }

    /// A place for a new connection, if there is one or one is given up for it.
    fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        // Those that gave way must have closed before others come, or the descriptors that are kept back go too.
        if self.open.load(Ordering::Acquire) >= self.most + CLOSING {
            return None;
        }
        if taken.len() >= self.most {
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(most = self.most, "all connections are taken; idle ones give way to new ones");
            }
            let gives_way = gives_way(&taken, peer)?;
            if let Some(seat) = taken.remove(&gives_way) {
                seat.cut.cancel();
            }
        } else {
            self.full.store(false, Ordering::Relaxed);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::AcqRel);
        let seat = Arc::new(Seat::new(peer));
        taken.insert(number, Arc::clone(&seat));
        Some(Place { seats: Arc::clone(self), number, seat })
    }
}

/// Which connection gives way to one from `peer`.
fn gives_way(taken: &BTreeMap<u64, Arc<Seat>>, peer: IpAddr) -> Option<u64> {
    let mut held: HashMap<IpAddr, usize> = HashMap::new();
    for seat in taken.values() {
        *held.entry(seat.peer).or_default() += 1;
    }
    let idle = taken.iter().filter_map(|(number, seat)| Some((number, seat, seat.idle_since()?)));
    let idlest = idle.min_by_key(|(_, seat, since)| (std::cmp::Reverse(held[&seat.peer]), *since));
    if let Some((number, ..)) = idlest {
        return Some(*number);
    }
    let own = held.get(&peer).copied().unwrap_or_default();
    let newest = taken.iter().max_by_key(|(number, seat)| (held[&seat.peer], **number));
    let newest = newest.filter(|(_, seat)| held[&seat.peer] > own + 1).map(|(number, _)| *number);
    // Connections that only watch, or never say what they want to the end: whoever watches resumes, and whoever calls must
    // get in. The one with most such calls, and of several the oldest.
    newest.or_else(|| {
        let lasting = taken.iter().filter(|(_, seat)| seat.only_lasts());
        let most = lasting.max_by_key(|(number, seat)| (seat.lasting(), std::cmp::Reverse(**number)));
        most.map(|(number, _)| *number)
    })
}

/// What accepts connections and serves them.
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
        let most = options.connections.min(descriptors::for_connections(descriptors::raise())).max(1);
        let seats = Seats {
            most,
            taken: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(0),
            full: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        };
        let calls = Calls::new(&options, calls);
        Self {
            options: Arc::new(options),
            seats: Arc::new(seats),
            calls,
            connections: TaskTracker::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts on every socket until `shutdown`.
    pub(super) fn open(&self, listener: Listener, shutdown: &CancellationToken) -> JoinSet<()> {
        let mut open = JoinSet::new();
        for socket in listener.sockets {
            open.spawn(self.clone().accept(socket, shutdown.clone()));
        }
        open
    }

    /// When no connection is left; to be asked once nothing is accepted any more.
    pub(super) async fn emptied(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    async fn accept(self, socket: TcpListener, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // A peer that left again is no trouble of ours.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "connections cannot be accepted; it keeps trying");
                    }
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
            };
            if std::mem::take(&mut failing) {
                tracing::info!("connections are accepted again");
            }
            let Some(place) = self.seats.admit(peer.ip().to_canonical()) else { continue };
            let ends = connection::Ends { cut: self.cut.clone(), shutdown: shutdown.clone() };
            let served = connection::serve(
                stream,
                place,
                self.calls.clone(),
                connection::Times { options: Arc::clone(&self.options), ends },
            );
            self.connections.spawn(served);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(most: usize) -> Arc<Seats> {
        Arc::new(Seats {
            most,
            taken: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(0),
            full: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        })
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_is_idle_longest_gives_way() {
        let seats = seats(3);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(seats.admit(peer(1)).expect("there is room"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let call = Busy::new(&places[0].seat, false);
        let new = seats.admit(peer(1)).expect("an idle one gives way");
        assert!(!places[0].seat.cut.is_cancelled(), "it has a call");
        assert!(places[1].seat.cut.is_cancelled());
        assert!(!places[2].seat.cut.is_cancelled());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(call);
        let calls = [Busy::new(&places[2].seat, false), Busy::new(&new.seat, false)];
        seats.admit(peer(1)).expect("an idle one gives way");
        assert!(places[0].seat.cut.is_cancelled(), "its call has ended");
        drop(calls);
    }

    #[test]
    fn where_all_are_busy_the_address_with_most_gives_one_up_but_not_to_itself() {
        let seats = seats(4);
        let places: Vec<_> = (0..4).map(|_| seats.admit(peer(1)).expect("there is room")).collect();
        let calls: Vec<_> = places.iter().map(|place| Busy::new(&place.seat, false)).collect();
        assert!(seats.admit(peer(1)).is_none());
        let other = seats.admit(peer(2)).expect("an address with none gets one");
        assert!(places[3].seat.cut.is_cancelled());
        let others = Busy::new(&other.seat, false);
        let second = seats.admit(peer(2)).expect("3 against 1");
        let seconds = Busy::new(&second.seat, false);
        assert!(seats.admit(peer(2)).is_none(), "2 against 2");
        assert_eq!(seats.taken().len(), 4);
        drop((calls, others, seconds));
        drop(places);
        assert_eq!(seats.taken().len(), 2);
    }

    #[test]
    fn where_all_are_busy_one_that_only_watches_gives_way_even_to_its_own_address() {
        let seats = seats(2);
        let places: Vec<_> = (0..2).map(|_| seats.admit(peer(1)).expect("there is room")).collect();
        let watch = Busy::new(&places[0].seat, true);
        let call = Busy::new(&places[1].seat, false);
        seats.admit(peer(1)).expect("the watching one gives way");
        assert!(places[0].seat.cut.is_cancelled() && !places[1].seat.cut.is_cancelled());
        drop((watch, call));
    }
}
