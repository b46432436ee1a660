//! One image with its attempts, maps of a job's images, and sheets of thumbnails.

use darkroom_artifacts::picture::MAX_FILE_BYTES;
use darkroom_core::output::Format;
use darkroom_proto::v1;
use tonic::{Request, Status};

use super::{
    CALL, Client, GRACE,
    arrived::{Arrived, Chunk, Refused, check_hash},
    waiting::Waiting,
    within,
};
use crate::failure::{self, Result};

/// A sheet as it arrived, and the hash that the farm says its PNG has.
struct Shown {
    sheet: v1::Sheet,
    png: Vec<u8>,
    sha256: String,
}

impl Client {
    /// One image, and what became of its attempts.
    pub(crate) async fn image(&self, job: &str, index: u64) -> Result<v1::GetImageResponse> {
        let request = v1::GetImageRequest { job_id: job.to_owned(), index };
        self.call(request, CALL, async |mut farm, request| farm.get_image(request).await).await
    }

    /// The states of a job's images from one on, or of those that changed after a version.
    pub(crate) async fn image_map(
        &self,
        job: &str,
        first_index: u64,
        since_version: u64,
    ) -> Result<v1::GetImageMapResponse> {
        let request = v1::GetImageMapRequest { job_id: job.to_owned(), first_index, since_version };
        self.call(request, CALL, async |mut farm, request| farm.get_image_map(request).await).await
    }

    /// A sheet's PNG, whole and with the hash the farm says it has, and what it shows. A broken
    /// stream begins again: the images may have changed since.
    pub(crate) async fn sheet(
        &self,
        request: &v1::FetchSheetRequest,
    ) -> Result<(v1::Sheet, Vec<u8>)> {
        let mut waiting = Waiting::new(self);
        loop {
            match self.sheet_once(request).await? {
                Ok(Shown { sheet, png, sha256 }) => {
                    check_hash(&png, &sha256, "the sheet")?;
                    if Format::of_bytes(&png) != Some(Format::Png) {
                        return Err(failure::unbelievable(
                            "what the farm sends for a sheet is no PNG".to_owned(),
                        ));
                    }
                    return Ok((sheet, png));
                }
                Err(status) if waiting.another(self, &status).await => {}
                Err(status) => return Err(self.failure(&status)),
            }
        }
    }

    /// The outer error ends the fetch, and after the inner one all is fetched again.
    async fn sheet_once(
        &self,
        request: &v1::FetchSheetRequest,
    ) -> Result<std::result::Result<Shown, Status>> {
        let mut request = Request::new(request.clone());
        request.set_timeout(CALL);
        let mut farm = self.farm.clone();
        let mut stream = match within(CALL + GRACE, farm.fetch_sheet(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        let (mut png, mut shown) = (Vec::new(), None);
        let mut arrived = Arrived::nothing("the sheet".to_owned(), MAX_FILE_BYTES);
        loop {
            let chunk = match within(CALL, stream.message()).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(status) => return Ok(Err(status)),
            };
            let (sha256, total) = (&chunk.sha256, chunk.total_bytes);
            match arrived.take(&Chunk { sha256, total, data: &chunk.data }) {
                Ok(()) => png.extend_from_slice(&chunk.data),
                Err(Refused::Changed) => return Ok(Err(Status::unavailable("the sheet changed"))),
                Err(Refused::Lie(error)) => return Err(error),
            }
            shown = chunk.sheet.or(shown);
        }
        if let Err(status) = arrived.whole() {
            return Ok(Err(status));
        }
        Ok(match shown {
            Some(sheet) => Ok(Shown { sheet, png, sha256: arrived.sha256 }),
            None => Err(Status::unavailable("the stream ended early")),
        })
    }
}
