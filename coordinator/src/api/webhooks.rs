//! Webhooks: where a tenant's events are sent.

use darkroom_core::{
    digest::{Digest, FieldHasher},
    error::{Code, UserError},
    tenant,
    webhook::{EventType, WebhookId, check_name},
};
use darkroom_farm_api::Caller;
use darkroom_proto::v1;
use darkroom_runtime::outgoing::{AllowedAddresses, Host, SPEAKS_TLS, Target};

use super::{
    Farm,
    access::{DEFAULT_TENANT, Reach, tenant_filter},
    admin::{page, page_size},
    listing::bad_token,
    refused,
};
use crate::{
    error::Error,
    store::{
        limits::timestamp,
        webhooks::{NewWebhook, WebhookQuery, WebhookRecord},
    },
    webhooks::{allowed_addresses, secret_text},
};

impl Farm {
    pub(super) async fn make_webhook(
        &self,
        caller: &Caller,
        request: v1::CreateWebhookRequest,
    ) -> Result<v1::CreateWebhookResponse, Error> {
        let named = tenant_filter(caller, "tenant", &request.tenant).map_err(refused)?;
        let own = || caller.tenant().unwrap_or(DEFAULT_TENANT).to_owned();
        let tenant = named.unwrap_or_else(own);
        tenant::check("tenant", &tenant).map_err(refused)?;
        let new = new_webhook(request, tenant, allowed_addresses(&self.shared.options))
            .map_err(refused)?;
        let made = self.front.add_webhook(&new).await?;
        let secret = secret_text(&self.shared.trust.webhook_secret(made.id));
        Ok(v1::CreateWebhookResponse { webhook: Some(webhook(made)), secret })
    }

    pub(super) async fn webhooks(
        &self,
        caller: &Caller,
        request: v1::ListWebhooksRequest,
    ) -> Result<v1::ListWebhooksResponse, Error> {
        let tenant = tenant_filter(caller, "tenant", &request.tenant).map_err(refused)?;
        let limit = page_size(request.page_size).map_err(refused)?;
        let (listing, tokens) = (listing(tenant.as_deref()), self.tokens().await?);
        let after = match request.page_token.as_str() {
            "" => 0,
            token => tokens
                .open(&listing, token)
                .and_then(|position| position.parse().ok())
                .ok_or_else(|| refused(bad_token(token)))?,
        };
        let query = WebhookQuery { tenant, after, limit: limit + 1 };
        let found = self.front.list_webhooks(&query).await?;
        let (found, next_page_token) =
            page(found, limit, |one| tokens.seal(&listing, &one.seq.to_string()));
        let webhooks = found.into_iter().map(webhook).collect();
        Ok(v1::ListWebhooksResponse { webhooks, next_page_token })
    }

    pub(super) async fn end_webhook(
        &self,
        caller: &Caller,
        request: v1::DeleteWebhookRequest,
    ) -> Result<v1::DeleteWebhookResponse, Error> {
        let id: WebhookId = request.id.parse().map_err(refused)?;
        let reach = Reach::of(caller).map_err(refused)?;
        let ended = self.front.delete_webhook(id, reach.tenant()).await?;
        Ok(v1::DeleteWebhookResponse {
            id: id.to_string(),
            tenant: ended.tenant,
            events_dropped: ended.dropped,
        })
    }
}

/// The listing that a page token belongs to. Tokens are sealed, because a position would tell how
/// many webhooks all tenants have made.
fn listing(tenant: Option<&str>) -> Digest {
    let hasher = FieldHasher::new("webhooks/1").field(&[u8::from(tenant.is_some())]);
    hasher.field(tenant.unwrap_or_default().as_bytes()).finish()
}

pub(super) fn new_webhook(
    request: v1::CreateWebhookRequest,
    tenant: String,
    allowed: AllowedAddresses,
) -> Result<NewWebhook, UserError> {
    let target = Target::parse("url", &request.url)?;
    if target.is_https() && !SPEAKS_TLS {
        let message = "url begins with https://, and this farm was built without TLS; accepted: \
                       http://, or a farm that is built with `--features tls`";
        let error = UserError::new(Code::FailedPrecondition, "NO_TLS", message);
        return Err(UserError { field: Some("url".to_owned()), ..error });
    }
    // Names are looked at whenever the farm connects, and addresses once more then.
    if let Host::Address(address) = target.host()
        && !allowed.allows(*address)
    {
        let message = format!(
            "url leads to {address}, and this farm sends nothing to loopback, link-local and private \
             addresses; accepted: a public address, or any if the farm is started with \
             --webhook-private-addresses"
        );
        return Err(UserError::invalid("url", message));
    }
    let types: Vec<EventType> =
        request.event_types.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    check_name(&request.name)?;
    let url = target.as_str().to_owned();
    Ok(NewWebhook { id: WebhookId::fresh(), tenant, url, name: request.name, types })
}

fn webhook(record: WebhookRecord) -> v1::Webhook {
    v1::Webhook {
        id: record.id.to_string(),
        tenant: record.tenant,
        url: record.url,
        name: record.name,
        event_types: record.types,
        created: Some(timestamp(record.created_ms)),
        last_success: record.success_ms.map(timestamp),
        last_failure: record.failure_ms.map(timestamp),
        last_error: record.error,
        events_waiting: record.waiting,
        oldest_waiting: record.oldest_waiting_ms.map(timestamp),
        events_given_up: record.given_up,
        suspended_until: record.suspended_until_ms.map(timestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(url: &str) -> v1::CreateWebhookRequest {
        v1::CreateWebhookRequest { url: url.to_owned(), ..Default::default() }
    }

    fn made(url: &str, allowed: AllowedAddresses) -> Result<NewWebhook, UserError> {
        new_webhook(asked(url), "t".to_owned(), allowed)
    }

    #[test]
    fn an_address_that_is_written_out_is_checked_when_the_webhook_is_made() {
        for url in
            ["http://127.0.0.1:1/", "http://10.1.1.1/", "http://[::1]/", "http://2130706433/"]
        {
            let refused = made(url, AllowedAddresses::Public).expect_err(url);
            assert_eq!(refused.field.as_deref(), Some("url"));
            assert!(refused.message.contains("--webhook-private-addresses"), "{refused}");
            assert!(made(url, AllowedAddresses::Anywhere).is_ok(), "{url}");
        }
        for url in ["http://8.8.8.8/", "http://localhost/", "http://example.com"] {
            let webhook =
                made(url, AllowedAddresses::Public).unwrap_or_else(|error| panic!("{error}"));
            assert!(webhook.url.ends_with('/'), "{}", webhook.url);
        }
        assert_eq!(made("https://example.com/", AllowedAddresses::Public).is_ok(), SPEAKS_TLS);
    }

    #[test]
    fn types_and_names_are_checked() {
        let types = |names: &[&str]| v1::CreateWebhookRequest {
            event_types: names.iter().map(|name| (*name).to_owned()).collect(),
            ..asked("http://example.com/")
        };
        let new = |request| new_webhook(request, "t".to_owned(), AllowedAddresses::Public);
        let webhook = new(types(&["job.failed", "batch.expired"])).expect("known");
        assert_eq!(webhook.types, [EventType::JobFailed, EventType::BatchExpired]);
        let refused = new(types(&["job.failed", "job.*"])).expect_err("unknown");
        assert_eq!(refused.field.as_deref(), Some("event_types"));
        let named = v1::CreateWebhookRequest { name: "x".repeat(201), ..types(&[]) };
        assert_eq!(new(named).expect_err("long").field.as_deref(), Some("name"));
    }
}
