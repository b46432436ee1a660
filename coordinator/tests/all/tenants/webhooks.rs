//! Webhooks of tenants.

use darkroom_core::{error::Code, webhook::WebhookId};
use darkroom_farm_api::{Caller, Scope};
use darkroom_proto::v1;

use super::calling::{Town, of, operator, without};

fn at(tenant: &str) -> v1::CreateWebhookRequest {
    v1::CreateWebhookRequest {
        url: "http://bees.example.com/bees-path".to_owned(),
        name: "bees-name".to_owned(),
        tenant: tenant.to_owned(),
        ..Default::default()
    }
}

fn page(tenant: &str) -> v1::ListWebhooksRequest {
    v1::ListWebhooksRequest { tenant: tenant.to_owned(), page_size: 1, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_webhooks_do_not_exist() {
    let town = Town::build().await;
    let calls = &town.calls;
    let make = async |caller: &Caller, tenant: &str| {
        let made = calls.create_webhook(caller, at(tenant)).await?;
        Ok::<_, darkroom_core::error::UserError>((made.webhook.expect("a webhook"), made.secret))
    };
    let (first, secret) = make(&of("b"), "").await.expect("made");
    let (second, other_secret) = make(&of("b"), "b").await.expect("made");
    assert_eq!((first.tenant.as_str(), second.tenant.as_str()), ("b", "b"));
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    assert_ne!(secret, other_secret);
    let refused = make(&of("a"), "b").await.expect_err("another's");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "OTHER_TENANT"));
    let (own, _) = make(&of("a"), "").await.expect("made");

    // Listings.
    let list = async |caller: &Caller, request| calls.list_webhooks(caller, request).await;
    let told = list(&of("a"), page("")).await.expect("listed");
    assert_eq!(told.webhooks.iter().map(|one| &one.id).collect::<Vec<_>>(), [&own.id]);
    assert_eq!(told.next_page_token, "");
    assert_eq!(list(&of("newcomer"), page("")).await.expect("listed").webhooks, []);
    let refused = list(&of("a"), page("b")).await.expect_err("another's");
    assert_eq!(refused.reason, "OTHER_TENANT");
    let told = list(&of("b"), page("b")).await.expect("listed");
    assert_eq!(told.webhooks, std::slice::from_ref(&first), "one page");
    let next = v1::ListWebhooksRequest { page_token: told.next_page_token.clone(), ..page("") };
    let rest = list(&of("b"), next.clone()).await.expect("listed");
    assert_eq!(rest.webhooks, std::slice::from_ref(&second));
    let refused = list(&of("a"), next).await.expect_err("another's token");
    assert_eq!(refused.field.as_deref(), Some("page_token"));
    let all = v1::ListWebhooksRequest { page_size: 0, ..page("") };
    assert_eq!(list(&operator(), all).await.expect("listed").webhooks.len(), 3);
    let homeless = Caller::of(None, [Scope::Submit], None);
    assert_eq!(list(&homeless, page("")).await.expect_err("nobody").reason, "NO_TENANT");
    assert_eq!(make(&homeless, "b").await.expect_err("nobody").reason, "NO_TENANT");

    // The end.
    let nobodys = WebhookId::fresh().to_string();
    let end = async |caller: &Caller, id: &str| {
        calls.delete_webhook(caller, v1::DeleteWebhookRequest { id: id.to_owned() }).await
    };
    for caller in [of("a"), of("newcomer")] {
        let missing = end(&caller, &nobodys).await.expect_err("nobody's");
        let refused = end(&caller, &first.id).await.expect_err("another's");
        assert_eq!(missing.code, Code::NotFound);
        assert_eq!(without(&first.id, &refused), without(&nobodys, &missing));
    }
    assert_eq!(end(&homeless, &first.id).await.expect_err("nobody").reason, "NO_TENANT");
    assert_eq!(end(&of("b"), &first.id).await.expect("ended").tenant, "b");
    assert_eq!(end(&operator(), &second.id).await.expect("ended").tenant, "b");
    assert!(end(&of("b"), &first.id).await.is_err(), "it is gone");
    town.farm.shutdown().await;
}
