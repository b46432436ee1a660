//! What a worker does around its renderer: it reads inputs from object storage, writes outputs to
//! it, and reuses outputs of earlier runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_artifacts::{
    ArtifactStore, Error as ArtifactError,
    input::Use,
    picture,
    tensor::{self, FloatTensor},
};
use darkroom_core::{
    artifact::ArtifactRef, digest::Digest, failure_code::FailureCode, picture_text,
};
use darkroom_queue::{
    stage_loop::{Fault, Loaded, Stage},
    task::{Outcome, PoolId, RenderBody, Task, TaskBody},
};

use crate::{kept::Kept, pictures::Wanted, renderer::Inputs};

/// Bytes of embeddings kept in memory: about fifty of DeepFloyd IF's.
const EMBEDDINGS: u64 = 64 << 20;
/// Bytes of users' pictures kept in memory: about five of 1024x1024.
const PICTURES: u64 = 64 << 20;

/// How often this worker has an embedding encoded again before images that need it fail. Images
/// that were dispatched together report one embedding several times.
const TRIES: u32 = 20;
/// Most embeddings whose tries are counted.
const REMEMBERED: usize = 10_000;

/// Loads the inputs of a batch, calls the renderer, and stores the outputs.
#[derive(Debug)]
pub struct RenderStage {
    artifacts: ArtifactStore,
    embeddings: Kept<Digest>,
    pictures: Kept<(Digest, Wanted)>,
    reading: tokio::sync::Mutex<()>,
    /// Tokens of a text, by pool.
    tokens: HashMap<PoolId, usize>,
    /// How often an embedding was reported as unusable.
    unusable: Mutex<HashMap<Digest, u32>>,
}

/// An output in the form in which it is stored.
#[derive(Debug)]
pub struct File {
    extension: &'static str,
    bytes: Bytes,
}

impl RenderStage {
    /// A stage over a store.
    #[must_use]
    pub fn new(artifacts: ArtifactStore) -> Self {
        Self::keeping(artifacts, EMBEDDINGS)
    }

    /// The same with this many bytes of embeddings in memory.
    fn keeping(artifacts: ArtifactStore, embeddings: u64) -> Self {
        Self {
            artifacts,
            embeddings: Kept::new(embeddings),
            pictures: Kept::new(PICTURES),
            reading: tokio::sync::Mutex::default(),
            tokens: HashMap::new(),
            unusable: Mutex::default(),
        }
    }

    /// Accepts only embeddings of this many tokens, by pool.
    #[must_use]
    pub fn expecting(self, tokens: HashMap<PoolId, usize>) -> Self {
        Self { tokens, ..self }
    }

    async fn inputs(&self, pool: &PoolId, body: &RenderBody) -> Result<Inputs, Fault> {
        let tokens = self.tokens.get(pool).copied();
        let text = self.embedding(&body.text, tokens).await?;
        let negative = match &body.negative {
            Some(negative) => Some(self.embedding(negative, tokens).await?),
            None => None,
        };
        let low_res = match &body.low_res {
            Some(low_res) => Some(self.tensor(low_res).await?),
            None => None,
        };
        let starts = body.settings.sampling.strength.is_some();
        // In jobs from before fits existed, a low-resolution picture already has the right size.
        let extent = starts.then(|| body.settings.extent());
        let wanted = |as_a: Use| Wanted { as_a, extent, fit: body.fit };
        let (mut low_res, mut image, mut mask) = (low_res, None, None);
        match &body.image {
            Some(given) if starts => {
                image = Some(self.picture(given, wanted(Use::Picture)).await?);
                if let Some(given) = &body.mask {
                    mask = Some(self.picture(given, wanted(Use::Mask)).await?);
                }
            }
            Some(given) => {
                low_res = Some((*self.picture(given, wanted(Use::Picture)).await?).clone())
            }
            None => {}
        }
        Ok(Inputs { text, negative, low_res, image, mask, seed: body.seed })
    }

    async fn picture(
        &self,
        artifact: &ArtifactRef,
        wanted: Wanted,
    ) -> Result<Arc<FloatTensor>, Fault> {
        self.pictures.get((artifact.sha256, wanted), self.read_picture(artifact, wanted)).await
    }

    /// A user's picture in the form that a stage needs. Only the user can send it again, so the
    /// image fails if it is gone.
    async fn read_picture(
        &self,
        artifact: &ArtifactRef,
        wanted: Wanted,
    ) -> Result<FloatTensor, Fault> {
        // Reading a large picture takes hundreds of megabytes, so they are read one at a time.
        let _turn = self.reading.lock().await;
        let failed =
            |code: FailureCode, message: String| Fault::Ends(Outcome::Failed { code, message });
        let bytes = match self.artifacts.get(artifact).await {
            Ok(bytes) => bytes,
            Err(error) if error.retryable() => return Err(Fault::Storage(error.to_string())),
            Err(error) => {
                let message = format!(
                    "the picture to start from is lost ({error}); send it again and retry the job"
                );
                return Err(failed(FailureCode::InputLost, message));
            }
        };
        let reading = tokio::task::spawn_blocking(move || wanted.read(&bytes));
        match reading.await {
            Ok(read) => read.map_err(|error| {
                failed(FailureCode::InvalidInput, format!("the picture to start from {error}"))
            }),
            Err(error) => {
                Err(failed(FailureCode::Panic, format!("reading a picture failed: {error}")))
            }
        }
    }

