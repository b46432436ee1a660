//! Sends a picture or a preview in verified chunks, or a link to it. A manifest is sent as stored;
//! the client verifies it by its hash.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use darkroom_core::{
    artifact::ArtifactRef,
    error::{Code, UserError},
    id::{JobId, StageName},
    image_state::ImageState,
    output::Format,
    thumbnail::check_edge,
};
use darkroom_farm_api::{Answer, Caller, Outgoing};
use darkroom_proto::v1;

use super::{Farm, failure, refused};
use crate::{
    error::Error,
    previews::{Fault, is_tensor},
    shared::Shared,
    store::{limits::timestamp, records::Manifest},
};

/// Bytes per chunk.
const CHUNK: usize = 64 << 10;
/// Default and longest lifetime of a link, in seconds. A link works for whoever has it, also after
/// the key that asked for it was revoked.
const LINK_SECONDS: u32 = 3600;
const MAX_LINK_SECONDS: u32 = 24 * 3600;

/// The requested part of an image.
struct Asked<'a> {
    job: &'a str,
    index: u64,
    stage: &'a str,
    max_edge: u32,
}

/// An image's artifact for such a request.
struct Shown {
    artifact: ArtifactRef,
    /// It is the final picture, as stored.
    is_picture: bool,
    /// Its name in messages.
    name: String,
    /// When and by what it was removed from storage, and how to get it back, as a sentence. Its
    /// previews may still be there.
    removed: Option<String>,
}

impl Farm {
    pub(super) async fn fetch(
        &self,
        caller: &Caller,
        request: v1::FetchImageRequest,
    ) -> Result<Outgoing<v1::FetchImageChunk>, Error> {
        let v1::FetchImageRequest { job_id, index, offset, stage, max_edge } = &request;
        let asked = Asked { job: job_id, index: *index, stage, max_edge: *max_edge };
        let shown = self.shown(caller, &asked).await?;
        let (artifact, picture) = if shown.is_picture {
            let offset = *offset;
            if offset > shown.artifact.size {
                return Err(beyond(offset, shown.artifact.size));
            }
            let picture = self.shared.artifacts.get(&shown.artifact).await?;
            (shown.artifact, picture)
        } else {
            let preview =
                self.shared.previews.read(self.shared.source(), &shown.artifact, *max_edge).await;
            preview.map_err(|fault| shown.fault(fault))?
        };
        if *offset > artifact.size {
            return Err(beyond(*offset, artifact.size));
        }
        let offset = usize::try_from(*offset).unwrap_or(usize::MAX).min(picture.len());
        let chunks = chunks(&picture.slice(offset..));
        let format = format(&artifact);
        let first = |position: usize| position == 0;
        let messages = chunks.into_iter().enumerate().map(move |(position, data)| {
            Ok(v1::FetchImageChunk {
                data: data.to_vec(),
                total_bytes: if first(position) { artifact.size } else { 0 },
                sha256: if first(position) { artifact.sha256.to_string() } else { String::new() },
                format: if first(position) { format.into() } else { 0 },
            })
        });
        Ok(Box::pin(tokio_stream::iter(messages)))
    }

    pub(super) async fn sign(
        &self,
        caller: &Caller,
        request: v1::SignImageRequest,
    ) -> Result<v1::SignImageResponse, Error> {
        let life = link_life(request.link_seconds)?;
        let v1::SignImageRequest { job_id, index, stage, max_edge, .. } = &request;
        let asked = Asked { job: job_id, index: *index, stage, max_edge: *max_edge };
        let shown = self.shown(caller, &asked).await?;
        // If storage has no links, no preview is made for nothing.
        let link = self.shared.artifacts.signed_url(&shown.artifact, life).await?;
        let (artifact, link) = match link {
            Some(_) if !shown.is_picture => {
                let previews = &self.shared.previews;
                let preview =
                    previews.place(self.shared.source(), &shown.artifact, *max_edge).await;
                let preview = preview.map_err(|fault| shown.fault(fault))?;
                // The link is signed now, so the time to make the preview does not shorten its
                // life.
                let link = self.shared.artifacts.signed_url(&preview, life).await?;
                (preview, link)
            }
            link => (shown.artifact, link),
        };
        // A signature's time is rounded to a whole second of the same clock, so the link lives at
        // least as long as reported.
        let mut expires_at = prost_types::Timestamp::from(SystemTime::now() + life);
        expires_at.nanos = 0;
        let url = link.ok_or_else(|| {
            refused(UserError::new(
                Code::FailedPrecondition,
                "STORAGE_HAS_NO_LINKS",
                "this farm keeps its pictures in a folder, which has no links; accepted: \
                 FetchImage (`darkroom get`), or a farm with artifacts in S3, Google Cloud Storage \
                 or Azure",
            ))
        })?;
        Ok(v1::SignImageResponse {
            url,
            expires_at: Some(expires_at),
            size_bytes: artifact.size,
            sha256: artifact.sha256.to_string(),
            format: format(&artifact).into(),
        })
    }

