//! Where tenants' events are sent, and the events on their way there.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::webhook::{EventType, WebhookId};

use crate::store::{
    error::Error,
    records::Term,
    webhooks::{Delivery, EndedWebhook, NewWebhook, WebhookQuery, WebhookRecord},
};

/// Where tenants' events are sent, and the events on their way there.
///
/// The end of a job adds its event in its own transaction, so none is lost and none made up. An
/// event that is taken belongs to one coordinator until its lease ends. Then another one may take
/// it, so a receiver may get it twice.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// Adds a webhook. Refused if its tenant has too many.
    async fn add_webhook(&self, new: &NewWebhook) -> Result<WebhookRecord, Error>;

    /// Webhooks in the order in which they were made.
    async fn list_webhooks(&self, query: &WebhookQuery) -> Result<Vec<WebhookRecord>, Error>;

    /// Ends a webhook, and drops its events. With a tenant, only one of it is found.
    async fn delete_webhook(
        &self,
        id: WebhookId,
        tenant: Option<&str>,
    ) -> Result<EndedWebhook, Error>;

    /// Adds an event for each webhook of the tenant that gets events of this type. Returns how many.
    async fn add_event(&self, tenant: &str, kind: EventType, data: &str) -> Result<u64, Error>;

    /// Takes events that are due, `free` at most, each until its lease ends. Each webhook has its
    /// turn, none gets more than [`AT_ONCE`](crate::store::webhooks::AT_ONCE) at a time, and none
    /// gets any while it is suspended.
    async fn take_events(&self, free: u32, lease: Duration) -> Result<Vec<Delivery>, Error>;

    /// Records that an event was delivered. If its webhook had failed often, what waits for it is
    /// due now. False if it no longer belonged to this coordinator.
    async fn event_delivered(&self, delivery: &Delivery) -> Result<bool, Error>;

    /// Records why an event was not delivered. It is due again after the pause, or given up if it
    /// has been tried for long enough. A webhook that has failed often is suspended. False if the
    /// event no longer belonged to this coordinator.
    async fn event_not_delivered(
        &self,
        delivery: &Delivery,
        error: &str,
        pause: Duration,
    ) -> Result<bool, Error>;

    /// Gives up events that were tried for long enough, and removes old ones that have ended, about
    /// `limit` of each. Returns how many rows it has changed. [`Error::NotLeading`] if the term has
    /// ended. The time is the caller's, as in [`Removal`](super::Removal).
    async fn forget_events(&self, term: Term, now_ms: i64, limit: u32) -> Result<u64, Error>;
}
