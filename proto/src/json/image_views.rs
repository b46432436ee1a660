//! One image with its attempts, the map of all images, and sheets of thumbnails.

use super::{Bytes, Image, Seconds, U64, Word};
use crate::v1;

super::requests! {
    /// Asks for one image and its attempts.
    GetImageRequest {
        job_id: String,
        index: U64,
    }

    /// Asks for the states of a job's images.
    GetImageMapRequest {
        job_id: String,
        first_index: U64,
        since_version: U64,
    }

    /// Asks for a sheet of thumbnails.
    FetchSheetRequest {
        job_id: String,
        first_index: U64,
        count: u32,
        tile: u32,
        columns: u32,
        stage: String,
    }
}

super::answers! {
    /// The outcome of one attempt at a stage of an image.
    Attempt {
        stage: String,
        generation: u32,
        dispatch: U64,
        outcome: Word<v1::AttemptOutcome>,
        counted: bool,
        worker: String,
        place: String,
        device_class: String,
        seconds: f64,
        ended_at: Option<Seconds>,
        reason: String,
        message: String,
    }

    /// The states of a job's images, in runs.
    GetImageMapResponse {
        version: U64,
        images: U64,
        first_index: U64,
        whole: bool,
        stages: Vec<String>,
        codes: Vec<u32>,
        lengths: Vec<U64>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        skips: Vec<U64>,
        #[serde(skip_serializing_if = "super::is_default")]
        next_index: U64,
    }

    /// A part of a sheet.
    FetchSheetChunk {
        data: Bytes,
        total_bytes: U64,
        sha256: String,
        sheet: Option<Sheet>,
    }

    /// What a sheet shows.
    Sheet {
        first_index: U64,
        tile: u32,
        columns: u32,
        rows: u32,
        tiles: Vec<Word<v1::SheetTile>>,
        version: U64,
    }
}

super::reports! {
    /// One image and its attempts.
    GetImageResponse {
        image: Option<Image>,
        attempts: Vec<Attempt>,
    }
}
