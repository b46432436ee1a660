//! How long a stream that does not begin, or breaks, is asked for again.

use darkroom_runtime::peer::{self, Patience};
use tonic::Status;

use super::{Client, STREAM_PATIENCE};
use crate::output;

/// How long a stream is asked for again, and whether its user knows that it has not begun.
pub(super) struct Waiting {
    patience: Patience,
    told: bool,
}

impl Waiting {
    /// For a stream that such a client asks for.
    pub(super) fn new(client: &Client) -> Self {
        Self { patience: Patience::new(STREAM_PATIENCE, client.peers.count()), told: false }
    }

    /// Something came. From now on a break is waited out in silence.
    pub(super) fn came(&mut self) {
        self.patience.reset();
        self.told = true;
    }

    /// The stream lasted long enough: after the next break, the full time is waited again.
    pub(super) fn lasted(&mut self) {
        self.patience.reset();
    }

    /// Waits before the next try, as [`Patience::another`] does. Says what for, if nothing has come
    /// yet: the command would be silent for minutes otherwise.
    pub(super) async fn another(&mut self, client: &Client, failure: &Status) -> bool {
        if peer::passes(failure) && !std::mem::replace(&mut self.told, true) {
            let minutes = STREAM_PATIENCE.as_secs() / 60;
            let why = client.failure(failure).message;
            output::note(&format!("trying again for {minutes} minutes: {why}"));
        }
        self.patience.another(failure).await
    }
}
