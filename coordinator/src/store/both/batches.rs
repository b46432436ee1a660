//! Batches: their rows, and who takes their next step.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use darkroom_core::{
    batch_state::BatchState,
    guard::{self, Guard, stands},
    webhook::EventType,
};
use darkroom_farm_api::batches::shown_batch;
use uuid::Uuid;

use super::{
    Error, Record, Tx,
    clock::{now, now_ms},
    files::{self, page, place},
    removal::leaving_under,
    retried,
    rows::{IdColumn, from_json, number, parse, to_json, uuid, uuid_column},
    tenant_lock::lock_tenant,
    unused_files,
    webhooks::enqueue_event,
};
use crate::store::{
    batches::{
        AddedFile, Batch, Creator, ForgottenFiles, NewBatch, NewFile, Page, Purpose, Step,
        StoredFile, check_open, no_batch, no_file, no_step, not_cancellable,
    },
    records::Term,
    removal::ms,
    roles::Batches,
    row::row,
};

row! {
    struct Row {
        id: IdColumn,
        tenant: String,
        key: Option<String>,
        endpoint: String,
        input: IdColumn,
        window_ms: i64,
        metadata: String,
        origin: String,
        keep_ms: Option<i64>,
        state: String,
        since: String,
        expires_ms: i64,
        progress: String,
        output: Option<IdColumn>,
        errors: Option<IdColumn>,
    }
}

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "id, tenant, key, endpoint, input, window_ms, metadata, origin, keep_ms, state, since, expires_ms,
         progress, output, errors"
    };
}

/// Batches that a condition selects.
macro_rules! batches {
    ($($which:expr),+) => {
        concat!("SELECT ", columns!(), " FROM batches WHERE ", $($which),+)
    };
}

