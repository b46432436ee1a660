//! What happens to a batch after the model, while the next one runs: encode, store, complete.

use std::sync::Arc;

use darkroom_core::failure_code::FailureCode;
use futures::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep},
};

use super::{
    Fault, Stage,
    held::Held,
    model_thread::{End, Ran},
    shared::{RunFacts, Shared, given_up, retries},
    trouble::Use,
};
use crate::task::Outcome;

pub(super) struct Finish<S> {
    shared: Arc<Shared>,
    stage: Arc<S>,
    /// Limits how many batches are between model and storage.
    _upload: OwnedSemaphorePermit,
}

impl<S: Stage> Finish<S> {
    pub(super) fn new(shared: Arc<Shared>, stage: Arc<S>, upload: OwnedSemaphorePermit) -> Self {
        Self { shared, stage, _upload: upload }
    }

    /// Waits for the batch and finishes its rows.
    pub(super) async fn run(self, ran: oneshot::Receiver<Vec<Ran<S::Output>>>) {
        // Without a reply the model's thread has died, and its leases with it.
        let Ok(rows) = ran.await else { return };
        join_all(rows.into_iter().map(|row| self.row(row))).await;
    }

    async fn row(&self, Ran { held, end, facts }: Ran<S::Output>) {
        if held.is_lost() {
            return;
        }
        match end {
            End::Output(output) => self.output(held, output, facts).await,
            End::Outcome(outcome) => self.shared.complete(held, outcome, facts).await,
            End::Interrupted => self.shared.hand_back(vec![held]).await,
        }
    }

    async fn output(&self, held: Held, output: S::Output, facts: RunFacts) {
        let class = self.shared.device_class();
        let encoded = if self.stage.encodes_at_once() {
            Ok(self.stage.encode(held.task(), output, &class))
        } else {
            let (stage, task) = (Arc::clone(&self.stage), held.task().clone());
            tokio::task::spawn_blocking(move || stage.encode(&task, output, &class)).await
        };
        let file = match encoded {
            Ok(Ok(file)) => file,
            Ok(Err(outcome)) => return self.shared.complete(held, outcome, facts).await,
            Err(_) => {
                let message = "encoding the output panicked".to_owned();
                let outcome = Outcome::Failed { code: FailureCode::Panic, message };
                return self.shared.complete(held, outcome, facts).await;
            }
        };
        let patience = Instant::now() + self.shared.options.storage_patience;
        let mut backoff = retries();
        while !held.is_lost() {
            let stored = self.stage.store(held.task(), &file).await;
            self.shared.used_storage(Use::Store, stored.as_ref().err());
            let outcome = match stored {
                Ok(outcome) | Err(Fault::Ends(outcome)) => outcome,
                Err(Fault::Storage(reason)) if Instant::now() >= patience => given_up(reason),
                Err(Fault::Storage(reason)) => {
                    tracing::warn!(reason, "an output cannot be stored, retrying");
                    if self.shared.stop.run_until_cancelled(sleep(backoff.pause())).await.is_none()
                    {
                        return self.shared.hand_back(vec![held]).await;
                    }
                    continue;
                }
            };
            return self.shared.complete(held, outcome, facts).await;
        }
    }
}
