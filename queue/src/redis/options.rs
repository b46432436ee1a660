//! Sizes and times.

use std::time::Duration;

/// Sizes and times of a [`RedisQueue`](super::RedisQueue).
#[derive(Clone, Debug)]
pub struct Options {
    /// Most entries of one pool, tasks and unacknowledged results together.
    pub pool_limit: usize,
    /// Results read by a committer and not acknowledged for so long are given to another one that asks.
    pub takeover: Duration,
    /// Longest time of one command, making a connection included.
    pub command: Duration,
    /// Longest time of making a connection.
    pub connect: Duration,
    /// How long Redis holds a read that waits: for so long tokens may come to a process where nobody waits any more, which
    /// gives them back. Such a read has a connection of its own, and `command` more time than this to be answered.
    pub block: Duration,
    /// Longest time between two looks of those who wait, rung or not: a token may have gone to a worker that died.
    pub look_again: Duration,
    /// Pause after the first failure to connect; doubled after each, and varied, up to `longest_pause`.
    pub first_pause: Duration,
    /// Longest pause between two attempts to connect.
    pub longest_pause: Duration,
    /// Time between two removals of idle consumers.
    pub tidy_every: Duration,
    /// A consumer with nothing pending is removed after so long.
    pub consumer_idle: Duration,
    /// Keys of a pool that nobody reaps any more are gone after so long.
    pub pool_lifetime: Duration,
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
