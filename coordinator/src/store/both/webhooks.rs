//! Where tenants' events are sent, and the events on their way there.
//!
//! Locks are taken in one order: the webhook, then its events. Whoever adds an event locks webhooks
//! only against their end.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{
    id::JobId,
    job_state::JobState,
    webhook::{EventType, WebhookId, not_found},
};
use uuid::Uuid;

use super::{
    Error, Record, Tx,
    clock::now_ms,
    retried,
    rows::{column, list, number, parse},
};
use crate::store::{
    records::Term,
    removal::ms,
    roles::Webhooks,
    row::row,
    webhooks::{
        DELIVERED_KEPT, Delivery, EndedWebhook, GIVEN_UP_KEPT, MOST_WAITING, MOST_WEBHOOKS,
        NewWebhook, Ready, SUSPENDED_AFTER, TOO_MANY, TRIED_ENOUGH, TRIED_FOR, UnderWay,
        WebhookQuery, WebhookRecord, next_try, share, suspended_until, too_many, types_column,
    },
};

/// Webhooks that are looked at to find events for all free places. Those of tenants that have enough
/// under way are among them.
const LOOKED_AT: i64 = 500;

row! {
    struct Row {
        seq: i64,
        id: String,
        tenant: String,
        url: String,
        name: String,
        types: String,
        created_ms: i64,
        success_ms: Option<i64>,
        failure_ms: Option<i64>,
        error: String,
        suspended_until_ms: Option<i64>,
        waiting: i64,
        oldest_waiting_ms: Option<i64>,
        given_up: i64,
    }
}

row! {
    struct ReadyRow {
        seq: i64,
        tenant: String,
        failures: i64,
    }
}

row! {
    struct TakenRow {
        id: i64,
        event: String,
        kind: String,
        data: String,
        created_ms: i64,
        tries: i64,
    }
}

/// Webhooks, which a condition selects, with what waits for them.
macro_rules! webhooks {
    ($which:literal) => {
        concat!(
            "SELECT w.seq, w.id, w.tenant, w.url, w.name, w.types, w.created_ms, w.success_ms, w.failure_ms, w.error,
                    CASE WHEN w.suspended_until_ms > ",
            now_ms!(),
            "     THEN w.suspended_until_ms END AS suspended_until_ms,
                    (SELECT count(*) FROM webhook_events AS e WHERE e.webhook = w.seq AND e.ended_ms IS NULL) AS waiting,
                    (SELECT min(e.created_ms) FROM webhook_events AS e
                     WHERE e.webhook = w.seq AND e.ended_ms IS NULL) AS oldest_waiting_ms,
                    (SELECT count(*) FROM webhook_events AS e
                     WHERE e.webhook = w.seq AND e.state = 'given_up') AS given_up
             FROM webhooks AS w WHERE ",
            $which
        )
    };
}

/// Webhooks for which an event is due at a time.
macro_rules! ready {
    ($columns:literal, $now:expr) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM webhooks AS w WHERE (w.suspended_until_ms IS NULL OR w.suspended_until_ms <= ",
            $now,
            ") AND EXISTS (SELECT 1 FROM webhook_events AS e
                           WHERE e.webhook = w.seq AND e.ended_ms IS NULL AND e.due_ms <= ",
            $now,
            ")"
        )
    };
}

