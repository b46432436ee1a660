//! Webhooks: where a tenant's events are sent.

use super::{Seconds, U64};
use crate::hidden::Hidden;

super::requests! {
    /// Has events sent to an address.
    CreateWebhookRequest {
        url: String,
        event_types: Vec<String>,
        name: String,
        tenant: String,
    }

    /// Asks for a page of webhooks.
    ListWebhooksRequest {
        page_size: u32,
        page_token: String,
        tenant: String,
    }

    /// Ends a webhook.
    DeleteWebhookRequest {
        id: String,
    }
}

super::answers! {
    /// A webhook, without its secret.
    Webhook {
        id: String,
        tenant: String,
        url: String,
        name: String,
        event_types: Vec<String>,
        created: Option<Seconds>,
        last_success: Option<Seconds>,
        last_failure: Option<Seconds>,
        last_error: String,
        events_waiting: U64,
        oldest_waiting: Option<Seconds>,
        events_given_up: U64,
        suspended_until: Option<Seconds>,
    }

    /// A new webhook.
    CreateWebhookResponse {
        webhook: Option<Webhook>,
        secret: Hidden<String>,
    }

    /// A page of webhooks.
    ListWebhooksResponse {
        webhooks: Vec<Webhook>,
        next_page_token: String,
    }

    /// A webhook that was ended.
    DeleteWebhookResponse {
        id: String,
        tenant: String,
        events_dropped: U64,
    }
}
