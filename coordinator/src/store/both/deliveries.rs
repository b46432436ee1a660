//! Events on their way to the webhooks of tenants: who sends which, and what became of it.

use std::time::Duration;

use super::{
    Error, Record, Tx,
    clock::{now, now_ms},
    retried,
    rows::{column, list, number, parse},
};
use crate::store::{
    records::Term,
    removal::ms,
    row::row,
    webhooks::{
        DELIVERED_KEPT, Delivery, GIVEN_UP_KEPT, Ready, SUSPENDED_AFTER, TRIED_ENOUGH, TRIED_FOR,
        UnderWay, next_try, share, suspended_until,
    },
};

/// Webhooks that are looked at to find events for all free places. Those of tenants that have enough
/// under way are among them.
const LOOKED_AT: i64 = 500;

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

/// Takes at most `free` due events. They belong to this coordinator until the lease ends.
pub(super) async fn take_events(
    store: &Record,
    free: u32,
    lease: Duration,
) -> Result<Vec<Delivery>, Error> {
    if free == 0 {
        return Ok(Vec::new());
    }
    let any = concat!("SELECT EXISTS (", ready!("1", now_ms!()), ")");
    let any: bool = sqlx::query_scalar(any).fetch_one(store.reads()).await?;
    if !any {
        return Ok(Vec::new());
    }
    retried(|| take(store, free, lease)).await
}

async fn take(store: &Record, free: u32, lease: Duration) -> Result<Vec<Delivery>, Error> {
    let mut tx = store.begin_write().await?;
    // If two coordinators took events at once, neither would see what the other one takes of a
    // tenant.
    let is_alone: bool = sqlx::query_scalar(sql!(
        sqlite: "SELECT TRUE",
        postgres: "SELECT pg_try_advisory_xact_lock(2026113002)",
    ))
    .fetch_one(&mut *tx)
    .await?;
    if !is_alone {
        return Ok(Vec::new());
    }
    let now = now(&mut tx).await?;
    // Those first that have waited for their turn.
    let ready: Vec<ReadyRow> = sqlx::query_as(concat!(
        ready!("w.seq, w.tenant, w.failures", "$1"),
        " ORDER BY w.tried_ms, w.seq LIMIT $2",
        sql!(sqlite: "", postgres: " FOR NO KEY UPDATE OF w SKIP LOCKED"),
    ))
    .bind(now)
    .bind(LOOKED_AT)
    .fetch_all(&mut *tx)
    .await?;
    // Read under the lock: another coordinator may just have taken some.
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

/// Notes that an event arrived. Returns whether it still belonged to this coordinator.
pub(super) async fn delivered(store: &Record, delivery: &Delivery) -> Result<bool, Error> {
    let mut tx = store.begin_write().await?;
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
}

/// Notes that an event did not arrive. Returns whether it still belonged to this coordinator.
pub(super) async fn not_delivered(
    store: &Record,
    delivery: &Delivery,
    (error, pause): (&str, Duration),
) -> Result<bool, Error> {
    let mut tx = store.begin_write().await?;
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
}

/// Gives up events that were tried for long enough, and removes old ones. Returns how many.
pub(super) async fn forget_events(
    store: &Record,
    term: Term,
    (now_ms, limit): (i64, u32),
) -> Result<u64, Error> {
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
    .fetch_one(store.reads())
    .await?;
    if !due {
        return Ok(0);
    }
    retried(|| async {
        let mut tx = store.begin_write().await?;
        store.check_term(&mut tx, term).await?;
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
