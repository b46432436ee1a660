//! Uploads of pictures: each is collected within limits, decoded once, stored as a canonical PNG,
//! and recorded for its tenant under both hashes. An upload is kept while a job uses it, and after
//! that for as long as the policy for inputs says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use darkroom_artifacts::{
    input::{self, Given, MAX_BYTES},
    picture::EXTENSION,
};
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};
use darkroom_farm_api::{Caller, Incoming};
use darkroom_proto::v1;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tokio_stream::StreamExt;

use super::{Farm, access::uploader, refused};
use crate::{
    decoding::DECODING_MIB,
    error::Error,
    store::{
        metering::check_stored,
        records::{Canonical, Input},
    },
};

/// Longest chunk.
const MAX_CHUNK: usize = 64 << 10;
/// What must come within each [`upload_idle`](crate::Options::upload_idle). Counted in bytes,
/// because a byte now and then is as good as nothing.
const PROGRESS: usize = 64 << 10;
/// How often it is tried to store a picture. Each time, the cleaner may begin to remove it.
const TRIES: u32 = 3;

impl Farm {
    pub(super) async fn upload(
        &self,
        caller: &Caller,
        mut chunks: Incoming<v1::UploadInputChunk>,
    ) -> Result<v1::UploadInputResponse, Error> {
        let tenant = uploader(caller).map_err(refused)?;
        self.shared.disks.refuse()?;
        let mut bytes = BytesMut::new();
        let idle = self.shared.options.upload_idle;
        let (mut until, mut enough) = (Instant::now() + idle, PROGRESS);
        loop {
            let next = timeout_at(until, chunks.next()).await;
            let Some(chunk) = next.map_err(|_| refused(too_slow(idle)))? else { break };
            let chunk = chunk.map_err(refused)?;
            if chunk.data.len() > MAX_CHUNK {
                let message = format!(
                    "data has {} bytes; accepted: at most {MAX_CHUNK} a chunk",
                    chunk.data.len()
                );
                return Err(refused(UserError::invalid("data", message)));
            }
            if bytes.len() + chunk.data.len() > MAX_BYTES {
                let message = format!(
                    "the file has more than {MAX_BYTES} bytes; accepted: at most that many"
                );
                return Err(refused(UserError::invalid("data", message)));
            }
            bytes.extend_from_slice(&chunk.data);
            if bytes.len() >= enough {
                (until, enough) = (Instant::now() + idle, bytes.len() + PROGRESS);
            }
        }
        // Only complete files wait for a permit, so a slow sender delays nobody. The server limits
        // the memory of all uploads.
        let _turn = self.shared.uploads.acquire().await.map_err(Error::other)?;
        self.keep(tenant, bytes.freeze()).await
    }

    async fn keep(&self, tenant: &str, bytes: Bytes) -> Result<v1::UploadInputResponse, Error> {
        let (size, hashed) = (bytes.len() as u64, bytes.clone());
        let sha256 =
            tokio::task::spawn_blocking(move || Digest::of(&hashed)).await.map_err(Error::other)?;
        if let Some(known) = self.known(tenant, sha256).await? {
            return Ok(response(&known));
        }
        // Looked at before anything is stored. What others store meanwhile, the record's own check
        // finds.
        let (quotas, usage) = self.front.standing(tenant).await?;
        check_stored(tenant, &quotas, usage.stored_bytes, None).map_err(refused)?;
        let Decoded { seen: given, canonical, memory: _memory } = self.decode(bytes).await?;
        let room = Some(canonical.len() as u64);
        check_stored(tenant, &quotas, usage.stored_bytes, room).map_err(refused)?;
        for _ in 0..TRIES {
            if let Some(input) = self.store(tenant, (sha256, size), &given, &canonical).await? {
                return Ok(response(&input));
            }
        }
        Err(refused(removing()))
    }

