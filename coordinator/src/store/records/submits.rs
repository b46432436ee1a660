//! What a submit records: jobs, prompts, and the pictures that they start from.

use std::{collections::BTreeMap, sync::Arc};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    extent::Extent,
    id::JobId,
    label::Naming,
    settings::{Settings, SettingsRequest},
    sharing::Sharing,
};
use serde::{Deserialize, Serialize};

use crate::store::{Error, limits::Limits};

/// The client's request, kept for answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requested {
    /// Cascade by name or digest; empty: the default cascade.
    pub cascade: String,
    /// Settings without defaults filled in.
    pub settings: SettingsRequest,
    /// Pictures per prompt.
    pub images_per_prompt: u32,
    /// Whether the client chose the seed.
    pub seed_given: bool,
}

/// A job to record.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Its tenant.
    pub tenant: String,
    /// A name for people.
    pub name: String,
    /// The client's own notes.
    pub labels: BTreeMap<String, String>,
    /// The client's id of the request, to recognise a repeated submit.
    pub client_request_id: Option<String>,
    /// Higher is dispatched first.
    pub priority: u8,
    /// The cascade.
    pub cascade: Digest,
    /// The cascade's encoder.
    pub encoder: Digest,
    /// Settings with defaults filled in.
    pub settings: Settings,
    /// The client's request.
    pub requested: Requested,
    /// Seed of the first image.
    pub seed: u64,
    /// Its user's limits.
    pub limits: Limits,
    /// Every stage of its images runs, even if its output is already stored.
    pub no_reuse: bool,
    /// Whether its texts and outputs may be other tenants' too.
    pub sharing: Sharing,
}

/// A picture that a user has uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// SHA-256 of the uploaded bytes or of the stored picture: prompts may use either.
    pub sha256: Digest,
    /// Number of those bytes.
    pub size: u64,
    /// The stored picture. `None`: the uploaded bytes, from before the canonical form existed.
    pub canonical: Option<Canonical>,
    /// Width and height of the stored picture.
    pub extent: Extent,
    /// Whether it can be a mask.
    pub is_mask: bool,
    /// The EXIF orientation that was applied; 1 if none.
    pub orientation: u8,
    /// Notes for its user, each to follow its name.
    pub notes: Vec<String>,
    /// The farm's count of removals when an earlier copy of the stored picture was removed. While
    /// that is remembered, the picture lies elsewhere. 0: none was.
    pub mark: u64,
}

/// A stored picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Number of its bytes.
    pub size: u64,
}

impl Input {
    /// Prefix of the keys of all inputs.
    const PREFIX: &str = "inputs/";

    /// Prefix of the key of a picture of which an earlier copy was removed at this count of
    /// removals; 0: none was.
    #[must_use]
    pub fn prefix(mark: u64) -> String {
        match mark {
            0 => Self::PREFIX.to_owned(),
            mark => format!("{}{mark}/", Self::PREFIX),
        }
    }

    /// Its artifact.
    #[must_use]
    pub fn artifact(&self) -> ArtifactRef {
        let sent = Canonical { sha256: self.sha256, size: self.size };
        let Canonical { sha256, size } = self.canonical.unwrap_or(sent);
        let prefix = Self::prefix(self.mark);
        let key = format!("{prefix}{sha256}.{}", darkroom_artifacts::picture::EXTENSION);
        ArtifactRef { key, sha256, size }
    }
}

/// Parts of a prompt besides its text and negative text; usually empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Text of the super-resolution stages as the user wrote it, if it is not the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// The picture that its images start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ArtifactRef>,
    /// The mask of the part to paint anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<ArtifactRef>,
}

/// A prepared text and its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedText {
    /// See `darkroom_core::prompt::text_digest` and `sealed_text_digest`.
    pub digest: Digest,
    /// The text for the tokenizer.
    pub prepared: String,
}

