//! What a call and the decorator that notes its changes tell each other.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use darkroom_core::error::{Code, UserError};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{error::Error, store};

/// One call. Clones are the same call.
#[derive(Clone, Debug, Default)]
pub(super) struct OneCall {
    /// Its client has gone away.
    left: CancellationToken,
    /// It found everything as its caller wanted it.
    idle: Arc<AtomicBool>,
}

impl OneCall {
    /// While this lives, the client waits for the answer.
    pub(super) fn client(&self) -> DropGuard {
        self.left.clone().drop_guard()
    }

    /// Runs a part of the call that is worth nothing without its client. What follows it runs to
    /// its end, whoever leaves.
    pub(super) async fn while_wanted<T>(
        &self,
        part: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let gone = || {
            let message = "the client went away before anything was recorded";
            Error::Store(store::Error::Refused(UserError::new(
                Code::Unavailable,
                "CLIENT_LEFT",
                message,
            )))
        };
        match self.left.run_until_cancelled(part).await {
            // A stream whose client has gone away may look complete.
            Some(done) if !self.left.is_cancelled() => done,
            _ => Err(gone()),
        }
    }

    /// The call says whether it changed something. One that does not say so has.
    pub(super) fn tell_changed(&self, changed: bool) {
        self.idle.store(!changed, Ordering::Relaxed);
    }

    /// Whether it has changed something.
    pub(super) fn has_changed(&self) -> bool {
        !self.idle.load(Ordering::Relaxed)
    }
}
