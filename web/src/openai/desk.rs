//! What the handlers of this API share: the names of models, the requests that may be repeated, and
//! the memory for masks.

use std::{sync::Arc, time::Duration};

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Caller, Calls};
use darkroom_proto::v1;
use futures::FutureExt as _;

use super::{aliases::Aliases, ledger::Ledger, mask::Masks};
use crate::tasks::Tasks;

/// How long the work of a client that is gone goes on, for a retry to find it.
const GRACE: Duration = Duration::from_secs(60);

/// What the handlers share.
pub(crate) struct Desk {
    pub(super) aliases: Aliases,
    pub(super) ledger: Ledger,
    pub(super) masks: Masks,
}

impl Desk {
    pub(crate) fn new(farm: &Arc<dyn Calls>, aliases: Aliases, tasks: Tasks) -> Self {
        let farm = Arc::clone(farm);
        let cancel = move |caller: Caller, id: String| {
            let farm = Arc::clone(&farm);
            async move {
                let cancelled = farm.cancel_job(&caller, v1::CancelJobRequest { id: id.clone() });
                match cancelled.await {
                    Ok(_) => tracing::info!(job.id = %id, "cancelled a job whose client is gone"),
                    Err(error) if is_over(&error) => {
                        tracing::debug!(job.id = %id, %error, "the job of a client that is gone is over");
                    }
                    Err(error) => {
                        tracing::warn!(job.id = %id, %error, "cannot cancel a job whose client is gone");
                    }
                }
            }
            .boxed()
        };
        Self { aliases, ledger: Ledger::new(GRACE, cancel, tasks), masks: Masks::new() }
    }
}

/// Whether a job cannot be cancelled because it has ended or was deleted, which is expected.
fn is_over(error: &UserError) -> bool {
    matches!(error.code, Code::FailedPrecondition | Code::NotFound)
}
