//! Pictures that users have sent, by tenant, and by the hash of their bytes and that of what is
//! stored of them.

use async_trait::async_trait;
use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    error::{Code, UserError},
    extent::Extent,
    guard::{Guard, stands},
};

use super::{
    Error, Record, Tx,
    clock::now_ms,
    metering,
    removal::leaving_under,
    retried,
    rows::{
        HashColumn, Int, Small, column, digest, digest_column, digests, from_json, number, to_json,
    },
};
use crate::store::{
    metering::check_stored,
    records::{Canonical, Input, NewPrompt},
    roles::Inputs,
    row::row,
};

row! {
    struct Row {
        sha256: HashColumn,
        size: i64,
        width: Int,
        height: Int,
        is_mask: bool,
        canonical: Option<HashColumn>,
        canonical_size: Option<i64>,
        orientation: Small,
        notes: Option<String>,
        mark: i64,
    }
}

#[async_trait]
impl Inputs for Record {
    async fn input_mark(&self, content: Digest) -> Result<u64, Error> {
        let leaving = leaving_under(self, &[content.to_string()]).await?;
        Ok(leaving.into_values().next().unwrap_or_default())
    }

    async fn add_input(&self, tenant: &str, input: &Input) -> Result<bool, Error> {
        retried(|| async {
            let mut tx = self.begin_referring().await?;
            if !leaving_of(&mut tx, &[input.artifact().key]).await?.is_empty() {
                return Ok(false);
            }
            let before = metering::stored(&mut tx, tenant).await?;
            add(&mut tx, tenant, input).await?;
            touch(&mut tx, tenant, input).await?;
            if let Some((quotas, before)) = before {
                let after = metering::stored(&mut tx, tenant).await?;
                let added = after.map_or(0, |(_, after)| after.saturating_sub(before));
                check_stored(tenant, &quotas, before, Some(added))?;
            }
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn uploaded_again(&self, tenant: &str, input: &Input) -> Result<bool, Error> {
        retried(|| async {
            let mut tx = self.begin_referring().await?;
            let is_known = touch(&mut tx, tenant, input).await?;
            tx.commit().await?;
            Ok(is_known)
        })
        .await
    }

    async fn inputs(&self, tenant: Option<&str>, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes, mark
             FROM tenant_inputs WHERE sha256 ",
            sql!(
                sqlite: "IN (SELECT value FROM json_each($1)) AND ($2 IS NULL OR tenant = $2)",
                postgres: "= ANY ($1) AND ($2::text IS NULL OR tenant = $2)",
            ),
            " ORDER BY sha256, tenant",
        ))
        .bind(digests(sha256)?)
        .bind(tenant)
        .fetch_all(self.reads())
        .await?;
        let mut inputs: Vec<Input> = rows.into_iter().map(Row::input).collect::<Result<_, _>>()?;
        // Several tenants may have uploaded it. Which one's record is taken is always the same.
        inputs.dedup_by_key(|input| input.sha256);
        Ok(inputs)
    }
}

/// Adds a picture of a tenant, or what is known of it now.
async fn add(tx: &mut Tx, tenant: &str, input: &Input) -> Result<(), Error> {
    let notes = Some(&input.notes).filter(|notes| !notes.is_empty()).map(to_json).transpose()?;
    sqlx::query(sql!(
        sqlite:
            "INSERT INTO tenant_inputs
                 (sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes, tenant,
                  mark, stored_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CAST(unixepoch('subsec') * 1000 AS INTEGER))
             ON CONFLICT (sha256, tenant) DO UPDATE
             SET width = excluded.width, height = excluded.height, is_mask = excluded.is_mask,
                 canonical = excluded.canonical, canonical_size = excluded.canonical_size,
                 orientation = excluded.orientation, notes = excluded.notes, mark = excluded.mark",
        postgres:
            "INSERT INTO tenant_inputs
                 (sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes, tenant,
                  mark)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (sha256, tenant) DO UPDATE
             SET width = excluded.width, height = excluded.height, is_mask = excluded.is_mask,
                 canonical = excluded.canonical, canonical_size = excluded.canonical_size,
                 orientation = excluded.orientation, notes = excluded.notes, mark = excluded.mark",
    ))
    .bind(digest_column(input.sha256))
    .bind(column(input.size))
    .bind(column(input.extent.width))
    .bind(column(input.extent.height))
    .bind(input.is_mask)
    .bind(input.canonical.map(|canonical| digest_column(canonical.sha256)))
    .bind(input.canonical.map(|canonical| column(canonical.size)))
    .bind(column(input.orientation))
    .bind(notes)
    .bind(tenant)
    .bind(column(input.mark))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Records that a tenant's picture was uploaded now, under all hashes that stand for it. Returns
/// whether the record has it.
async fn touch(tx: &mut Tx, tenant: &str, input: &Input) -> Result<bool, Error> {
    let touched = sqlx::query(concat!(
        "UPDATE tenant_inputs SET unused_ms = ",
        now_ms!(),
        " WHERE tenant = $1 AND key = $2"
    ))
    .bind(tenant)
    .bind(input.artifact().key)
    .execute(&mut **tx)
    .await?;
    Ok(touched.rows_affected() > 0)
}

/// Those of these keys that are on their way out of storage. Until the transaction ends, no other
/// one is marked.
pub(super) async fn leaving_of(tx: &mut Tx, keys: &[String]) -> Result<Vec<String>, Error> {
    let found = sqlx::query_scalar(sql!(
        sqlite:
            "SELECT key FROM removals
             WHERE state <> 'candidate' AND key IN (SELECT value ->> 0 FROM json_each($1))",
        postgres: "SELECT key FROM removals WHERE key = ANY ($1) AND state <> 'candidate'",
    ));
    let found: Vec<String> =
        bind_rows!(found, keys, |key| key.as_str()).fetch_all(&mut **tx).await?;
    Ok(found.into_iter().filter(|_| stands(Guard::LeavingRefused)).collect())
}

/// Refuses prompts that name a picture which was removed since it was looked up. From here to the
/// end of the transaction their pictures stay, and then the job's rows keep them.
pub(in super::super) async fn refuse_removed(
    tx: &mut Tx,
    prompts: &[NewPrompt],
) -> Result<(), Error> {
    let named = prompts.iter().flat_map(|prompt| [&prompt.extras.image, &prompt.extras.mask]);
    let keys: Vec<String> = named.flatten().map(|picture| picture.key.clone()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let leaving = leaving_of(tx, &keys).await?;
    let Some(key) = leaving.first() else { return Ok(()) };
    let is_it = |picture: &Option<ArtifactRef>| picture.as_ref().is_some_and(|one| one.key == *key);
    let gone = prompts.iter().find_map(|prompt| {
        [("image", &prompt.extras.image), ("mask", &prompt.extras.mask)]
            .into_iter()
            .find(|(_, picture)| is_it(picture))
            .map(|(name, picture)| (format!("prompts[{}].{name}", prompt.position), picture))
    });
    let (field, picture) = gone.unwrap_or_else(|| ("prompts".to_owned(), &None));
    let sha256 = picture.as_ref().map_or_else(String::new, |picture| picture.sha256.to_string());
    let message = format!(
        "{field} is {sha256}, which nothing has used for long, so it was removed just now; accepted: send it again \
         with UploadInput"
    );
    let gone = UserError::new(Code::NotFound, "UNKNOWN_INPUT", message);
    Err(UserError { field: Some(field), ..gone }.into())
}

impl Row {
    fn input(self) -> Result<Input, Error> {
        let canonical = self.canonical.zip(self.canonical_size);
        let canonical = canonical.map(|(sha256, size)| {
            Ok::<_, Error>(Canonical { sha256: digest(&sha256)?, size: number(size)? })
        });
        Ok(Input {
            sha256: digest(&self.sha256)?,
            size: number(self.size)?,
            canonical: canonical.transpose()?,
            extent: Extent { width: number(self.width)?, height: number(self.height)? },
            is_mask: self.is_mask,
            orientation: number(self.orientation)?,
            notes: self.notes.as_deref().map(from_json).transpose()?.unwrap_or_default(),
            mark: number(self.mark)?,
        })
    }
}
