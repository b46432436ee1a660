//! What tenants may use, and what they use of it.
//!
//! Images that wait are summed over the counters of a tenant's open jobs. What was submitted today
//! and what is stored are sums of their own: SQLite changes them with the rows, and in Postgres
//! transactions only insert into `usage_log`, which the leader adds up once a minute, as it does
//! with `work_log`. Readers add both.
//!
//! A transaction that adds to a usage with a quota locks the tenant's row as its last lock. So of
//! two at once the second one sees what the first one has added. A tenant without such quotas is
//! not locked.

use std::collections::BTreeMap;

use async_trait::async_trait;
use darkroom_core::{id::JobId, quota::Quotas};
use darkroom_queue::task::PoolId;

use super::{
    Connection, Error, Record, Tx,
    clock::{midnight, now_ms, today},
    rows::{IdColumn, digest_column, job_id, number},
    usage_audit,
    usages::{self, DEVICE_TODAY, sums},
};
use crate::store::{
    metering::{
        Adds, LimitedTenant, QuotaColumns, Usage, UsageColumns, check_images, check_stored,
    },
    roles::Metering,
    row::row,
    spent,
};

/// The columns of [`QuotaColumns`].
macro_rules! quota_columns {
    () => {
        "images_waiting, images_per_day, device_seconds_per_day, stored_bytes, requests_per_second, burst, workers, weight"
    };
}
pub(super) use quota_columns;

row! {
    struct LimitedRow {
        name: String,
        ..quotas: QuotaColumns,
    }
}

/// Images of open jobs that are not done, dead or cancelled, and those that a retry will make wait.
macro_rules! images_waiting {
    ($which:expr) => {
        sql!(
            sqlite: concat!(
                "(SELECT coalesce(sum(CASE WHEN j.follow = 'retry' THEN j.images - j.done
                                           ELSE j.images - j.done - j.dead - j.cancelled END
                                      + (SELECT coalesce(sum(c.images), 0) FROM image_commands AS c
                                         WHERE c.job = j.seq AND c.generation = j.generation)), 0)
                  FROM jobs AS j WHERE j.state IN ('active', 'paused') AND ", $which, ")"
            ),
            postgres: concat!(
                "(SELECT coalesce(sum(CASE WHEN j.follow = 'retry' THEN p.images - p.done
                                           ELSE p.images - p.done - p.dead - p.cancelled END
                                      + (SELECT coalesce(sum(c.images), 0) FROM image_commands AS c
                                         WHERE c.job = j.seq AND c.generation = j.generation)), 0)::bigint
                  FROM jobs AS j
                  CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                      ORDER BY newest.version DESC LIMIT 1) AS p
                  WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL)
                    AND j.state IN ('active', 'paused') AND ", $which, ")"
            ),
        )
    };
}

/// Jobs of a tenant. Neither text may use the index of all jobs of the tenant, of which nearly all
/// have ended.
macro_rules! of_tenant {
    () => {
        sql!(sqlite: "+j.tenant = $1", postgres: "j.tenant COLLATE \"C\" = $1")
    };
}

/// Bytes that a tenant has stored.
macro_rules! stored_bytes {
    () => {
        sql!(
            sqlite: "(SELECT coalesce(sum(bytes), 0) FROM stored_bytes WHERE tenant = $1)",
            postgres:
                "((SELECT coalesce(sum(bytes), 0) FROM stored_bytes WHERE tenant = $1)
                  + (SELECT coalesce(sum(bytes), 0) FROM usage_log WHERE tenant = $1))::bigint",
        )
    };
}

#[async_trait]
impl Metering for Record {
    async fn standing(&self, tenant: &str) -> Result<(Quotas, Usage), Error> {
        let mut reader = self.reader().await?;
        let quotas: Option<QuotaColumns> =
            sqlx::query_as(concat!("SELECT ", quota_columns!(), " FROM tenants WHERE name = $1"))
                .bind(tenant)
                .fetch_optional(&mut *reader)
                .await?;
        let quotas = quotas.map(QuotaColumns::quotas).transpose()?.unwrap_or_default();
        Ok((quotas, usage(&mut reader, tenant).await?))
    }

