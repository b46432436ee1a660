//! Pictures coming in: gathered within bounds, looked at, stored under their hash, noted.

use bytes::{Bytes, BytesMut};
use darkroom_artifacts::{
    input::{MAX_BYTES, Pixels},
    picture::EXTENSION,
};
use darkroom_core::error::UserError;
use darkroom_proto::v1;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::{Farm, refused};
use crate::{service::Error, store::records::Input};

/// Longest chunk.
const MAX_CHUNK: usize = 64 << 10;

impl Farm {
    pub(super) async fn upload(
        &self,
        mut chunks: Streaming<v1::UploadInputChunk>,
    ) -> Result<v1::UploadInputResponse, Error> {
        // So many bodies and their pixels are in memory at a time; who comes later waits, and its client with it.
        let _turn = self.shared.uploads.acquire().await.map_err(Error::other)?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|status| refused(darkroom_proto::status::from_status(&status)))?;
            if chunk.data.len() > MAX_CHUNK {
                let message =
                    format!("data has {} bytes; accepted: at most {MAX_CHUNK} a chunk", chunk.data.len());
                return Err(refused(UserError::invalid("data", message)));
            }
            if bytes.len() + chunk.data.len() > MAX_BYTES {
                let message = format!("the file has more than {MAX_BYTES} bytes; accepted: at most so many");
                return Err(refused(UserError::invalid("data", message)));
            }
            bytes.extend_from_slice(&chunk.data);
        }
        self.keep(bytes.freeze()).await
    }

    async fn keep(&self, bytes: Bytes) -> Result<v1::UploadInputResponse, Error> {
        let looked_at = bytes.clone();
        let looking =
            tokio::task::spawn_blocking(move || Pixels::decode(&looked_at).map(|pixels| pixels.seen()));
        let seen = looking.await.map_err(Error::other)?;
        let seen = seen.map_err(|error| refused(UserError::invalid("data", format!("the file {error}"))))?;
        // Stored before it is noted, so that what is noted is there.
        let stored = self.shared.artifacts.put_content(Input::PREFIX, EXTENSION, bytes).await?;
        let input =
            Input { sha256: stored.sha256, size: stored.size, extent: seen.extent, is_mask: seen.is_mask };
        self.shared.front.add_input(&input).await?;
        Ok(v1::UploadInputResponse {
            sha256: stored.sha256.to_string(),
            key: stored.key,
            size_bytes: stored.size,
            width: seen.extent.width,
            height: seen.extent.height,
            is_mask: seen.is_mask,
        })
    }
}
