//! Manifests of ended jobs that are to be written.

use darkroom_core::guard::{self, Guard};
use uuid::Uuid;

use super::{Error, PostgresStore};

/// How long a process may take to write a manifest before another one may claim it.
const MANIFEST_CLAIM_SECONDS: f64 = 60.0;

impl PostgresStore {
    /// Jobs whose manifest this process may write now, with their generation: no other process has
    /// claimed them in the last minute. First the oldest job of each tenant, then each tenant's
    /// second, and so on. So many ended jobs of one tenant do not delay the others.
    pub(super) async fn claim_manifests(&self, limit: i64) -> Result<Vec<(Uuid, i32)>, Error> {
        Ok(sqlx::query_as(guard::text(
            Guard::ManifestClaim,
            "WITH RECURSIVE tenants AS (
                 (SELECT tenant FROM jobs WHERE manifest = 'pending' ORDER BY tenant LIMIT 1)
                 UNION ALL
                 SELECT (SELECT j.tenant FROM jobs AS j WHERE j.manifest = 'pending' AND j.tenant > t.tenant
                         ORDER BY j.tenant LIMIT 1)
                 FROM tenants AS t WHERE t.tenant IS NOT NULL),
             chosen AS (
                 SELECT next.seq FROM tenants AS t
                 CROSS JOIN LATERAL (
                     SELECT j.seq, row_number() OVER (ORDER BY j.seq) AS place
                     FROM (SELECT seq FROM jobs
                           WHERE manifest = 'pending' AND tenant = t.tenant
                             AND (manifest_writer IS NULL OR manifest_writer = $2
                                  OR manifest_claim_until < clock_timestamp())
                           ORDER BY seq LIMIT $1) AS j) AS next
                 ORDER BY next.place, next.seq LIMIT $1),
             free AS (
                 SELECT j.seq FROM chosen JOIN jobs AS j ON j.seq = chosen.seq
                 WHERE j.manifest = 'pending'
                   AND (manifest_writer IS NULL OR manifest_writer = $2
                        OR manifest_claim_until < clock_timestamp())
                 FOR NO KEY UPDATE OF j SKIP LOCKED)
             UPDATE jobs AS j
             SET manifest_writer = $2, manifest_claim_until = clock_timestamp() + $3 * interval '1 second'
             FROM free WHERE j.seq = free.seq AND j.manifest = 'pending'
             RETURNING j.id, j.generation",
            "manifest_writer IS NULL OR",
            "TRUE OR",
        ))
        .bind(limit)
        .bind(self.process)
        .bind(MANIFEST_CLAIM_SECONDS)
        .fetch_all(&self.pool)
        .await?)
    }
}
