//! Who did what. Rows are only added: the database refuses to change or remove one.

use async_trait::async_trait;

use crate::store::{
    error::Error,
    keys::{AuditQuery, AuditRecord, NewAudit},
};

/// Who did what. Rows are only added: the database refuses to change or remove one.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Adds a row.
    async fn add_audit(&self, new: &NewAudit) -> Result<(), Error>;

    /// Rows, newest first.
    async fn list_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRecord>, Error>;
}
