//! What a worker does around its renderer: inputs from object storage, outputs to it, and an earlier run's outputs
//! used again.

use std::{
    collections::VecDeque,
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
use darkroom_core::{artifact::ArtifactRef, digest::Digest, picture_text};
use darkroom_queue::{
    stage_loop::{Fault, Loaded, Stage},
    task::{Outcome, PoolId, RenderBody, Task, TaskBody},
};

use crate::{
    pictures::{Pictures, Wanted},
    renderer::Inputs,
};

/// Embeddings kept in memory: prompts come in runs, and the empty text comes with all of them.
const EMBEDDINGS: usize = 32;

/// See the module.
#[derive(Debug)]
pub struct RenderStage {
    artifacts: ArtifactStore,
    embeddings: Mutex<VecDeque<(Digest, Arc<FloatTensor>)>>,
    pictures: Pictures,
    reading: tokio::sync::Mutex<()>,
}

/// An output as it will be stored.
#[derive(Debug)]
pub struct File {
    extension: &'static str,
    bytes: Bytes,
}

impl RenderStage {
    /// Over a store.
    #[must_use]
    pub fn new(artifacts: ArtifactStore) -> Self {
        Self {
            artifacts,
            embeddings: Mutex::default(),
            pictures: Pictures::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    async fn inputs(&self, body: &RenderBody) -> Result<Inputs, Fault> {
        let text = self.embedding(&body.text).await?;
        let negative = match &body.negative {
            Some(negative) => Some(self.embedding(negative).await?),
            None => None,
        };
        let low_res = match &body.low_res {
            Some(low_res) => Some(self.tensor(low_res).await?),
            None => None,
        };
        let starts = body.settings.strength.is_some();
        // A low-resolution picture of a job from before pictures were fitted has the size it is for.
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
            Some(given) => low_res = Some((*self.picture(given, wanted(Use::Picture)).await?).clone()),
            None => {}
        }
        Ok(Inputs { text, negative, low_res, image, mask, seed: body.seed })
    }

    /// A picture of the user's as a stage needs it. Nobody can make it again but its user, so where it is gone the image
    /// fails.
    async fn picture(&self, artifact: &ArtifactRef, wanted: Wanted) -> Result<Arc<FloatTensor>, Fault> {
        let id = (artifact.sha256, wanted);
        if let Some(kept) = self.pictures.get(&id) {
            return Ok(kept);
        }
        // A big one takes hundreds of megabytes while it is read, so they are read one at a time.
        let _turn = self.reading.lock().await;
        if let Some(kept) = self.pictures.get(&id) {
            return Ok(kept);
        }
        let failed =
            |code: &str, message: String| Fault::Ends(Outcome::Failed { code: code.to_owned(), message });
        let bytes = match self.artifacts.get(artifact).await {
            Ok(bytes) => bytes,
            Err(error) if error.retryable() => return Err(Fault::Storage(error.to_string())),
            Err(error) => {
                let message =
                    format!("the picture it starts from is lost ({error}); send it again and retry the job");
                return Err(failed("input_lost", message));
            }
        };
        let reading = tokio::task::spawn_blocking(move || wanted.read(&bytes));
        let tensor = match reading.await {
            Ok(read) => {
                read.map_err(|error| failed("invalid_input", format!("the picture it starts from {error}")))?
            }
            Err(error) => return Err(failed("panic", format!("reading a picture failed: {error}"))),
        };
        Ok(self.pictures.keep(id, tensor))
    }

    async fn embedding(&self, artifact: &ArtifactRef) -> Result<Arc<FloatTensor>, Fault> {
        let kept = {
            let kept = self.embeddings.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().find(|(digest, _)| *digest == artifact.sha256).map(|(_, tensor)| Arc::clone(tensor))
        };
        if let Some(tensor) = kept {
            return Ok(tensor);
        }
        let tensor = Arc::new(self.tensor(artifact).await?);
        let mut kept = self.embeddings.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((artifact.sha256, Arc::clone(&tensor)));
        if kept.len() > EMBEDDINGS {
            kept.pop_front();
        }
        Ok(tensor)
    }

    async fn tensor(&self, artifact: &ArtifactRef) -> Result<FloatTensor, Fault> {
        let missing = || Fault::Ends(Outcome::InputMissing { key: artifact.key.clone() });
        let bytes = match self.artifacts.get(artifact).await {
            Ok(bytes) => bytes,
            Err(error) if error.retryable() => return Err(Fault::Storage(error.to_string())),
            Err(error) => {
                tracing::warn!(%error, "input lost, its producer runs again");
                return Err(missing());
            }
        };
        FloatTensor::from_bytes(&bytes).map(|(tensor, _)| tensor).map_err(|error| {
            let message = format!("{}: {error}", artifact.key);
            Fault::Ends(Outcome::Failed { code: "invalid_input".to_owned(), message })
        })
    }
}

/// The body of a render task; anything else is a fault of the dispatcher.
pub(crate) fn body(task: &Task) -> Result<&RenderBody, Outcome> {
    match &task.body {
        TaskBody::Render(body) => Ok(body),
        TaskBody::Encode(_) => Err(Outcome::Failed {
            code: "wrong_task".to_owned(),
            message: "an encode task came to a renderer".to_owned(),
        }),
    }
}

fn extension(body: &RenderBody) -> &'static str {
    if body.picture.is_some() { picture::EXTENSION } else { tensor::EXTENSION }
}

/// The class of device that an earlier run wrote into its picture.
fn rendered_on(png: &[u8]) -> Option<String> {
    let text = picture::read_text(png).ok()?;
    text.into_iter().find(|(keyword, _)| keyword == picture_text::DEVICE_CLASS).map(|(_, class)| class)
}

fn storage(error: &ArtifactError) -> Fault {
    Fault::Storage(error.to_string())
}

#[async_trait]
impl Stage for RenderStage {
    type Input = Inputs;
    type Output = FloatTensor;
    type File = File;

    async fn load(&self, _pool: &PoolId, task: &Task) -> Result<Loaded<Inputs>, Fault> {
        let body = body(task).map_err(Fault::Ends)?;
        let earlier = self.artifacts.find_content(&body.prefix, extension(body)).await;
        if let Some((artifact, bytes)) = earlier.map_err(|error| storage(&error))? {
            let device_class = body.picture.as_ref().and_then(|_| rendered_on(&bytes));
            let outcome = Outcome::Done { artifact, notes: Vec::new() };
            return Ok(Loaded::Already { outcome, device_class });
        }
        self.inputs(body).await.map(Loaded::Ready)
    }

    fn encode(&self, task: &Task, mut output: FloatTensor, device_class: &str) -> Result<File, Outcome> {
        let body = body(task)?;
        let failed = |code: &str, message: String| Outcome::Failed { code: code.to_owned(), message };
        if !output.data.iter().all(|value| value.is_finite()) {
            return Err(failed("non_finite", "the picture holds values that are not finite".to_owned()));
        }
        output.data.iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
        let bytes = match &body.picture {
            Some(text) => {
                let class = (picture_text::DEVICE_CLASS.to_owned(), device_class.to_owned());
                let text: Vec<_> = text.iter().cloned().chain([class]).collect();
                picture::encode(&output, &text).map_err(|error| failed("encoding", error.to_string()))?
            }
            None => output
                .to_bytes(&std::collections::BTreeMap::new())
                .map_err(|error| failed("encoding", error.to_string()))?,
        };
        Ok(File { extension: extension(body), bytes: bytes.into() })
    }

    async fn store(&self, task: &Task, file: &File) -> Result<Outcome, Fault> {
        let body = body(task).map_err(Fault::Ends)?;
        let stored = self.artifacts.put_content(&body.prefix, file.extension, file.bytes.clone()).await;
        let artifact = stored.map_err(|error| storage(&error))?;
        Ok(Outcome::Done { artifact, notes: Vec::new() })
    }
}
