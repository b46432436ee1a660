//! Compares the digests that name stored work with constants. If a digest changed, work that was
//! rendered before would not be found again, and coordinators of two versions would disagree about
//! what a task is.
//!
//! The constants were computed before `Sampling` was one struct. They may only change with a new
//! domain name (`cascade/2`, `task/1`).

use std::collections::BTreeMap;

use darkroom_core::{
    cascade::{Cascade, CascadeSpec},
    digest::{Digest, FieldHasher},
    settings::{Settings, SettingsRequest, StageRequest},
};

const CASCADE: &str = r#"
format = 1
name = "pinned"
description = "no part of a digest"
[encoder]
folder = "text_encoder"
tokenizer = "tokenizer"
max_length = 20
[[stages]]
name = "base"
folder = "base"
size = 16
sampler = "ddpm"
preset = "fast27"
guidance_scale = 7.5
guidance_schedule = "12.5%..87.5%"
thresholding = "dynamic:99.5:1.5"
cache_interval = 3
size_multiple = 8
[[stages]]
name = "middle"
folder = "middle"
size = 32
sampler = "ddim"
steps = 8
spacing = "trailing"
eta = 0.25
guidance_scale = 2.0
noise_level = 9
[[stages]]
name = "last"
folder = "last"
size = 64
sampler = "sde-dpmsolver++"
timesteps = [900, 500, 100]
guidance_scale = 1.0
noise_level = 0
"#;

fn cascade() -> Cascade {
    let files: BTreeMap<String, Digest> = [
        "base/unet/w",
        "last/unet/w",
        "middle/unet/w",
        "text_encoder/w",
        "tokenizer/tokenizer.json",
    ]
    .map(|path| (path.to_owned(), Digest::of(path.as_bytes())))
    .into();
    Cascade { spec: CascadeSpec::parse(CASCADE).expect("valid"), files }
}

fn settings(stages: Vec<StageRequest>) -> Settings {
    let request = SettingsRequest { stages, ..SettingsRequest::default() };
    Settings::resolve(&request, &cascade().spec).expect("valid")
}

/// Every setting that can be requested, none at its default.
fn unusual() -> Settings {
    let text = |text: &str| Some(text.to_owned());
    let base = StageRequest {
        stage: "base".to_owned(),
        sampler: text("ddim"),
        steps: Some(11),
        spacing: text("linspace"),
        eta: Some(0.1),
        guidance_scale: Some(3.3),
        guidance_schedule: text("200..800"),
        thresholding: text("static:0.75"),
        strength: Some(0.55),
        cache_interval: Some(2),
        ..StageRequest::default()
    };
    let middle = StageRequest {
        stage: "middle".to_owned(),
        sampler: text("dpmsolver++"),
        preset: text("super27"),
        guidance_schedule: text("oscillating:5:1.1"),
        thresholding: text("off"),
        noise_level: Some(123),
        ..StageRequest::default()
    };
    let request = SettingsRequest {
        start: "picture".to_owned(),
        fit: "pad".to_owned(),
        size: 64,
        width: 64,
        height: 32,
        stages: vec![base, middle],
        ..SettingsRequest::default()
    };
    Settings::resolve(&request, &cascade().spec).expect("valid")
}

fn digests(settings: &Settings) -> Vec<String> {
    settings
        .stages
        .iter()
        .map(|stage| stage.hash(FieldHasher::new("pinned")).finish().short())
        .collect()
}

#[test]
fn a_cascades_digests_are_as_they_were() {
    let cascade = cascade();
    assert_eq!(
        cascade.digest().to_string(),
        "b726707ce79677d93f2db05a3b934c0222d5ef32a9ac66c4bf906af76cc9570d"
    );
    assert_eq!(cascade.encoder_digest().short(), "ef898803ea73");
    let stages = [0, 1, 2].map(|position| cascade.stage_digest(position).short());
    assert_eq!(stages, ["a314ad3e5740", "c5791c05f046", "e53a9d1ff406"]);
}

#[test]
fn digests_of_settings_are_as_they_were() {
    assert_eq!(digests(&settings(Vec::new())), ["bac575163a16", "af9f74c2ece2", "1e29c6d7e84a"]);
    assert_eq!(digests(&unusual()), ["aab97dffa7a9", "6a465c7bab90", "3463ff1dfaea"]);
}

/// The text that the digest is computed from.
#[test]
fn settings_are_written_as_they_were_and_read_back() {
    let settings = unusual();
    let written = serde_json::to_string(&settings.stages[0]).expect("writes");
    assert_eq!(
        written,
        r#"{"stage":"base","size":16,"extent":{"width":16,"height":8},"sampler":"ddim","steps":11,"spacing":"linspace","eta":0.1,"guidance_scale":3.3,"guidance_schedule":"200..800","thresholding":"static:0.75","noise_level":null,"strength":0.55,"cache_interval":2}"#
    );
    let written = serde_json::to_string(&settings).expect("writes");
    assert_eq!(serde_json::from_str::<Settings>(&written).expect("reads"), settings);
}

/// Settings from a database or a queue are not filled in with defaults where a value is missing,
/// and a value that this version does not know is not dropped. Either would give another picture
/// under the same digest.
#[test]
fn settings_that_lack_a_value_or_have_one_too_many_are_refused() {
    use darkroom_core::settings::StageSettings;
    let whole = r#"{"stage":"base","size":16,"sampler":"ddim","steps":11,"guidance_scale":3.3,"noise_level":null}"#;
    serde_json::from_str::<StageSettings>(whole).expect("reads");
    for (from, to) in [
        (r#""stage":"base","#, ""),
        (r#""size":16,"#, ""),
        (r#""sampler":"ddim","#, ""),
        (r#""steps":11,"#, ""),
        (r#""guidance_scale":3.3,"#, ""),
        (r#""steps":11"#, r#""steps":11,"colour":3"#),
        (r#""steps":11"#, r#""steps":-1"#),
        (r#""sampler":"ddim""#, r#""sampler":"euler""#),
    ] {
        let text = whole.replacen(from, to, 1);
        assert_ne!(text, whole);
        serde_json::from_str::<StageSettings>(&text).expect_err(&text);
    }
}