    /// Stores a picture and records it. `None`: meanwhile an earlier copy of it began to leave
    /// storage, so it must be stored elsewhere.
    async fn store(
        &self,
        tenant: &str,
        (sha256, size): (Digest, u64),
        given: &Seen,
        canonical: &Bytes,
    ) -> Result<Option<Input>, Error> {
        let hashed = canonical.clone();
        let content = tokio::task::spawn_blocking(move || Digest::of(&hashed)).await;
        let content = content.map_err(Error::other)?;
        // If the tenant has it and storage lost it, it is stored where jobs look for it.
        let mark = match self.front.inputs(Some(tenant), &[content]).await?.pop() {
            Some(own) => own.mark,
            None => self.front.input_mark(content).await?,
        };
        // Stored before it is recorded, so that every recorded picture exists.
        let prefix = Input::prefix(mark);
        let stored = self.shared.artifacts.put_content(&prefix, EXTENSION, canonical.clone());
        let stored = stored.await?;
        let input = Input {
            sha256,
            size,
            canonical: Some(Canonical { sha256: stored.sha256, size: stored.size }),
            extent: given.extent,
            is_mask: given.is_mask,
            orientation: given.orientation,
            notes: given.notes.clone(),
            mark,
        };
        if stored.sha256 != sha256 {
            let itself = Input {
                sha256: stored.sha256,
                size: stored.size,
                orientation: 1,
                notes: given.notes_of_canonical.clone(),
                ..input.clone()
            };
            if !self.front.add_input(tenant, &itself).await? {
                return Ok(None);
            }
        }
        Ok(self.front.add_input(tenant, &input).await?.then_some(input))
    }

    /// A picture that this tenant has uploaded before and that is stored intact. It is not decoded
    /// again, because another decoder might give other pixels. What only others have uploaded is
    /// decoded as if nobody had.
    async fn known(&self, tenant: &str, sha256: Digest) -> Result<Option<Input>, Error> {
        let known = self.front.inputs(Some(tenant), &[sha256]).await?.pop();
        let Some(known) = known.filter(|known| known.canonical.is_some()) else { return Ok(None) };
        match self.shared.artifacts.get(&known.artifact()).await {
            Ok(_) => {
                // It may have been removed since it was looked up.
                let stays = self.front.uploaded_again(tenant, &known).await?;
                Ok(Some(known).filter(|_| stays))
            }
            Err(error) if error.retryable() => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// Decodes a file on a blocking thread, within the memory limit for decoding. The memory is
    /// free again when the permit is dropped.
    async fn decode(&self, bytes: Bytes) -> Result<Decoded, Error> {
        let refuse =
            |error: input::Error| refused(UserError::invalid("data", format!("the file {error}")));
        let mib = input::memory(&bytes).map_err(refuse)? >> 20;
        let mib = u32::try_from(mib.clamp(1, DECODING_MIB as u64)).unwrap_or(u32::MAX);
        let permit = std::sync::Arc::clone(&self.shared.decoding).acquire_many_owned(mib);
        let permit = permit.await.map_err(Error::other)?;
        let decoding = tokio::task::spawn_blocking(move || {
            // The permit moves into the task, because decoding continues even if the call ends.
            let given = Given::decode(&bytes)?;
            drop(bytes);
            let canonical = given.pixels.canonical()?;
            let seen = Seen {
                extent: given.pixels.extent,
                is_mask: given.pixels.check_mask().is_ok(),
                orientation: given.orientation,
                notes: given.notes,
                notes_of_canonical: given.pixels.notes(),
            };
            Ok(Decoded { seen, canonical: canonical.into(), memory: permit })
        });
        decoding.await.map_err(Error::other)?.map_err(refuse)
    }
}

fn too_slow(idle: Duration) -> UserError {
    let message = format!(
        "the file comes too slowly: less than {PROGRESS} bytes came within {} s; send it again over \
         a faster connection",
        idle.as_secs_f64()
    );
    UserError::new(Code::DeadlineExceeded, "UPLOAD_STALLED", message)
}

fn removing() -> UserError {
    let message = "an earlier copy of the picture is being removed; send it again";
    UserError::new(Code::Unavailable, "INPUT_REMOVED", message)
}

/// A file that was decoded.
struct Decoded {
    seen: Seen,
    /// Its canonical form.
    canonical: Bytes,
    /// The memory that decoding it may take.
    memory: OwnedSemaphorePermit,
}

/// A file's properties, without its pixels.
struct Seen {
    extent: darkroom_core::extent::Extent,
    is_mask: bool,
    orientation: u8,
    notes: Vec<String>,
    notes_of_canonical: Vec<String>,
}

fn response(input: &Input) -> v1::UploadInputResponse {
    let stored = input.artifact();
    v1::UploadInputResponse {
        sha256: input.sha256.to_string(),
        canonical_sha256: stored.sha256.to_string(),
        key: stored.key,
        size_bytes: stored.size,
        width: input.extent.width,
        height: input.extent.height,
        is_mask: input.is_mask,
        orientation: input.orientation.into(),
        notes: input.notes.clone(),
    }
}
