//! The sums of what tenants use, compared with the rows that they are sums of.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Error, Record,
    clock::{midnight, today},
    usages::{STORED, SUBMITTED_TODAY, sums},
};

/// What differs, one sentence for each tenant and kind of usage.
pub(super) async fn differences(store: &Record) -> Result<Vec<String>, Error> {
    let mut tx = store.begin_read().await?;
    let mut wrong = Vec::new();
    for (what, kept, rows) in AUDITED {
        let kept = sums(&mut tx, kept).await?;
        let rows = sums(&mut tx, rows).await?;
        let tenants: BTreeSet<_> = kept.keys().chain(rows.keys()).collect();
        for tenant in tenants {
            let of = |sums: &BTreeMap<String, i64>| sums.get(tenant).copied().unwrap_or(0);
            if of(&kept) != of(&rows) {
                wrong.push(format!(
                    "tenant {tenant:?} is kept with {} {what}, and its rows have {}",
                    of(&kept),
                    of(&rows)
                ));
            }
        }
    }
    Ok(wrong)
}

/// What is kept of tenants' usage, and the same from its rows.
const AUDITED: [(&str, &str, &str); 4] = [
    (
        "images that wait",
        sql!(
            sqlite:
                "SELECT tenant, sum(CASE WHEN follow = 'retry' THEN images - done
                                         ELSE images - done - dead - cancelled END)
                 FROM jobs WHERE state IN ('active', 'paused') GROUP BY tenant",
            postgres:
                "SELECT j.tenant, sum(CASE WHEN j.follow = 'retry' THEN p.images - p.done
                                           ELSE p.images - p.done - p.dead - p.cancelled END)::bigint
                 FROM jobs AS j
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 WHERE j.state IN ('active', 'paused') GROUP BY j.tenant",
        ),
        sql!(
            sqlite:
                "SELECT j.tenant, count(*) FROM jobs AS j CROSS JOIN images AS i ON i.job = j.seq
                 WHERE j.state IN ('active', 'paused')
                   AND (i.state IN ('waiting', 'ready', 'dispatched')
                        OR j.follow = 'retry' AND i.state IN ('dead', 'cancelled'))
                 GROUP BY j.tenant",
            postgres:
                "SELECT j.tenant, count(*) FROM jobs AS j
                 CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = j.seq OFFSET 0) AS i
                 WHERE j.state IN ('active', 'paused')
                   AND (i.state IN ('waiting', 'ready', 'dispatched')
                        OR j.follow = 'retry' AND i.state IN ('dead', 'cancelled'))
                 GROUP BY j.tenant",
        ),
    ),
    (
        "images submitted today",
        SUBMITTED_TODAY,
        sql!(
            sqlite: concat!(
                "SELECT tenant, sum(images)
                 FROM (SELECT tenant, images FROM jobs WHERE state <> 'receiving' AND created_ms >= ", midnight!(), "
                       UNION ALL SELECT tenant, images FROM deleted_usage WHERE day = ", today!(), ")
                 GROUP BY tenant"
            ),
            postgres: concat!(
                "SELECT tenant, sum(images)::bigint
                 FROM (SELECT j.tenant, p.images FROM jobs AS j
                       CROSS JOIN LATERAL (SELECT images FROM job_progress AS newest WHERE newest.job = j.seq
                                           ORDER BY newest.version DESC LIMIT 1) AS p
                       WHERE j.state <> 'receiving' AND j.created_at >= ", midnight!(), "
                       UNION ALL
                       SELECT tenant, images FROM deleted_usage WHERE day = ", today!(), ") AS s
                 GROUP BY tenant"
            ),
        ),
    ),
    (
        "stored bytes",
        STORED,
        sql!(
            sqlite:
                "SELECT tenant, sum(size)
                 FROM (SELECT j.tenant, o.size FROM outputs AS o JOIN jobs AS j ON j.seq = o.job
                       WHERE o.removed_ms IS NULL
                       UNION ALL
                       SELECT tenant, size FROM tenant_inputs WHERE canonical IS NULL OR canonical = sha256
                       UNION ALL SELECT tenant, size FROM files)
                 GROUP BY tenant",
            postgres:
                "SELECT tenant, sum(size)::bigint
                 FROM (SELECT j.tenant, o.size FROM outputs AS o
                       CROSS JOIN LATERAL (SELECT tenant FROM jobs WHERE seq = o.job OFFSET 0) AS j
                       WHERE o.removed_ms IS NULL
                       UNION ALL
                       SELECT tenant, size FROM tenant_inputs WHERE canonical IS NULL OR canonical = sha256
                       UNION ALL SELECT tenant, size FROM files) AS s
                 GROUP BY tenant",
        ),
    ),
    (
        "microseconds of device time",
        sql!(
            sqlite:
                "SELECT tenant, sum(device_us)
                 FROM (SELECT tenant, device_us FROM usage_days
                       UNION ALL SELECT tenant, device_us FROM work_log WHERE tenant IS NOT NULL)
                 GROUP BY tenant",
            postgres:
                "SELECT tenant, sum(device_us)::bigint
                 FROM (SELECT tenant, device_us FROM usage_days
                       UNION ALL SELECT tenant, device_us FROM work_log WHERE tenant IS NOT NULL) AS u
                 GROUP BY tenant",
        ),
        sql!(
            sqlite:
                "SELECT tenant, sum(device_us)
                 FROM (SELECT tenant, device_us FROM jobs UNION ALL SELECT tenant, device_us FROM deleted_usage)
                 GROUP BY tenant",
            postgres:
                "SELECT tenant, sum(device_us)::bigint
                 FROM (SELECT j.tenant, p.device_us FROM jobs AS j
                       CROSS JOIN LATERAL (SELECT device_us FROM job_progress AS newest WHERE newest.job = j.seq
                                           ORDER BY newest.version DESC LIMIT 1) AS p
                       UNION ALL SELECT tenant, device_us FROM deleted_usage) AS s
                 GROUP BY tenant",
        ),
    ),
];