#[async_trait]
impl Webhooks for Record {
    async fn add_webhook(&self, new: &NewWebhook) -> Result<WebhookRecord, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            // Others that add one wait here, and then count this one.
            sqlx::query(sql!(
                sqlite: "SELECT 1 FROM farm",
                postgres: "SELECT 1 FROM farm WHERE one FOR UPDATE",
            ))
            .execute(&mut *tx)
            .await?;
            let there: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE tenant = $1")
                .bind(&new.tenant)
                .fetch_one(&mut *tx)
                .await?;
            if there >= i64::from(MOST_WEBHOOKS) {
                return Err(too_many(&new.tenant).into());
            }
            sqlx::query(concat!(
                "INSERT INTO webhooks (id, tenant, url, name, types, created_ms) VALUES ($1, $2, $3, $4, $5, ",
                now_ms!(),
                ")",
            ))
            .bind(new.id.to_string())
            .bind(&new.tenant)
            .bind(&new.url)
            .bind(&new.name)
            .bind(types_column(&new.types))
            .execute(&mut *tx)
            .await?;
            let row: Row = sqlx::query_as(webhooks!("w.id = $1"))
                .bind(new.id.to_string())
                .fetch_one(&mut *tx)
                .await?;
            self.commit_repeatable(tx).await?;
            row.record()
        })
        .await
    }

    async fn list_webhooks(&self, query: &WebhookQuery) -> Result<Vec<WebhookRecord>, Error> {
        let rows: Vec<Row> = sqlx::query_as(webhooks!(
            "w.seq > $1 AND (CAST($2 AS TEXT) IS NULL OR w.tenant = $2) ORDER BY w.seq LIMIT $3"
        ))
        .bind(query.after)
        .bind(query.tenant.as_deref())
        .bind(i64::from(query.limit))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(Row::record).collect()
    }

    async fn delete_webhook(
        &self,
        id: WebhookId,
        tenant: Option<&str>,
    ) -> Result<EndedWebhook, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let found: Option<(i64, String)> = sqlx::query_as(sql!(
                sqlite: "SELECT seq, tenant FROM webhooks WHERE id = $1 AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)",
                postgres:
                    "SELECT seq, tenant FROM webhooks
                     WHERE id = $1 AND (CAST($2 AS TEXT) IS NULL OR tenant = $2) FOR UPDATE",
            ))
            .bind(id.to_string())
            .bind(tenant)
            .fetch_optional(&mut *tx)
            .await?;
            let (seq, tenant) = found.ok_or_else(|| Error::Refused(not_found(id)))?;
            let dropped: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM webhook_events WHERE webhook = $1 AND ended_ms IS NULL",
            )
            .bind(seq)
            .fetch_one(&mut *tx)
            .await?;
            // Its events go with it.
            sqlx::query("DELETE FROM webhooks WHERE seq = $1").bind(seq).execute(&mut *tx).await?;
            self.commit_repeatable(tx).await?;
            Ok(EndedWebhook { tenant, dropped: number(dropped)? })
        })
        .await
    }

    async fn add_event(&self, tenant: &str, kind: EventType, data: &str) -> Result<u64, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let added = enqueue_event(&mut tx, tenant, kind, data).await?;
            self.commit_repeatable(tx).await?;
            Ok(added)
        })
        .await
    }

    async fn take_events(&self, free: u32, lease: Duration) -> Result<Vec<Delivery>, Error> {
        let any = concat!("SELECT EXISTS (", ready!("1", now_ms!()), ")");
        let any: bool = sqlx::query_scalar(any).fetch_one(self.reads()).await?;
        if !any || free == 0 {
            return Ok(Vec::new());
        }
        retried(|| take(self, free, lease)).await
    }

    async fn event_delivered(&self, delivery: &Delivery) -> Result<bool, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let Some((failures, now)) = lock(&mut tx, delivery.seq).await? else {
                return Ok(false);
            };
            if !end(&mut tx, delivery, now, "delivered", "").await? {
                return Ok(false);
            }
            sqlx::query(
                "UPDATE webhooks SET failures = 0, suspended_until_ms = NULL, success_ms = $2 WHERE seq = $1",
            )
            .bind(delivery.seq)
            .bind(now)
            .execute(&mut *tx)
            .await?;
            if failures >= i64::from(SUSPENDED_AFTER) {
                sqlx::query(
                    "UPDATE webhook_events SET due_ms = $2
                     WHERE webhook = $1 AND ended_ms IS NULL AND state = 'waiting' AND due_ms > $2",
                )
                .bind(delivery.seq)
                .bind(now)
                .execute(&mut *tx)
                .await?;
            }
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn event_not_delivered(
        &self,
        delivery: &Delivery,
        error: &str,
        pause: Duration,
    ) -> Result<bool, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let Some((failures, now)) = lock(&mut tx, delivery.seq).await? else {
                return Ok(false);
            };
            let changed = match next_try(delivery.created_ms, now, pause) {
                Some(due) => postpone(&mut tx, delivery, due).await?,
                None => end(&mut tx, delivery, now, "given_up", TRIED_ENOUGH).await?,
            };
            if !changed {
                return Ok(false);
            }
            let failures = failures.saturating_add(1);
            sqlx::query(
                "UPDATE webhooks SET failures = $2, failure_ms = $3, error = $4, suspended_until_ms = $5
                 WHERE seq = $1",
            )
            .bind(delivery.seq)
            .bind(failures)
            .bind(now)
            .bind(error)
            .bind(suspended_until(failures, now))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn forget_events(&self, term: Term, now_ms: i64, limit: u32) -> Result<u64, Error> {
        let tried = now_ms.saturating_sub(ms(TRIED_FOR));
        let (delivered, given_up) =
            (now_ms.saturating_sub(ms(DELIVERED_KEPT)), now_ms.saturating_sub(ms(GIVEN_UP_KEPT)));
        let due: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM webhook_events WHERE ended_ms IS NULL AND created_ms < $1)
                 OR EXISTS (SELECT 1 FROM webhook_events WHERE ended_ms IS NOT NULL AND ended_ms < $2
                              AND (state = 'delivered' OR ended_ms < $3))",
        )
        .bind(tried)
        .bind(delivered)
        .bind(given_up)
        .fetch_one(self.reads())
        .await?;
        if !due {
            return Ok(0);
        }
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            // One that is being sent has until its lease ends.
            let ended = sqlx::query(concat!(
                "UPDATE webhook_events SET state = 'given_up', ended_ms = $2, error = $3
                 WHERE id IN (SELECT id FROM webhook_events WHERE ended_ms IS NULL AND created_ms < $1
                                AND (state = 'waiting' OR due_ms <= ",
                now_ms!(),
                ") ORDER BY created_ms LIMIT $4)
                 AND ended_ms IS NULL",
            ))
            .bind(tried)
            .bind(now_ms)
            .bind(TRIED_ENOUGH)
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await?;
            let removed = sqlx::query(
                "DELETE FROM webhook_events
                 WHERE id IN (SELECT id FROM webhook_events WHERE ended_ms IS NOT NULL AND ended_ms < $1
                                AND (state = 'delivered' OR ended_ms < $2) ORDER BY ended_ms LIMIT $3)",
            )
            .bind(delivered)
            .bind(given_up)
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(ended.rows_affected() + removed.rows_affected())
        })
        .await
    }
}

