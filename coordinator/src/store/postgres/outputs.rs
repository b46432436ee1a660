//! What stages stored, as rows.

use darkroom_core::artifact::ArtifactRef;
use darkroom_queue::task::{Outcome, TaskResult};

use super::{
    Error, Tx,
    rows::{column, text_column},
};

/// A stage's output to be stored.
pub(super) struct NewOutput<'a> {
    pub(super) job: i64,
    pub(super) idx: i64,
    pub(super) stage: i16,
    pub(super) result: &'a TaskResult,
}

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
}

impl Columns {
    /// Of those that are done.
    pub(super) fn of(outputs: &[NewOutput<'_>]) -> Self {
        let mut columns = Self::default();
        for output in outputs {
            if let Outcome::Done { artifact, .. } = &output.result.outcome {
                columns.push(output, artifact);
            }
        }
        columns
    }

    fn push(&mut self, output: &NewOutput<'_>, artifact: &ArtifactRef) {
        let seconds = output.result.seconds;
        self.job.push(output.job);
        self.idx.push(output.idx);
        self.stage.push(output.stage);
        self.key.push(text_column(&artifact.key));
        self.sha256.push(artifact.sha256.0);
        self.size.push(column(artifact.size));
        self.seconds.push(if seconds.is_finite() { seconds } else { 0.0 });
        self.worker.push(text_column(&output.result.worker.0));
        self.device_class.push(text_column(&output.result.device_class));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.job.is_empty()
    }
}

/// Stores outputs; arrays are the statement's from `$1` on, or from another number.
macro_rules! store_outputs {
    ($job:literal, $idx:literal, $stage:literal, $key:literal, $sha256:literal, $size:literal, $seconds:literal,
     $worker:literal, $class:literal) => {
        concat!(
            "INSERT INTO outputs AS o (job, idx, stage, key, sha256, size, seconds, worker, device_class)
             SELECT * FROM unnest(", $job, "::bigint[], ", $idx, "::bigint[], ", $stage, "::smallint[], ", $key,
            "::text[], ", $sha256, "::bytea[], ", $size, "::bigint[], ", $seconds, "::float8[], ", $worker,
            "::text[], ", $class, "::text[])
             ON CONFLICT (job, idx, stage) DO UPDATE
             SET key = excluded.key, sha256 = excluded.sha256, size = excluded.size, seconds = excluded.seconds,
                 worker = excluded.worker, device_class = excluded.device_class"
        )
    };
}
pub(super) use store_outputs;

/// Stores outputs whose images' rows are written otherwise.
pub(super) async fn store(tx: &mut Tx, columns: Columns) -> Result<(), Error> {
    if columns.is_empty() {
        return Ok(());
    }
    let statement = store_outputs!("$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9");
    bind(sqlx::query(statement), columns).execute(&mut **tx).await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds the nine arrays.
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
}
