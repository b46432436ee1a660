//! Pictures that users have sent, by the hash of their bytes.

use darkroom_core::{digest::Digest, extent::Extent};

use super::{
    Error, SqliteStore,
    rows::{column, number, parse, to_json},
};
use crate::store::records::Input;

impl SqliteStore {
    pub(super) async fn note_input(&self, input: &Input) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO inputs (sha256, size, width, height, is_mask, stored_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, CAST(unixepoch('subsec') * 1000 AS INTEGER))
             ON CONFLICT (sha256) DO NOTHING",
        )
        .bind(input.sha256.to_string())
        .bind(column(input.size))
        .bind(input.extent.width)
        .bind(input.extent.height)
        .bind(input.is_mask)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    pub(super) async fn known_inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        let rows: Vec<(String, i64, u32, u32, bool)> = sqlx::query_as(
            "SELECT sha256, size, width, height, is_mask FROM inputs
             WHERE sha256 IN (SELECT value FROM json_each(?1))",
        )
        .bind(to_json(sha256)?)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(sha256, size, width, height, is_mask)| {
                let extent = Extent { width, height };
                Ok(Input { sha256: parse(&sha256)?, size: number(size)?, extent, is_mask })
            })
            .collect()
    }
}
