//! Files: their rows, which keep their bytes in storage.

use darkroom_core::guard::{self, Guard, stands};
use uuid::Uuid;

use super::{
    Error, Record, Tx,
    candidates::suspect,
    clock::now,
    inputs::leaving_of,
    metering, retried,
    rows::{HashColumn, IdColumn, artifact, column, digest_column, number, uuid, uuid_column},
    tenant_lock::lock_tenant,
};
use crate::store::{
    batches::{
        AddedFile, NewFile, Page, Purpose, StoredFile, check_files, in_use, no_file, purpose,
        stored_file,
    },
    metering::check_stored,
    removal::{Candidate, ms},
    row::row,
};

row! {
    struct Row {
        id: IdColumn,
        tenant: String,
        name: String,
        purpose: String,
        size: i64,
        sha256: HashColumn,
        key: String,
        created_ms: i64,
        expires_ms: Option<i64>,
    }
}

/// The columns of [`Row`], of rows that a condition selects.
macro_rules! files {
    ($($which:expr),+) => {
        concat!(
            "SELECT id, tenant, name, purpose, size, sha256, key, created_ms, expires_ms FROM files WHERE ",
            $($which),+
        )
    };
}

/// A page of a table that is ordered by time and id: what comes after `$1` and `$2`, at most `$3`
/// rows, of a tenant (`$4`) or of all.
macro_rules! page {
    ($table:ident, $of:literal, $also:literal) => {
        [
            $table!(
                "(created_ms, id) < ($1, $2) AND ",
                $of,
                $also,
                " ORDER BY created_ms DESC, id DESC LIMIT $3"
            ),
            $table!(
                "(created_ms, id) > ($1, $2) AND ",
                $of,
                $also,
                " ORDER BY created_ms, id LIMIT $3"
            ),
        ]
    };
}
pub(super) use page;

/// Where a listing goes on. The first page begins beyond everything.
pub(super) async fn place(
    store: &Record,
    statement: &'static str,
    page: &Page,
    tenant: Option<&str>,
) -> Result<Option<(i64, IdColumn)>, Error> {
    let Some(after) = page.after else {
        let first = if page.oldest_first { (-1, Uuid::nil()) } else { (i64::MAX, Uuid::max()) };
        return Ok(Some((first.0, uuid_column(first.1))));
    };
    let created_ms: Option<i64> = sqlx::query_scalar(statement)
        .bind(uuid_column(after))
        .bind(tenant)
        .fetch_optional(store.reads())
        .await?;
    Ok(created_ms.map(|created_ms| (created_ms, uuid_column(after))))
}

pub(super) async fn add_file(store: &Record, new: &NewFile) -> Result<AddedFile, Error> {
    retried(|| async {
        let mut tx = store.begin_referring().await?;
        lock_tenant(&mut tx, &new.tenant).await?;
        if let Some(present) = lock(&mut tx, new.id).await? {
            let present = present.file()?;
            if present.record.tenant != new.tenant {
                return Err(no_file(new.id));
            }
            if present.stored.key != new.stored.key {
                let now = now(&mut tx).await?;
                let left = Candidate::file(new.stored.key.clone(), new.id);
                suspect(&mut tx, (now, now), &[left]).await?;
                tx.commit().await?;
            }
            return Ok(AddedFile::Existed(present));
        }
        if !leaving_of(&mut tx, std::slice::from_ref(&new.stored.key)).await?.is_empty() {
            return Ok(AddedFile::Leaving);
        }
        if new.purpose == Purpose::Batch {
            check_files(&new.tenant, count_files(&mut tx, &new.tenant).await?)?;
        }
        let before = metering::stored(&mut tx, &new.tenant).await?;
        let added = insert(&mut tx, new).await?;
        if let Some((quotas, before)) = before.filter(|_| new.purpose == Purpose::Batch) {
            check_stored(&new.tenant, &quotas, before, Some(new.stored.size))?;
        }
        store.commit_repeatable(tx).await?;
        Ok(AddedFile::Added(added))
    })
    .await
}

async fn count_files(tx: &mut Tx, tenant: &str) -> Result<u64, Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM files WHERE tenant = $1")
        .bind(tenant)
        .fetch_one(&mut **tx)
        .await?;
    number(count)
}

