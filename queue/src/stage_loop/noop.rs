//! A stage that does nothing, and a model that only takes time: for benchmarks of the farm itself,
//! without the cost of pictures and object storage. Nothing is stored; results name artifacts that
//! do not exist.

use std::{ops::ControlFlow, time::Duration};

use async_trait::async_trait;
use darkroom_core::{artifact::ArtifactRef, digest::Digest};

use super::{BatchFault, Fault, Loaded, Model, Row, Stage};
use crate::task::{Outcome, PoolId, Task, TaskBody};

/// Reports every task as done.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopStage;

#[async_trait]
impl Stage for NoopStage {
    type Input = ();
    type Output = ();
    type File = ();

    async fn load(&self, _: &PoolId, _: &Task) -> Result<Loaded<()>, Fault> {
        Ok(Loaded::Ready(()))
    }

    fn encode(&self, _: &Task, (): (), _: &str) -> Result<(), Outcome> {
        Ok(())
    }

    fn encodes_at_once(&self) -> bool {
        true
    }

    async fn store(&self, task: &Task, (): &()) -> Result<Outcome, Fault> {
        let (prefix, extension) = match &task.body {
            TaskBody::Encode(body) => (&body.prefix, "safetensors"),
            TaskBody::Render(body) => (&body.prefix, body.output.format().extension()),
        };
        let sha256 = Digest::of(prefix.as_bytes());
        let artifact =
            ArtifactRef { key: format!("{prefix}{sha256}.{extension}"), sha256, size: 1 };
        Ok(Outcome::Done { artifact, notes: Vec::new() })
    }
}

/// Takes some time per batch and then returns the results.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopModel {
    /// Time per batch, whatever its size.
    pub batch: Duration,
    /// Additional time per row.
    pub row: Duration,
}

impl Model for NoopModel {
    type Input = ();
    type Output = ();

    fn run(
        &mut self,
        _: &PoolId,
        rows: &[Row<'_, ()>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<(), Outcome>>, BatchFault> {
        let rows = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let time = self.batch + self.row * rows;
        if !time.is_zero() {
            std::thread::sleep(time);
        }
        if on_step().is_break() {
            return Err(BatchFault::Interrupted);
        }
        Ok((0..rows).map(|_| Ok(())).collect())
    }

    fn device(&self) -> String {
        "none".to_owned()
    }

    fn device_class(&self) -> String {
        "none".to_owned()
    }
}