/// Batches whose next step is due and that no runner holds. Subqueries read the clock, so that the
/// database can find these batches by the index.
macro_rules! due {
    () => {
        concat!(
            "ended_ms IS NULL AND due_ms <= (SELECT ",
            now_ms!(),
            ")
             AND (lease_ms IS NULL OR lease_ms <= (SELECT ",
            now_ms!(),
            "))"
        )
    };
}

#[async_trait]
impl Batches for Record {
    async fn file_mark(&self, id: Uuid) -> Result<u64, Error> {
        let leaving = leaving_under(self, &[id.to_string()]).await?;
        Ok(leaving.into_values().next().unwrap_or_default())
    }

    async fn add_file(&self, new: &NewFile) -> Result<AddedFile, Error> {
        files::add_file(self, new).await
    }

    async fn file(&self, id: Uuid, tenant: Option<&str>) -> Result<StoredFile, Error> {
        files::file(self, id, tenant).await
    }

    async fn list_files(
        &self,
        tenant: Option<&str>,
        page: &Page,
        purpose: Option<Purpose>,
    ) -> Result<Vec<StoredFile>, Error> {
        files::list_files(self, tenant, page, purpose).await
    }

    async fn delete_file(&self, id: Uuid, tenant: Option<&str>) -> Result<StoredFile, Error> {
        files::delete_file(self, id, tenant).await
    }

    async fn add_batch(
        &self,
        creator: Creator<'_>,
        new: &NewBatch,
    ) -> Result<(Batch, bool), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            lock_tenant(&mut tx, creator.tenant).await?;
            let added = add(&mut tx, creator, new).await?;
            self.commit_repeatable(tx).await?;
            Ok(added)
        })
        .await
    }

    async fn batch(&self, id: Uuid, tenant: Option<&str>) -> Result<Batch, Error> {
        let row: Option<Row> =
            sqlx::query_as(batches!("id = $1 AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)"))
                .bind(uuid_column(id))
                .bind(tenant)
                .fetch_optional(self.reads())
                .await?;
        row.ok_or_else(|| no_batch(id))?.batch()
    }

    async fn list_batches(&self, tenant: Option<&str>, page: &Page) -> Result<Vec<Batch>, Error> {
        const PLACE: &str = "SELECT created_ms FROM batches
                             WHERE id = $1 AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)";
        const OF_ALL: [&str; 2] = page!(batches, "CAST($4 AS TEXT) IS NULL", "");
        const OF_TENANT: [&str; 2] = page!(batches, "tenant = $4", "");
        let place = place(self, PLACE, page, tenant).await?;
        let Some((created_ms, id)) = place else {
            return Err(no_batch(page.after.unwrap_or_default()));
        };
        let statements = if tenant.is_some() { OF_TENANT } else { OF_ALL };
        let rows: Vec<Row> = sqlx::query_as(statements[usize::from(page.oldest_first)])
            .bind(created_ms)
            .bind(id)
            .bind(i64::from(page.limit))
            .bind(tenant)
            .fetch_all(self.reads())
            .await?;
        rows.into_iter().map(Row::batch).collect()
    }

    async fn cancel_batch(&self, id: Uuid, tenant: Option<&str>) -> Result<(Batch, bool), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let cancelled = cancel(&mut tx, id, tenant).await?;
            self.commit_repeatable(tx).await?;
            Ok(cancelled)
        })
        .await
    }

    async fn claim_batch(&self, runner: Uuid, lease: Duration) -> Result<Option<Batch>, Error> {
        // Mostly there is none, and then nobody is held up.
        let is_due: bool = sqlx::query_scalar(of_nobody(concat!(
            "SELECT EXISTS (SELECT 1 FROM batches WHERE ",
            due!(),
            ")",
        )))
        .fetch_one(self.reads())
        .await?;
        if !is_due {
            return Ok(None);
        }
        let row: Option<Row> = sqlx::query_as(of_nobody(concat!(
            "UPDATE batches SET holder = $1, lease_ms = $2 + ",
            now_ms!(),
            " WHERE id = (SELECT id FROM batches WHERE ",
            due!(),
            " ORDER BY due_ms, id LIMIT 1",
            sql!(sqlite: "", postgres: " FOR UPDATE SKIP LOCKED"),
            ") AND ",
            due!(),
            " RETURNING ",
            columns!(),
        )))
        .bind(uuid_column(runner))
        .bind(ms(lease))
        .fetch_optional(self.writes())
        .await?;
        row.map(Row::batch).transpose()
    }

    async fn renew_batch(&self, runner: Uuid, id: Uuid, lease: Duration) -> Result<bool, Error> {
        let renewed = sqlx::query(concat!(
            "UPDATE batches SET lease_ms = $3 + ",
            now_ms!(),
            " WHERE id = $1 AND holder = $2 AND ended_ms IS NULL",
        ))
        .bind(uuid_column(id))
        .bind(uuid_column(runner))
        .bind(ms(lease))
        .execute(self.writes())
        .await?;
        Ok(renewed.rows_affected() > 0)
    }

    async fn advance_batch(&self, runner: Uuid, step: &Step) -> Result<bool, Error> {
        if !step.from.may_become(step.to) {
            return Err(no_step(step));
        }
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let advanced = advance(&mut tx, runner, step).await?;
            self.commit_repeatable(tx).await?;
            Ok(advanced)
        })
        .await
    }

    async fn is_file_due(&self, now_ms: i64) -> Result<bool, Error> {
        unused_files::is_due(self, now_ms).await
    }

    async fn forget_files(
        &self,
        term: Term,
        now_ms: i64,
        limit: u32,
    ) -> Result<ForgottenFiles, Error> {
        retried(|| async {
            let mut tx = self.begin_referring().await?;
            self.check_term(&mut tx, term).await?;
            let forgotten = unused_files::forget(&mut tx, now_ms, limit).await?;
            tx.commit().await?;
            Ok(forgotten)
        })
        .await
    }
}

