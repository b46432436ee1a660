//! Commands to some images of a job.

use std::collections::BTreeMap;

use super::{Job, Time, U64, Word};
use crate::v1;

super::requests! {
    /// A range of image indices, both ends included.
    IndexRange {
        first: U64,
        last: U64,
    }

    /// Selects images of a job.
    ImageFilter {
        ranges: Vec<IndexRange>,
        states: Vec<Word<v1::ImageState>>,
        error_codes: Vec<String>,
        labels: BTreeMap<String, String>,
        text: String,
    }

    /// Cancels some images.
    CancelImagesRequest {
        job_id: String,
        filter: Option<ImageFilter>,
        dry_run: bool,
    }

    /// Runs some images again.
    RetryImagesRequest {
        job_id: String,
        filter: Option<ImageFilter>,
        dry_run: bool,
        deadline: Option<Time>,
        no_deadline: bool,
        lost: bool,
        page_token: String,
    }
}

super::reports! {
    /// The job, and the number of images that are cancelled.
    CancelImagesResponse {
        job: Option<Job>,
        images: U64,
        at_least: bool,
    }

    /// The job, and the number of images that run again.
    RetryImagesResponse {
        job: Option<Job>,
        images: U64,
        skipped_intact: U64,
        checked: U64,
        next_page_token: String,
        at_least: bool,
    }
}
