//! Jobs, prompts and outcomes for tests that use a store.

use std::collections::BTreeMap;

use darkroom_coordinator::store::{
    limits::Limits,
    records::{Extras, Input, NewJob, NewPrompt, PreparedText, Requested},
};
use darkroom_core::{
    artifact::ArtifactRef,
    cascade::Cascade,
    digest::Digest,
    extent::Extent,
    id::JobId,
    label::Naming,
    prompt::text_digest,
    settings::{Settings, SettingsRequest},
    sharing::Sharing,
};
use darkroom_queue::task::Outcome;
use uuid::Uuid;

/// A new job with the cascade's own settings.
///
/// # Panics
/// If the cascade's own settings are not valid.
#[must_use]
pub fn job(cascade: &Cascade) -> NewJob {
    NewJob {
        id: JobId(Uuid::now_v7()),
        tenant: "t".to_owned(),
        name: "name".to_owned(),
        labels: BTreeMap::new(),
        client_request_id: None,
        priority: 1,
        cascade: cascade.digest(),
        encoder: cascade.encoder_digest(),
        settings: Settings::resolve(&SettingsRequest::default(), &cascade.spec).expect("defaults"),
        requested: Requested::default(),
        seed: 0,
        limits: Limits::default(),
        no_reuse: false,
        sharing: Sharing::Shared,
    }
}

/// A text as the encoder with this digest gets it.
#[must_use]
pub fn text(encoder: &Digest, text: &str) -> PreparedText {
    PreparedText { digest: text_digest(encoder, text), prepared: text.to_owned() }
}

/// A prompt with this many images, at this position of a job whose prompts all have as many. The
/// seed of an image is its index.
#[must_use]
pub fn prompt(encoder: &Digest, position: u64, words: &str, images: u32) -> NewPrompt {
    let first_index = position * u64::from(images);
    NewPrompt {
        position,
        text: words.to_owned(),
        negative: String::new(),
        first_index,
        images,
        first_seed: first_index,
        text_embedding: text(encoder, words),
        negative_embedding: Some(text(encoder, "")),
        style_embedding: None,
        extras: Extras::default(),
        naming: Naming::default(),
        remarks: Vec::new(),
        variant: None,
    }
}

/// A stage's output of this name.
#[must_use]
pub fn done(name: &str) -> Outcome {
    let artifact =
        ArtifactRef { key: format!("tasks/{name}"), sha256: Digest::of(name.as_bytes()), size: 3 };
    Outcome::Done { artifact, notes: vec!["a note".to_owned()] }
}

pub(super) fn failed() -> Outcome {
    Outcome::Failed { code: "code".into(), message: "message".to_owned() }
}

/// An uploaded picture.
pub(super) fn input(name: &str) -> Input {
    let extent = Extent { width: 256, height: 128 };
    Input {
        sha256: Digest::of(name.as_bytes()),
        size: 9,
        canonical: None,
        extent,
        is_mask: name == "mask",
        orientation: 1,
        notes: Vec::new(),
        mark: 0,
    }
}
