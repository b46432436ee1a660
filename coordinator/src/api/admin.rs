//! Keys, tenants and the audit.

use async_trait::async_trait;
use darkroom_core::{
    error::UserError,
    key::KeyId,
    quota::{QuotaChange, Quotas},
    scope::Scope,
    sharing::Sharing,
    tenant,
};
use darkroom_farm_api::{AdminCalls, Answer, Caller};
use darkroom_proto::v1;

use tokio::time::timeout;

use super::{
    convert,
    farm::{Again, Farm, refused},
    jobs::AFTERWARDS,
    new_key::{after, milliseconds, new_key, wanted},
};
use crate::{
    first_key::fresh_key,
    quota_reader,
    store::{
        keys::{
            AuditQuery, AuditRecord, KeyQuery, KeyRecord, Proof, Rotation, TenantChange,
            TenantRecord,
        },
        limits::timestamp,
        metering::{self, Usage},
    },
};

/// Default and largest number of entries of a page.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// How long a rotated key still works, in seconds: a day, and at most 30.
const KEEP: u64 = 86_400;
const LONGEST_KEEP: u64 = 30 * KEEP;

#[async_trait]
impl AdminCalls for Farm {
    async fn create_key(
        &self,
        _caller: &Caller,
        request: v1::CreateKeyRequest,
    ) -> Answer<v1::CreateKeyResponse> {
        let create = async {
            let (new, secret) = new_key(request).map_err(refused)?;
            let made = self.front.add_key(&new).await?;
            Ok(v1::CreateKeyResponse { key: Some(key(made)), secret })
        };
        self.changing(self.shared.options.call, Again::Keys, create).await
    }

    async fn list_keys(
        &self,
        _caller: &Caller,
        request: v1::ListKeysRequest,
    ) -> Answer<v1::ListKeysResponse> {
        let list = async {
            let limit = page_size(request.page_size).map_err(refused)?;
            let query = KeyQuery {
                tenant: wanted(request.tenant),
                ended: request.ended,
                after: place(&request.page_token, 0).map_err(refused)?,
                limit: limit + 1,
            };
            let found = self.front.list_keys(&query).await?;
            let (found, next_page_token) = page(found, limit, |key| key.seq.to_string());
            let keys = found.into_iter().map(key).collect();
            Ok(v1::ListKeysResponse { keys, next_page_token })
        };
        self.unary(self.shared.options.call, list).await
    }

    async fn revoke_key(&self, _caller: &Caller, request: v1::RevokeKeyRequest) -> Answer<v1::Key> {
        let revoke = async {
            let id: KeyId = request.id.parse().map_err(refused)?;
            let (revoked, changed) = self.front.revoke_key(&id).await?;
            self.call.tell_changed(changed);
            Ok(key(revoked))
        };
        self.changing(self.shared.options.call, Again::Harmless, revoke).await
    }

    async fn rotate_key(
        &self,
        _caller: &Caller,
        request: v1::RotateKeyRequest,
    ) -> Answer<v1::RotateKeyResponse> {
        let rotate = async {
            let id: KeyId = request.id.parse().map_err(refused)?;
            let fresh = fresh_key().map_err(refused)?;
            let rotation = Rotation {
                id: fresh.id().clone(),
                secret: fresh.hash(),
                keep_ms: keep_ms(request.keep_seconds).map_err(refused)?,
                expiry: Some(request.expires_after_seconds).filter(|life| *life > 0).map(after),
            };
            let (new, old) = self.front.rotate_key(&id, &rotation).await?;
            Ok(v1::RotateKeyResponse {
                key: Some(key(new)),
                secret: fresh.expose(),
                old: Some(key(old)),
            })
        };
        self.changing(self.shared.options.call, Again::Keys, rotate).await
    }

    async fn set_tenant(
        &self,
        _caller: &Caller,
        request: v1::SetTenantRequest,
    ) -> Answer<v1::Tenant> {
        let set = async {
            tenant::check("name", &request.name).map_err(refused)?;
            let sharing = sharing(request.sharing).map_err(refused)?;
            let quotas = quota_change(request.quotas, &request.clear).map_err(refused)?;
            let change = TenantChange { sharing, quotas };
            let (set, changed) = self.front.set_tenant(&request.name, &change).await?;
            self.call.tell_changed(changed);
            // From here on, nothing may turn the answer into an error.
            let reading =
                timeout(AFTERWARDS, quota_reader::read(&self.shared, self.front.as_ref()));
            if !matches!(reading.await, Ok(Ok(()))) {
                tracing::warn!(
                    "a tenant's new quotas could not be read yet; they take effect at the next reading"
                );
            }
            self.shared.events.dispatch.notify_one();
            let usage = timeout(AFTERWARDS, self.front.standing(&set.name)).await;
            Ok(tenant_of(set, usage.ok().and_then(Result::ok).map(|(_, usage)| usage)))
        };
        self.changing(self.shared.options.call, Again::Harmless, set).await
    }