/// A prompt to record.
#[derive(Clone, Debug)]
pub struct NewPrompt {
    /// 0-based position in the job.
    pub position: u64,
    /// As the user wrote it.
    pub text: String,
    /// As the user wrote it; empty: none.
    pub negative: String,
    /// Index of its first image.
    pub first_index: u64,
    /// Number of its images.
    pub images: u32,
    /// Seed of its first image. Each next image has the next number; after 2⁶⁴ − 1 comes 0.
    pub first_seed: u64,
    /// The text to encode.
    pub text_embedding: PreparedText,
    /// The negative text to encode, if a stage is guided.
    pub negative_embedding: Option<PreparedText>,
    /// The style to encode, if there is one.
    pub style_embedding: Option<PreparedText>,
    /// Its other parts.
    pub extras: Extras,
    /// The client's names for it.
    pub naming: Naming,
    /// Notes for its user about its pictures.
    pub remarks: Vec<Remark>,
    /// Its own settings; `None`: its job's.
    pub variant: Option<Variant>,
}

/// Settings of prompts that differ from their job's. Prompts of a job with equal settings share
/// one.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Number of the variant in its job, counted from 1.
    pub number: u32,
    /// The settings with every default filled in. They begin with the job's first stage.
    pub settings: Arc<Settings>,
}

/// A note about a picture or mask that a prompt names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Whether it is about the mask.
    pub of_mask: bool,
    /// Words that follow the name, such as "is 8x8, smaller than 64x64: it is enlarged".
    pub text: String,
}

impl NewPrompt {
    /// The texts that its images wait for.
    pub(in crate::store) fn texts(&self) -> impl Iterator<Item = &PreparedText> {
        [
            Some(&self.text_embedding),
            self.negative_embedding.as_ref(),
            self.style_embedding.as_ref(),
        ]
        .into_iter()
        .flatten()
    }

    /// Its other parts as JSON; `None` if there are none.
    pub(in crate::store) fn extras_json(&self) -> Result<Option<String>, Error> {
        if self.extras == Extras::default() {
            return Ok(None);
        }
        serde_json::to_string(&self.extras)
            .map(Some)
            .map_err(|error| Error::Corrupt(error.to_string()))
    }

    /// Its labels, as JSON; `None` for none.
    pub(in crate::store) fn labels_json(&self) -> Result<Option<String>, Error> {
        labels_json(&self.naming.labels)
    }
}

/// Labels as JSON; `None` for none.
pub(in crate::store) fn labels_json(
    labels: &BTreeMap<String, String>,
) -> Result<Option<String>, Error> {
    let labels = Some(labels).filter(|labels| !labels.is_empty());
    let json = labels.map(serde_json::to_string).transpose();
    json.map_err(|error| Error::Corrupt(error.to_string()))
}

/// Reads what [`labels_json`] wrote.
pub(in crate::store) fn labels_from_json(
    json: Option<&str>,
) -> Result<BTreeMap<String, String>, Error> {
    json.map_or(Ok(BTreeMap::new()), serde_json::from_str)
        .map_err(|error: serde_json::Error| Error::Corrupt(error.to_string()))
}

/// A prompt's names from its columns; labels as [`NewPrompt::labels_json`] wrote them.
pub(in crate::store) fn naming(
    custom_id: Option<String>,
    labels: Option<&str>,
    line: Option<i64>,
) -> Result<Naming, Error> {
    Ok(Naming {
        custom_id,
        labels: labels_from_json(labels)?,
        line: line
            .map(u64::try_from)
            .transpose()
            .map_err(|error| Error::Corrupt(error.to_string()))?,
    })
}

impl Extras {
    /// Reads what [`NewPrompt::extras_json`] wrote.
    pub(in crate::store) fn from_json(json: Option<&str>) -> Result<Self, Error> {
        json.map_or(Ok(Self::default()), serde_json::from_str)
            .map_err(|error| Error::Corrupt(error.to_string()))
    }
}
