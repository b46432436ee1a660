//! Who did what.

use async_trait::async_trait;

use super::{Error, Record, clock::now_ms};
use crate::store::{
    keys::{AuditQuery, AuditRecord, NewAudit},
    roles::Audit,
    row::row,
};

row! {
    struct Row {
        id: i64,
        at_ms: i64,
        key: Option<String>,
        tenant: Option<String>,
        action: String,
        target: String,
        peer: Option<String>,
    }
}

#[async_trait]
impl Audit for Record {
    async fn add_audit(&self, new: &NewAudit) -> Result<(), Error> {
        sqlx::query(concat!(
            "INSERT INTO audit (key, tenant, action, target, peer, at_ms) VALUES ($1, $2, $3, $4, $5, ",
            now_ms!(),
            ")",
        ))
        .bind(new.key.as_deref())
        .bind(new.tenant.as_deref())
        .bind(new.action)
        .bind(&new.target)
        .bind(new.peer.map(|peer| peer.to_string()))
        .execute(self.writes())
        .await?;
        Ok(())
    }

    async fn list_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRecord>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, at_ms, key, tenant, action, target, peer FROM audit
             WHERE id < $1 AND at_ms >= $2 AND (CAST($3 AS TEXT) IS NULL OR tenant = $3)
               AND (CAST($4 AS TEXT) IS NULL OR key = $4)
             ORDER BY id DESC LIMIT $5",
        )
        .bind(query.before)
        .bind(query.since_ms)
        .bind(query.tenant.as_deref())
        .bind(query.key.as_deref())
        .bind(i64::from(query.limit))
        .fetch_all(self.reads())
        .await?;
        let record = |row: Row| AuditRecord {
            id: row.id,
            at_ms: row.at_ms,
            key: row.key,
            tenant: row.tenant,
            action: row.action,
            target: row.target,
            peer: row.peer,
        };
        Ok(rows.into_iter().map(record).collect())
    }
}
