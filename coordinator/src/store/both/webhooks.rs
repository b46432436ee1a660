//! Where tenants' events are sent.
//!
//! Whoever locks a webhook and its events locks the webhook first. Code that gives up or removes
//! old events locks only events, in no fixed order. If two such transactions deadlock, Postgres
//! ends one of them, and it is run again. Whoever adds an event locks webhooks only against their
//! end.

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
    deliveries, retried,
    rows::{number, parse},
    tenant_lock::lock_tenant,
};
use crate::store::{
    records::Term,
    roles::Webhooks,
    row::row,
    webhooks::{
        Delivery, EndedWebhook, MOST_WAITING, MOST_WEBHOOKS, NewWebhook, TOO_MANY, WebhookQuery,
        WebhookRecord, too_many, types_column,
    },
};

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

#[async_trait]
impl Webhooks for Record {
    async fn add_webhook(&self, new: &NewWebhook) -> Result<WebhookRecord, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            lock_tenant(&mut tx, &new.tenant).await?;
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
        deliveries::take_events(self, free, lease).await
    }

    async fn event_delivered(&self, delivery: &Delivery) -> Result<bool, Error> {
        retried(|| deliveries::delivered(self, delivery)).await
    }

    async fn event_not_delivered(
        &self,
        delivery: &Delivery,
        error: &str,
        pause: Duration,
    ) -> Result<bool, Error> {
        retried(|| deliveries::not_delivered(self, delivery, (error, pause))).await
    }

    async fn forget_events(&self, term: Term, now_ms: i64, limit: u32) -> Result<u64, Error> {
        deliveries::forget_events(self, term, (now_ms, limit)).await
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
