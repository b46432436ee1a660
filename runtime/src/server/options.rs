//! What to serve with, and how much of it one client may take.

use std::time::Duration;

use crate::deadline::Limits;

/// What to serve with.
///
/// The defaults bound what strangers can make a process hold, whatever they send: 512 MiB of messages, 256 KiB of unread
/// bytes for each of 1,000 connections, and for a minute the unread answers of 2,000 calls.
#[derive(Clone, Debug)]
pub struct Options {
    /// Encoded file descriptor sets, for reflection.
    pub descriptors: Vec<&'static [u8]>,
    /// Full names of the services, for health (`darkroom.v1.Farm`).
    pub services: Vec<String>,
    /// Deadlines of calls.
    pub limits: Limits,
    /// How long running calls may take after shutdown began; then they are cut.
    pub drain: Duration,
    /// Most connections at a time, and never so many that no descriptors are left for the process's own work. Above
    /// that, one that is idle gives way to a new one; if none is idle, the new one is closed.
    pub connections: usize,
    /// Most calls under way on one connection.
    pub streams: u32,
    /// Most calls under way in all; health checks are always answered.
    pub calls: usize,
    /// Paths of calls that may stay open for ever. Together with health's watches, reflection and the deadlines' long calls
    /// they get three quarters of `calls`, so that calls that end soon always have the rest.
    pub lasting: Vec<String>,
    /// Time for a new connection to say which protocol it speaks.
    pub handshake: Duration,
    /// A connection without a call for so long is closed.
    pub idle: Duration,
    /// A message that has begun must go on within this time.
    pub stall: Duration,
    /// An answer whose peer reads nothing of it for so long is dropped.
    pub unread: Duration,
    /// Largest message that handlers take, bytes; must be what they are set to.
    pub message: usize,
    /// Memory for messages, bytes: half for those under way to handlers, half for those that handlers gather.
    pub memory: usize,
    /// How long a message waits for memory before it is refused.
    pub memory_wait: Duration,
    /// Paths of calls whose handler gathers the whole stream of requests in memory.
    pub gathers: Vec<String>,
    /// Paths of calls whose answers are compressed data already, and are not compressed again.
    pub plain: Vec<String>,
}

impl Options {
    /// Options for services of one descriptor set.
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
            unread: Duration::from_secs(60),
            message: 4 << 20,
            memory: 512 << 20,
            memory_wait: Duration::from_secs(30),
            gathers: Vec::new(),
            plain: Vec::new(),
        }
    }
}