/// Adds an event for each webhook of the tenant that gets events of this type, in the transaction
/// that makes it happen. Returns how many. If more of the tenant's events wait than may, the oldest
/// are given up.
pub(in super::super) async fn enqueue_event(
    tx: &mut Tx,
    tenant: &str,
    kind: EventType,
    data: &str,
) -> Result<u64, Error> {
    let event = format!("evt_{}", Uuid::now_v7().as_simple());
    let added = sqlx::query(concat!(
        "INSERT INTO webhook_events (webhook, tenant, event, type, data, created_ms, due_ms)
         SELECT w.seq, w.tenant, $2, $3, $4, ",
        now_ms!(),
        ", ",
        now_ms!(),
        " FROM webhooks AS w
         WHERE w.tenant = $1 AND (w.types = '' OR w.types LIKE '% ' || $3 || ' %') ORDER BY w.seq",
        // One that is being ended gets none.
        sql!(sqlite: "", postgres: " FOR KEY SHARE OF w"),
    ))
    .bind(tenant)
    .bind(event)
    .bind(kind.name())
    .bind(data)
    .execute(&mut **tx)
    .await?
    .rows_affected();
    if added > 0 {
        sqlx::query(concat!(
            "UPDATE webhook_events SET state = 'given_up', error = $3, ended_ms = ",
            now_ms!(),
            " WHERE tenant = $1 AND ended_ms IS NULL
                AND id <= (SELECT id FROM webhook_events WHERE tenant = $1 AND ended_ms IS NULL
                           ORDER BY id DESC LIMIT 1 OFFSET $2)",
        ))
        .bind(tenant)
        .bind(i64::from(MOST_WAITING))
        .bind(TOO_MANY)
        .execute(&mut **tx)
        .await?;
    }
    Ok(added)
}

/// Adds the event that tells the end of a job, which this transaction has locked. A state that is
/// no end adds none.
pub(super) async fn tell_end(
    tx: &mut Tx,
    seq: i64,
    job: JobId,
    state: JobState,
) -> Result<(), Error> {
    let Some(kind) = EventType::of_job(state) else { return Ok(()) };
    let tenant: String = sqlx::query_scalar("SELECT tenant FROM jobs WHERE seq = $1")
        .bind(seq)
        .fetch_one(&mut **tx)
        .await?;
    enqueue_event(tx, &tenant, kind, &job.to_string()).await?;
    Ok(())
}

async fn take(store: &Record, free: u32, lease: Duration) -> Result<Vec<Delivery>, Error> {
    let mut tx = store.begin_write().await?;
    let now: i64 = sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(&mut *tx).await?;
    // Those first that have waited for their turn. Of two coordinators, each takes events of other
    // webhooks.
    let ready: Vec<ReadyRow> = sqlx::query_as(concat!(
        ready!("w.seq, w.tenant, w.failures", "$1"),
        " ORDER BY w.tried_ms, w.seq LIMIT $2",
        sql!(sqlite: "", postgres: " FOR NO KEY UPDATE OF w SKIP LOCKED"),
    ))
    .bind(now)
    .bind(LOOKED_AT)
    .fetch_all(&mut *tx)
    .await?;
    // Read under the locks: another coordinator may just have taken some.
    let under_way: Vec<UnderWay> = sqlx::query_as(
        "SELECT webhook, tenant, count(*) FROM webhook_events
         WHERE state = 'sending' AND due_ms > $1 GROUP BY webhook, tenant",
    )
    .bind(now)
    .fetch_all(&mut *tx)
    .await?;
    let ready: Vec<Ready> = ready
        .into_iter()
        .map(|ReadyRow { seq, tenant, failures }| Ready { seq, tenant, failures })
        .collect();
    let shares = share(&ready, &under_way, free);
    let mut taken = Vec::new();
    for (seq, most) in &shares {
        taken.extend(take_of(&mut tx, *seq, *most, (now, lease)).await?);
    }
    // Others come first the next time.
    let served: Vec<i64> = shares.iter().map(|(seq, _)| *seq).collect();
    sqlx::query(sql!(
        sqlite: "UPDATE webhooks SET tried_ms = $2 WHERE seq IN (SELECT value FROM json_each($1))",
        postgres: "UPDATE webhooks SET tried_ms = $2 WHERE seq = ANY ($1)",
    ))
    .bind(list(&served)?)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(taken)
}