    /// The final picture of a done image, or the output of a stage that the image has passed.
    async fn shown(&self, caller: &Caller, asked: &Asked<'_>) -> Result<Shown, Error> {
        let Asked { index, max_edge, .. } = *asked;
        check_edge(max_edge).map_err(refused)?;
        let id = self.job_of(caller, "job_id", asked.job).await?;
        if asked.stage.is_empty() {
            let image = self.front.image(id, index).await?;
            let state = image.progress.state;
            let output =
                image.outputs.into_iter().next_back().filter(|_| state == ImageState::Done);
            let output = output.ok_or_else(|| {
                refused(UserError::new(
                    Code::FailedPrecondition,
                    "IMAGE_NOT_DONE",
                    format!("image {index} is {state}; accepted: an image that is done"),
                ))
            })?;
            let name = format!("the picture of image {index}");
            let removed = self.removed(id, &name, output.removed_ms).await?;
            let (artifact, is_picture) = (output.artifact, max_edge == 0);
            let shown = Shown { artifact, is_picture, name, removed };
            return if is_picture { shown.there() } else { Ok(shown) };
        }
        let stages = self.stage_names.of(self.front.as_ref(), id).await?;
        let stage = position(&stages, asked.stage).map_err(refused)?;
        let image = self.front.image(id, index).await?;
        let (state, at) = (image.progress.state, image.progress.stage);
        let output = image.outputs.into_iter().find(|output| output.stage == stage);
        let output = output.ok_or_else(|| {
            let at = stages.get(at).map_or_else(String::new, ToString::to_string);
            refused(UserError::new(
                Code::FailedPrecondition,
                "STAGE_NOT_DONE",
                format!(
                    "image {index} has not passed stage {}: it is {state} in stage {at}; accepted: a stage that it has passed",
                    asked.stage
                ),
            ))
        })?;
        let name = format!("the output of stage {} of image {index}", asked.stage);
        let removed = self.removed(id, &name, output.removed_ms).await?;
        let artifact = output.artifact;
        let is_picture = max_edge == 0 && !is_tensor(&artifact);
        let shown = Shown { artifact, is_picture, name, removed };
        if is_picture { shown.there() } else { Ok(shown) }
    }

    /// Says that a retention policy removed something, when, and how to get it back.
    async fn removed(
        &self,
        job: JobId,
        name: &str,
        removed_ms: Option<i64>,
    ) -> Result<Option<String>, Error> {
        let Some(ms) = removed_ms else { return Ok(None) };
        let by = self.front.job(job).await?.pictures_removed;
        let by = by.map_or_else(|| "the farm's retention".to_owned(), |removed| removed.by);
        let at = timestamp(ms - ms.rem_euclid(1000));
        Ok(Some(format!(
            "{name} was removed at {at} by {by}; `darkroom retry {job} --lost` renders it again"
        )))
    }

    pub(super) async fn manifest(
        &self,
        caller: &Caller,
        request: v1::FetchManifestRequest,
    ) -> Result<Outgoing<v1::FetchManifestChunk>, Error> {
        let id = self.job_of(caller, "job_id", &request.job_id).await?;
        let job = self.front.job(id).await?;
        let Manifest::Written { key, sha256 } = job.manifest else {
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

/// The file format of a picture.
fn format(artifact: &ArtifactRef) -> v1::PictureFormat {
    Format::of_key(&artifact.key).map_or(v1::PictureFormat::Unspecified, v1::PictureFormat::from)
}

impl Shown {
    /// Refuses what was removed from storage.
    fn there(self) -> Result<Self, Error> {
        match self.removed {
            Some(removed) => {
                Err(refused(UserError::new(Code::NotFound, "PICTURE_REMOVED", removed)))
            }
            None => Ok(self),
        }
    }

    /// Says to the user why there is no preview of it.
    fn fault(&self, fault: Fault) -> Error {
        match (fault, &self.removed) {
            (Fault::Failed(error), _) => error,
            (Fault::Lost, Some(removed)) => {
                refused(UserError::new(Code::NotFound, "PICTURE_REMOVED", removed.clone()))
            }
            (Fault::Lost, None) => refused(UserError::new(
                Code::NotFound,
                "PREVIEW_LOST",
                format!(
                    "{} is gone from the farm's storage; accepted: a stage whose output is still \
                     stored",
                    self.name
                ),
            )),
        }
    }
}

fn beyond(offset: u64, size: u64) -> Error {
    refused(UserError::invalid("offset", format!("offset is {offset}; accepted: 0 to {size}")))
}

/// Position of a stage by its name.
pub(super) fn position(stages: &[StageName], name: &str) -> Result<usize, UserError> {
    let found = stages.iter().position(|stage| stage.as_str() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = stages.iter().map(ToString::to_string).collect();
        UserError::invalid("stage", format!("stage is {name:?}; accepted: {}", names.join(", ")))
    })
}

fn link_life(seconds: u32) -> Result<Duration, Error> {
    match seconds {
        0 => Ok(Duration::from_secs(LINK_SECONDS.into())),
        1..=MAX_LINK_SECONDS => Ok(Duration::from_secs(seconds.into())),
        _ => Err(refused(UserError::invalid(
            "link_seconds",
            format!(
                "link_seconds is {seconds}; accepted: 1 to {MAX_LINK_SECONDS} (a day), or 0 for {LINK_SECONDS}"
            ),
        ))),
    }
}

/// Reads the manifest in parts, so that a large one needs little memory. Ends early if the client
/// is gone.
async fn send_manifest(
    shared: Arc<Shared>,
    artifact: ArtifactRef,
    mut at: u64,
    send: tokio::sync::mpsc::Sender<Answer<v1::FetchManifestChunk>>,
) {
    let mut first = true;
    while first || at < artifact.size {
        let chunk = shared.artifacts.get_range(&artifact, at..at + CHUNK as u64).await;
        let chunk = chunk.map_err(|error| failure(&error.into())).map(|data| {
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

/// At least one chunk, so that size and hash are always sent.
pub(super) fn chunks(bytes: &Bytes) -> Vec<Bytes> {
    let mut chunks: Vec<Bytes> = (0..bytes.len())
        .step_by(CHUNK)
        .map(|at| bytes.slice(at..bytes.len().min(at + CHUNK)))
        .collect();
    if chunks.is_empty() {
        chunks.push(Bytes::new());
    }
    chunks
}
