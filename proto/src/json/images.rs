//! Images, their pictures, links to them, and manifests.

use std::collections::BTreeMap;

use super::{Bytes, FromWire, Seconds, Settings, U64, Word};
use crate::{hidden::Hidden, v1};

super::requests! {
    /// Asks for a page of a job's images.
    ListImagesRequest {
        job_id: String,
        page_size: u32,
        page_token: String,
        states: Vec<Word<v1::ImageState>>,
        changed_since: U64,
        labels: BTreeMap<String, String>,
        text: String,
        start_index: U64,
    }

    /// Asks for a picture.
    FetchImageRequest {
        job_id: String,
        index: U64,
        offset: U64,
        stage: String,
        max_edge: u32,
    }

    /// Asks for a link to a picture.
    SignImageRequest {
        job_id: String,
        index: U64,
        link_seconds: u32,
        stage: String,
        max_edge: u32,
    }

    /// Asks for a manifest.
    FetchManifestRequest {
        job_id: String,
        offset: U64,
    }
}

super::form! {
    /// An image, in the form that `--json` has always had: without its job's id, and with a link if
    /// one was requested.
    Image {
        index: U64,
        state: Word<v1::ImageState>,
        stage: String,
        prompt: String,
        negative: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        style: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        image: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        mask: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        custom_id: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "super::is_default")]
        line: U64,
        #[serde(skip_serializing_if = "Option::is_none")]
        settings: Option<Settings>,
        seed: U64,
        generation: u32,
        dispatches: U64,
        failures: u32,
        error_code: String,
        error: String,
        key: String,
        size_bytes: U64,
        sha256: String,
        /// File format of the picture. Absent: there is no picture yet.
        #[serde(skip_serializing_if = "super::is_default")]
        format: Word<v1::PictureFormat>,
        device_class: String,
        version: U64,
        stage_seconds: Vec<StageSeconds>,
        /// Absent: the picture is there, or there is none yet.
        #[serde(skip_serializing_if = "Option::is_none")]
        picture_removed_at: Option<Seconds>,
        #[serde(skip_serializing_if = "Option::is_none")]
        link: Option<Link>,
    }
}

super::form! {
    /// A link to a picture, as part of its image.
    Link {
        url: Hidden<String>,
        expires_at: Option<Seconds>,
    }
}

impl Image {
    /// The image with a link to its picture.
    #[must_use]
    pub fn linked(self, link: &v1::SignImageResponse) -> Self {
        let expires_at = Option::from_wire(link.expires_at);
        Self { link: Some(Link { url: Hidden(link.url.clone()), expires_at }), ..self }
    }
}

impl From<v1::Image> for Image {
    fn from(image: v1::Image) -> Self {
        Self {
            state: image.state().into(),
            format: image.format().into(),
            index: U64(image.index),
            stage: image.stage,
            prompt: image.prompt,
            negative: image.negative,
            style: image.style,
            image: image.image,
            mask: image.mask,
            custom_id: image.custom_id,
            labels: image.labels,
            line: U64(image.line),
            settings: image.settings.map(Settings::from),
            seed: U64(image.seed),
            generation: image.generation,
            dispatches: U64(image.dispatches),
            failures: image.failures,
            error_code: image.error_code,
            error: image.error,
            key: image.key,
            size_bytes: U64(image.size_bytes),
            sha256: image.sha256,
            device_class: image.device_class,
            version: U64(image.version),
            stage_seconds: Vec::from_wire(image.stage_seconds),
            picture_removed_at: Option::from_wire(image.picture_removed_at),
            link: None,
        }
    }
}

impl From<&v1::Image> for Image {
    fn from(image: &v1::Image) -> Self {
        image.clone().into()
    }
}

impl FromWire<v1::Image> for Image {
    fn from_wire(image: v1::Image) -> Self {
        image.into()
    }
}

super::answers! {
    /// How long one stage of an image took, and where.
    StageSeconds {
        stage: String,
        seconds: f64,
        worker: String,
    }

    /// A part of a picture.
    FetchImageChunk {
        data: Bytes,
        total_bytes: U64,
        sha256: String,
        format: Word<v1::PictureFormat>,
    }

    /// A link to a picture.
    SignImageResponse {
        url: Hidden<String>,
        expires_at: Option<Seconds>,
        size_bytes: U64,
        sha256: String,
        format: Word<v1::PictureFormat>,
    }

    /// A part of a manifest.
    FetchManifestChunk {
        data: Bytes,
        total_bytes: U64,
        sha256: String,
    }
}

super::reports! {
    /// A page of a job's images.
    ListImagesResponse {
        images: Vec<Image>,
        next_page_token: String,
    }
}
