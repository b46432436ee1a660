//! Settings that only some prompts of a job have. Each variant is stored once.

use super::{
    Connection, Error, Tx,
    rows::{Int, list, number},
};
use crate::store::variants::{self, Chunk, Known};

/// Stores the own settings of a chunk's prompts. This happens before the job is locked, and in
/// order of their numbers, so that concurrent chunks cannot deadlock.
pub(in super::super) async fn insert(
    tx: &mut Tx,
    job: i64,
    chunk: &Chunk<'_>,
) -> Result<(), Error> {
    if chunk.longest().is_none() {
        return Ok(());
    }
    let rows = chunk.rows()?;
    let inserted = sqlx::query(sql!(
        sqlite:
            "INSERT INTO job_variants (job, variant, stages, settings)
             SELECT $1, value ->> 0, value ->> 1, value ->> 2 FROM json_each($2) WHERE TRUE
             ON CONFLICT (job, variant) DO NOTHING",
        postgres:
            "INSERT INTO job_variants (job, variant, stages, settings)
             SELECT $1, v.* FROM unnest($2::bigint[], $3::bigint[], $4::text[]) AS v
             ON CONFLICT (job, variant) DO NOTHING",
    ))
    .bind(job);
    bind_rows!(inserted, rows, |(number, stages, settings)| *number, *stages, settings.as_str())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The settings of some variants of a job. Without variants there is no query.
pub(in super::super) async fn read(
    connection: &mut Connection,
    job: i64,
    wanted: impl Iterator<Item = Option<Int>>,
) -> Result<Known, Error> {
    let mut numbers: Vec<i64> = wanted.flatten().map(number).collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() {
        return Ok(Known::default());
    }
    let rows = sqlx::query_as(sql!(
        sqlite:
            "SELECT variant, settings FROM job_variants
             WHERE job = $1 AND variant IN (SELECT value FROM json_each($2))",
        postgres: "SELECT variant::bigint, settings FROM job_variants WHERE job = $1 AND variant = ANY ($2)",
    ))
    .bind(job)
    .bind(list(&numbers)?)
    .fetch_all(connection)
    .await?;
    variants::known(rows)
}
