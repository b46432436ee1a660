//! Manifests of ended jobs that are to be written.

use super::{Error, SqliteStore};

impl SqliteStore {
    /// Jobs whose manifest is to be written, with their generation.
    pub(super) async fn claim_manifests(&self, limit: i64) -> Result<Vec<(String, i64)>, Error> {
        Ok(sqlx::query_as(
            // First the oldest job of each tenant, then each tenant's second, and so on. So many
            // ended jobs of one tenant do not delay the others.
            "WITH RECURSIVE tenants AS (
                 SELECT * FROM (SELECT tenant FROM jobs WHERE manifest = 'pending' ORDER BY tenant LIMIT 1)
                 UNION ALL
                 SELECT (SELECT j.tenant FROM jobs AS j WHERE j.manifest = 'pending' AND j.tenant > t.tenant
                         ORDER BY j.tenant LIMIT 1)
                 FROM tenants AS t WHERE t.tenant IS NOT NULL)
             SELECT j.id, j.generation
             FROM tenants AS t
             JOIN jobs AS j ON j.tenant = t.tenant AND j.manifest = 'pending'
                AND j.seq IN (SELECT seq FROM jobs WHERE manifest = 'pending' AND tenant = t.tenant ORDER BY seq LIMIT ?1)
             ORDER BY row_number() OVER (PARTITION BY j.tenant ORDER BY j.seq), j.seq LIMIT ?1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?)
    }
}
