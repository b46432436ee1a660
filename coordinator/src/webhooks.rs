//! Sends events to webhooks: at least once, a few at a time, and again after failures.
//!
//! Every coordinator takes events from the record, each under a lease. So an event of a coordinator
//! that dies is sent by another one, perhaps a second time. A receiver that is slow keeps its own
//! events waiting and no others: how many each webhook and each tenant may have under way is
//! limited where events are taken ([`crate::store::webhooks`]).
//!
//! Secrets and bodies are never logged.

mod message;
mod pauses;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use darkroom_core::error::Code;
use darkroom_runtime::outgoing::{self, AllowedAddresses, Target};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub(crate) use self::message::secret_text;
use self::{message::Message, pauses::pause_after};
use crate::{
    options::Options,
    shared::Shared,
    store::{roles::Webhooks, webhooks::Delivery},
};

/// Name of this part.
const PART: &str = "webhooks";
/// Events that this coordinator sends at one time.
const AT_ONCE: usize = 32;
/// How long an event belongs to the coordinator that took it, beside the time for its answer.
const SLACK: Duration = Duration::from_secs(20);
/// Tries to record what became of an event. If all fail, it is sent again.
const RECORDINGS: u32 = 3;
/// Pause between them.
const RECORDING: Duration = Duration::from_secs(1);

/// Which servers webhooks may lead to.
pub(crate) fn allowed_addresses(options: &Options) -> AllowedAddresses {
    if options.webhook_private_addresses {
        AllowedAddresses::Anywhere
    } else {
        AllowedAddresses::Public
    }
}

/// Runs until shutdown. What is under way then is dropped, and sent again when its lease has ended.
pub(crate) async fn run<S: Webhooks + ?Sized>(shared: Arc<Shared>, store: Arc<S>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let lease = shared.options.webhook_answer.saturating_add(SLACK);
    while !shared.stop.is_cancelled() {
        let woken = shared.events.webhooks.notified();
        let free = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
        match store.take_events(free, lease).await {
            Ok(taken) => {
                shared.healed(PART);
                for delivery in taken {
                    // This loop alone takes places, so there is one for each.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { break };
                    let (shared, store) = (Arc::clone(&shared), Arc::clone(&store));
                    shared.tasks.clone().spawn(async move {
                        let stop = shared.stop.clone();
                        let sent = deliver(&shared, store.as_ref(), &delivery);
                        let _ = stop.run_until_cancelled(sent).await;
                        drop(place);
                        // Its webhook may have more.
                        shared.events.webhooks.notify_one();
                    });
                }
            }
            Err(error) => shared.failed(PART, &error.into()),
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(shared.options.poll) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// Sends an event, and records what became of it.
async fn deliver<S: Webhooks + ?Sized>(shared: &Shared, store: &S, delivery: &Delivery) {
    let failed = send(shared, delivery).await.err();
    match &failed {
        None => tracing::debug!(webhook.id = %delivery.webhook, event.id = delivery.event,
            event.tries = delivery.tries, "event delivered"),
        Some(error) => tracing::info!(webhook.id = %delivery.webhook, event.id = delivery.event,
            event.tries = delivery.tries, error, "event not delivered"),
    }
    let pause =
        pause_after(delivery.tries, &shared.options.webhook_pauses, Uuid::new_v4().as_u128());
    for _ in 0..RECORDINGS {
        let recorded = match &failed {
            None => store.event_delivered(delivery).await,
            Some(error) => store.event_not_delivered(delivery, error, pause).await,
        };
        match recorded {
            Ok(_) => return,
            Err(error) => shared.failed(PART, &error.into()),
        }
        shared.pause(RECORDING).await;
    }
}

/// Sends an event once. The error is one sentence for the webhook's owner.
async fn send(shared: &Shared, delivery: &Delivery) -> Result<(), String> {
    let target = Target::parse("url", &delivery.url).map_err(|error| error.message)?;
    let message = Message::of(delivery);
    let headers = message
        .headers(&shared.trust.webhook_secret(delivery.webhook), now())
        .map_err(|error| format!("{}: the event has no headers: {error}", Code::Internal.name()))?;
    let body = Bytes::from(message.into_body());
    let limit = shared.options.webhook_answer;
    let sent =
        outgoing::post(&target, allowed_addresses(&shared.options), headers, body, limit).await;
    let status = sent.map_err(|error| error.to_string())?;
    if status.is_success() {
        return Ok(());
    }
    let server = target.shown();
    Err(if status.is_redirection() {
        format!(
            "{server} answered {}, a redirect, and redirects are not followed; use the address that it leads to",
            status.as_u16()
        )
    } else {
        format!("{server} answered {}; accepted: 2xx", status.as_u16())
    })
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