    async fn get_tenant(
        &self,
        _caller: &Caller,
        request: v1::GetTenantRequest,
    ) -> Answer<v1::Tenant> {
        let get = async {
            let tenant = self.front.tenant(&short(request.name)).await?;
            let (_, usage) = self.front.standing(&tenant.name).await?;
            Ok(tenant_of(tenant, Some(usage)))
        };
        self.unary(self.shared.options.call, get).await
    }

    async fn list_tenants(
        &self,
        _caller: &Caller,
        request: v1::ListTenantsRequest,
    ) -> Answer<v1::ListTenantsResponse> {
        let list = async {
            let limit = page_size(request.page_size).map_err(refused)?;
            let after = short(request.page_token);
            let found = self.front.list_tenants(&after, limit + 1).await?;
            let (found, next_page_token) = page(found, limit, |tenant| tenant.name.clone());
            let names: Vec<String> = found.iter().map(|tenant| tenant.name.clone()).collect();
            let mut usage = self.front.usage_of(&names).await?;
            let tenants = found.into_iter().map(|tenant| {
                let usage = usage.remove(&tenant.name);
                tenant_of(tenant, usage)
            });
            let tenants = tenants.collect();
            Ok(v1::ListTenantsResponse { tenants, next_page_token })
        };
        self.unary(self.shared.options.call, list).await
    }

    async fn set_retention(
        &self,
        _caller: &Caller,
        request: v1::SetRetentionRequest,
    ) -> Answer<v1::RetentionPolicy> {
        let set = self.set_policy(request);
        self.changing(self.shared.options.call, Again::Harmless, set).await
    }

    async fn get_retention(
        &self,
        _caller: &Caller,
        request: v1::GetRetentionRequest,
    ) -> Answer<v1::GetRetentionResponse> {
        self.unary(self.shared.options.call, self.kept(request)).await
    }

    async fn clean_farm(
        &self,
        _caller: &Caller,
        request: v1::CleanFarmRequest,
    ) -> Answer<v1::CleanFarmResponse> {
        let clean = self.clean(request);
        self.changing(self.shared.options.call, Again::Harmless, clean).await
    }

    async fn list_audit(
        &self,
        _caller: &Caller,
        request: v1::ListAuditRequest,
    ) -> Answer<v1::ListAuditResponse> {
        let list = async {
            let limit = page_size(request.page_size).map_err(refused)?;
            let query = AuditQuery {
                tenant: wanted(request.tenant),
                key: wanted(request.key),
                since_ms: request.since.as_ref().map_or(0, milliseconds),
                before: place(&request.page_token, i64::MAX).map_err(refused)?,
                limit: limit + 1,
            };
            let found = self.front.list_audit(&query).await?;
            let (found, next_page_token) = page(found, limit, |entry| entry.id.to_string());
            let entries = found.into_iter().map(entry).collect();
            Ok(v1::ListAuditResponse { entries, next_page_token })
        };
        self.unary(self.shared.options.call, list).await
    }
}

fn keep_ms(seconds: u64) -> Result<i64, UserError> {
    match seconds {
        0 => Ok(1000 * KEEP.cast_signed()),
        1..=LONGEST_KEEP => Ok(1000 * seconds.cast_signed()),
        _ => {
            let message = format!(
                "keep_seconds is {seconds}; accepted: 1 to {LONGEST_KEEP}, or 0 for {KEEP}"
            );
            Err(UserError::invalid("keep_seconds", message))
        }
    }
}

fn sharing(number: i32) -> Result<Option<Sharing>, UserError> {
    match v1::Sharing::try_from(number) {
        Ok(v1::Sharing::Unspecified) => Ok(None),
        Ok(v1::Sharing::Shared) => Ok(Some(Sharing::Shared)),
        Ok(v1::Sharing::Sealed) => Ok(Some(Sharing::Sealed)),
        Err(_) => Err(UserError::invalid(
            "sharing",
            format!("sharing is {number}; accepted: shared, sealed, or none"),
        )),
    }
}

