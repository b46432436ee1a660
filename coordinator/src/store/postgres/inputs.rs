//! Pictures that users have sent, by the hash of their bytes and by that of what is stored of them.

use darkroom_core::{digest::Digest, extent::Extent};

use super::{
    Error, PostgresStore,
    rows::{column, column32, digest, from_json, number, to_json},
};
use crate::store::records::{Canonical, Input};

#[derive(sqlx::FromRow)]
struct Row {
    sha256: Vec<u8>,
    size: i64,
    width: i32,
    height: i32,
    is_mask: bool,
    canonical: Option<Vec<u8>>,
    canonical_size: Option<i64>,
    orientation: i16,
    notes: Option<String>,
}

impl PostgresStore {
    pub(super) async fn note_input(&self, input: &Input) -> Result<(), Error> {
        let notes = Some(&input.notes).filter(|notes| !notes.is_empty()).map(to_json).transpose()?;
        sqlx::query(
            "INSERT INTO inputs (sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (sha256) DO UPDATE
             SET width = EXCLUDED.width, height = EXCLUDED.height, is_mask = EXCLUDED.is_mask,
                 canonical = EXCLUDED.canonical, canonical_size = EXCLUDED.canonical_size,
                 orientation = EXCLUDED.orientation, notes = EXCLUDED.notes",
        )
        .bind(input.sha256.0)
        .bind(column(input.size))
        .bind(column32(input.extent.width))
        .bind(column32(input.extent.height))
        .bind(input.is_mask)
        .bind(input.canonical.map(|canonical| canonical.sha256.0))
        .bind(input.canonical.map(|canonical| column(canonical.size)))
        .bind(i16::from(input.orientation))
        .bind(notes)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn known_inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT sha256, size, width, height, is_mask, canonical, canonical_size, orientation, notes
             FROM inputs WHERE sha256 = ANY ($1)",
        )
        .bind(sha256.iter().map(|digest| digest.0).collect::<Vec<_>>())
        .fetch_all(&self.pool)
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
