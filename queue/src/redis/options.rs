//! Limits and times.

use std::time::Duration;

use darkroom_core::backoff::Backoff;

/// Limits and times of a [`RedisQueue`](super::RedisQueue).
#[derive(Clone, Debug)]
pub struct Options {
    /// Most entries of one pool, tasks and unacknowledged results together.
    pub pool_limit: usize,
    /// Time after which results that a committer read and did not acknowledge go to another one.
    pub takeover: Duration,
    /// Most time for one command, including making a connection.
    pub command: Duration,
    /// Most time for making a connection.
    pub connect: Duration,
    /// How long Redis holds a read that waits. For this time, tokens may still come to a process in
    /// which nobody waits any more; it puts them back. Such a read has a separate connection and
    /// may take this much longer than `command`.
    pub block: Duration,
    /// Most time between two looks of a waiter, even without a ring: its token may have gone to a
    /// worker that died.
    pub look_again: Duration,
    /// Pause after the first failure to connect. It doubles after each failure, up to
    /// `longest_pause`, and is randomised.
    pub first_pause: Duration,
    /// Longest pause between two attempts to connect.
    pub longest_pause: Duration,
    /// Time between two removals of idle consumers.
    pub tidy_every: Duration,
    /// Idle time after which a consumer with nothing pending is removed.
    pub consumer_idle: Duration,
    /// Time after which the keys of a pool that nobody reaps expire.
    pub pool_lifetime: Duration,
}

impl Options {
    /// Pauses between attempts to reach Redis.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.first_pause, self.longest_pause)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool_limit: 100_000,
            takeover: Duration::from_secs(5),
            command: Duration::from_secs(3),
            connect: Duration::from_secs(1),
            block: Duration::from_secs(2),
            look_again: Duration::from_secs(1),
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_secs(1),
            tidy_every: Duration::from_secs(60),
            consumer_idle: Duration::from_secs(600),
            pool_lifetime: Duration::from_secs(86_400),
        }
    }
}
