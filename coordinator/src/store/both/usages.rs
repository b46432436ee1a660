//! What many tenants use, in as many statements as for one.

use std::collections::BTreeMap;

use super::{
    Error, Record, Tx,
    clock::{midnight, now, today},
};
use crate::store::metering::{Usage, UsageColumns};

/// What each of these tenants uses.
pub(super) async fn usage_of(
    store: &Record,
    tenants: &[String],
) -> Result<BTreeMap<String, Usage>, Error> {
    if tenants.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut tx = store.begin_read().await?;
    let now_ms = now(&mut tx).await?;
    let waiting = sums(&mut tx, WAITING).await?;
    let submitted = sums(&mut tx, SUBMITTED_TODAY).await?;
    let device_us = sums(&mut tx, DEVICE_TODAY).await?;
    let bytes = sums(&mut tx, STORED).await?;
    let usage = |tenant: &String| {
        let of = |sums: &BTreeMap<String, i64>| sums.get(tenant).copied().unwrap_or(0);
        let columns = UsageColumns {
            waiting: of(&waiting),
            submitted: of(&submitted),
            device_us: of(&device_us),
            bytes: of(&bytes),
            now_ms,
        };
        Ok((tenant.clone(), columns.usage()?))
    };
    tenants.iter().map(usage).collect()
}

/// A sum for each tenant.
pub(super) async fn sums(
    tx: &mut Tx,
    statement: &'static str,
) -> Result<BTreeMap<String, i64>, Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(statement).fetch_all(&mut **tx).await?;
    Ok(rows.into_iter().collect())
}

/// Images of open jobs that are not done, dead or cancelled, and those that a retry will make wait.
const WAITING: &str = sql!(
    sqlite:
        "SELECT j.tenant, sum(CASE WHEN j.follow = 'retry' THEN j.images - j.done
                                   ELSE j.images - j.done - j.dead - j.cancelled END
                              + (SELECT coalesce(sum(c.images), 0) FROM image_commands AS c
                                 WHERE c.job = j.seq AND c.generation = j.generation))
         FROM jobs AS j WHERE j.state IN ('active', 'paused') GROUP BY j.tenant",
    postgres:
        "SELECT j.tenant, sum(CASE WHEN j.follow = 'retry' THEN p.images - p.done
                                   ELSE p.images - p.done - p.dead - p.cancelled END
                              + (SELECT coalesce(sum(c.images), 0) FROM image_commands AS c
                                 WHERE c.job = j.seq AND c.generation = j.generation))::bigint
         FROM jobs AS j
         CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                             ORDER BY newest.version DESC LIMIT 1) AS p
         WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state IN ('active', 'paused')
         GROUP BY j.tenant",
);

/// Images that were submitted today.
pub(super) const SUBMITTED_TODAY: &str = sql!(
    sqlite: concat!("SELECT tenant, images FROM submitted_days WHERE day = ", today!()),
    postgres: concat!(
        "SELECT tenant, sum(images)::bigint
             FROM (SELECT tenant, images FROM submitted_days WHERE day = ", today!(), "
                   UNION ALL SELECT tenant, images FROM usage_log WHERE at >= ", midnight!(), ") AS s
             GROUP BY tenant"
    ),
);

/// Microseconds of model time of today.
pub(super) const DEVICE_TODAY: &str = sql!(
    sqlite: concat!(
        "SELECT tenant, sum(device_us)
         FROM (SELECT tenant, device_us FROM usage_days WHERE day = ", today!(), "
               UNION ALL
               SELECT tenant, device_us FROM work_log WHERE tenant IS NOT NULL AND at_ms >= ", midnight!(), ")
         GROUP BY tenant"
    ),
    postgres: concat!(
        "SELECT tenant, sum(device_us)::bigint
         FROM (SELECT tenant, device_us FROM usage_days WHERE day = ", today!(), "
               UNION ALL
               SELECT tenant, device_us FROM work_log WHERE tenant IS NOT NULL AND at >= ", midnight!(), ") AS u
         GROUP BY tenant"
    ),
);

/// Bytes that are stored.
pub(super) const STORED: &str = sql!(
    sqlite: "SELECT tenant, bytes FROM stored_bytes",
    postgres:
        "SELECT tenant, sum(bytes)::bigint
             FROM (SELECT tenant, bytes FROM stored_bytes UNION ALL SELECT tenant, bytes FROM usage_log) AS s
             GROUP BY tenant",
);
