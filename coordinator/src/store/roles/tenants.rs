//! Tenants and their settings.

use crate::store::{
    error::Error,
    keys::{TenantChange, TenantRecord},
};
use async_trait::async_trait;

/// Tenants and their settings.
#[async_trait]
pub trait Tenants: Send + Sync + 'static {
    /// Adds a tenant, or changes its settings. A quota may be below what the tenant uses. Returns the
    /// tenant, and whether it is another one than before.
    async fn set_tenant(
        &self,
        name: &str,
        change: &TenantChange,
    ) -> Result<(TenantRecord, bool), Error>;

    /// One tenant.
    async fn tenant(&self, name: &str) -> Result<TenantRecord, Error>;

    /// At most `limit` tenants whose names come after `after`, by name.
    async fn list_tenants(&self, after: &str, limit: u32) -> Result<Vec<TenantRecord>, Error>;
}
