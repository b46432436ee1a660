//! Tests that the check can fail: each test breaks one thing in a copy of a cascade or a trace, and
//! expects a difference or an error that names it.

use std::collections::BTreeMap;
use std::path::Path;

use darkroom_diffusion::trace::{CheckOptions, TraceReport, check};
use safetensors::tensor::{SafeTensors, TensorView};
use tempfile::TempDir;

use super::fixture;

/// A copy of the example cascade that may be written to.
fn copy() -> TempDir {
    copy_of("example")
}

fn copy_of(cascade: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture(cascade), folder.path());
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::write(&target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn run(cascade: &Path, trace: &str) -> TraceReport {
    let mut reports = check(cascade, &[cascade.join(trace)], CheckOptions::default()).unwrap();
    reports.pop().unwrap()
}

fn failed_rows(report: &TraceReport) -> Vec<&str> {
    report.rows.iter().filter(|row| !row.pass).map(|row| row.name.as_str()).collect()
}

/// Adds `delta` to one value of a tensor of a safetensors file.
fn perturb(path: &Path, tensor: &str, delta: f32) {
    let bytes = std::fs::read(path).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut data: BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, view) in parsed.tensors() {
        data.insert(name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    }
    let (_, _, values) = data.get_mut(tensor).unwrap();
    let value = f32::from_le_bytes(values[..4].try_into().unwrap()) + delta;
    values[..4].copy_from_slice(&value.to_le_bytes());
    let views = data.iter().map(|(name, (dtype, shape, values))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), values).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, header.metadata().clone()).unwrap())
        .unwrap();
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.to_string_lossy());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn one_perturbed_weight_fails_the_forward_pass() {
    let cascade = copy();
    let weights = cascade.path().join("base/unet/diffusion_pytorch_model.safetensors");
    perturb(&weights, "mid_block.attentions.0.to_v.weight", 0.05);
    let report = run(cascade.path(), "base.ddim.trace.safetensors");
    assert!(!report.passed());
    assert!(failed_rows(&report).contains(&"model_output.step0"), "{report:?}");
}

#[test]
fn a_perturbed_text_encoder_fails_its_embeddings() {
    let cascade = copy();
    let weights = cascade.path().join("text_encoder/model.safetensors");
    perturb(&weights, "encoder.block.1.layer.1.DenseReluDense.wo.weight", 0.01);
    let report = run(cascade.path(), "text_encoder.trace.safetensors");
    assert_eq!(failed_rows(&report), ["embeddings", "negative.embeddings"]);
}

#[test]
fn a_changed_schedule_passes_the_forward_and_fails_the_run() {
    let cascade = copy();
    let scheduler = cascade.path().join("sr1/scheduler/scheduler_config.json");
    edit(&scheduler, "\"sample_max_value\": 1.0", "\"sample_max_value\": 1.5");
    let report = run(cascade.path(), "sr1.ddpm.trace.safetensors");
    assert!(!report.passed());
    assert!(!failed_rows(&report).contains(&"model_output.step0"), "{report:?}");
}

/// Replaces a text of the same length in a trace's header.
fn edit_header(trace: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(trace).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    std::fs::write(trace, bytes).unwrap();
}

#[test]
fn another_guidance_scale_fails_every_sample() {
    let cascade = copy();
    let trace = cascade.path().join("base.ddim.trace.safetensors");
    edit_header(&trace, "\"guidance_scale\":\"7.0\"", "\"guidance_scale\":\"6.0\"");
    let report = run(cascade.path(), "base.ddim.trace.safetensors");
    assert!(failed_rows(&report).contains(&"sample.step0"), "{report:?}");
    assert!(!failed_rows(&report).contains(&"model_output.step0"));
}