    async fn limited(&self) -> Result<(Vec<LimitedTenant>, i64), Error> {
        let rows: Vec<LimitedRow> = sqlx::query_as(concat!(
            "SELECT name, ",
            quota_columns!(),
            " FROM tenants
             WHERE coalesce(images_waiting, images_per_day, stored_bytes, burst, workers) IS NOT NULL
                OR coalesce(device_seconds_per_day, requests_per_second, weight) IS NOT NULL
             ORDER BY name",
        ))
        .fetch_all(self.reads())
        .await?;
        let now_ms: i64 =
            sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(self.reads()).await?;
        let timed = rows.iter().any(|row| row.quotas.device_seconds_per_day.is_some());
        let used = if timed {
            sums(&mut self.begin_read().await?, DEVICE_TODAY).await?
        } else {
            BTreeMap::new()
        };
        let tenants = rows.into_iter().map(|row| {
            let quotas = row.quotas.quotas()?;
            let used = used.get(&row.name).filter(|_| quotas.device_seconds_per_day.is_some());
            let device_seconds_today = used.map_or(0.0, |used| spent::seconds(*used));
            Ok(LimitedTenant { name: row.name, quotas, device_seconds_today })
        });
        Ok((tenants.collect::<Result<_, Error>>()?, now_ms))
    }

    async fn in_flight(&self, pool: &PoolId) -> Result<BTreeMap<String, u64>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(sql!(
            sqlite:
                "SELECT j.tenant, sum(s.dispatched)
                 FROM job_stages AS s
                 JOIN jobs AS j ON j.seq = s.job
                 JOIN tenants AS t ON t.name = j.tenant AND t.workers IS NOT NULL
                 WHERE s.pool = $1 AND s.name = $2 AND s.dispatched > 0
                 GROUP BY j.tenant",
            postgres:
                "SELECT t.name, sum(p.dispatched[s.stage + 2])::bigint
                 FROM jobs AS j
                 JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 CROSS JOIN LATERAL (SELECT name FROM tenants
                                     WHERE name = j.tenant COLLATE \"C\" AND workers IS NOT NULL OFFSET 0) AS t
                 WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND s.pool = $1 AND s.name = $2
                   AND p.dispatched[s.stage + 2] > 0
                 GROUP BY t.name",
        ))
        .bind(digest_column(pool.digest))
        .bind(pool.stage.as_str())
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(|(tenant, count)| Ok((tenant, number(count)?))).collect()
    }

    async fn jobs_in_flight(&self, tenant: &str) -> Result<Vec<JobId>, Error> {
        let rows: Vec<IdColumn> = sqlx::query_scalar(sql!(
            sqlite:
                "SELECT j.id FROM jobs AS j
                 WHERE +j.tenant = $1
                   AND EXISTS (SELECT 1 FROM job_stages AS s
                               WHERE s.job = j.seq AND s.stage >= 0 AND s.dispatched > 0)
                   AND j.seq IN (SELECT seq FROM jobs WHERE state IN ('active', 'paused')
                                 UNION SELECT seq FROM jobs WHERE follow IS NOT NULL)
                 ORDER BY j.seq",
            postgres:
                "SELECT j.id FROM jobs AS j
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.tenant COLLATE \"C\" = $1
                   AND EXISTS (SELECT FROM unnest(p.dispatched[2:]) AS d WHERE d > 0)
                 ORDER BY j.seq",
        ))
        .bind(tenant)
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(|id| job_id(&id)).collect()
    }

    async fn note_coordinator(&self, holder: &str) -> Result<u64, Error> {
        self.count_coordinators(holder).await
    }

    async fn usage_of(&self, tenants: &[String]) -> Result<BTreeMap<String, Usage>, Error> {
        usages::usage_of(self, tenants).await
    }

    async fn audit_usage(&self) -> Result<Vec<String>, Error> {
        usage_audit::differences(self).await
    }
}

/// What a tenant uses, with what this transaction has changed.
async fn usage(connection: &mut Connection, tenant: &str) -> Result<Usage, Error> {
    let columns: UsageColumns = sqlx::query_as(sql!(
        sqlite: concat!(
            "SELECT ", images_waiting!(of_tenant!()), " AS waiting,
                    (SELECT coalesce(sum(images), 0) FROM submitted_days WHERE day = ", today!(), " AND tenant = $1)
                        AS submitted,
                    (SELECT coalesce(sum(device_us), 0) FROM usage_days WHERE day = ", today!(), " AND tenant = $1)
                    + (SELECT coalesce(sum(device_us), 0) FROM work_log
                       WHERE tenant = $1 AND at_ms >= ", midnight!(), ") AS device_us, ",
            stored_bytes!(), " AS bytes, ", now_ms!(), " AS now_ms"
        ),
        postgres: concat!(
            "SELECT ", images_waiting!(of_tenant!()), " AS waiting,
                    ((SELECT coalesce(sum(images), 0) FROM submitted_days WHERE day = ", today!(), " AND tenant = $1)
                     + (SELECT coalesce(sum(images), 0) FROM usage_log
                        WHERE tenant = $1 AND at >= ", midnight!(), "))::bigint AS submitted,
                    ((SELECT coalesce(sum(device_us), 0) FROM usage_days WHERE day = ", today!(), " AND tenant = $1)
                     + (SELECT coalesce(sum(device_us), 0) FROM work_log
                        WHERE tenant = $1 AND at >= ", midnight!(), "))::bigint AS device_us, ",
            stored_bytes!(), " AS bytes, ", now_ms!(), " AS now_ms"
        ),
    ))
    .bind(tenant)
    .fetch_one(connection)
    .await?;
    columns.usage()
}

