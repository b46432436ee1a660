//! The connection that all commands share. It is made again for ever, with growing and randomised
//! pauses.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use darkroom_core::{
    backoff::varied,
    guard::{Guard, stands},
};
use redis::{
    Arg, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value, from_redis_value,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Options,
    keys::type_of,
    script::{SCRIPTS, Script},
    target::{Channel, Target},
};
use crate::Error;

/// A connection to Redis that is made again whenever it breaks.
pub(super) struct Link {
    target: Target,
    options: Options,
    current: Mutex<Current>,
    /// Held while a connection is made; says when the next attempt may start.
    attempt: tokio::sync::Mutex<Instant>,
    failures: AtomicU32,
}

struct Current {
    channel: Option<Channel>,
    /// Raised by every new connection, so that a failure of an old one does not end the new one.
    generation: u64,
    /// When Redis was last unreachable, unable to serve, or a new server.
    trouble: Instant,
    /// Last known run id of the server, by the key that was asked for: a cluster has several
    /// servers.
    servers: HashMap<String, String>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The target contains a password.
        f.debug_struct("Link").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(target: Target, options: Options) -> Self {
        let now = Instant::now();
        let current =
            Current { channel: None, generation: 0, trouble: now, servers: HashMap::new() };
        Self {
            target,
            options,
            current: Mutex::new(current),
            attempt: tokio::sync::Mutex::new(now),
            failures: AtomicU32::new(0),
        }
    }

    /// Where Redis is, for people, without the password.
    pub(super) fn address(&self) -> String {
        self.target.to_string()
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Runs a script, and loads it first if the server does not know it.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        script: &Script,
        call: Cmd,
    ) -> Result<T, Error> {
        let value = self.run(script, call).await.map_err(unavailable)?;
        from_redis_value(value).map_err(|error| Error::Malformed(error.to_string()))
    }

    /// The same, with Redis's own reply.
    ///
    /// A key that has another type than it must have was written by somebody else. It is deleted,
    /// and what it should have held is rebuilt as after a flush. The call is repeated if that
    /// cannot do something twice; the caller of another one repeats it, or the sweep finds what is
    /// missing.
    pub(super) async fn run(&self, script: &Script, call: Cmd) -> Result<Value, RedisError> {
        match self.run_once(script, &call).await {
            Err(error) if is_wrong_type(&error) && stands(Guard::WrongTypeDeleted) => {
                self.mend(&call).await?;
                if script.adds() { Err(error) } else { self.run_once(script, &call).await }
            }
            answer => answer,
        }
    }

