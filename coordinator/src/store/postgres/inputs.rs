//! Pictures that users have sent, by the hash of their bytes.

use darkroom_core::{digest::Digest, extent::Extent};

use super::{
    Error, PostgresStore,
    rows::{column, column32, digest, number},
};
use crate::store::records::Input;

impl PostgresStore {
    pub(super) async fn note_input(&self, input: &Input) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO inputs (sha256, size, width, height, is_mask) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (sha256) DO NOTHING",
        )
        .bind(input.sha256.0)
        .bind(column(input.size))
        .bind(column32(input.extent.width))
        .bind(column32(input.extent.height))
        .bind(input.is_mask)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn known_inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        let rows: Vec<(Vec<u8>, i64, i32, i32, bool)> =
            sqlx::query_as("SELECT sha256, size, width, height, is_mask FROM inputs WHERE sha256 = ANY ($1)")
                .bind(sha256.iter().map(|digest| digest.0).collect::<Vec<_>>())
                .fetch_all(&self.pool)
                .await?;
        rows.into_iter()
            .map(|(sha256, size, width, height, is_mask)| {
                let extent = Extent { width: number(width)?, height: number(height)? };
                Ok(Input { sha256: digest(&sha256)?, size: number(size)?, extent, is_mask })
            })
            .collect()
    }
}
