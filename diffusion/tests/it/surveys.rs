//! A survey of the headers agrees with what loading finds.

use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, LoadOptions, StageModel, StageSurvey, TextEncoder, scan_weights,
};

use super::fixture;

fn options(dtype: DtypeChoice) -> LoadOptions {
    LoadOptions { device: DeviceChoice::Cpu, dtype, ..LoadOptions::default() }
}

#[test]
fn a_survey_knows_what_loading_finds() {
    for stage in [
        "example/base",
        "example/sr1",
        "deep/base",
        "deep/sr",
        "deep/efficient",
        "odd/base",
        "odd/plain",
        "odd/efficient",
        "hub/if-i",
        "hub/if-ii",
    ] {
        let folder = fixture(stage);
        let survey = StageSurvey::read(&folder, None).unwrap();
        let loaded =
            StageModel::load(&folder, "base", &options(DtypeChoice::F32)).unwrap().describe();
        assert_eq!(survey.weights.parameters, loaded.parameters, "{stage}");
        assert_eq!(
            (survey.class, survey.takes_low_res),
            (loaded.class, loaded.takes_low_res),
            "{stage}"
        );
        assert_eq!(survey.ignored_keys, loaded.ignored_keys, "{stage}");
        assert!(survey.unknown_keys.is_empty(), "{stage}: {:?}", survey.unknown_keys);
        let stored: u64 = survey.weights.stored.values().sum();
        let on_disk: u64 =
            survey.weights.files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(survey.weights.unused == 0 && stored <= on_disk, "{stage}");
        assert!(survey.weights.memory(true) < survey.weights.memory(false), "{stage}");
    }
    let folder = fixture("hub/if-i");
    let text =
        TextEncoder::survey(&folder.join("text_encoder"), &folder.join("tokenizer"), None).unwrap();
    assert_eq!((text.dimension, text.vocabulary, text.tokens), (8, 144, 142));
    assert_eq!(
        (text.weights.variant.as_str(), text.weights.files.len()),
        ("fp16", 3),
        "an index and two shards"
    );
}

#[test]
fn a_variant_in_shards_loads_as_the_whole_one_does() {
    let folder = fixture("hub/if-i");
    let plain = StageSurvey::read(&folder, None).unwrap().weights;
    let halves = StageSurvey::read(&folder, Some("fp16")).unwrap().weights;
    assert_eq!((plain.variant.as_str(), plain.files.len()), ("fp32", 4));
    assert_eq!((halves.variant.as_str(), halves.files.len()), ("fp16", 1));
    assert_eq!(plain.parameters, halves.parameters);
    assert_eq!(plain.stored["F32"], 2 * halves.stored["F16"]);
}

#[test]
fn a_scan_shows_every_byte_once_in_order() {
    let file = fixture("example/base/unet/diffusion_pytorch_model.safetensors");
    let mut seen = Vec::new();
    scan_weights(&file, &mut |bytes| seen.extend_from_slice(bytes)).unwrap();
    assert!(seen == std::fs::read(&file).unwrap());
}
