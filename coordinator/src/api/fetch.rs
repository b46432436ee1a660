//! A picture's bytes, verified, in chunks; a manifest's, as they lie there: whoever reads it proves it by its hash.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use darkroom_core::{
    artifact::ArtifactRef,
    error::{Code, UserError},
    image_state::ImageState,
};
use darkroom_proto::v1;
use tokio_stream::Stream;
use tonic::Status;

use super::{Farm, job_id, refused};
use crate::service::{Error, Shared};

/// Bytes of one chunk.
const CHUNK: usize = 64 << 10;

/// The chunks of a picture.
pub(crate) type ChunkStream = Pin<Box<dyn Stream<Item = Result<v1::FetchImageChunk, Status>> + Send>>;

/// The chunks of a manifest.
pub(crate) type ManifestStream = Pin<Box<dyn Stream<Item = Result<v1::FetchManifestChunk, Status>> + Send>>;

impl Farm {
    pub(super) async fn fetch(&self, request: v1::FetchImageRequest) -> Result<ChunkStream, Error> {
        let image = self.shared.front.image(job_id("job_id", &request.job_id)?, request.index).await?;
        let state = image.progress.state;
        let output = image.outputs.last().filter(|_| state == ImageState::Done).ok_or_else(|| {
            refused(UserError::new(
                Code::FailedPrecondition,
                "IMAGE_NOT_DONE",
                format!("image {} is {state}; accepted: an image that is done", request.index),
            ))
        })?;
        let artifact = output.artifact.clone();
        if request.offset > artifact.size {
            return Err(refused(UserError::invalid(
                "offset",
                format!("offset is {}; accepted: 0 to {}", request.offset, artifact.size),
            )));
        }
        let picture = self.shared.artifacts.get(&artifact).await?;
        let offset = usize::try_from(request.offset).unwrap_or(usize::MAX).min(picture.len());
        let chunks = chunks(&picture.slice(offset..));
        let first = |position: usize| position == 0;
        let messages = chunks.into_iter().enumerate().map(move |(position, data)| {
            Ok(v1::FetchImageChunk {
                data: data.to_vec(),
                total_bytes: if first(position) { artifact.size } else { 0 },
                sha256: if first(position) { artifact.sha256.to_string() } else { String::new() },
            })
        });
        Ok(Box::pin(tokio_stream::iter(messages)))
    }

    pub(super) async fn manifest(&self, request: v1::FetchManifestRequest) -> Result<ManifestStream, Error> {
        let id = job_id("job_id", &request.job_id)?;
        let job = self.shared.front.job(id).await?;
        let Some((key, sha256)) = job.manifest.flatten() else {
            return Err(refused(UserError::new(
                Code::FailedPrecondition,
                "NO_MANIFEST",
                format!(
                    "job {id} is {} and its manifest is not written; accepted: a job that has ended",
                    job.state
                ),
            )));
        };
        let size = self.shared.artifacts.size_of(&key).await?;
        if request.offset > size {
            return Err(refused(UserError::invalid(
                "offset",
                format!("offset is {}; accepted: 0 to {size}", request.offset),
            )));
        }
        let (send, chunks) = tokio::sync::mpsc::channel(4);
        let artifact = ArtifactRef { key, sha256, size };
        let sending = send_manifest(Arc::clone(&self.shared), artifact, request.offset, send);
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(sending));
        Ok(Box::pin(tokio_stream::wrappers::ReceiverStream::new(chunks)))
    }
}

/// Reads the manifest part by part, so that one of a million images needs no memory; ends early when nobody listens.
async fn send_manifest(
    shared: Arc<Shared>,
    artifact: ArtifactRef,
    mut at: u64,
    send: tokio::sync::mpsc::Sender<Result<v1::FetchManifestChunk, Status>>,
) {
    let mut first = true;
    while first || at < artifact.size {
        let chunk = shared.artifacts.get_range(&artifact, at..at + CHUNK as u64).await;
        let chunk = chunk.map_err(|error| super::status(&error.into())).map(|data| {
            at += data.len() as u64;
            v1::FetchManifestChunk {
                data: data.to_vec(),
                total_bytes: if first { artifact.size } else { 0 },
                sha256: if first { artifact.sha256.to_string() } else { String::new() },
            }
        });
        first = false;
        let failed = chunk.is_err();
        if send.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

/// At least one chunk, so that size and hash are always told.
fn chunks(bytes: &Bytes) -> Vec<Bytes> {
    let mut chunks: Vec<Bytes> =
        (0..bytes.len()).step_by(CHUNK).map(|at| bytes.slice(at..bytes.len().min(at + CHUNK))).collect();
    if chunks.is_empty() {
        chunks.push(Bytes::new());
    }
    chunks
}