async fn insert(tx: &mut Tx, new: &NewFile) -> Result<StoredFile, Error> {
    let now = now(tx).await?;
    let expires = new.keep.map(|keep| now.saturating_add(ms(keep)));
    sqlx::query(
        "INSERT INTO files (id, tenant, name, purpose, size, sha256, key, created_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(uuid_column(new.id))
    .bind(&new.tenant)
    .bind(&new.name)
    .bind(new.purpose.name())
    .bind(column(new.stored.size))
    .bind(digest_column(new.stored.sha256))
    .bind(&new.stored.key)
    .bind(now)
    .bind(expires)
    .execute(&mut **tx)
    .await?;
    let named = (new.id, new.tenant.clone(), new.name.clone());
    Ok(stored_file(named, new.purpose, new.stored.clone(), (now, expires)))
}

pub(super) async fn file(
    store: &Record,
    id: Uuid,
    tenant: Option<&str>,
) -> Result<StoredFile, Error> {
    let row: Option<Row> =
        sqlx::query_as(files!("id = $1 AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)"))
            .bind(uuid_column(id))
            .bind(tenant)
            .fetch_optional(store.reads())
            .await?;
    row.ok_or_else(|| no_file(id))?.file()
}

pub(super) async fn list_files(
    store: &Record,
    tenant: Option<&str>,
    page: &Page,
    purpose: Option<Purpose>,
) -> Result<Vec<StoredFile>, Error> {
    const PLACE: &str = "SELECT created_ms FROM files
                         WHERE id = $1 AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)";
    const OF_ALL: [&str; 2] =
        page!(files, "CAST($4 AS TEXT) IS NULL", " AND (CAST($5 AS TEXT) IS NULL OR purpose = $5)");
    const OF_TENANT: [&str; 2] =
        page!(files, "tenant = $4", " AND (CAST($5 AS TEXT) IS NULL OR purpose = $5)");
    let place = place(store, PLACE, page, tenant).await?;
    let Some((created_ms, id)) = place else {
        return Err(no_file(page.after.unwrap_or_default()));
    };
    let statements = if tenant.is_some() { OF_TENANT } else { OF_ALL };
    let rows: Vec<Row> = sqlx::query_as(statements[usize::from(page.oldest_first)])
        .bind(created_ms)
        .bind(id)
        .bind(i64::from(page.limit))
        .bind(tenant)
        .bind(purpose.map(Purpose::name))
        .fetch_all(store.reads())
        .await?;
    rows.into_iter().map(Row::file).collect()
}

pub(super) async fn delete_file(
    store: &Record,
    id: Uuid,
    tenant: Option<&str>,
) -> Result<StoredFile, Error> {
    retried(|| async {
        let mut tx = store.begin_referring().await?;
        let present = lock(&mut tx, id).await?.ok_or_else(|| no_file(id))?.file()?;
        if tenant.is_some_and(|tenant| tenant != present.record.tenant) {
            return Err(no_file(id));
        }
        // Its row is locked, so no batch begins to read it.
        let reader: Option<IdColumn> = sqlx::query_scalar(
            "SELECT id FROM batches WHERE input = $1 AND ended_ms IS NULL ORDER BY id LIMIT 1",
        )
        .bind(uuid_column(id))
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(reader) = reader.filter(|_| stands(Guard::FileRead)) {
            return Err(in_use(id, uuid(&reader)?));
        }
        let now = now(&mut tx).await?;
        delete_files(&mut tx, &[uuid_column(id)], now).await?;
        store.commit_repeatable(tx).await?;
        Ok(present)
    })
    .await
}

/// Removes those of these files that no open batch reads. Their rows are locked. Their bytes become
/// candidates. Returns how many.
pub(super) async fn delete_files(tx: &mut Tx, ids: &[IdColumn], now_ms: i64) -> Result<u64, Error> {
    let deleted = sql!(
        sqlite:
            "DELETE FROM files
             WHERE id IN (SELECT value ->> 0 FROM json_each($1))
               AND NOT EXISTS (SELECT 1 FROM batches AS b WHERE b.input = files.id AND b.ended_ms IS NULL)
             RETURNING id, key",
        postgres:
            "DELETE FROM files
             WHERE id = ANY ($1)
               AND NOT EXISTS (SELECT FROM batches AS b WHERE b.input = files.id AND b.ended_ms IS NULL)
             RETURNING id, key",
    );
    let deleted = guard::text(Guard::FileRead, deleted, "b.ended_ms IS NULL", "FALSE");
    let deleted = sqlx::query_as(deleted);
    let deleted: Vec<(IdColumn, String)> =
        bind_rows!(deleted, ids, |id| id.to_owned()).fetch_all(&mut **tx).await?;
    let candidate = |(id, key): &(IdColumn, String)| Ok(Candidate::file(key.clone(), uuid(id)?));
    let mut candidates: Vec<Candidate> =
        deleted.iter().map(candidate).collect::<Result<_, Error>>()?;
    candidates.sort_unstable();
    suspect(tx, (now_ms, now_ms), &candidates).await?;
    Ok(deleted.len() as u64)
}

/// Locks a file: until the transaction ends, nobody can delete it and no batch can start to read
/// it.
async fn lock(tx: &mut Tx, id: Uuid) -> Result<Option<Row>, Error> {
    Ok(sqlx::query_as(sql!(
        sqlite: files!("id = $1"),
        postgres: files!("id = $1 FOR UPDATE"),
    ))
    .bind(uuid_column(id))
    .fetch_optional(&mut **tx)
    .await?)
}

impl Row {
    fn file(self) -> Result<StoredFile, Error> {
        let stored = artifact(self.key, &self.sha256, self.size)?;
        let named = (uuid(&self.id)?, self.tenant, self.name);
        Ok(stored_file(named, purpose(&self.purpose)?, stored, (self.created_ms, self.expires_ms)))
    }
}
