//! How to wait for tasks and results: bounded lists of tokens, called bells.
//!
//! A script that adds tasks rings: it pushes a few tokens to the pool's bell. A script that leases
//! tasks and leaves some behind rings again. So a task wakes about one waiter, and waiters wake
//! more waiters if there are more tasks. If a token is lost together with the process that took it,
//! a waiter waits at most until its next regular look.
//!
//! While somebody in this process waits, the process listens to the bell with one blocking read on
//! a separate connection. Waiters wait for a local notification and may stop at any time, so no
//! read is dropped half way. A token that arrives when nobody waits any more is put back.

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
    connection::{Link, is_wrong_type, with_jitter},
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
    /// How many wait for it.
    waiting: AtomicUsize,
    /// Notified when somebody begins to wait.
    wanted: Notify,
    /// Notified when a token comes.
    rung: Notify,
}

/// Somebody who waits for bells.
#[derive(Debug)]
pub(super) struct Interest(Vec<Arc<Bell>>);

impl Bells {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let stop = CancellationToken::new();
        Self { link, bells: Mutex::default(), _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// Begins to wait. No later ring is missed.
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
        // When the time is over, the waiter looks for itself.
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

/// Passes tokens on while the queue lives.
async fn listen(link: Arc<Link>, bell: Arc<Bell>) {
    let mut connection: Option<Channel> = None;
    let mut backoff = link.options().backoff();
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
                        // Rings may have been lost meanwhile, so everybody looks.
                        bell.rung.notify_waiters();
                    }
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        match heard {
            Ok(token) => {
                backoff.reset();
                failed = false;
                if token {
                    pass_on(&link, &bell).await;
                }
            }
            Err(error) => {
                tracing::debug!(bell = bell.key, %error, "listening again");
                if is_wrong_type(&error) {
                    // The script deletes a bell that is no list.
                    let _ = link.ask::<i64>(&SCRIPTS.ring, SCRIPTS.ring.call(&[&bell.key])).await;
                }
                connection = None;
                failed = true;
                sleep(with_jitter(backoff.pause())).await;
            }
        }
    }
}

/// Waits for one token; false if none came in time.
async fn next_token(link: &Link, key: &str, connection: &mut Channel) -> Result<bool, RedisError> {
    let block = link.options().block;
    let mut read = cmd("BLPOP");
    read.arg(key).arg(block.as_secs_f64());
    match timeout(block + link.options().command, connection.send(&read)).await {
        Ok(answer) => Ok(answer? != Value::Nil),
        Err(_) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "a read was not answered in time",
        )
        .into()),
    }
}

async fn pass_on(link: &Link, bell: &Bell) {
    if bell.waiting.load(Ordering::SeqCst) > 0 {
        bell.rung.notify_one();
    } else if let Err(error) = link.ask::<i64>(&SCRIPTS.ring, SCRIPTS.ring.call(&[&bell.key])).await
    {
        tracing::debug!(bell = bell.key, %error, "a bell's token could not be put back");
    }
}