async fn add(
    tx: &mut Tx,
    Creator { tenant, key }: Creator<'_>,
    new: &NewBatch,
) -> Result<(Batch, bool), Error> {
    if let Some(present) = lock(tx, new.id).await? {
        let present = present.batch()?;
        return if present.tenant == tenant { Ok((present, false)) } else { Err(no_batch(new.id)) };
    }
    // Whoever deletes it waits, and then finds the batch.
    let input: Option<IdColumn> = sqlx::query_scalar(sql!(
        sqlite: "SELECT id FROM files WHERE id = $1 AND tenant = $2",
        postgres: "SELECT id FROM files WHERE id = $1 AND tenant = $2 FOR SHARE",
    ))
    .bind(uuid_column(new.input))
    .bind(tenant)
    .fetch_optional(&mut **tx)
    .await?;
    let input = input.ok_or_else(|| no_file(new.input))?;
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM batches WHERE tenant = $1 AND ended_ms IS NULL")
            .bind(tenant)
            .fetch_one(&mut **tx)
            .await?;
    check_open(tenant, number(open)?)?;
    let now = now(tx).await?;
    let state = BatchState::Validating;
    let since = BTreeMap::from([(state.name(), now)]);
    let row: Row = sqlx::query_as(concat!(
        "INSERT INTO batches (id, tenant, key, endpoint, input, window_ms, metadata, origin, keep_ms, state,
                              since, created_ms, expires_ms, due_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $12)
         RETURNING ",
        columns!(),
    ))
    .bind(uuid_column(new.id))
    .bind(tenant)
    .bind(key)
    .bind(&new.endpoint)
    .bind(input)
    .bind(ms(new.window))
    .bind(to_json(&new.metadata)?)
    .bind(&new.origin)
    .bind(new.keep_output.map(ms))
    .bind(state.name())
    .bind(to_json(&since)?)
    .bind(now)
    .bind(now.saturating_add(ms(new.window)))
    .fetch_one(&mut **tx)
    .await?;
    Ok((row.batch()?, true))
}

async fn cancel(tx: &mut Tx, id: Uuid, tenant: Option<&str>) -> Result<(Batch, bool), Error> {
    let mut batch = lock(tx, id).await?.ok_or_else(|| no_batch(id))?.batch()?;
    if tenant.is_some_and(|tenant| tenant != batch.tenant) {
        return Err(no_batch(id));
    }
    if matches!(batch.state, BatchState::Cancelling | BatchState::Cancelled) {
        return Ok((batch, false));
    }
    if !batch.state.can_be_cancelled() {
        return Err(not_cancellable(id, batch.state));
    }
    let (from, to, now) = (batch.state, BatchState::Cancelling, now(tx).await?);
    batch.state = to;
    batch.since_ms.insert(to, now);
    let cancelled = sqlx::query(
        "UPDATE batches SET state = $3, since = $4, due_ms = $5 WHERE id = $1 AND state = $2",
    )
    .bind(uuid_column(id))
    .bind(from.name())
    .bind(to.name())
    .bind(since(&batch)?)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    Ok((batch, cancelled.rows_affected() > 0))
}

