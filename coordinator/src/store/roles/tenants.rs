//! Tenants and their settings.

use async_trait::async_trait;

use crate::store::{
    error::Error,
    keys::{Sharing, TenantRecord},
};

/// Tenants and their settings.
#[async_trait]
pub trait Tenants: Send + Sync + 'static {
    /// Adds a tenant, or changes its settings. Without `sharing`, the present setting stays.
    async fn set_tenant(&self, name: &str, sharing: Option<Sharing>)
    -> Result<TenantRecord, Error>;

    /// One tenant.
    async fn tenant(&self, name: &str) -> Result<TenantRecord, Error>;

    /// At most `limit` tenants whose names come after `after`, by name.
    async fn list_tenants(&self, after: &str, limit: u32) -> Result<Vec<TenantRecord>, Error>;
}
