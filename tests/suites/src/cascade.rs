//! The small cascade for tests that need any cascade. It has no weights.
//!
//! Programs that run with the fake renderer use `tests/cascades/tiny` instead, whose pictures have
//! only a few pixels.

use std::collections::BTreeMap;

use darkroom_core::{
    cascade::{Cascade, CascadeSpec},
    digest::Digest,
    id::StageName,
};
use darkroom_queue::task::PoolId;

/// The names of its stages, in order.
pub const STAGES: [&str; 3] = ["base", "sr256", "sr1024"];

/// Its `cascade.toml`.
pub const TOML: &str = r#"
    format = 1
    name = "tiny"
    [encoder]
    folder = "text_encoder"
    tokenizer = "tokenizer"
    max_length = 20
    [[stages]]
    name = "base"
    folder = "base"
    size = 64
    sampler = "ddim"
    steps = 4
    guidance_scale = 3.0
    [[stages]]
    name = "sr256"
    folder = "sr256"
    size = 256
    sampler = "ddpm"
    steps = 2
    guidance_scale = 1.0
    noise_level = 50
    [[stages]]
    name = "sr1024"
    folder = "sr1024"
    size = 1024
    sampler = "ddpm"
    steps = 2
    guidance_scale = 1.0
    noise_level = 50
"#;

/// The spec of the cascade, with only its first `stages` stages (1 to 3).
///
/// # Panics
/// If `stages` is not 1 to 3.
#[must_use]
pub fn spec(stages: usize) -> CascadeSpec {
    assert!((1..=STAGES.len()).contains(&stages), "{stages} stages; accepted: 1 to 3");
    let mut spec = CascadeSpec::parse(TOML).expect("it is valid");
    spec.stages.truncate(stages);
    spec
}

/// The cascade with only its first `stages` stages (1 to 3), and without files.
///
/// # Panics
/// If `stages` is not 1 to 3.
#[must_use]
pub fn without_files(stages: usize) -> Cascade {
    Cascade { spec: spec(stages), files: BTreeMap::new() }
}

/// The cascade with only its first `stages` stages (1 to 3), and one file, of which only the hash
/// is known.
///
/// # Panics
/// If `stages` is not 1 to 3.
#[must_use]
pub fn with_a_file(stages: usize) -> Cascade {
    Cascade { files: [("base/w".to_owned(), Digest::of(b"w"))].into(), ..without_files(stages) }
}

/// The pool of a cascade's stage. The pool of `encode` belongs to the cascade's encoder.
///
/// # Panics
/// If `stage` is not a valid name of a stage.
#[must_use]
pub fn pool(cascade: &Cascade, stage: &str) -> PoolId {
    let stage = StageName::try_from(stage.to_owned()).expect("a stage's name");
    let digest = if stage.is_encode() { cascade.encoder_digest() } else { cascade.digest() };
    PoolId { stage, digest }
}
