//! Changes of all jobs of a farm. Each backend documents what the mark of a change is, and why a
//! late commit does not break their order.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{
    super::farm_changes::bounds,
    Error, Record,
    queries::{read_live, read_seqs},
    rows::{IdColumn, job_id, number},
};
use crate::store::{
    farm_changes::{
        ChangeBounds, ChangePosition, ChangeQuery, ChangedJob, ChangedJobs, DeletedJob, LiveJobs,
        mark,
    },
    records::JobRecord,
    roles::FarmChanges,
    row::row,
};

row! {
    struct ChangeRow {
        changed: String,
        seq: i64,
        version: i64,
        id: IdColumn,
        tenant: String,
        deleted: bool,
    }
}

/// Changed jobs of all tenants, in order.
const OF_ALL: &str = sql!(
    sqlite:
        "SELECT CAST(changed AS TEXT) AS changed, seq, version, id, tenant, deleted_ms IS NOT NULL AS deleted
         FROM jobs
         WHERE (changed, seq) > (CAST($1 AS INTEGER), $2) AND changed < CAST($3 AS INTEGER)
           AND state <> 'receiving'
         ORDER BY jobs.changed, jobs.seq LIMIT $4",
    postgres:
        "SELECT p.changed::text AS changed, p.job AS seq, p.version, j.id, j.tenant,
                j.deleted_ms IS NOT NULL AS deleted
         FROM (SELECT changed, job, version FROM job_progress
               WHERE (changed, job) > ($1::xid8, $2) AND changed < $3::xid8) AS p
         JOIN jobs AS j ON j.seq = p.job AND j.state <> 'receiving'
         ORDER BY p.changed, p.job LIMIT $4",
);

/// The same of one tenant. It has an index of its own, so other tenants' changes are not read.
pub(in super::super) const OF_TENANT: &str = sql!(
    sqlite:
        "SELECT CAST(changed AS TEXT) AS changed, seq, version, id, tenant, deleted_ms IS NOT NULL AS deleted
         FROM jobs
         WHERE tenant = $5 AND (changed, seq) > (CAST($1 AS INTEGER), $2) AND changed < CAST($3 AS INTEGER)
           AND state <> 'receiving'
         ORDER BY jobs.changed, jobs.seq LIMIT $4",
    postgres:
        "SELECT p.changed::text AS changed, p.job AS seq, p.version, j.id, j.tenant,
                j.deleted_ms IS NOT NULL AS deleted
         FROM (SELECT changed, job, version FROM job_progress
               WHERE tenant = $5 AND (changed, job) > ($1::xid8, $2) AND changed < $3::xid8) AS p
         JOIN jobs AS j ON j.seq = p.job AND j.state <> 'receiving'
         ORDER BY p.changed, p.job LIMIT $4",
);

/// Jobs of which all rows are removed, in the order of their deletions.
const GONE: &str = sql!(
    sqlite:
        "SELECT CAST(changed AS TEXT) AS changed, seq, version, id, tenant, TRUE AS deleted FROM deleted_jobs
         WHERE (changed, seq) > (CAST($1 AS INTEGER), $2) AND changed < CAST($3 AS INTEGER)
         ORDER BY deleted_jobs.changed, deleted_jobs.seq LIMIT $4",
    postgres:
        "SELECT changed::text AS changed, seq, version, id, tenant, TRUE AS deleted FROM deleted_jobs
         WHERE (changed, seq) > ($1::xid8, $2) AND changed < $3::xid8
         ORDER BY deleted_jobs.changed, deleted_jobs.seq LIMIT $4",
);

/// The same of one tenant.
const GONE_OF_TENANT: &str = sql!(
    sqlite:
        "SELECT CAST(changed AS TEXT) AS changed, seq, version, id, tenant, TRUE AS deleted FROM deleted_jobs
         WHERE tenant = $5 AND (changed, seq) > (CAST($1 AS INTEGER), $2) AND changed < CAST($3 AS INTEGER)
         ORDER BY deleted_jobs.changed, deleted_jobs.seq LIMIT $4",
    postgres:
        "SELECT changed::text AS changed, seq, version, id, tenant, TRUE AS deleted FROM deleted_jobs
         WHERE tenant = $5 AND (changed, seq) > ($1::xid8, $2) AND changed < $3::xid8
         ORDER BY deleted_jobs.changed, deleted_jobs.seq LIMIT $4",
);

#[async_trait]
impl FarmChanges for Record {
    async fn change_bounds(&self) -> Result<ChangeBounds, Error> {
        bounds(self).await
    }

    async fn changed_jobs(&self, query: ChangeQuery<'_>) -> Result<ChangedJobs, Error> {
        let ChangeQuery { tenant, from, next, limit, known } = query;
        let mut connection = self.reader().await?;
        let mut found = Vec::new();
        // A job's own row first: if it is removed between the two, what is left of it is found.
        for (of_all, of_tenant) in [(OF_ALL, OF_TENANT), (GONE, GONE_OF_TENANT)] {
            let rows = sqlx::query_as(if tenant.is_some() { of_tenant } else { of_all })
                .bind(from.mark.to_string())
                .bind(from.after)
                .bind(next.to_string())
                .bind(i64::from(limit));
            let rows = if let Some(tenant) = tenant { rows.bind(tenant) } else { rows };
            let rows: Vec<ChangeRow> = rows.fetch_all(&mut *connection).await?;
            for row in rows {
                found.push((mark(&row.changed)?, row));
            }
        }
        found.sort_by_key(|(mark, row)| (*mark, row.seq));
        found.dedup_by_key(|(_, row)| row.seq);
        found.truncate(limit as usize);
        let mut seqs = Vec::with_capacity(found.len());
        for (_, row) in &found {
            if known.get(&row.seq) != Some(&number(row.version)?) && !row.deleted {
                seqs.push(row.seq);
            }
        }
        let records =
            if seqs.is_empty() { Vec::new() } else { read_seqs(&mut connection, &seqs).await? };
        let mut records: HashMap<i64, JobRecord> =
            records.into_iter().map(|record| (record.seq, record)).collect();
        let (mut jobs, mut last) = (Vec::with_capacity(found.len()), None);
        let mut deleted = Vec::new();
        let full = found.len() >= limit as usize;
        for (mark, row) in found {
            let position = ChangePosition { mark, after: row.seq };
            last = Some(position);
            if let Some(job) = records.remove(&row.seq) {
                jobs.push(ChangedJob { position, job });
            }
            let version = number(row.version)?;
            if row.deleted && known.get(&row.seq) != Some(&version) {
                let (id, seq, tenant) = (job_id(&row.id)?, row.seq, row.tenant);
                deleted.push(DeletedJob { position, id, seq, version, tenant });
            }
        }
        Ok(ChangedJobs { jobs, deleted, more: last.filter(|_| full) })
    }

    async fn live_jobs(
        &self,
        tenant: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<LiveJobs, Error> {
        let mut connection = self.reader().await?;
        let (before, most) = (before.unwrap_or(i64::MAX), i64::from(limit) + 1);
        let mut jobs = read_live(&mut connection, tenant, before, most).await?;
        let more = jobs.len() > limit as usize;
        jobs.truncate(limit as usize);
        Ok(LiveJobs { jobs, more })
    }
}