/// Locks a tenant's row until the transaction ends, and reads its quotas; `None` if it has no quota
/// that a transaction checks.
async fn lock(tx: &mut Tx, tenant: &str) -> Result<Option<Quotas>, Error> {
    let quotas: Option<QuotaColumns> = sqlx::query_as(concat!(
        "SELECT ",
        quota_columns!(),
        " FROM tenants
         WHERE name = $1 AND coalesce(images_waiting, images_per_day, stored_bytes) IS NOT NULL",
        sql!(sqlite: "", postgres: " FOR NO KEY UPDATE"),
    ))
    .bind(tenant)
    .fetch_optional(&mut **tx)
    .await?;
    quotas.map(QuotaColumns::quotas).transpose()
}

/// Counts the images of a job that this transaction has accepted, and refuses it if its tenant has
/// no room for it.
pub(in super::super) async fn accept(tx: &mut Tx, seq: i64) -> Result<(), Error> {
    let (tenant, images): (String, i64) = sqlx::query_as(sql!(
        sqlite: "SELECT tenant, images FROM jobs WHERE seq = $1",
        // As the day of its beginning, whenever the leader adds it up.
        postgres:
            "INSERT INTO usage_log (at, tenant, images, bytes)
             SELECT j.created_at, j.tenant, p.images, 0
             FROM jobs AS j
             CROSS JOIN LATERAL (SELECT images FROM job_progress AS newest WHERE newest.job = j.seq
                                 ORDER BY newest.version DESC LIMIT 1) AS p
             WHERE j.seq = $1
             RETURNING tenant, images",
    ))
    .bind(seq)
    .fetch_one(&mut **tx)
    .await?;
    count_submitted(tx, seq).await?;
    let Some(quotas) = lock(tx, &tenant).await? else { return Ok(()) };
    let images = number(images)?;
    let usage = usage(tx, &tenant).await?;
    check_stored(&tenant, &quotas, usage.stored_bytes, None)?;
    let adds = Adds { waiting: images, submitted: images };
    Ok(check_images(&tenant, &quotas, &without(usage, adds), (images, images))?)
}

