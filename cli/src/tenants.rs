//! `darkroom tenant` and `darkroom audit`.

use darkroom_core::shown::shown;
use darkroom_proto::{
    json::{self, Named as _},
    v1,
};

use crate::{
    args::{AuditArgs, Place, TenantCommand, TenantSetArgs},
    client::{Client, Pages},
    deadline,
    failure::Result,
    farm,
    keys::{PAGE, find, key_id, named, time},
    output, quotas,
    table::{none, table},
};

/// Runs one of the commands about tenants.
pub(crate) async fn run(command: &TenantCommand, place: &Place, as_json: bool) -> Result<()> {
    match command {
        TenantCommand::Set(args) => set(args, place, as_json).await,
        TenantCommand::Show { name, audit } => {
            let client = farm::find(place)?;
            show(&client.tenant(name).await?, as_json)?;
            if *audit { latest(&client, name, as_json).await } else { Ok(()) }
        }
        TenantCommand::List => list(place, as_json).await,
    }
}

async fn set(args: &TenantSetArgs, place: &Place, as_json: bool) -> Result<()> {
    let sharing = match &args.sharing {
        None => v1::Sharing::Unspecified.into(),
        Some(name) => find("sharing", name, &named::<v1::Sharing>())?,
    };
    let (quotas, clear) = quotas::change(&args.quotas)?;
    let quotas = Some(quotas).filter(|quotas| *quotas != v1::Quotas::default());
    let request = v1::SetTenantRequest { name: args.name.clone(), sharing, quotas, clear };
    show(&farm::find(place)?.set_tenant(request).await?, as_json)
}

fn show(tenant: &v1::Tenant, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(&json::Tenant::from(tenant));
    }
    table(&[HEADINGS.map(str::to_owned), row(tenant)], 3)?;
    let (quotas, usage) = (tenant.quotas.unwrap_or_default(), tenant.usage.unwrap_or_default());
    for line in quotas::lines(&quotas, &usage) {
        output::line(&line)?;
    }
    for note in quotas::notes(&tenant.notes) {
        output::line(&note)?;
    }
    Ok(())
}

/// The latest entries of the audit about a tenant, newest first.
async fn latest(client: &Client, tenant: &str, as_json: bool) -> Result<()> {
    let request = v1::ListAuditRequest {
        tenant: tenant.to_owned(),
        page_size: LATEST,
        ..v1::ListAuditRequest::default()
    };
    let entries = client.audit(request).await?.entries;
    if as_json {
        return entries.iter().try_for_each(|one| output::json(&json::AuditEntry::from(one)));
    }
    let rows: Vec<_> =
        [CHANGES.map(str::to_owned)].into_iter().chain(entries.iter().map(change)).collect();
    output::line("")?;
    table(&rows, 6)
}

const HEADINGS: [&str; 3] = ["TENANT", "SHARING", "CREATED"];

fn row(tenant: &v1::Tenant) -> [String; 3] {
    let sharing = tenant.sharing().name().to_owned();
    [shown(&tenant.name).into_owned(), sharing, time(&tenant.created)]
}

async fn list(place: &Place, as_json: bool) -> Result<()> {
    let client = farm::find(place)?;
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    let (mut pages, mut token) = (Pages::default(), String::new());
    loop {
        let request = v1::ListTenantsRequest { page_size: PAGE, page_token: token };
        let page = client.tenants(request).await?;
        for tenant in &page.tenants {
            if as_json {
                output::json(&json::Tenant::from(tenant))?;
            } else {
                rows.push(row(tenant));
            }
        }
        match pages.next(page.next_page_token)? {
            Some(next) => token = next,
            None => break,
        }
    }
    if as_json { Ok(()) } else { table(&rows, 3) }
}

const CHANGES: [&str; 6] = ["TIME", "KEY", "TENANT", "ACTION", "TARGET", "FROM"];
/// How many changes are shown with a tenant.
const LATEST: u32 = 20;

/// `darkroom audit`.
pub(crate) async fn audit(args: &AuditArgs, place: &Place, as_json: bool) -> Result<()> {
    let mut request = v1::ListAuditRequest {
        page_size: PAGE,
        page_token: String::new(),
        tenant: args.tenant.clone().unwrap_or_default(),
        key: args.key.as_deref().map_or(Ok(String::new()), |id| key_id("key", id))?,
        since: args.since.as_deref().map(|text| deadline::past("since", text)).transpose()?,
    };
    let client = farm::find(place)?;
    let mut rows = vec![CHANGES.map(str::to_owned)];
    let mut pages = Pages::default();
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0 {
        request.page_size = u32::try_from(left).map_or(PAGE, |left| left.min(PAGE));
        let page = client.audit(request.clone()).await?;
        for entry in page.entries.iter().take(left) {
            if as_json {
                output::json(&json::AuditEntry::from(entry))?;
            } else {
                rows.push(change(entry));
            }
        }
        left = left.saturating_sub(page.entries.len());
        match pages.next(page.next_page_token)? {
            Some(next) => request.page_token = next,
            None => break,
        }
    }
    if as_json { Ok(()) } else { table(&rows, 6) }
}

fn change(entry: &v1::AuditEntry) -> [String; 6] {
    let word = |text: &str| if text.is_empty() { none() } else { shown(text).into_owned() };
    [
        time(&entry.time),
        word(&entry.key),
        word(&entry.tenant),
        word(&entry.action),
        word(&entry.target),
        word(&entry.peer),
    ]
}
