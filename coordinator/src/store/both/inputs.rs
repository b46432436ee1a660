//! Pictures that users have sent, by tenant, and by the hash of their bytes and that of what is
//! stored of them.

use async_trait::async_trait;
use darkroom_core::{digest::Digest, extent::Extent};

use super::{
    Error, Record, Tx, metering, retried,
    rows::{
        HashColumn, Int, Small, column, digest, digest_column, digests, from_json, number, to_json,
    },
};
use crate::store::{
    metering::check_stored,
    records::{Canonical, Input},
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
    }
}

#[async_trait]
impl Inputs for Record {
    async fn add_input(&self, tenant: &str, input: &Input) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let before = metering::stored(&mut tx, tenant).await?;
            add(&mut tx, tenant, input).await?;
            if let Some((quotas, before)) = before {
                let after = metering::stored(&mut tx, tenant).await?;
                let added = after.map_or(0, |(_, after)| after.saturating_sub(before));
                check_stored(tenant, &quotas, before, Some(added))?;
            }
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn inputs(&self, tenant: Option<&str>, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes
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
                  stored_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CAST(unixepoch('subsec') * 1000 AS INTEGER))
             ON CONFLICT (sha256, tenant) DO UPDATE
             SET width = excluded.width, height = excluded.height, is_mask = excluded.is_mask,
                 canonical = excluded.canonical, canonical_size = excluded.canonical_size,
                 orientation = excluded.orientation, notes = excluded.notes",
        postgres:
            "INSERT INTO tenant_inputs
                 (sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes, tenant)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (sha256, tenant) DO UPDATE
             SET width = excluded.width, height = excluded.height, is_mask = excluded.is_mask,
                 canonical = excluded.canonical, canonical_size = excluded.canonical_size,
                 orientation = excluded.orientation, notes = excluded.notes",
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
    .execute(&mut **tx)
    .await?;
    Ok(())
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
        })
    }
}
