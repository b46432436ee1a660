//! Stage `encode` for the stage loop: texts in, one embedding artifact per text out.

use std::{collections::HashMap, ops::ControlFlow};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_artifacts::{
    ArtifactStore,
    tensor::{self, FloatTensor},
};
use darkroom_core::failure_code::FailureCode;
use darkroom_queue::{
    stage_loop::{BatchFault, Fault, Loaded, Model, Row, Stage},
    task::{DeviceMemory, EncodeBody, Outcome, PoolId, Subject, Task, TaskBody},
};

use darkroom_runtime::memory::MachineMemory;

use crate::{
    encoder::{EncodeError, Encoded},
    notes,
    thread::Encoders,
};

/// Runs stage `encode`: encodes texts and stores their embeddings.
#[derive(Debug)]
pub(crate) struct EncodeStage {
    artifacts: ArtifactStore,
    /// Tokens of a text, by pool.
    tokens: HashMap<PoolId, usize>,
}

/// An embedding in the form in which it is stored.
#[derive(Debug)]
pub(crate) struct File {
    bytes: Bytes,
    notes: Vec<String>,
}

impl EncodeStage {
    pub(crate) fn new(artifacts: ArtifactStore, tokens: HashMap<PoolId, usize>) -> Self {
        Self { artifacts, tokens }
    }
}

fn body(task: &Task) -> Result<&EncodeBody, Outcome> {
    match (&task.body, task.key.subject) {
        (TaskBody::Encode(body), Subject::Text(_)) => Ok(body),
        _ => Err(Outcome::Failed {
            code: FailureCode::WrongTask,
            message: "an encoder received a task that encodes no text".to_owned(),
        }),
    }
}

#[async_trait]
impl Stage for EncodeStage {
    type Input = ();
    type Output = Encoded;
    type File = File;

    async fn load(&self, pool: &PoolId, task: &Task) -> Result<Loaded<()>, Fault> {
        let body = body(task).map_err(Fault::Ends)?;
        let earlier = self.artifacts.find_content(&body.prefix, tensor::EXTENSION).await;
        let Some((artifact, bytes)) = earlier.map_err(|error| Fault::Storage(error.to_string()))?
        else {
            return Ok(Loaded::Ready(()));
        };
        // The bytes match their hash. If they still are no embedding, it is computed again.
        let tokens = self.tokens.get(pool).copied();
        let read = FloatTensor::from_bytes(&bytes).ok();
        let usable = read.filter(|(tensor, _)| tensor.is_embedding(tokens));
        Ok(usable.map_or(Loaded::Ready(()), |(_, metadata)| Loaded::Already {
            outcome: Outcome::Done { artifact, notes: notes::notes(&metadata) },
            device_class: None,
        }))
    }

    fn encode(&self, task: &Task, output: Encoded, _device_class: &str) -> Result<File, Outcome> {
        body(task)?;
        if !output.embedding.is_embedding(None) {
            let message = "the embedding holds values that are not finite".to_owned();
            return Err(Outcome::Failed { code: FailureCode::NonFinite, message });
        }
        let metadata = notes::metadata(&output);
        let bytes = output.embedding.to_bytes(&metadata).map_err(|error| Outcome::Failed {
            code: FailureCode::Encoding,
            message: error.to_string(),
        })?;
        Ok(File { bytes: bytes.into(), notes: notes::notes(&metadata) })
    }

    async fn store(&self, task: &Task, file: &File) -> Result<Outcome, Fault> {
        let body = body(task).map_err(Fault::Ends)?;
        let stored =
            self.artifacts.put_content(&body.prefix, tensor::EXTENSION, file.bytes.clone()).await;
        let artifact = stored.map_err(|error| Fault::Storage(error.to_string()))?;
        Ok(Outcome::Done { artifact, notes: file.notes.clone() })
    }
}

/// The encoders' thread as the loop's model: the loop waits for it instead of computing.
pub(crate) struct EncodeModel {
    encoders: Encoders,
    positions: HashMap<PoolId, usize>,
}

impl EncodeModel {
    pub(crate) fn new(encoders: Encoders, positions: HashMap<PoolId, usize>) -> Self {
        Self { encoders, positions }
    }
}

impl Model for EncodeModel {
    type Input = ();
    type Output = Encoded;

    fn run(
        &mut self,
        pool: &PoolId,
        rows: &[Row<'_, ()>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<Encoded, Outcome>>, BatchFault> {
        let failed = |message: &str| BatchFault::Failed {
            code: FailureCode::WrongTask,
            message: message.to_owned(),
        };
        let texts = rows.iter().map(|row| body(row.task).map(|body| body.text.clone()));
        let texts: Vec<String> = texts
            .collect::<Result<_, _>>()
            .map_err(|_| failed("an encoder received a task that encodes no text"))?;
        let position = self.positions.get(pool).copied();
        let position = position.ok_or_else(|| failed("this encoder does not serve the pool"))?;
        let encoded =
            self.encoders.encode_blocking(position, texts).map_err(|error| match error {
                EncodeError::OutOfMemory => BatchFault::OutOfMemory { least: 1 },
                EncodeError::Failed { code, message } => BatchFault::Failed { code, message },
                EncodeError::Closed => BatchFault::Interrupted,
            })?;
        if on_step().is_break() {
            return Err(BatchFault::Interrupted);
        }
        Ok(encoded.into_iter().map(Ok).collect())
    }

    fn device(&self) -> String {
        self.encoders.device().to_owned()
    }

    fn device_class(&self) -> String {
        self.encoders.device_class().to_owned()
    }

    fn memory(&self) -> Option<DeviceMemory> {
        // A GPU's memory is not known here.
        if self.encoders.device().starts_with("cuda") {
            return None;
        }
        let MachineMemory { used, total } = MachineMemory::read()?;
        Some(DeviceMemory { used, total })
    }
}
