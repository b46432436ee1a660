//! Pictures and manifests, whole and with the hashes that the farm says they have. A broken stream
//! is resumed where it broke.

use darkroom_artifacts::picture::MAX_FILE_BYTES;
use darkroom_core::output::Format;
use darkroom_proto::v1;
use darkroom_runtime::peer::Patience;
use tonic::{Request, Status};

use super::{
    CALL, Client, GRACE, STREAM_PATIENCE,
    arrived::{self, Arrived, Chunk, Refused},
    within,
};
use crate::failure::{self, Result};

impl Client {
    /// All bytes of a picture that is done: with the hash that the farm has for them, and of a
    /// picture's format. A broken stream is resumed where it broke.
    pub(crate) async fn fetch(&self, job: &str, index: u64) -> Result<Vec<u8>> {
        self.fetch_shown(&v1::FetchImageRequest {
            job_id: job.to_owned(),
            index,
            ..Default::default()
        })
        .await
    }

    /// As [`fetch`](Self::fetch), of a listed image, whose hash and format it must have.
    pub(crate) async fn fetch_listed(&self, image: &v1::Image) -> Result<Vec<u8>> {
        let bytes = self.fetch(&image.job_id, image.index).await?;
        let what = format!("image {} of job {}", image.index, image.job_id);
        arrived::check_hash(&bytes, &image.sha256, &format!("{what}, as it was listed,"))?;
        let (listed, found) = (image.format().known(), Format::of_bytes(&bytes));
        if found != Some(listed) {
            return Err(failure::unbelievable(format!(
                "the farm lists {what} as {listed}, which it is not"
            )));
        }
        Ok(bytes)
    }

    /// As [`fetch`](Self::fetch), of a stage's output or scaled; the request has no offset.
    pub(crate) async fn fetch_shown(&self, request: &v1::FetchImageRequest) -> Result<Vec<u8>> {
        let v1::FetchImageRequest { job_id: job, index, .. } = request;
        let what = format!("image {index} of job {job}");
        let mut arrived = Arrived::nothing(what.clone(), MAX_FILE_BYTES);
        let mut bytes = Vec::new();
        let mut patience = Patience::new(STREAM_PATIENCE, self.peers.count());
        loop {
            let before = bytes.len();
            let Err(status) = self.fetch_from(request, &mut arrived, &mut bytes).await? else {
                break;
            };
            if bytes.len() > before {
                patience.reset();
            }
            if !patience.another(&status).await {
                return Err(self.failure(&status));
            }
        }
        arrived::check_hash(&bytes, &arrived.sha256, &what)?;
        if Format::of_bytes(&bytes).is_none() {
            return Err(failure::unbelievable(format!(
                "what the farm sends for {what} is no picture; accepted: {}",
                Format::ALL.map(Format::name).join(", ")
            )));
        }
        Ok(bytes)
    }

    /// Fetches the rest of a picture. The outer error ends the fetch, and after the inner one the
    /// rest is fetched again.
    async fn fetch_from(
        &self,
        asked: &v1::FetchImageRequest,
        arrived: &mut Arrived,
        bytes: &mut Vec<u8>,
    ) -> Result<std::result::Result<(), Status>> {
        let mut request =
            Request::new(v1::FetchImageRequest { offset: arrived.bytes, ..asked.clone() });
        request.set_timeout(CALL);
        let mut farm = self.farm.clone();
        let mut stream = match within(CALL + GRACE, farm.fetch_image(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            let chunk = match within(CALL, stream.message()).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(arrived.whole()),
                Err(status) => return Ok(Err(status)),
            };
            let v1::FetchImageChunk { sha256, total_bytes: total, data, .. } = &chunk;
            match arrived.take(&Chunk { sha256, total: *total, data }) {
                Ok(()) => bytes.extend_from_slice(data),
                Err(Refused::Changed) => {
                    // The picture is of another generation: start again.
                    bytes.clear();
                    let changed = "the picture changed while it was fetched";
                    return Ok(Err(Status::unavailable(changed)));
                }
                Err(Refused::Lie(error)) => return Err(error),
            }
        }
    }

    /// Writes a job's manifest of at most `most` bytes to `file`, and returns the SHA-256 that SQL
    /// has for it. A broken stream is resumed where it broke.
    pub(crate) async fn fetch_manifest(
        &self,
        job: &str,
        file: &mut std::fs::File,
        most: u64,
    ) -> Result<String> {
        let mut arrived = Arrived::nothing(format!("the manifest of job {job}"), most);
        let mut patience = Patience::new(STREAM_PATIENCE, self.peers.count());
        loop {
            let before = arrived.bytes;
            let Err(status) = self.fetch_manifest_from(job, file, &mut arrived).await? else {
                return Ok(arrived.sha256);
            };
            if arrived.bytes > before {
                patience.reset();
            }
            if !patience.another(&status).await {
                return Err(self.failure(&status));
            }
        }
    }

    async fn fetch_manifest_from(
        &self,
        job: &str,
        file: &mut std::fs::File,
        arrived: &mut Arrived,
    ) -> Result<std::result::Result<(), Status>> {
        let request = v1::FetchManifestRequest { job_id: job.to_owned(), offset: arrived.bytes };
        let mut farm = self.farm.clone();
        let mut stream = match within(CALL + GRACE, farm.fetch_manifest(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            let chunk = match within(CALL, stream.message()).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(arrived.whole()),
                Err(status) => return Ok(Err(status)),
            };
            let v1::FetchManifestChunk { sha256, total_bytes: total, data, .. } = &chunk;
            match arrived.take(&Chunk { sha256, total: *total, data }) {
                Ok(()) => std::io::Write::write_all(file, data).map_err(failure::internal)?,
                Err(Refused::Changed) => {
                    return Err(failure::internal(
                        "the job was retried while its manifest was fetched",
                    ));
                }
                Err(Refused::Lie(error)) => return Err(error),
            }
        }
    }
}
