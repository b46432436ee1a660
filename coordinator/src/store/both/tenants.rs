//! Tenants and their settings.

use async_trait::async_trait;
use darkroom_core::quota::Quotas;

use super::{
    Connection, Error, Record, Tx,
    clock::now_ms,
    metering::quota_columns,
    retried,
    rows::{column, parse},
};
use crate::store::{
    keys::{TenantChange, TenantRecord},
    metering::QuotaColumns,
    roles::Tenants,
    row::row,
};

row! {
    struct Row {
        name: String,
        created_ms: i64,
        sharing: Option<String>,
        ..quotas: QuotaColumns,
    }
}

#[async_trait]
impl Tenants for Record {
    async fn set_tenant(
        &self,
        name: &str,
        change: &TenantChange,
    ) -> Result<(TenantRecord, bool), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let added = add_missing(&mut tx, name).await?;
            let present = lock(&mut tx, name).await?;
            if let Some(sharing) = change.sharing {
                sqlx::query("UPDATE tenants SET sharing = $2 WHERE name = $1")
                    .bind(name)
                    .bind(sharing.name())
                    .execute(&mut *tx)
                    .await?;
            }
            if !change.quotas.is_nothing() {
                write_quotas(&mut tx, name, &change.quotas.applied(&present.quotas)).await?;
            }
            let set = read(&mut tx, name).await?;
            tx.commit().await?;
            let changed = added || set != present;
            Ok((set, changed))
        })
        .await
    }

    async fn tenant(&self, name: &str) -> Result<TenantRecord, Error> {
        read(&mut *self.reader().await?, name).await
    }

    async fn list_tenants(&self, after: &str, limit: u32) -> Result<Vec<TenantRecord>, Error> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT name, created_ms, sharing, ",
            quota_columns!(),
            " FROM tenants WHERE name > $1 ORDER BY name LIMIT $2",
        ))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(Row::tenant).collect()
    }
}

async fn read(connection: &mut Connection, name: &str) -> Result<TenantRecord, Error> {
    let row: Option<Row> = sqlx::query_as(concat!(
        "SELECT name, created_ms, sharing, ",
        quota_columns!(),
        " FROM tenants WHERE name = $1",
    ))
    .bind(name)
    .fetch_optional(connection)
    .await?;
    row.ok_or_else(|| Error::NotFound(format!("there is no tenant {name:?}")))?.tenant()
}

/// As [`read`], and the tenant's row is locked from here on: of two changes at once, the second one
/// keeps what the first one has set.
async fn lock(tx: &mut Tx, name: &str) -> Result<TenantRecord, Error> {
    let row: Row = sqlx::query_as(concat!(
        "SELECT name, created_ms, sharing, ",
        quota_columns!(),
        " FROM tenants WHERE name = $1",
        sql!(sqlite: "", postgres: " FOR NO KEY UPDATE"),
    ))
    .bind(name)
    .fetch_one(&mut **tx)
    .await?;
    row.tenant()
}

/// Writes the quotas of a tenant, whose row is locked.
async fn write_quotas(tx: &mut Tx, name: &str, quotas: &Quotas) -> Result<(), Error> {
    sqlx::query(
        "UPDATE tenants
         SET images_waiting = $2, images_per_day = $3, device_seconds_per_day = $4, stored_bytes = $5,
             requests_per_second = $6, burst = $7, workers = $8, weight = $9
         WHERE name = $1",
    )
    .bind(name)
    .bind(quotas.images_waiting.map(column))
    .bind(quotas.images_per_day.map(column))
    .bind(quotas.device_seconds_per_day)
    .bind(quotas.stored_bytes.map(column))
    .bind(quotas.requests_per_second)
    .bind(quotas.burst.map(column))
    .bind(quotas.workers.map(column))
    .bind(quotas.weight)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Adds a tenant, if it is not there yet. Returns whether it was not.
pub(super) async fn add_missing(connection: &mut Connection, name: &str) -> Result<bool, Error> {
    let added = sqlx::query(concat!(
        "INSERT INTO tenants (name, created_ms) VALUES ($1, ",
        now_ms!(),
        ") ON CONFLICT (name) DO NOTHING",
    ))
    .bind(name)
    .execute(connection)
    .await?;
    Ok(added.rows_affected() > 0)
}

impl Row {
    fn tenant(self) -> Result<TenantRecord, Error> {
        let sharing = self.sharing.as_deref().map(parse).transpose()?;
        let quotas = self.quotas.quotas()?;
        Ok(TenantRecord { name: self.name, created_ms: self.created_ms, sharing, quotas })
    }
}
