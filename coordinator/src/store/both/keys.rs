//! Keys: who may call.

use async_trait::async_trait;
use darkroom_core::{
    error::{Code, UserError},
    key::{KeyId, SecretHash},
};

use super::{
    Connection, Error, Record, Tx,
    clock::{now, now_ms},
    retried,
    rows::{HashColumn, column, digest, digest_column, parse},
    tenants::add_missing,
};
use crate::store::{
    keys::{
        FoundKey, KeyQuery, KeyRecord, NewKey, Proof, Rotation, USED_STEP, no_key, scopes_column,
        scopes_of,
    },
    roles::Keys,
    row::row,
};

row! {
    struct Row {
        seq: i64,
        id: String,
        secret: Option<HashColumn>,
        certificate: Option<String>,
        tenant: Option<String>,
        scopes: String,
        label: String,
        created_ms: i64,
        expires_ms: Option<i64>,
        used_ms: Option<i64>,
        revoked_ms: Option<i64>,
        now_ms: i64,
    }
}

/// Keys, which a condition selects.
macro_rules! keys {
    ($which:literal) => {
        concat!(
            "SELECT seq, id, secret, certificate, tenant, scopes, label, created_ms, expires_ms, used_ms, revoked_ms, ",
            now_ms!(),
            " AS now_ms FROM keys WHERE ",
            $which
        )
    };
}

#[async_trait]
impl Keys for Record {
    async fn add_key(&self, new: &NewKey) -> Result<KeyRecord, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let added = add(&mut tx, new).await?;
            self.commit_repeatable(tx).await?;
            Ok(added)
        })
        .await
    }

    async fn add_first_key(&self, new: &NewKey) -> Result<Option<KeyRecord>, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            // Others that add a first key wait here, and then find this one.
            sqlx::query(sql!(
                sqlite: "SELECT 1 FROM farm",
                postgres: "SELECT 1 FROM farm WHERE one FOR UPDATE",
            ))
            .execute(&mut *tx)
            .await?;
            if has_admin(&mut tx).await? {
                return Ok(None);
            }
            let added = add(&mut tx, new).await?;
            self.commit_repeatable(tx).await?;
            Ok(Some(added))
        })
        .await
    }

    async fn has_admin_key(&self) -> Result<bool, Error> {
        has_admin(&mut *self.reader().await?).await
    }

    async fn find_key(&self, id: &KeyId) -> Result<Option<FoundKey>, Error> {
        let row: Option<Row> =
            sqlx::query_as(keys!("id = $1")).bind(id.as_str()).fetch_optional(self.reads()).await?;
        row.map(Row::found).transpose()
    }

    async fn find_certificate(&self, subject: &str) -> Result<Option<FoundKey>, Error> {
        let row: Option<Row> = sqlx::query_as(keys!("certificate = $1 AND revoked_ms IS NULL"))
            .bind(subject)
            .fetch_optional(self.reads())
            .await?;
        row.map(Row::found).transpose()
    }

    async fn list_keys(&self, query: &KeyQuery) -> Result<Vec<KeyRecord>, Error> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            keys!("seq > $1 AND (CAST($2 AS TEXT) IS NULL OR tenant = $2)"),
            " AND ($3 OR (revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ",
            now_ms!(),
            "))) ORDER BY seq LIMIT $4",
        ))
        .bind(query.after)
        .bind(query.tenant.as_deref())
        .bind(query.ended)
        .bind(i64::from(query.limit))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(Row::key).collect()
    }

    async fn revoke_key(&self, id: &KeyId) -> Result<(KeyRecord, bool), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let ended = sqlx::query(concat!(
                "UPDATE keys SET revoked_ms = ",
                now_ms!(),
                " WHERE id = $1 AND revoked_ms IS NULL",
            ))
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
            let revoked = read(&mut tx, id).await?.key;
            self.commit_repeatable(tx).await?;
            Ok((revoked, ended.rows_affected() > 0))
        })
        .await
    }

    async fn rotate_key(
        &self,
        id: &KeyId,
        rotation: &Rotation,
    ) -> Result<(KeyRecord, KeyRecord), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let FoundKey { key: old, now_ms } = lock(&mut tx, id).await?;
            old.check_rotation(now_ms)?;
            let new = NewKey {
                id: rotation.id.clone(),
                proof: Proof::Secret(rotation.secret),
                tenant: old.tenant.clone(),
                scopes: old.scopes.clone(),
                label: old.label.clone(),
                expiry: old.next_expiry(rotation),
            };
            let new = add(&mut tx, &new).await?;
            let end = now_ms.saturating_add(rotation.keep_ms);
            sqlx::query(
                "UPDATE keys SET expires_ms = $2
                 WHERE id = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)",
            )
            .bind(id.as_str())
            .bind(end)
            .execute(&mut *tx)
            .await?;
            let old = read(&mut tx, id).await?.key;
            self.commit_repeatable(tx).await?;
            Ok((new, old))
        })
        .await
    }

    async fn note_key_used(&self, id: &KeyId) -> Result<bool, Error> {
        let noted = sqlx::query(concat!(
            "UPDATE keys SET used_ms = ",
            now_ms!(),
            " WHERE id = $1 AND (used_ms IS NULL OR used_ms <= ",
            now_ms!(),
            " - $2)",
        ))
        .bind(id.as_str())
        .bind(column(USED_STEP.as_millis()))
        .execute(self.writes())
        .await?;
        Ok(noted.rows_affected() == 1)
    }
}

