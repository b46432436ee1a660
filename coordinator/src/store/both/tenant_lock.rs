//! A lock for transactions that count the rows of a tenant before they add one.

use super::{Error, Tx};

/// Makes transactions that add files, batches or webhooks of one tenant run one after another, so
/// that each sees what the earlier ones added.
pub(super) async fn lock_tenant(tx: &mut Tx, tenant: &str) -> Result<(), Error> {
    sqlx::query(sql!(
        sqlite: "SELECT $1",
        postgres: "SELECT pg_advisory_xact_lock(hashtextextended($1, 2026113001))",
    ))
    .bind(tenant)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
