//! How to connect to the database.

use std::time::Duration;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connections of this store; at least 2.
    pub connections: u32,
    /// Connections that the whole coordinator will take, which the server must allow.
    pub wanted: u32,
    /// How long a call waits for a free connection before it says that the store cannot be reached.
    pub acquire: Duration,
    /// A transaction in which nothing happens for so long is ended by the server: one of a stopped
    /// or cut off coordinator holds nobody up for longer. It must come well within the leadership's
    /// eight seconds.
    pub idle_in_transaction: Duration,
    /// Longest that a statement waits for one lock. A stopped coordinator's transactions may wait
    /// for each other: each could hold its locks for `idle_in_transaction` after it got them, one
    /// after the other. A row takes two locks, so with this limit the last of them gets its row
    /// within twice this time, or never.
    pub lock: Duration,
    /// Longest that one statement may run.
    pub statement: Duration,
    /// Longest that the server is asked what became of a commit whose answer was lost: more than a
    /// transaction that lost its client is kept open for.
    pub settle: Duration,
    /// A connection that was not used for so long is asked whether it is still there before it is
    /// used: where nobody repeats what fails, a restart of the server should not be found out by a
    /// call.
    pub ask_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 16,
            wanted: 0,
            acquire: Duration::from_secs(10),
            idle_in_transaction: Duration::from_secs(4),
            lock: Duration::from_secs(3),
            statement: Duration::from_secs(60),
            settle: Duration::from_secs(8),
            ask_after: Duration::MAX,
        }
    }
}
