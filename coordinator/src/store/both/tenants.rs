//! Tenants and their settings.

use async_trait::async_trait;

use super::{Connection, Error, Record, clock::now_ms, retried};
use crate::store::{
    keys::{Sharing, TenantRecord},
    roles::Tenants,
    row::row,
};

row! {
    struct Row {
        name: String,
        created_ms: i64,
        sharing: Option<String>,
    }
}

#[async_trait]
impl Tenants for Record {
    async fn set_tenant(
        &self,
        name: &str,
        sharing: Option<Sharing>,
    ) -> Result<TenantRecord, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            add_missing(&mut tx, name).await?;
            if let Some(sharing) = sharing {
                sqlx::query("UPDATE tenants SET sharing = $2 WHERE name = $1")
                    .bind(name)
                    .bind(sharing.name())
                    .execute(&mut *tx)
                    .await?;
            }
            let set = read(&mut tx, name).await?;
            tx.commit().await?;
            Ok(set)
        })
        .await
    }

    async fn tenant(&self, name: &str) -> Result<TenantRecord, Error> {
        read(&mut *self.reader().await?, name).await
    }

    async fn list_tenants(&self, after: &str, limit: u32) -> Result<Vec<TenantRecord>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT name, created_ms, sharing FROM tenants WHERE name > $1 ORDER BY name LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(Row::tenant).collect()
    }
}

async fn read(connection: &mut Connection, name: &str) -> Result<TenantRecord, Error> {
    let row: Option<Row> =
        sqlx::query_as("SELECT name, created_ms, sharing FROM tenants WHERE name = $1")
            .bind(name)
            .fetch_optional(connection)
            .await?;
    row.ok_or_else(|| Error::NotFound(format!("there is no tenant {name:?}")))?.tenant()
}

/// Adds a tenant, if it is not there yet.
pub(super) async fn add_missing(connection: &mut Connection, name: &str) -> Result<(), Error> {
    sqlx::query(concat!(
        "INSERT INTO tenants (name, created_ms) VALUES ($1, ",
        now_ms!(),
        ") ON CONFLICT (name) DO NOTHING",
    ))
    .bind(name)
    .execute(connection)
    .await?;
    Ok(())
}

impl Row {
    fn tenant(self) -> Result<TenantRecord, Error> {
        let sharing = self.sharing.as_deref().map(Sharing::named).transpose()?;
        Ok(TenantRecord { name: self.name, created_ms: self.created_ms, sharing })
    }
}
