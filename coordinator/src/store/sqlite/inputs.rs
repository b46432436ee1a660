//! Pictures that users have sent, by the hash of their bytes and by that of what is stored of them.

use darkroom_core::{digest::Digest, extent::Extent};

use super::{
    Error, SqliteStore,
    rows::{column, from_json, number, parse, to_json},
};
use crate::store::records::{Canonical, Input};

#[derive(sqlx::FromRow)]
struct Row {
    sha256: String,
    size: i64,
    width: u32,
    height: u32,
    is_mask: bool,
    canonical: Option<String>,
    canonical_size: Option<i64>,
    orientation: i64,
    notes: Option<String>,
}

impl SqliteStore {
    pub(super) async fn note_input(&self, input: &Input) -> Result<(), Error> {
        let notes = Some(&input.notes).filter(|notes| !notes.is_empty()).map(to_json).transpose()?;
        sqlx::query(
            "INSERT INTO inputs
                 (sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes, stored_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, CAST(unixepoch('subsec') * 1000 AS INTEGER))
             ON CONFLICT (sha256) DO UPDATE
             SET width = excluded.width, height = excluded.height, is_mask = excluded.is_mask,
                 canonical = excluded.canonical, canonical_size = excluded.canonical_size,
                 orientation = excluded.orientation, notes = excluded.notes",
        )
        .bind(input.sha256.to_string())
        .bind(column(input.size))
        .bind(input.extent.width)
        .bind(input.extent.height)
        .bind(input.is_mask)
        .bind(input.canonical.map(|canonical| canonical.sha256.to_string()))
        .bind(input.canonical.map(|canonical| column(canonical.size)))
        .bind(input.orientation)
        .bind(notes)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    pub(super) async fn known_inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes FROM inputs
             WHERE sha256 IN (SELECT value FROM json_each(?1))",
        )
        .bind(to_json(sha256)?)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(Row::input).collect()
    }
}

impl Row {
    fn input(self) -> Result<Input, Error> {
        let canonical = self.canonical.zip(self.canonical_size);
        let canonical = canonical
            .map(|(sha256, size)| Ok::<_, Error>(Canonical { sha256: parse(&sha256)?, size: number(size)? }));
        Ok(Input {
            sha256: parse(&self.sha256)?,
            size: number(self.size)?,
            canonical: canonical.transpose()?,
            extent: Extent { width: self.width, height: self.height },
            is_mask: self.is_mask,
            orientation: number(self.orientation)?,
            notes: self.notes.as_deref().map(from_json).transpose()?.unwrap_or_default(),
        })
    }
}
