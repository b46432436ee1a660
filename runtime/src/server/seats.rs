//! The places for connections, and which connection gives way when all are taken.
//!
//! A thousand idle connections must not block a health check. So when all places are in use, the
//! connection that has been idle longest is closed; the address with the most connections is first.
//! If none is idle, an address that has many connections gives one up to an address that has few.
//! If that does not help either, the new connection is closed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How many connections above the limit may exist while they are being closed.
const CLOSING: usize = 64;

/// An accepted connection.
pub(super) struct Seat {
    peer: IpAddr,
    /// Closes the connection at once.
    pub(super) cut: CancellationToken,
    /// Whether the peer has shown which protocol it speaks.
    pub(super) greeted: AtomicBool,
    /// Running calls.
    busy: AtomicUsize,
    /// How many of these calls may stay open for ever or have an incomplete request.
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

    /// Since when it has had no call; `None` while it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        (self.busy.load(Ordering::Acquire) == 0).then_some(since)
    }

    /// Running calls.
    pub(super) fn busy(&self) -> usize {
        self.busy.load(Ordering::Acquire)
    }

    /// How many of these calls may stay open for ever or have an incomplete request.
    pub(super) fn lasting(&self) -> usize {
        self.lasting.load(Ordering::Acquire)
    }

    /// Whether all its calls, if it has any, may stay open for ever or have an incomplete request.
    fn only_lasts(&self) -> bool {
        self.busy.load(Ordering::Acquire) <= self.lasting.load(Ordering::Acquire)
    }
}

/// A running call on a connection, until dropped.
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

/// A call with an incomplete request, until dropped.
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
    next: AtomicU64,
    full: AtomicBool,
    /// One permit for each descriptor that a connection may hold; connections that were told to
    /// close still hold theirs.
    descriptors: Arc<Semaphore>,
}

/// A place among the connections, until dropped.
pub(super) struct Place {
    pub(super) seats: Arc<Seats>,
    number: u64,
    pub(super) seat: Arc<Seat>,
    _descriptor: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
    }
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection with the most calls by this count (the oldest if several are equal), if
    /// it has at least two more than `seat`. So a client that takes place after place gives way to
    /// one that has none. Returns whether a connection was ended.
    pub(super) fn cut_heaviest(&self, seat: &Arc<Seat>, count: fn(&Seat) -> usize) -> bool {
        let mut taken = self.taken();
        let heaviest =
            taken.iter().max_by_key(|(number, other)| (count(other), std::cmp::Reverse(**number)));
        let Some((number, _)) = heaviest.filter(|(_, other)| count(other) > count(seat) + 1) else {
            return false;
        };
        let number = *number;
        if let Some(heaviest) = taken.remove(&number) {
            heaviest.cut.cancel();
        }
        true
    }

    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
            next: AtomicU64::new(0),
            full: AtomicBool::new(false),
            descriptors: Arc::new(Semaphore::new(most + CLOSING)),
        }
    }

    /// Waits until there is a descriptor for a new connection. Connections that gave way must close
    /// before others are accepted, or they would use up the reserved descriptors. They close at
    /// once, so a new connection waits only a moment in the system's queue and is not refused.
    pub(super) async fn descriptor(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.descriptors).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// A place for a new connection, if one is free or another connection gives way.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        descriptor: OwnedSemaphorePermit,
    ) -> Option<Place> {
        let mut taken = self.taken();
        if taken.len() >= self.most {
            if !self.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    most = self.most,
                    "all connections are taken; idle ones give way to new ones"
                );
            }
            let gives_way = gives_way(&taken, peer)?;
            if let Some(seat) = taken.remove(&gives_way) {
                seat.cut.cancel();
            }
        } else {
            self.full.store(false, Ordering::Relaxed);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat::new(peer));
        taken.insert(number, Arc::clone(&seat));
        Some(Place { seats: Arc::clone(self), number, seat, _descriptor: descriptor })
    }
}

/// Which connection gives way to a new one from `peer`.
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
    // Connections that only watch or that never complete a request. A watcher can resume, but a new
    // caller must get in. Chooses the one with the most such calls, and the oldest if several are
    // equal.
    newest.or_else(|| {
        let lasting = taken.iter().filter(|(_, seat)| seat.only_lasts());
        let most =
            lasting.max_by_key(|(number, seat)| (seat.lasting(), std::cmp::Reverse(**number)));
        most.map(|(number, _)| *number)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seats(most: usize) -> Arc<Seats> {
        Arc::new(Seats::new(most))
    }

    fn admit(seats: &Arc<Seats>, peer: IpAddr) -> Option<Place> {
        let descriptor = Arc::clone(&seats.descriptors).try_acquire_owned().expect("a descriptor");
        seats.admit(peer, descriptor)
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_is_idle_longest_gives_way() {
        let seats = seats(3);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(admit(&seats, peer(1)).expect("there is room"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let call = Busy::new(&places[0].seat, false);
        let new = admit(&seats, peer(1)).expect("an idle one gives way");
        assert!(!places[0].seat.cut.is_cancelled(), "it has a call and stays");
        assert!(places[1].seat.cut.is_cancelled());
        assert!(!places[2].seat.cut.is_cancelled());
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(call);
        let calls = [Busy::new(&places[2].seat, false), Busy::new(&new.seat, false)];
        admit(&seats, peer(1)).expect("an idle one gives way");
        assert!(places[0].seat.cut.is_cancelled(), "its call has ended");
        drop(calls);
    }

    #[test]
    fn where_all_are_busy_the_address_with_most_gives_one_up_but_not_to_itself() {
        let seats = seats(4);
        let places: Vec<_> =
            (0..4).map(|_| admit(&seats, peer(1)).expect("there is room")).collect();
        let calls: Vec<_> = places.iter().map(|place| Busy::new(&place.seat, false)).collect();
        assert!(admit(&seats, peer(1)).is_none());
        let other = admit(&seats, peer(2)).expect("an address with none gets one");
        assert!(places[3].seat.cut.is_cancelled());
        let others = Busy::new(&other.seat, false);
        let second = admit(&seats, peer(2)).expect("3 against 1");
        let seconds = Busy::new(&second.seat, false);
        assert!(admit(&seats, peer(2)).is_none(), "2 against 2");
        assert_eq!(seats.taken().len(), 4);
        drop((calls, others, seconds));
        drop(places);
        assert_eq!(seats.taken().len(), 2);
    }

    #[test]
    fn where_all_are_busy_one_that_only_watches_gives_way_even_to_its_own_address() {
        let seats = seats(2);
        let places: Vec<_> =
            (0..2).map(|_| admit(&seats, peer(1)).expect("there is room")).collect();
        let watch = Busy::new(&places[0].seat, true);
        let call = Busy::new(&places[1].seat, false);
        admit(&seats, peer(1)).expect("the watching one gives way");
        assert!(places[0].seat.cut.is_cancelled() && !places[1].seat.cut.is_cancelled());
        drop((watch, call));
    }

    #[tokio::test]
    async fn a_new_connection_waits_until_one_that_gave_way_has_closed() {
        let seats = seats(1);
        let mut places: Vec<_> = (0..=CLOSING)
            .map(|_| admit(&seats, peer(1)).expect("the one before gives way"))
            .collect();
        let waits = tokio::time::timeout(Duration::from_millis(20), seats.descriptor());
        assert!(waits.await.is_err(), "all descriptors are held by connections that are to close");
        drop(places.remove(0));
        let descriptor = seats.descriptor().await;
        assert!(seats.admit(peer(1), descriptor).is_some());
    }
}