pub(super) fn page_size(size: u32) -> Result<u32, UserError> {
    match size {
        0 => Ok(PAGE),
        1..=MAX_PAGE => Ok(size),
        _ => {
            let message =
                format!("page_size is {size}; accepted: 1 to {MAX_PAGE}, or 0 for {PAGE}");
            Err(UserError::invalid("page_size", message))
        }
    }
}

/// Where a page begins: a token is the place of the last entry before it.
fn place(token: &str, first: i64) -> Result<i64, UserError> {
    if token.is_empty() {
        return Ok(first);
    }
    token.parse().map_err(|_| {
        let shown: String = token.chars().take(80).collect();
        let message = format!(
            "page_token is {shown:?}; accepted: a next_page_token of the same listing, or none"
        );
        UserError::invalid("page_token", message)
    })
}

/// The page of one more entry than it takes, and the token of the next.
pub(super) fn page<T>(
    mut found: Vec<T>,
    limit: u32,
    token: impl Fn(&T) -> String,
) -> (Vec<T>, String) {
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let token = found.last().filter(|_| more).map(token).unwrap_or_default();
    (found, token)
}

/// No tenant's name is longer, and an error may repeat it.
fn short(name: String) -> String {
    name.chars().take(2 * tenant::MAX_NAME).collect()
}

fn key(record: KeyRecord) -> v1::Key {
    let scope = |scope| match scope {
        Scope::Read => v1::Scope::Read,
        Scope::Submit => v1::Scope::Submit,
        Scope::Operate => v1::Scope::Operate,
        Scope::Admin => v1::Scope::Admin,
        Scope::Member => v1::Scope::Member,
    };
    v1::Key {
        id: record.id.to_string(),
        tenant: record.tenant.unwrap_or_default(),
        scopes: record.scopes.into_iter().map(|one| scope(one).into()).collect(),
        label: record.label,
        created: Some(timestamp(record.created_ms)),
        expires: record.expires_ms.map(timestamp),
        last_used: record.used_ms.map(timestamp),
        revoked: record.revoked_ms.map(timestamp),
        certificate: match record.proof {
            Proof::Secret(_) => String::new(),
            Proof::Certificate(subject) => subject,
        },
    }
}

fn tenant_of(record: TenantRecord, usage: Option<Usage>) -> v1::Tenant {
    let sharing = match record.sharing {
        None => v1::Sharing::Unspecified,
        Some(Sharing::Shared) => v1::Sharing::Shared,
        Some(Sharing::Sealed) => v1::Sharing::Sealed,
    };
    v1::Tenant {
        name: record.name,
        created: Some(timestamp(record.created_ms)),
        sharing: sharing.into(),
        notes: usage.map_or_else(Vec::new, |usage| metering::notes(&record.quotas, &usage)),
        quotas: Some(convert::quotas(record.quotas)),
        usage: usage.map(convert::usage),
    }
}

/// The change of quotas that a request asks for.
fn quota_change(set: Option<v1::Quotas>, clear: &[String]) -> Result<QuotaChange, UserError> {
    let set = set.map(|set| {
        let v1::Quotas {
            images_waiting,
            images_per_day,
            device_seconds_per_day,
            stored_bytes,
            requests_per_second,
            burst,
            workers,
            weight,
        } = set;
        Quotas {
            images_waiting,
            images_per_day,
            device_seconds_per_day,
            stored_bytes,
            requests_per_second,
            burst,
            workers,
            weight,
        }
    });
    let clear = clear.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let change = QuotaChange { set: set.unwrap_or_default(), clear };
    change.check("quotas")?;
    Ok(change)
}

fn entry(record: AuditRecord) -> v1::AuditEntry {
    v1::AuditEntry {
        id: u64::try_from(record.id).unwrap_or(0),
        time: Some(timestamp(record.at_ms)),
        key: record.key.unwrap_or_default(),
        tenant: record.tenant.unwrap_or_default(),
        action: record.action,
        target: record.target,
        peer: record.peer.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_page_or_a_rotation_is_refused() {
        assert!(keep_ms(LONGEST_KEEP).is_ok() && keep_ms(LONGEST_KEEP + 1).is_err());
        assert_eq!(keep_ms(0).expect("default"), 86_400_000);
        assert!(place("x", 0).is_err() && page_size(1001).is_err());
    }
}
