//! Takes tasks back whose tenants have used up their device time of today, so that only what
//! workers hold already is finished, and the rest waits in the record.

use std::collections::BTreeSet;

use darkroom_queue::Leased;

use crate::{
    error::Error,
    shared::Shared,
    store::{
        records::{Release, Term},
        roles::{Dispatching, Metering, Outcomes},
    },
    tasks::by_pool,
};

/// The tenants whose tasks were taken back, until they may go on.
pub(crate) type Held = BTreeSet<String>;

/// Takes back the tasks of tenants whose time has run out since the last call. What fails is tried
/// again by the next one.
pub(crate) async fn take_back<S: Dispatching + Metering + Outcomes + ?Sized>(
    shared: &Shared,
    store: &S,
    term: Term,
    held: &mut Held,
) -> Result<(), Error> {
    let out_of_time = shared.quotas.get().out_of_time();
    held.retain(|tenant| out_of_time.contains(tenant));
    for tenant in out_of_time.difference(&held.clone()) {
        for job in store.jobs_in_flight(tenant).await? {
            for (pool, keys) in by_pool(store.dispatched_of_job(job).await?) {
                let removed = shared.queue.remove(&pool, &keys, Leased::Keep).await?;
                let released = store.release(term, &pool, &removed, &Release::Returned).await?;
                shared.committed(&released);
            }
        }
        tracing::info!(tenant, "the tenant's device time of today is used up, so its images wait");
        held.insert(tenant.clone());
    }
    Ok(())
}
