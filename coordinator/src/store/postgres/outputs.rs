//! What stages stored, as rows.

use super::{
    Error, Tx,
    rows::{column, column32, stage_column, text_column},
};
use crate::store::judged_images::NewOutput;

/// Columns of new outputs.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) job: Vec<i64>,
    pub(super) idx: Vec<i64>,
    pub(super) stage: Vec<i16>,
    pub(super) key: Vec<String>,
    pub(super) sha256: Vec<[u8; 32]>,
    pub(super) size: Vec<i64>,
    pub(super) seconds: Vec<f64>,
    pub(super) worker: Vec<String>,
    pub(super) device_class: Vec<String>,
    pub(super) generation: Vec<i32>,
    pub(super) dispatch: Vec<i64>,
}

impl Columns {
    /// Of those that are done.
    pub(super) fn of(outputs: &[NewOutput<'_>]) -> Self {
        let mut columns = Self::default();
        for output in outputs {
            let NewOutput { row: (job, idx), stage, artifact, result } = output;
            columns.job.push(*job);
            columns.idx.push(*idx);
            columns.stage.push(stage_column(*stage));
            columns.key.push(text_column(&artifact.key));
            columns.sha256.push(artifact.sha256.0);
            columns.size.push(column(artifact.size));
            columns.seconds.push(output.seconds());
            columns.worker.push(text_column(&result.worker.0));
            columns.device_class.push(text_column(&result.device_class));
            columns.generation.push(column32(result.key.generation));
            columns.dispatch.push(column(result.key.dispatch));
        }
        columns
    }

    pub(super) fn is_empty(&self) -> bool {
        self.job.is_empty()
    }
}

/// Stores outputs; arrays are the statement's from `$1` on, or from another number.
macro_rules! store_outputs {
    ($job:literal, $idx:literal, $stage:literal, $key:literal, $sha256:literal, $size:literal, $seconds:literal,
     $worker:literal, $class:literal, $generation:literal, $dispatch:literal) => {
        concat!(
            "INSERT INTO outputs AS o (job, idx, stage, key, sha256, size, seconds, worker, device_class, generation,
                                       dispatch)
             SELECT * FROM unnest(", $job, "::bigint[], ", $idx, "::bigint[], ", $stage, "::smallint[], ", $key,
            "::text[], ", $sha256, "::bytea[], ", $size, "::bigint[], ", $seconds, "::float8[], ", $worker,
            "::text[], ", $class, "::text[], ", $generation, "::int[], ", $dispatch, "::bigint[])
             ON CONFLICT (job, idx, stage) DO UPDATE
             SET key = excluded.key, sha256 = excluded.sha256, size = excluded.size, seconds = excluded.seconds,
                 worker = excluded.worker, device_class = excluded.device_class, generation = excluded.generation,
                 dispatch = excluded.dispatch, at = excluded.at, removed_ms = NULL"
        )
    };
}
pub(super) use store_outputs;

/// Stores outputs whose images' rows are written otherwise.
pub(super) async fn store(tx: &mut Tx, columns: Columns) -> Result<(), Error> {
    if columns.is_empty() {
        return Ok(());
    }
    let statement =
        store_outputs!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10", "$11");
    bind(sqlx::query(statement), columns).execute(&mut **tx).await?;
    Ok(())
}

/// A statement with its parameters.
pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds the eleven arrays.
pub(super) fn bind(query: Query<'_>, columns: Columns) -> Query<'_> {
    query
        .bind(columns.job)
        .bind(columns.idx)
        .bind(columns.stage)
        .bind(columns.key)
        .bind(columns.sha256)
        .bind(columns.size)
        .bind(columns.seconds)
        .bind(columns.worker)
        .bind(columns.device_class)
        .bind(columns.generation)
        .bind(columns.dispatch)
}