#[test]
fn another_guidance_schedule_or_thresholding_fails_where_it_counts() {
    let cascade = copy_of("odd");
    let other = |name: &str, from: &str, to: &str| {
        edit_header(&cascade.path().join(name), from, to);
        run(cascade.path(), name)
    };
    let report = other(
        "base.dpmsolver++-oscillating.trace.safetensors",
        "oscillating 2 1.5",
        "oscillating 3 1.5",
    );
    assert_eq!(failed_rows(&report).first(), Some(&"sample.step2"), "{report:?}");
    let report =
        other("base.ddpm-fast27.trace.safetensors", "timesteps 200 799", "timesteps 200 800");
    assert_eq!(failed_rows(&report).first(), Some(&"sample.step1"), "800 is outside: {report:?}");
    let report =
        other("base.ddim-dynamic.trace.safetensors", "dynamic 0.99 1.7", "dynamic 0.50 1.7");
    assert!(
        !report.passed() && !failed_rows(&report).contains(&"model_output.step0"),
        "{report:?}"
    );
    let trace = cascade.path().join("base.ddpm-leading.trace.safetensors");
    edit_header(&trace, "static 0.6", "statiC 0.6");
    let error = check(cascade.path(), &[trace], CheckOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`thresholding` is statiC 0.6"), "{error}");
}

#[test]
fn another_given_picture_mask_or_strength_fails_where_it_counts() {
    let cascade = copy_of("deep");
    let trace = |name: &str| cascade.path().join(name);
    perturb(&trace("base.ddpm-image.trace.safetensors"), "init_image", 0.1);
    let report = run(cascade.path(), "base.ddpm-image.trace.safetensors");
    assert!(failed_rows(&report).contains(&"sample.start"), "{report:?}");
    perturb(&trace("base.ddpm-mask.trace.safetensors"), "mask", 0.1);
    let report = run(cascade.path(), "base.ddpm-mask.trace.safetensors");
    assert!(failed_rows(&report).contains(&"sample.start"), "{report:?}");
    assert!(failed_rows(&report).contains(&"output"), "{report:?}");
    edit_header(
        &trace("sr.ddpm-mask.trace.safetensors"),
        "\"strength\":\"0.5\"",
        "\"strength\":\"0.9\"",
    );
    assert_eq!(failed_rows(&run(cascade.path(), "sr.ddpm-mask.trace.safetensors")), ["timesteps"]);
}

#[test]
fn a_task_that_does_not_fit_its_trace_is_refused() {
    let cascade = copy_of("deep");
    let refused = |name: &str, from: &str, to: &str| {
        let trace = cascade.path().join(name);
        edit_header(&trace, from, to);
        check(cascade.path(), &[trace], CheckOptions::default()).unwrap_err().to_string()
    };
    let error = refused(
        "base.ddpm-mask.trace.safetensors",
        "\"task\":\"inpainting\"",
        "\"task\":\"outpaint__\"",
    );
    assert!(error.contains("its task is outpaint__; accepted: text-to-image"), "{error}");
    let error = refused("base.ddpm-image.trace.safetensors", "\"strength\":", "\"strangth\":");
    assert!(error.contains("`task` and `strength` do not agree"), "{error}");
}

#[test]
fn another_spacing_fails_at_the_timesteps() {
    let cascade = copy();
    let scheduler = cascade.path().join("base/scheduler/scheduler_config.json");
    edit(&scheduler, "\"timestep_spacing\": \"leading\"", "\"timestep_spacing\": \"trailing\"");
    assert_eq!(failed_rows(&run(cascade.path(), "base.ddpm.trace.safetensors")), ["timesteps"]);
}

#[test]
fn another_noise_level_fails_at_the_conditioned_picture() {
    let cascade = copy();
    let scheduler = cascade.path().join("sr2/image_noising_scheduler/scheduler_config.json");
    edit(&scheduler, "squaredcos_cap_v2", "linear");
    let report = run(cascade.path(), "sr2.ddim.trace.safetensors");
    assert!(failed_rows(&report).contains(&"conditioned_low_res"), "{report:?}");
}

#[test]
fn a_velocity_with_a_variance_is_refused() {
    let cascade = copy();
    edit(
        &cascade.path().join("base/scheduler/scheduler_config.json"),
        "\"epsilon\"",
        "\"v_prediction\"",
    );
    let traces = [cascade.path().join("base.ddim.trace.safetensors")];
    let error = check(cascade.path(), &traces, CheckOptions::default()).unwrap_err().to_string();
    assert!(error.contains("prediction_type") && error.contains("v_prediction"), "{error}");
}

#[test]
fn a_file_that_is_no_trace_is_refused_by_name() {
    let weights = fixture("example/base/unet/diffusion_pytorch_model.safetensors");
    let error =
        check(&fixture("example"), &[weights], CheckOptions::default()).unwrap_err().to_string();
    assert!(error.contains("not a trace"), "{error}");
}

/// Replaces the whole metadata of a trace.
fn edit_metadata(trace: &Path, key: &str, value: &str) {
    let bytes = std::fs::read(trace).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    metadata.insert(key.to_owned(), value.to_owned());
    std::fs::write(trace, safetensors::serialize(parsed.tensors(), Some(metadata)).unwrap())
        .unwrap();
}

#[test]
fn a_trace_cannot_allow_what_it_likes() {
    let name = "base.ddim.trace.safetensors";
    let refused = |key: &str, value: &str| {
        let cascade = copy();
        let trace = cascade.path().join(name);
        edit_metadata(&trace, key, value);
        let error =
            check(cascade.path(), &[trace], CheckOptions::default()).unwrap_err().to_string();
        assert!(error.contains(&format!("its `{key}` is")), "{key} {value}: {error}");
    };
    for value in ["inf", "-inf", "NaN", "1e999", "1", "0.021", "-0.001", "1e30"] {
        refused("sensitivity", value);
    }
    refused("guidance_scale", "inf");
    refused("eta", "nan");
    refused("thresholding", "dynamic 0.9 inf");
    refused("guidance_schedule", "steps 0 NaN");

    for tensor in ["model_output.step0", "output", "noise.init"] {
        let cascade = copy();
        let trace = cascade.path().join(name);
        perturb(&trace, tensor, f32::INFINITY);
        let error =
            check(cascade.path(), &[trace], CheckOptions::default()).unwrap_err().to_string();
        assert!(error.contains(tensor) && error.contains("not finite"), "{error}");
    }
}

#[test]
fn a_network_that_rounding_moves_far_is_allowed_for() {
    // The reference in f32 is 2e-5 from itself in f64 (tools/reference/sensitive_fixture.py).
    let cascade = copy_of("sensitive");
    let name = "text_encoder.trace.safetensors";
    let row = || {
        let report = run(cascade.path(), name);
        report.rows.iter().find(|row| row.name == "negative.embeddings").unwrap().clone()
    };
    let before = row();
    assert!(before.pass, "{before:?}");
    // More than rounding: even a thousandth is noticed.
    perturb(&cascade.path().join(name), "negative.embeddings", 3e-3);
    let after = row();
    assert!(!after.pass && after.tolerance < 1e-3 && after.max_difference > 2e-3, "{after:?}");
}