async fn advance(tx: &mut Tx, runner: Uuid, step: &Step) -> Result<bool, Error> {
    let held: Option<Row> = sqlx::query_as(of_holder(sql!(
        sqlite: batches!("id = $1 AND holder = $2"),
        postgres: batches!("id = $1 AND holder = $2 FOR UPDATE"),
    )))
    .bind(uuid_column(step.id))
    .bind(uuid_column(runner))
    .fetch_optional(&mut **tx)
    .await?;
    let Some(held) = held else { return Ok(false) };
    let mut batch = held.batch()?;
    if batch.state != step.from && stands(Guard::BatchExpected) {
        sqlx::query(
            "UPDATE batches SET holder = NULL, lease_ms = NULL
             WHERE id = $1 AND holder = $2 AND state = $3",
        )
        .bind(uuid_column(step.id))
        .bind(uuid_column(runner))
        .bind(batch.state.name())
        .execute(&mut **tx)
        .await?;
        return Ok(false);
    }
    let now = now(tx).await?;
    if step.to != step.from {
        batch.since_ms.insert(step.to, now);
    }
    let advanced = sqlx::query(of_holder(guard::text(
        Guard::BatchExpected,
        "UPDATE batches
         SET state = $4, since = $5, progress = $6, output = coalesce($7, output),
             errors = coalesce($8, errors), due_ms = $9, ended_ms = $10, holder = NULL, lease_ms = NULL
         WHERE id = $1 AND holder = $2 AND state = $3",
        "AND state = $3",
        "AND $3 <> ''",
    )))
    .bind(uuid_column(step.id))
    .bind(uuid_column(runner))
    .bind(step.from.name())
    .bind(step.to.name())
    .bind(since(&batch)?)
    .bind(&step.progress)
    .bind(step.output.map(uuid_column))
    .bind(step.errors.map(uuid_column))
    .bind(now.saturating_add(ms(step.again)))
    .bind(step.to.is_terminal().then_some(now))
    .execute(&mut **tx)
    .await?;
    let advanced = advanced.rows_affected() > 0;
    if advanced && step.to.is_terminal() && !step.from.is_terminal() {
        end(tx, &batch, step.to).await?;
    }
    Ok(advanced)
}

/// Adds the event that tells the end of a batch, in the same transaction.
async fn end(tx: &mut Tx, batch: &Batch, state: BatchState) -> Result<(), Error> {
    let Some(kind) = EventType::of_batch(state) else { return Ok(()) };
    enqueue_event(tx, &batch.tenant, kind, &shown_batch(batch.id)).await?;
    Ok(())
}

/// A statement about a batch that a runner has.
fn of_holder(statement: &'static str) -> &'static str {
    guard::text(Guard::BatchHolder, statement, "AND holder = $2", "AND $2 IS NOT NULL")
}

/// A statement about a batch that nobody has.
fn of_nobody(statement: &'static str) -> &'static str {
    guard::text(Guard::BatchLease, statement, "lease_ms IS NULL", "TRUE")
}

/// A batch, which nobody changes until the transaction ends.
async fn lock(tx: &mut Tx, id: Uuid) -> Result<Option<Row>, Error> {
    Ok(sqlx::query_as(sql!(
        sqlite: batches!("id = $1"),
        postgres: batches!("id = $1 FOR UPDATE"),
    ))
    .bind(uuid_column(id))
    .fetch_optional(&mut **tx)
    .await?)
}

/// The column of when a batch came into each state.
fn since(batch: &Batch) -> Result<String, Error> {
    let since: BTreeMap<&str, i64> =
        batch.since_ms.iter().map(|(state, ms)| (state.name(), *ms)).collect();
    to_json(&since)
}

impl Row {
    fn batch(self) -> Result<Batch, Error> {
        let since: BTreeMap<String, i64> = from_json(&self.since)?;
        let since = since.into_iter().map(|(state, ms)| Ok((parse::<BatchState>(&state)?, ms)));
        let keep_output = self.keep_ms.map(number).transpose()?;
        Ok(Batch {
            id: uuid(&self.id)?,
            tenant: self.tenant,
            key: self.key,
            endpoint: self.endpoint,
            input: uuid(&self.input)?,
            window: Duration::from_millis(number(self.window_ms)?),
            metadata: from_json(&self.metadata)?,
            origin: self.origin,
            keep_output: keep_output.map(Duration::from_millis),
            state: parse(&self.state)?,
            since_ms: since.collect::<Result<_, Error>>()?,
            expires_ms: self.expires_ms,
            progress: self.progress,
            output: self.output.map(|id| uuid(&id)).transpose()?,
            errors: self.errors.map(|id| uuid(&id)).transpose()?,
        })
    }
}
