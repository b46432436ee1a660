//! Reads tenants' quotas from the record, and says that this coordinator takes its share of their
//! calls.

use std::{sync::Arc, time::Duration};

use crate::{error::Error, quotas::KnownQuotas, shared::Shared, store::roles::Metering};

/// Name of this part.
const PART: &str = "quotas";
/// How often the quotas are read.
const EACH: Duration = Duration::from_secs(1);

/// Reads the quotas until shutdown.
pub(crate) async fn run<S: Metering + ?Sized>(shared: Arc<Shared>, store: Arc<S>) {
    while !shared.stop.is_cancelled() {
        match read(&shared, store.as_ref()).await {
            Ok(()) => shared.healed(PART),
            Err(error) => shared.failed(PART, &error),
        }
        shared.pause(EACH).await;
    }
}

/// Reads the quotas now.
pub(crate) async fn read(shared: &Shared, store: &(impl Metering + ?Sized)) -> Result<(), Error> {
    let reading = shared.quotas.begin();
    let (tenants, now_ms) = store.limited().await?;
    let coordinators = store.note_coordinator(shared.leadership.holder()).await?.max(1);
    let tenants = tenants.into_iter().map(|tenant| (tenant.name.clone(), tenant)).collect();
    shared.quotas.set(KnownQuotas { tenants, now_ms, coordinators, reading });
    Ok(())
}
