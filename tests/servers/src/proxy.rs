//! A TCP proxy that can be cut, stalled and healed.
//!
//! It runs on its own threads, so a test that blocks its runtime does not delay it. Everything ends
//! with the handle.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Longest time to reach the target.
const CONNECT: Duration = Duration::from_secs(5);
/// Time from a request whose reply is lost until its connection ends.
const LOSING: Duration = Duration::from_secs(3);

/// A running proxy. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that each new connection brings from the target before it is closed.
    close_after: AtomicU64,
    /// Number of bytes from a new connection's client after which nothing from the target is
    /// forwarded.
    lose_replies_after: AtomicU64,
    /// Text that ends a connection when its client sends it, and when to cut.
    trap: Mutex<Option<Trap>>,
    accepted: AtomicU64,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    next: u64,
    /// Both ends of every open connection.
    open: Vec<(u64, TcpStream, TcpStream)>,
}

/// When a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the request arrives.
    Request,
    /// After the target has answered, before the answer arrives.
    Answer,
    /// As [`Answer`](Self::Answer), and no connection is accepted afterwards.
    AnswerAndAll,
}

#[derive(Debug)]
struct Trap {
    text: Vec<u8>,
    cut: Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Stalled,
    Cut,
    Ended,
}

impl Proxy {
    /// Starts a proxy to a port of loopback.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(target: u16) -> Self {
        Self::start_to(SocketAddr::from((Ipv4Addr::LOCALHOST, target)))
    }

    /// Starts a proxy to any address.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start_to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            target,
            state: Mutex::new(State { mode: Mode::Open, next: 0, open: Vec::new() }),
            changed: Condvar::new(),
            close_after: AtomicU64::new(u64::MAX),
            lose_replies_after: AtomicU64::new(u64::MAX),
            trap: Mutex::default(),
            accepted: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        let listener = Some(thread::spawn(move || accept(&listener, &accepting)));
        Self { port, shared, listener }
    }

    /// The port of loopback that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Drops every connection, and each new one as soon as it comes.
    pub fn cut(&self) {
        self.shared.set(Mode::Cut);
    }

    /// Keeps connections and accepts new ones, but forwards nothing. Bytes sent meanwhile arrive
    /// after healing.
    pub fn stall(&self) {
        self.shared.set(Mode::Stalled);
    }

    /// Forwards again.
    pub fn heal(&self) {
        self.shared.set(Mode::Open);
    }

    /// Closes every new connection after this many bytes from the target. `None`: never.
    pub fn close_after_bytes(&self, bytes: Option<u64>) {
        self.shared.close_after.store(bytes.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Discards the target's answers once a new connection's client has sent this many bytes. The
    /// connection ends a moment later, so that the target can carry the request out.
    pub fn lose_replies_after_bytes(&self, bytes: Option<u64>) {
        self.shared.lose_replies_after.store(bytes.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Cuts the connection of the next client that sends `text` in one piece: before the target
    /// gets it, or when the answer comes, which is then lost.
    pub fn cut_once(&self, text: &[u8], cut: Cut) {
        *self.shared.trap() = Some(Trap { text: text.to_vec(), cut });
    }

    /// Number of connections that clients have made so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(Mode::Ended);
        // Connects once, so that the accepting thread sees the flag.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Shared {
    fn set(&self, mode: Mode) {
        let mut state = self.state();
        state.mode = mode;
        if matches!(mode, Mode::Cut | Mode::Ended) {
            for (_, client, target) in state.open.drain(..) {
                close(&client, &target);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Remembers a connection; `None` while connections are cut.
    fn enter(&self, client: &TcpStream, target: &TcpStream) -> io::Result<Option<u64>> {
        let ends = (client.try_clone()?, target.try_clone()?);
        let mut state = self.state();
        if matches!(state.mode, Mode::Cut | Mode::Ended) {
            return Ok(None);
        }
        state.next += 1;
        let id = state.next;
        state.open.push((id, ends.0, ends.1));
        Ok(Some(id))
    }

    fn leave(&self, id: u64) {
        self.state().open.retain(|(open, ..)| *open != id);
    }

    /// Waits while stalled. False if connections are cut now.
    fn may_forward(&self) -> bool {
        let state = self.changed.wait_while(self.state(), |state| state.mode == Mode::Stalled);
        state.unwrap_or_else(PoisonError::into_inner).mode == Mode::Open
    }

    fn trap(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to cut the connection of a client that sends these bytes. Applies once.
    fn sprung(&self, sent: &[u8]) -> Option<Cut> {
        let mut trap = self.trap();
        let sprung = trap
            .as_ref()
            .is_some_and(|trap| sent.windows(trap.text.len()).any(|part| part == trap.text));
        if sprung { trap.take().map(|trap| trap.cut) } else { None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let mode = shared.state().mode;
        match (client, mode) {
            (_, Mode::Ended) => return,
            (Ok(client), Mode::Open | Mode::Stalled) => {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(shared);
                thread::spawn(move || serve(client, &shared));
            }
            // Dropped, and so closed.
            (_, Mode::Cut) | (Err(_), _) => {}
        }
    }
}

fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let connected = || {
        let target = TcpStream::connect_timeout(&shared.target, CONNECT)?;
        target.set_nodelay(true)?;
        client.set_nodelay(true)?;
        let id = shared.enter(&client, &target)?;
        Ok::<_, io::Error>((client.try_clone()?, target.try_clone()?, target, id))
    };
    let Ok((client_out, target_in, target, Some(id))) = connected() else { return };
    let limit = shared.close_after.load(Ordering::SeqCst);
    let there = Arc::clone(shared);
    let sent = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&sent);
    let whole = shared.lose_replies_after.load(Ordering::SeqCst);
    let (answer, sprung) = (Arc::new(AtomicU64::new(0)), Arc::clone(shared));
    let cutting = Arc::clone(&answer);
    let (lost_client, lost_target) = (client.try_clone(), target.try_clone());
    let sending = thread::spawn(move || {
        let seen = |sent: &[u8]| {
            match sprung.sprung(sent) {
                Some(Cut::Request) => return false,
                Some(Cut::Answer) => cutting.store(ANSWER, Ordering::SeqCst),
                Some(Cut::AnswerAndAll) => cutting.store(ANSWER_AND_ALL, Ordering::SeqCst),
                None => {}
            }
            let bytes = sent.len() as u64;
            let before = counting.fetch_add(bytes, Ordering::SeqCst);
            if before < whole && before + bytes >= whole {
                let (Ok(client), Ok(target)) = (lost_client.as_ref(), lost_target.as_ref()) else {
                    return true;
                };
                let (client, target) = (client.try_clone(), target.try_clone());
                thread::spawn(move || {
                    thread::sleep(LOSING);
                    if let (Ok(client), Ok(target)) = (client, target) {
                        close(&client, &target);
                    }
                });
            }
            true
        };
        forward(client_out, target_in, u64::MAX, &there, seen, || false);
    });
    let answered = |_: &[u8]| match answer.load(Ordering::SeqCst) {
        ANSWER => false,
        ANSWER_AND_ALL => {
            shared.set(Mode::Cut);
            false
        }
        _ => true,
    };
    forward(target, client, limit, shared, answered, || sent.load(Ordering::SeqCst) >= whole);
    let _ = sending.join();
    shared.leave(id);
}

/// What to do with the next answer.
const ANSWER: u64 = 1;
const ANSWER_AND_ALL: u64 = 2;

/// Forwards until either end closes, `limit` bytes have passed, or `seen` stops it; then both ends
/// are closed. Bytes that come while `lost` is set are discarded.
fn forward(
    mut from: TcpStream,
    mut to: TcpStream,
    mut limit: u64,
    shared: &Shared,
    seen: impl Fn(&[u8]) -> bool,
    lost: impl Fn() -> bool,
) {
    let mut buffer = vec![0; 1 << 16];
    while limit > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer) else { break };
        let part = usize::try_from(limit).map_or(read, |limit| limit.min(read));
        if lost() {
            continue;
        }
        // Set before the request is sent, because the answer may come at once.
        if !seen(&buffer[..part]) || !shared.may_forward() || to.write_all(&buffer[..part]).is_err()
        {
            break;
        }
        limit -= part as u64;
    }
    close(&from, &to);
}

fn close(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back the bytes that it gets.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        port
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn ask(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        String::from_utf8(answer).map_err(io::Error::other)
    }

    #[test]
    fn a_cut_ends_connections_and_healing_allows_new_ones() {
        let proxy = Proxy::start(echo());
        let mut before = connect(&proxy);
        assert_eq!(ask(&mut before, "one").unwrap(), "one");
        proxy.cut();
        ask(&mut before, "two").unwrap_err();
        ask(&mut connect(&proxy), "three").unwrap_err();
        proxy.heal();
        assert_eq!(ask(&mut connect(&proxy), "four").unwrap(), "four");
    }

    #[test]
    fn what_is_sent_while_stalled_arrives_when_healed() {
        let proxy = Proxy::start(echo());
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream, "one").unwrap(), "one");
        proxy.stall();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        ask(&mut stream, "two").unwrap_err();
        proxy.heal();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"two");
    }

    #[test]
    fn a_reply_is_lost_and_the_request_arrives() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap().port());
        proxy.lose_replies_after_bytes(Some(4));
        let asked = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = [0; 4];
            stream.read_exact(&mut request).unwrap();
            let _ = stream.write_all(b"done");
            request
        });
        let mut stream = connect(&proxy);
        ask(&mut stream, "work").unwrap_err();
        assert_eq!(&asked.join().unwrap(), b"work");
    }

    #[test]
    fn a_request_is_cut_before_it_arrives_or_when_it_is_answered_and_once() {
        let proxy = Proxy::start(echo());
        proxy.cut_once(b"two", Cut::Request);
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream, "one").unwrap(), "one");
        ask(&mut stream, "two").unwrap_err();
        proxy.cut_once(b"two", Cut::Answer);
        ask(&mut connect(&proxy), "two").unwrap_err();
        assert_eq!(ask(&mut connect(&proxy), "two").unwrap(), "two");
        proxy.cut_once(b"three", Cut::AnswerAndAll);
        ask(&mut connect(&proxy), "three").unwrap_err();
        ask(&mut connect(&proxy), "four").unwrap_err();
    }

    #[test]
    fn bodies_are_cut_short() {
        let proxy = Proxy::start(echo());
        proxy.close_after_bytes(Some(4));
        let mut stream = connect(&proxy);
        stream.write_all(b"a long text").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"a lo");
    }
}
