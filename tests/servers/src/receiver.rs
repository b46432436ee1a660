//! A receiver of webhooks: an HTTP server that keeps what it gets, and answers as a test says.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The path.
    pub path: String,
    /// Headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// What a receiver answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status, without a body.
    Status(u16),
    /// A redirect to this address.
    Redirect(String),
    /// Nothing, until the sender gives up.
    Nothing,
}

/// A receiver on a free port of loopback. Its threads end with the process.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Starts one. `answer` gets the number of requests that came before, and the request.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(answer: impl Fn(usize, &Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let receiver = Self { address, received: Arc::default() };
        let (received, answer) = (Arc::clone(&receiver.received), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, answer) = (Arc::clone(&received), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &received, answer.as_ref()));
            }
        });
        receiver
    }

    /// Its address with a path, under the name of loopback or its number.
    #[must_use]
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    /// What came so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(
    stream: TcpStream,
    received: &Mutex<Vec<Received>>,
    answer: &(dyn Fn(usize, &Received) -> Answer + Send + Sync),
) {
    let mut reader = BufReader::new(stream);
    let Some(request) = read(&mut reader) else { return };
    let before = {
        let mut all = received.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(request.clone());
        all.len() - 1
    };
    let end = "content-length: 0\r\nconnection: close\r\n\r\n";
    let text = match answer(before, &request) {
        Answer::Status(status) => format!("HTTP/1.1 {status} Status\r\n{end}"),
        Answer::Redirect(to) => format!("HTTP/1.1 307 Redirect\r\nlocation: {to}\r\n{end}"),
        Answer::Nothing => {
            // The sender closes the connection when it gives up.
            let _ = reader.read(&mut [0]);
            return;
        }
    };
    let _ = reader.get_mut().write_all(text.as_bytes());
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Received { path, headers, body: String::from_utf8(body).ok()? })
}
