//! Options of a server, and how much of it one client may use.

use std::time::Duration;

use super::Web;
use crate::deadline::Limits;

/// Options of a server.
///
/// The defaults limit what clients can make a process hold, whatever they send: 512 MiB of
/// messages, 256 KiB of unread bytes for each of 1,000 connections, and the unread answers of 2,000
/// calls for one minute.
#[derive(Clone, Debug)]
pub struct Options {
    /// Encoded file descriptor sets, for reflection.
    pub descriptors: Vec<&'static [u8]>,
    /// Full names of the services, for health (`darkroom.v1.Farm`).
    pub services: Vec<String>,
    /// Deadlines of calls.
    pub limits: Limits,
    /// How long running calls may take after a shutdown began; then they are cut.
    pub drain: Duration,
    /// Most connections at a time. It is lowered if needed, so that descriptors are left for the
    /// process's own work. Above the limit, an idle connection gives way to a new one; if none is
    /// idle, the new one is closed.
    pub connections: usize,
    /// Most running calls on one connection.
    pub streams: u32,
    /// Most running calls in all; health checks are always answered.
    pub calls: usize,
    /// Paths of calls that may stay open for ever. Together with health's watches, reflection, the
    /// deadlines' long calls, and requests over HTTP that last or take long, they get three quarters
    /// of `calls`, so that the rest is always free for short calls.
    pub lasting: Vec<String>,
    /// Time for a new connection to show which protocol it speaks, TLS included.
    pub handshake: Duration,
    /// A connection that has no call for this long is closed. One of HTTP/1 ends after 100 seconds
    /// without a request.
    pub idle: Duration,
    /// A message that has begun must continue within this time.
    pub stall: Duration,
    /// How far a request that holds memory may fall behind 512 KiB per second before it gives way
    /// to one that waits for memory.
    pub lag: Duration,
    /// An answer is dropped when its peer reads nothing of it for this long.
    pub unread: Duration,
    /// Largest message that handlers accept, bytes; must equal the handlers' own setting.
    pub message: usize,
    /// Memory for messages, bytes: half for messages on their way to handlers, half for streams
    /// that handlers gather.
    pub memory: usize,
    /// How long a message waits for memory before it is refused.
    pub memory_wait: Duration,
    /// Paths of calls whose handler gathers the whole stream of requests in memory.
    pub gathers: Vec<String>,
    /// Paths of calls whose answers are already compressed and are not compressed again.
    pub plain: Vec<String>,
    /// How requests that are not gRPC are treated. Absent: HTTP/1 is refused.
    pub web: Option<Web>,
}

impl Options {
    /// Options for the services of one descriptor set.
    #[must_use]
    pub fn new(descriptors: &'static [u8], services: &[&str]) -> Self {
        Self {
            descriptors: vec![descriptors],
            services: services.iter().map(|&name| name.to_owned()).collect(),
            limits: Limits::default(),
            drain: Duration::from_secs(10),
            connections: 1000,
            streams: 100,
            calls: 2000,
            lasting: Vec::new(),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            stall: Duration::from_secs(30),
            lag: Duration::from_secs(5),
            unread: Duration::from_secs(60),
            message: 4 << 20,
            memory: 512 << 20,
            memory_wait: Duration::from_secs(30),
            gathers: Vec::new(),
            plain: Vec::new(),
            web: None,
        }
    }
}
