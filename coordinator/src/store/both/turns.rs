//! Turns of transactions that count the rows of a tenant before they add one.

use super::{Error, Tx};

/// Of transactions that add files, batches or webhooks of a tenant, each sees what those before it
/// have added.
pub(super) async fn one_at_a_time(tx: &mut Tx, tenant: &str) -> Result<(), Error> {
    sqlx::query(sql!(
        sqlite: "SELECT $1",
        postgres: "SELECT pg_advisory_xact_lock(hashtextextended($1, 2026113001))",
    ))
    .bind(tenant)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