/// Takes up to `most` events of one webhook, those first that are due for longest.
async fn take_of(
    tx: &mut Tx,
    seq: i64,
    most: i64,
    (now, lease): (i64, Duration),
) -> Result<Vec<Delivery>, Error> {
    let (id, url): (String, String) = sqlx::query_as("SELECT id, url FROM webhooks WHERE seq = $1")
        .bind(seq)
        .fetch_one(&mut **tx)
        .await?;
    let rows: Vec<TakenRow> = sqlx::query_as(
        "UPDATE webhook_events SET state = 'sending', tries = tries + 1, due_ms = $4
         WHERE id IN (SELECT id FROM webhook_events WHERE webhook = $1 AND ended_ms IS NULL AND due_ms <= $2
                      ORDER BY due_ms, id LIMIT $3)
           AND ended_ms IS NULL AND due_ms <= $2
         RETURNING id, event, type AS kind, data, created_ms, tries",
    )
    .bind(seq)
    .bind(now)
    .bind(most)
    .bind(now.saturating_add(ms(lease)))
    .fetch_all(&mut **tx)
    .await?;
    let webhook = parse(&id)?;
    let delivery = |row: TakenRow| {
        Ok(Delivery {
            row: row.id,
            webhook,
            seq,
            url: url.clone(),
            event: row.event,
            kind: row.kind,
            data: row.data,
            created_ms: row.created_ms,
            tries: number(row.tries)?,
        })
    };
    rows.into_iter().map(delivery).collect()
}

/// Locks a webhook, and returns its failures in a row and the time; `None` if it was ended.
async fn lock(tx: &mut Tx, seq: i64) -> Result<Option<(i64, i64)>, Error> {
    let statement = concat!(
        "SELECT failures, ",
        now_ms!(),
        " FROM webhooks WHERE seq = $1",
        sql!(sqlite: "", postgres: " FOR NO KEY UPDATE"),
    );
    Ok(sqlx::query_as(statement).bind(seq).fetch_optional(&mut **tx).await?)
}

/// Ends an event that still belongs to this coordinator.
async fn end(
    tx: &mut Tx,
    delivery: &Delivery,
    now: i64,
    state: &str,
    error: &str,
) -> Result<bool, Error> {
    let ended = sqlx::query(
        "UPDATE webhook_events SET state = $3, ended_ms = $4, error = $5
         WHERE id = $1 AND state = 'sending' AND tries = $2",
    )
    .bind(delivery.row)
    .bind(column(delivery.tries))
    .bind(state)
    .bind(now)
    .bind(error)
    .execute(&mut **tx)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Has an event that still belongs to this coordinator wait.
async fn postpone(tx: &mut Tx, delivery: &Delivery, due: i64) -> Result<bool, Error> {
    let waits = sqlx::query(
        "UPDATE webhook_events SET state = 'waiting', due_ms = $3
         WHERE id = $1 AND state = 'sending' AND tries = $2",
    )
    .bind(delivery.row)
    .bind(column(delivery.tries))
    .bind(due)
    .execute(&mut **tx)
    .await?;
    Ok(waits.rows_affected() == 1)
}

impl Row {
    fn record(self) -> Result<WebhookRecord, Error> {
        Ok(WebhookRecord {
            seq: self.seq,
            id: parse(&self.id)?,
            tenant: self.tenant,
            url: self.url,
            name: self.name,
            types: self.types.split_whitespace().map(str::to_owned).collect(),
            created_ms: self.created_ms,
            success_ms: self.success_ms,
            failure_ms: self.failure_ms,
            error: self.error,
            suspended_until_ms: self.suspended_until_ms,
            waiting: number(self.waiting)?,
            oldest_waiting_ms: self.oldest_waiting_ms,
            given_up: number(self.given_up)?,
        })
    }
}
