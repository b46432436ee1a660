//! One trait of the calls about keys, tenants and the audit: a method for each call of
//! `darkroom.v1.Admin`, in its order.

use async_trait::async_trait;
use darkroom_proto::v1;

use crate::{Answer, Caller};

/// The calls of a farm's administrators. They follow the rules of [`Calls`](crate::Calls).
#[async_trait]
pub trait AdminCalls: Send + Sync + 'static {
    /// Makes a key.
    async fn create_key(
        &self,
        caller: &Caller,
        request: v1::CreateKeyRequest,
    ) -> Answer<v1::CreateKeyResponse>;

    /// A page of keys.
    async fn list_keys(
        &self,
        caller: &Caller,
        request: v1::ListKeysRequest,
    ) -> Answer<v1::ListKeysResponse>;

    /// Ends a key.
    async fn revoke_key(&self, caller: &Caller, request: v1::RevokeKeyRequest) -> Answer<v1::Key>;

    /// Makes a key in place of another, which ends later.
    async fn rotate_key(
        &self,
        caller: &Caller,
        request: v1::RotateKeyRequest,
    ) -> Answer<v1::RotateKeyResponse>;

    /// Adds or changes a tenant.
    async fn set_tenant(
        &self,
        caller: &Caller,
        request: v1::SetTenantRequest,
    ) -> Answer<v1::Tenant>;

    /// One tenant.
    async fn get_tenant(
        &self,
        caller: &Caller,
        request: v1::GetTenantRequest,
    ) -> Answer<v1::Tenant>;

    /// A page of tenants.
    async fn list_tenants(
        &self,
        caller: &Caller,
        request: v1::ListTenantsRequest,
    ) -> Answer<v1::ListTenantsResponse>;

    /// Sets how long something is kept.
    async fn set_retention(
        &self,
        caller: &Caller,
        request: v1::SetRetentionRequest,
    ) -> Answer<v1::RetentionPolicy>;

    /// How long what is kept.
    async fn get_retention(
        &self,
        caller: &Caller,
        request: v1::GetRetentionRequest,
    ) -> Answer<v1::GetRetentionResponse>;

    /// Has the cleaner work now.
    async fn clean_farm(
        &self,
        caller: &Caller,
        request: v1::CleanFarmRequest,
    ) -> Answer<v1::CleanFarmResponse>;

    /// A page of the audit.
    async fn list_audit(
        &self,
        caller: &Caller,
        request: v1::ListAuditRequest,
    ) -> Answer<v1::ListAuditResponse>;
}