/// Counts the images of an accepted job on its day. In Postgres `usage_log` has them.
async fn count_submitted(tx: &mut Tx, seq: i64) -> Result<(), Error> {
    let statement: Option<&'static str> = sql!(
        sqlite:
            Some("INSERT INTO submitted_days (day, tenant, images)
                  SELECT date(created_ms / 1000, 'unixepoch'), tenant, images FROM jobs WHERE seq = $1
                  ON CONFLICT (day, tenant) DO UPDATE SET images = images + excluded.images"),
        postgres: None,
    );
    if let Some(statement) = statement {
        sqlx::query(statement).bind(seq).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Refuses a chunk of a job if its tenant has no room for what has come so far, so that a client
/// need not send the rest. A job that repeats an accepted one is not refused. Nothing is locked:
/// [`accept`] decides.
pub(in super::super) async fn check_received(tx: &mut Tx, seq: i64) -> Result<(), Error> {
    let job: Option<(String, i64)> = sqlx::query_as(sql!(
        sqlite:
            "SELECT j.tenant, j.images FROM jobs AS j
             JOIN tenants AS t ON t.name = j.tenant
                  AND coalesce(t.images_waiting, t.images_per_day, t.stored_bytes) IS NOT NULL
             WHERE j.seq = $1
               AND NOT EXISTS (SELECT 1 FROM jobs AS o
                               WHERE o.tenant = j.tenant AND o.client_request_id = j.client_request_id
                                 AND o.state <> 'receiving')",
        postgres:
            "SELECT t.name, p.images FROM jobs AS j
             CROSS JOIN LATERAL (SELECT name FROM tenants
                                 WHERE name = j.tenant COLLATE \"C\"
                                   AND coalesce(images_waiting, images_per_day, stored_bytes) IS NOT NULL
                                 OFFSET 0) AS t
             CROSS JOIN LATERAL (SELECT images FROM job_progress AS newest WHERE newest.job = j.seq
                                 ORDER BY newest.version DESC LIMIT 1) AS p
             WHERE j.seq = $1
               AND NOT EXISTS (SELECT FROM jobs AS o
                               WHERE o.tenant = j.tenant AND o.client_request_id = j.client_request_id
                                 AND o.state <> 'receiving')",
    ))
    .bind(seq)
    .fetch_optional(&mut **tx)
    .await?;
    let Some((tenant, images)) = job else { return Ok(()) };
    let quotas: QuotaColumns =
        sqlx::query_as(concat!("SELECT ", quota_columns!(), " FROM tenants WHERE name = $1"))
            .bind(&tenant)
            .fetch_one(&mut **tx)
            .await?;
    let (quotas, usage, images) =
        (quotas.quotas()?, usage(tx, &tenant).await?, number::<u64>(images)?);
    check_stored(&tenant, &quotas, usage.stored_bytes, None)?;
    Ok(check_images(&tenant, &quotas, &usage, (images, images))?)
}

/// How many of a job's images wait before a transaction changes some, and its tenant; `None` if it
/// has no quota of them. The job must be locked: what this transaction adds is what it changes of
/// this job, whatever becomes of others meanwhile.
pub(in super::super) struct Before(Option<Waiting>);

struct Waiting {
    tenant: String,
    seq: i64,
    images: u64,
}

impl Before {
    /// Reads it.
    pub(in super::super) async fn read(tx: &mut Tx, seq: i64) -> Result<Self, Error> {
        let tenant: Option<String> = sqlx::query_scalar(sql!(
            sqlite:
                "SELECT t.name FROM jobs AS j
                 JOIN tenants AS t ON t.name = j.tenant AND t.images_waiting IS NOT NULL WHERE j.seq = $1",
            postgres:
                "SELECT t.name FROM jobs AS j
                 CROSS JOIN LATERAL (SELECT name FROM tenants
                                     WHERE name = j.tenant COLLATE \"C\" AND images_waiting IS NOT NULL
                                     OFFSET 0) AS t
                 WHERE j.seq = $1",
        ))
        .bind(seq)
        .fetch_optional(&mut **tx)
        .await?;
        let Some(tenant) = tenant else { return Ok(Self(None)) };
        let images = waiting_of_job(tx, seq).await?;
        Ok(Self(Some(Waiting { tenant, seq, images })))
    }

    /// Whether the tenant has a quota of images that wait.
    pub(in super::super) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Refuses the transaction if it made more images wait than the tenant has room for. It must
    /// be its last statement that may wait for a lock.
    pub(in super::super) async fn check(self, tx: &mut Tx) -> Result<(), Error> {
        let Some(Waiting { tenant, seq, images }) = self.0 else { return Ok(()) };
        let Some(quotas) = lock(tx, &tenant).await? else { return Ok(()) };
        let waiting = waiting_of_job(tx, seq).await?.saturating_sub(images);
        let usage = without(usage(tx, &tenant).await?, Adds { waiting, submitted: 0 });
        Ok(check_images(&tenant, &quotas, &usage, (waiting, 0))?)
    }
}

async fn waiting_of_job(tx: &mut Tx, seq: i64) -> Result<u64, Error> {
    let images: i64 = sqlx::query_scalar(concat!("SELECT ", images_waiting!("j.seq = $1")))
        .bind(seq)
        .fetch_one(&mut **tx)
        .await?;
    number(images)
}

/// What a tenant has stored, if it has a quota of it. Its row is locked from here on.
pub(super) async fn stored(tx: &mut Tx, tenant: &str) -> Result<Option<(Quotas, u64)>, Error> {
    let quotas = lock(tx, tenant).await?.filter(|quotas| quotas.stored_bytes.is_some());
    let Some(quotas) = quotas else { return Ok(None) };
    let bytes: i64 = sqlx::query_scalar(concat!("SELECT ", stored_bytes!()))
        .bind(tenant)
        .fetch_one(&mut **tx)
        .await?;
    Ok(Some((quotas, number(bytes)?)))
}

fn without(usage: Usage, adds: Adds) -> Usage {
    Usage {
        images_waiting: usage.images_waiting.saturating_sub(adds.waiting),
        images_today: usage.images_today.saturating_sub(adds.submitted),
        ..usage
    }
}