    async fn embedding(
        &self,
        artifact: &ArtifactRef,
        tokens: Option<usize>,
    ) -> Result<Arc<FloatTensor>, Fault> {
        self.embeddings.get(artifact.sha256, self.read_embedding(artifact, tokens)).await
    }

    /// A stored object that cannot be an embedding counts as lost: its text is encoded again. If
    /// that does not help, the image fails.
    async fn read_embedding(
        &self,
        artifact: &ArtifactRef,
        tokens: Option<usize>,
    ) -> Result<FloatTensor, Fault> {
        let read = self.tensor(artifact).await;
        let wrong = match read {
            Ok(tensor) if tensor.is_embedding(tokens) => return Ok(tensor),
            Ok(tensor) => format!("it has the shape {:?}", tensor.shape),
            Err(Fault::Ends(Outcome::Failed { message, .. })) => message,
            Err(fault) => return Err(fault),
        };
        tracing::warn!(key = artifact.key, reason = wrong, "an embedding cannot be used");
        let mut unusable = self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        if unusable.len() > REMEMBERED {
            unusable.clear();
        }
        let told = unusable.entry(artifact.sha256).or_default();
        *told += 1;
        Err(Fault::Ends(if *told <= TRIES {
            Outcome::InputMissing { key: artifact.key.clone() }
        } else {
            let message = format!("{}: no embedding of this encoder, {wrong}", artifact.key);
            Outcome::Failed { code: FailureCode::InvalidInput, message }
        }))
    }

    async fn tensor(&self, artifact: &ArtifactRef) -> Result<FloatTensor, Fault> {
        let missing = || Fault::Ends(Outcome::InputMissing { key: artifact.key.clone() });
        let bytes = match self.artifacts.get(artifact).await {
            Ok(bytes) => bytes,
            Err(error) if error.retryable() => return Err(Fault::Storage(error.to_string())),
            Err(error) => {
                tracing::warn!(%error, "an input is lost, so its producer runs again");
                return Err(missing());
            }
        };
        FloatTensor::from_bytes(&bytes).map(|(tensor, _)| tensor).map_err(|error| {
            let message = format!("{}: {error}", artifact.key);
            Fault::Ends(Outcome::Failed { code: FailureCode::InvalidInput, message })
        })
    }
}

/// The body of a render task. Another body is a bug of the dispatcher.
pub(crate) fn body(task: &Task) -> Result<&RenderBody, Outcome> {
    match &task.body {
        TaskBody::Render(body) => Ok(body),
        TaskBody::Encode(_) => Err(Outcome::Failed {
            code: FailureCode::WrongTask,
            message: "a renderer received an encode task".to_owned(),
        }),
    }
}

fn extension(body: &RenderBody) -> &'static str {
    if body.picture.is_some() { body.output.format().extension() } else { tensor::EXTENSION }
}

/// The class of device that an earlier run wrote into its picture.
fn rendered_on(file: &[u8]) -> Option<String> {
    let text = picture::read_text(file).ok()?;
    text.into_iter()
        .find(|(keyword, _)| keyword == picture_text::DEVICE_CLASS)
        .map(|(_, class)| class)
}

fn storage(error: &ArtifactError) -> Fault {
    Fault::Storage(error.to_string())
}

#[async_trait]
impl Stage for RenderStage {
    type Input = Inputs;
    type Output = FloatTensor;
    type File = File;

    async fn load(&self, pool: &PoolId, task: &Task) -> Result<Loaded<Inputs>, Fault> {
        let body = body(task).map_err(Fault::Ends)?;
        let earlier = self.artifacts.find_content(&body.prefix, extension(body)).await;
        if let Some((artifact, bytes)) = earlier.map_err(|error| storage(&error))? {
            let device_class = body.picture.as_ref().and_then(|_| rendered_on(&bytes));
            let outcome = Outcome::Done { artifact, notes: Vec::new() };
            return Ok(Loaded::Already { outcome, device_class });
        }
        self.inputs(pool, body).await.map(Loaded::Ready)
    }

    fn encode(
        &self,
        task: &Task,
        mut output: FloatTensor,
        device_class: &str,
    ) -> Result<File, Outcome> {
        let body = body(task)?;
        let failed = |code: FailureCode, message: String| Outcome::Failed { code, message };
        if !output.data.iter().all(|value| value.is_finite()) {
            return Err(failed(
                FailureCode::NonFinite,
                "the picture holds values that are not finite".to_owned(),
            ));
        }
        output.data.iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
        let bytes = match &body.picture {
            Some(text) => {
                let class = (picture_text::DEVICE_CLASS.to_owned(), device_class.to_owned());
                let text: Vec<_> = text.iter().cloned().chain([class]).collect();
                picture::encode_to(body.output, &output, &text)
                    .map_err(|error| failed(FailureCode::Encoding, error.to_string()))?
            }
            None => output
                .to_bytes(&std::collections::BTreeMap::new())
                .map_err(|error| failed(FailureCode::Encoding, error.to_string()))?,
        };
        Ok(File { extension: extension(body), bytes: bytes.into() })
    }

    async fn store(&self, task: &Task, file: &File) -> Result<Outcome, Fault> {
        let body = body(task).map_err(Fault::Ends)?;
        let stored =
            self.artifacts.put_content(&body.prefix, file.extension, file.bytes.clone()).await;
        let artifact = stored.map_err(|error| storage(&error))?;
        Ok(Outcome::Done { artifact, notes: Vec::new() })
    }
}

#[cfg(test)]
mod tests;