async fn has_admin(connection: &mut Connection) -> Result<bool, Error> {
    let there: i64 = sqlx::query_scalar(concat!(
        "SELECT count(*) FROM keys WHERE scopes LIKE '% admin %' AND revoked_ms IS NULL
         AND (expires_ms IS NULL OR expires_ms > ",
        now_ms!(),
        ")",
    ))
    .fetch_one(connection)
    .await?;
    Ok(there > 0)
}

async fn add(tx: &mut Tx, new: &NewKey) -> Result<KeyRecord, Error> {
    let now_ms = now(tx).await?;
    let expires_ms = new.expiry.end(now_ms)?;
    if let Some(tenant) = &new.tenant {
        add_missing(tx, tenant).await?;
    }
    let (secret, certificate) = match &new.proof {
        Proof::Secret(hash) => (Some(digest_column(hash.0)), None),
        Proof::Certificate(subject) => {
            check_certificate(tx, subject).await?;
            (None, Some(subject))
        }
    };
    sqlx::query(
        "INSERT INTO keys (id, secret, certificate, tenant, scopes, label, created_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(new.id.as_str())
    .bind(secret)
    .bind(certificate)
    .bind(new.tenant.as_deref())
    .bind(scopes_column(&new.scopes))
    .bind(&new.label)
    .bind(now_ms)
    .bind(expires_ms)
    .execute(&mut **tx)
    .await?;
    Ok(read(tx, &new.id).await?.key)
}

/// Refuses a certificate that stands for a live key already. The index does, too.
async fn check_certificate(tx: &mut Tx, subject: &str) -> Result<(), Error> {
    let taken: Option<String> =
        sqlx::query_scalar("SELECT id FROM keys WHERE certificate = $1 AND revoked_ms IS NULL")
            .bind(subject)
            .fetch_optional(&mut **tx)
            .await?;
    let Some(taken) = taken else { return Ok(()) };
    let message = format!(
        "certificate stands for key {taken} already; accepted: another subject, or this one once \
         that key is revoked"
    );
    let refused = UserError::new(Code::AlreadyExists, "CERTIFICATE_TAKEN", message);
    Err(UserError { field: Some("certificate".to_owned()), ..refused }.into())
}

async fn read(tx: &mut Tx, id: &KeyId) -> Result<FoundKey, Error> {
    let row: Option<Row> =
        sqlx::query_as(keys!("id = $1")).bind(id.as_str()).fetch_optional(&mut **tx).await?;
    row.ok_or_else(|| no_key(id))?.found()
}

/// As [`read`], and nobody else changes the key meanwhile.
async fn lock(tx: &mut Tx, id: &KeyId) -> Result<FoundKey, Error> {
    let row: Option<Row> = sqlx::query_as(sql!(
        sqlite: keys!("id = $1"),
        postgres: keys!("id = $1 FOR UPDATE"),
    ))
    .bind(id.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    row.ok_or_else(|| no_key(id))?.found()
}

impl Row {
    fn key(self) -> Result<KeyRecord, Error> {
        let proof = match (self.secret, self.certificate) {
            (Some(secret), None) => Proof::Secret(SecretHash(digest(&secret)?)),
            (None, Some(subject)) => Proof::Certificate(subject),
            _ => return Err(Error::Corrupt(format!("proof of key {}", self.id))),
        };
        Ok(KeyRecord {
            seq: self.seq,
            id: parse(&self.id)?,
            proof,
            tenant: self.tenant,
            scopes: scopes_of(&self.scopes)?,
            label: self.label,
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            used_ms: self.used_ms,
            revoked_ms: self.revoked_ms,
        })
    }

    fn found(self) -> Result<FoundKey, Error> {
        let now_ms = self.now_ms;
        Ok(FoundKey { key: self.key()?, now_ms })
    }
}
