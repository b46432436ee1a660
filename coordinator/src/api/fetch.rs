//! A picture's bytes, verified, in chunks, or a link to them; a manifest's, as they lie there: whoever reads it proves it
//! by its hash.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

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
/// Life of a link when the request names none, and at most (what S3 allows), seconds.
const LINK_SECONDS: u32 = 3600;
const MAX_LINK_SECONDS: u32 = 7 * 24 * 3600;

/// The chunks of a picture.
pub(crate) type ChunkStream = Pin<Box<dyn Stream<Item = Result<v1::FetchImageChunk, Status>> + Send>>;

/// The chunks of a manifest.
pub(crate) type ManifestStream = Pin<Box<dyn Stream<Item = Result<v1::FetchManifestChunk, Status>> + Send>>;

impl Farm {
    pub(super) async fn fetch(&self, request: v1::FetchImageRequest) -> Result<ChunkStream, Error> {
        let artifact = self.picture(&request.job_id, request.index).await?;
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

    pub(super) async fn sign(&self, request: v1::SignImageRequest) -> Result<v1::SignImageResponse, Error> {
        let life = link_life(request.link_seconds)?;
        let artifact = self.picture(&request.job_id, request.index).await?;
        // A signature counts from a whole second, by the same clock: the link lives no shorter than is told.
        let mut expires_at = prost_types::Timestamp::from(SystemTime::now() + life);
        expires_at.nanos = 0;
        let url = self.shared.artifacts.signed_url(&artifact, life).await?.ok_or_else(|| {
            refused(UserError::new(
                Code::FailedPrecondition,
                "STORAGE_HAS_NO_LINKS",
                "this farm keeps its pictures where there are no links (a folder); accepted: FetchImage (`darkroom get`), \
                 or a farm whose artifacts lie in S3, Google Cloud Storage or Azure",
            ))
        })?;
        Ok(v1::SignImageResponse {
            url,
            expires_at: Some(expires_at),
            size_bytes: artifact.size,
            sha256: artifact.sha256.to_string(),
        })
    }

    /// The PNG of an image that is done.
    async fn picture(&self, job: &str, index: u64) -> Result<ArtifactRef, Error> {
        let image = self.shared.front.image(job_id("job_id", job)?, index).await?;
        let state = image.progress.state;
        let output = image.outputs.last().filter(|_| state == ImageState::Done).ok_or_else(|| {
            refused(UserError::new(
                Code::FailedPrecondition,
                "IMAGE_NOT_DONE",
                format!("image {index} is {state}; accepted: an image that is done"),
            ))
        })?;
        Ok(output.artifact.clone())
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

fn link_life(seconds: u32) -> Result<Duration, Error> {
    match seconds {
        0 => Ok(Duration::from_secs(LINK_SECONDS.into())),
        1..=MAX_LINK_SECONDS => Ok(Duration::from_secs(seconds.into())),
        _ => Err(refused(UserError::invalid(
            "link_seconds",
            format!(
                "link_seconds is {seconds}; accepted: 1 to {MAX_LINK_SECONDS} (seven days), or 0 for {LINK_SECONDS}"
            ),
        ))),
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
