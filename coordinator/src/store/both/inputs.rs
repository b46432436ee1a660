//! Pictures that users sent, by the hash of the sent bytes and by the hash of the stored file.

use async_trait::async_trait;
use darkroom_core::{digest::Digest, extent::Extent};

use super::{
    Error, Record,
    rows::{
        HashColumn, Int, Small, column, digest, digest_column, digests, from_json, number, to_json,
    },
};
use crate::store::{
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
    async fn add_input(&self, input: &Input) -> Result<(), Error> {
        let notes =
            Some(&input.notes).filter(|notes| !notes.is_empty()).map(to_json).transpose()?;
        sqlx::query(sql!(
            sqlite:
                "INSERT INTO inputs
                     (sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes, stored_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, CAST(unixepoch('subsec') * 1000 AS INTEGER))
                 ON CONFLICT (sha256) DO UPDATE
                 SET width = excluded.width, height = excluded.height, is_mask = excluded.is_mask,
                     canonical = excluded.canonical, canonical_size = excluded.canonical_size,
                     orientation = excluded.orientation, notes = excluded.notes",
            postgres:
                "INSERT INTO inputs (sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                 ON CONFLICT (sha256) DO UPDATE
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
        .execute(self.writes())
        .await?;
        Ok(())
    }

    async fn inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "SELECT sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes
             FROM inputs WHERE sha256 ",
            sql!(sqlite: "IN (SELECT value FROM json_each($1))", postgres: "= ANY ($1)"),
        ))
        .bind(digests(sha256)?)
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(Row::input).collect()
    }
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