    async fn run_once(&self, script: &Script, call: &Cmd) -> Result<Value, RedisError> {
        match self.send(call).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.send(&script.load()).await?;
                self.send(call).await
            }
            answer => answer,
        }
    }

    /// Deletes those of a call's keys that do not have their type.
    async fn mend(&self, call: &Cmd) -> Result<(), RedisError> {
        let keys = keys_of(call);
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut mend = SCRIPTS.mend.call(&names);
        for key in &names {
            mend.arg(type_of(key));
        }
        let deleted: i64 = from_redis_value(self.run_once(&SCRIPTS.mend, &mend).await?)?;
        tracing::error!(
            keys = deleted,
            near = names.first(),
            "keys in Redis had another type than this farm's; they are deleted and rebuilt"
        );
        Ok(())
    }

    /// Sends one command, with a time limit.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        let deadline = Instant::now() + self.options.command;
        let (generation, mut channel) = match timeout_at(deadline, self.channel()).await {
            Ok(channel) => channel?,
            Err(_) => {
                self.current().trouble = Instant::now();
                return Err(too_late("the connection to Redis timed out"));
            }
        };
        match timeout_at(deadline, channel.send(command)).await {
            Ok(Ok(value)) => {
                self.failures.store(0, Ordering::Relaxed);
                Ok(value)
            }
            Ok(Err(error)) => {
                if is_trouble(&error) {
                    self.trouble(generation, ends_connection(&error));
                }
                Err(error)
            }
            Err(_) => {
                self.trouble(generation, true);
                Err(too_late("Redis did not answer in time"))
            }
        }
    }

    /// A separate connection, for a read that blocks.
    pub(super) async fn dedicated(&self) -> Result<Channel, RedisError> {
        let deadline = Instant::now() + self.options.command;
        match timeout_at(deadline, self.target.connect(self.options.connect)).await {
            Ok(connected) => connected,
            Err(_) => Err(too_late("the connection to Redis timed out")),
        }
    }

    /// How long the same Redis has been reachable.
    pub(super) fn since_trouble(&self) -> Duration {
        self.current().trouble.elapsed()
    }

    /// Last known run id of the server that holds a key; empty before the first.
    pub(super) fn known_server(&self, key: &str) -> String {
        self.current().servers.get(key).cloned().unwrap_or_default()
    }

    /// Records the run id of the server that holds a key, and returns whether it changed: the
    /// server restarted, or a proxy now leads to another one.
    pub(super) fn meet_server(&self, key: &str, run_id: String) -> bool {
        let mut current = self.current();
        let before = current.servers.insert(key.to_owned(), run_id);
        let is_another = before.is_some_and(|before| Some(&before) != current.servers.get(key));
        if is_another {
            current.trouble = Instant::now();
        }
        is_another
    }

    async fn channel(&self) -> Result<(u64, Channel), RedisError> {
        if let Some(open) = self.open_channel() {
            return Ok(open);
        }
        let mut next_attempt = self.attempt.lock().await;
        if let Some(open) = self.open_channel() {
            return Ok(open);
        }
        sleep_until(*next_attempt).await;
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        *next_attempt = Instant::now() + with_jitter(self.options.backoff().after(failures));
        let connected = self.target.connect(self.options.connect).await;
        let mut current = self.current();
        current.trouble = Instant::now();
        let channel = connected?;
        current.generation += 1;
        current.channel = Some(channel.clone());
        Ok((current.generation, channel))
    }

    fn open_channel(&self) -> Option<(u64, Channel)> {
        let current = self.current();
        current.channel.clone().map(|channel| (current.generation, channel))
    }

    fn trouble(&self, generation: u64, ends_connection: bool) {
        let mut current = self.current();
        current.trouble = Instant::now();
        if ends_connection && current.generation == generation {
            current.channel = None;
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves no
        // half-done change.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pause with jitter, so that the processes of a farm do not all retry at once.
pub(super) fn with_jitter(pause: Duration) -> Duration {
    varied(pause, uuid::Uuid::new_v4().as_u128())
}

/// Whether a key has another type than a script needs. Where a script looked at the error itself,
/// only its text is left.
pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE") || error.to_string().contains("WRONGTYPE")
}

/// The keys of a script's call: `EVALSHA hash count key …`.
fn keys_of(call: &Cmd) -> Vec<String> {
    let text = |argument| match argument {
        Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    let mut arguments = call.args_iter().map(text).skip(2);
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    arguments.take(count).collect()
}

/// Whether workers may have been unable to renew leases.
fn is_trouble(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => {
            !matches!(kind, ServerErrorKind::NoScript | ServerErrorKind::ResponseError)
        }
        _ => true,
    }
}

/// Whether a new connection may lead to a better server.
fn ends_connection(error: &RedisError) -> bool {
    let demoted = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown];
    let is_demoted = demoted.into_iter().any(|kind| error.kind() == ErrorKind::Server(kind));
    let refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
    is_demoted || refused || error.is_unrecoverable_error() || error.is_io_error()
}

fn too_late(what: &'static str) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}

/// Every error from Redis counts as temporary, because this client cannot know that a retry is
/// useless.
pub(super) fn unavailable(error: RedisError) -> Error {
    Error::Unavailable(match error.code() {
        Some("OOM") => "Redis is out of memory; raise its maxmemory".to_owned(),
        Some("MISCONF") => "Redis refuses writes because it cannot save to disk".to_owned(),
        Some("READONLY") => "this Redis is a replica and takes no writes".to_owned(),
        Some("LOADING") => "Redis is loading its data".to_owned(),
        Some("NOAUTH" | "WRONGPASS") => "Redis refuses the user or password".to_owned(),
        _ => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_server_behind_the_same_address_is_trouble() {
        let link = Link::new(Target::parse("redis://127.0.0.1").unwrap(), Options::default());
        let hour = Duration::from_secs(3600);
        tokio::time::advance(hour).await;
        assert!(!link.meet_server("a", "1".to_owned()) && !link.meet_server("b", "2".to_owned()));
        assert!(
            !link.meet_server("a", "1".to_owned()),
            "the servers of different keys are separate"
        );
        assert_eq!(link.since_trouble(), hour);
        assert!(link.meet_server("a", "3".to_owned()));
        assert_eq!(link.since_trouble(), Duration::ZERO);
        assert_eq!(link.known_server("a"), "3");
    }

    #[test]
    fn pauses_grow_to_the_longest_and_vary() {
        let options = Options::default();
        let backoff = options.backoff();
        let pauses: Vec<Duration> =
            (0..40).map(|failures| with_jitter(backoff.after(failures))).collect();
        assert!(pauses[0] <= options.first_pause);
        assert!(
            pauses[20..]
                .iter()
                .all(|p| (options.longest_pause / 2..=options.longest_pause).contains(p))
        );
        assert!(pauses[20..].windows(2).any(|pair| pair[0] != pair[1]));
    }
}
