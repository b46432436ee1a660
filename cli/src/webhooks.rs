//! `darkroom webhook`: where the farm sends events.

use darkroom_core::{shown::shown, webhook::WebhookId};
use darkroom_proto::{json, v1};

use crate::{
    args::{Place, WebhookAddArgs, WebhookCommand, WebhookListArgs},
    client::Pages,
    failure::{self, Result},
    farm,
    keys::{PAGE, time},
    output,
    table::{none, table},
};

/// Runs one of the commands.
pub(crate) async fn run(command: WebhookCommand, place: &Place, as_json: bool) -> Result<()> {
    match command {
        WebhookCommand::Add(args) => add(args, place, as_json).await,
        WebhookCommand::List(args) => list(&args, place, as_json).await,
        WebhookCommand::Rm(args) => {
            let id: WebhookId = args.id.parse()?;
            let ended = farm::find(place)?.delete_webhook(id).await?;
            if as_json {
                return output::json(&json::DeleteWebhookResponse::from(&ended));
            }
            let dropped = match ended.events_dropped {
                0 => String::new(),
                1 => "; 1 event that waited is dropped".to_owned(),
                many => format!("; {many} events that waited are dropped"),
            };
            output::line(&format!("the webhook {} is ended{dropped}", shown(&ended.id)))
        }
    }
}

async fn add(args: WebhookAddArgs, place: &Place, as_json: bool) -> Result<()> {
    let request = v1::CreateWebhookRequest {
        url: args.url,
        event_types: args.events,
        name: args.name.unwrap_or_default(),
        tenant: args.tenant.unwrap_or_default(),
    };
    let made = farm::find(place)?.create_webhook(request).await?;
    if as_json {
        return output::json(&json::CreateWebhookResponse::from(&made));
    }
    let id = made.webhook.map(|webhook| webhook.id).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| {
        failure::unbelievable(
            "the farm made a webhook but did not say which; ask its operator".to_owned(),
        )
    })?;
    output::line(&shown(&made.secret))?;
    output::note(&format!(
        "this is the secret of the webhook {}, which signs its events; it is shown only now",
        shown(&id)
    ));
    Ok(())
}

async fn list(args: &WebhookListArgs, place: &Place, as_json: bool) -> Result<()> {
    let client = farm::find(place)?;
    let head = ["ID", "TENANT", "EVENTS", "STATE", "WAITING", "LAST SUCCESS", "URL"];
    let mut rows = vec![head.map(str::to_owned)];
    let mut errors = Vec::new();
    let (mut pages, mut token) = (Pages::default(), String::new());
    loop {
        let request = v1::ListWebhooksRequest {
            page_size: PAGE,
            page_token: token,
            tenant: args.tenant.clone().unwrap_or_default(),
        };
        let page = client.webhooks(request).await?;
        for webhook in &page.webhooks {
            if as_json {
                output::json(&json::Webhook::from(webhook))?;
                continue;
            }
            rows.push(row(webhook));
            errors.extend(error(webhook));
        }
        match pages.next(page.next_page_token)? {
            Some(next) => token = next,
            None => break,
        }
    }
    if as_json {
        return Ok(());
    }
    table(&rows, 7)?;
    errors.iter().for_each(|error| output::note(error));
    Ok(())
}

fn row(webhook: &v1::Webhook) -> [String; 7] {
    let events: Vec<_> = webhook.event_types.iter().map(|name| shown(name)).collect();
    let state = match &webhook.suspended_until {
        Some(until) => format!("suspended until {until}"),
        None if failing(webhook) => "failing".to_owned(),
        None => "ok".to_owned(),
    };
    let name = match webhook.name.as_str() {
        "" => String::new(),
        name => format!(" ({})", shown(name)),
    };
    [
        shown(&webhook.id).into_owned(),
        shown(&webhook.tenant).into_owned(),
        if events.is_empty() { "all".to_owned() } else { events.join(",") },
        state,
        match &webhook.oldest_waiting {
            Some(oldest) => format!("{}, since {oldest}", webhook.events_waiting),
            None => none(),
        },
        time(&webhook.last_success),
        format!("{}{name}", shown(&webhook.url)),
    ]
}

/// Whether the last try failed.
fn failing(webhook: &v1::Webhook) -> bool {
    let seconds =
        |time: &Option<prost_types::Timestamp>| time.map(|time| (time.seconds, time.nanos));
    seconds(&webhook.last_failure) > seconds(&webhook.last_success)
}

/// What went wrong with a webhook.
fn error(webhook: &v1::Webhook) -> Option<String> {
    let id = shown(&webhook.id);
    let failed = failing(webhook).then(|| shown(&webhook.last_error).into_owned());
    let given_up = match webhook.events_given_up {
        0 => None,
        1 => Some("1 event of the last 7 days was given up".to_owned()),
        many => Some(format!("{many} events of the last 7 days were given up")),
    };
    match (failed, given_up) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(format!("{id}: {one}")),
        (Some(failed), Some(given_up)) => Some(format!("{id}: {failed}; {given_up}")),
    }
}
