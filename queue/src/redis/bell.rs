//! Waiting for tasks and results: bounded lists of tokens, the bells.
//!
//! What adds tasks rings: it pushes a few tokens to the pool's bell. What leases tasks and leaves some behind rings again.
//! So a task wakes about one of those who wait, and those wake more where there is more. A token that is lost with the
//! process it went to costs a waiter up to the time between two looks.
//!
//! A process listens to a bell with one blocking read, on a connection of its own, while somebody here waits for it.
//! Who waits here does so at a local notice and may stop at any time: no read is dropped half way. A token that comes
//! when nobody here waits any more goes back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::select_all;
use redis::{RedisError, Value, cmd};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    connection::{Link, Pace},
    script::SCRIPTS,
    target::Channel,
};

/// The bells that this process listens to.
#[derive(Debug)]
pub(super) struct Bells {
    link: Arc<Link>,
    bells: Mutex<HashMap<String, Arc<Bell>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

#[derive(Debug)]
struct Bell {
    key: String,
    /// How many wait here.
    waiting: AtomicUsize,
    /// Somebody began to wait.
    wanted: Notify,
    /// A token came.
    rung: Notify,
}

/// Somebody waits for bells.
#[derive(Debug)]
pub(super) struct Interest(Vec<Arc<Bell>>);

impl Bells {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let stop = CancellationToken::new();
        Self { link, bells: Mutex::default(), _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// Begins to wait; a ring from now on is not missed.
    pub(super) fn listen(&self, keys: &[&str]) -> Interest {
        let bells: Vec<_> = keys.iter().map(|key| self.bell(key)).collect();
        for bell in &bells {
            bell.waiting.fetch_add(1, Ordering::SeqCst);
            bell.wanted.notify_one();
        }
        Interest(bells)
    }

    fn bell(&self, key: &str) -> Arc<Bell> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(key) {
            return Arc::clone(bell);
        }
        let bell = Arc::new(Bell {
            key: key.to_owned(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            rung: Notify::new(),
        });
        bells.insert(key.to_owned(), Arc::clone(&bell));
        let listener = listen(Arc::clone(&self.link), Arc::clone(&bell));
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(listener));
        bell
    }
}

impl Interest {
    /// Waits for a ring, or until the time is over.
    pub(super) async fn rung_within(&mut self, wait: Duration) {
        if self.0.is_empty() {
            return sleep(wait).await;
        }
        let rings = self.0.iter().map(|bell| Box::pin(bell.rung.notified()));
        // Over time, those who wait look for themselves.
        let _ = timeout(wait, select_all(rings)).await;
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        for bell in &self.0 {
            bell.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Passes tokens on for as long as the queue lives.
async fn listen(link: Arc<Link>, bell: Arc<Bell>) {
    let mut connection: Option<Channel> = None;
    let mut pace = Pace::default();
    let mut failed = false;
    loop {
        while bell.waiting.load(Ordering::SeqCst) == 0 {
            bell.wanted.notified().await;
        }
        let heard = match &mut connection {
            Some(connection) => next_token(&link, &bell.key, connection).await,
            None => match link.dedicated().await {
                Ok(made) => {
                    connection = Some(made);
                    if failed {
                        // What rang meanwhile may be lost: everybody looks.
                        bell.rung.notify_waiters();
                    }
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        match heard {
            Ok(token) => {
                (pace, failed) = (Pace::default(), false);
                if token {
                    pass_on(&link, &bell).await;
                }
            }
            Err(error) => {
                tracing::debug!(bell = bell.key, %error, "listening again");
                connection = None;
                failed = true;
                sleep(pace.next(link.options())).await;
            }
        }
    }
}

/// Waits for one token; false when none came for a while.
async fn next_token(link: &Link, key: &str, connection: &mut Channel) -> Result<bool, RedisError> {
    let block = link.options().block;
    let mut read = cmd("BLPOP");
    read.arg(key).arg(block.as_secs_f64());
    match timeout(block + link.options().command, connection.send(&read)).await {
        Ok(answer) => Ok(answer? != Value::Nil),
        Err(_) => {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "a read was not answered in time").into())
        }
    }
}

async fn pass_on(link: &Link, bell: &Bell) {
    if bell.waiting.load(Ordering::SeqCst) > 0 {
        bell.rung.notify_one();
    } else if let Err(error) = link.ask::<i64>(&SCRIPTS.ring, SCRIPTS.ring.call(&[&bell.key])).await {
        tracing::debug!(bell = bell.key, %error, "a token is lost");
    }
}
