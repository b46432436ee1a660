//! A process's environment: settings that change bits also change the class of device. With the
//! narrower instruction sets that some settings choose, this crate still computes the same as the
//! reference.

use std::collections::BTreeMap;
use std::process::Command;

use darkroom_diffusion::trace::{CheckOptions, TraceReport, check};
use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, LoadOptions, RowInput, Sampler, SamplerSettings, Sampling,
    StageModel, TextEncoder,
};

use super::fixture;

/// Tells a child process what to do; without it the child's test does nothing.
const CHILD: &str = "DARKROOM_TEST_CHILD";

/// Runs one test of this binary in a separate process with its own environment, and returns what it
/// printed after `marker`.
fn child(test: &str, variables: &[(&str, &str)], marker: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    // The machine's own settings must not hide the tested ones.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["ONEDNN_", "DNNL_", "MKL_", "ATEN_"].iter().any(|begin| text.starts_with(begin)) {
            command.env_remove(name);
        }
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{variables:?}: {printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line =
        printed.lines().find_map(|line| line.split_once(marker)).map(|(_, rest)| rest.to_owned());
    line.unwrap_or_else(|| panic!("{test} printed nothing behind {marker}: {printed}"))
}

fn options() -> LoadOptions {
    LoadOptions {
        device: DeviceChoice::Cpu,
        dtype: DtypeChoice::F32,
        libtorch_only: true,
        threads: Some(1),
        ..LoadOptions::default()
    }
}

/// A picture and an embedding computed with libtorch's operations, as a sum of their bits, and the
/// classes of both.
fn rendered() -> String {
    let encoder = fixture("deep/text_encoder");
    let encoder = TextEncoder::load(&encoder, &fixture("deep/tokenizer"), 14, &options()).unwrap();
    let text = encoder.encode(&["a green square in the snow"]).unwrap().remove(0).embedding;
    let stage = StageModel::load(&fixture("deep/base"), "base", &options()).unwrap();
    let settings =
        SamplerSettings { sampling: Sampling::plain(Sampler::Ddim, 2), width: 24, height: 24 };
    let row = RowInput {
        text: text.clone(),
        negative: None,
        low_res: None,
        init_image: None,
        mask: None,
        seed: 7,
    };
    let picture =
        stage.render(&settings, &[row], &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let bits =
        text.data.iter().chain(&picture[0].data).fold(0xcbf2_9ce4_8422_2325_u64, |sum, value| {
            (sum ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{bits:016x} {} {}", stage.row_class(), encoder.row_class())
}

#[test]
fn child_tells_bits_and_classes() {
    if std::env::var_os(CHILD).is_some() {
        println!("told: {}", rendered());
    }
}

#[test]
fn bits_that_differ_are_of_classes_that_differ() {
    let tell = |variables: &[(&str, &str)]| {
        let told = child("surroundings::child_tells_bits_and_classes", variables, "told: ");
        let (bits, classes) = told.split_once(' ').unwrap();
        (bits.to_owned(), classes.to_owned())
    };
    let mut by_class: BTreeMap<String, String> = BTreeMap::new();
    let mut bits = Vec::new();
    for (variables, changes_the_class) in [
        (&[][..], false),
        (&[("ONEDNN_MAX_CPU_ISA", "AVX2")], true),
        (&[("DNNL_MAX_CPU_ISA", "AVX2")], true),
        (&[("ATEN_CPU_CAPABILITY", "avx2")], true),
        (&[("ATEN_CPU_CAPABILITY", "default")], true),
        (&[("MKL_CBWR", "COMPATIBLE")], true),
        (&[("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")], true),
        (&[("ONEDNN_VERBOSE", "0")], false),
    ] {
        let (found, class) = tell(variables);
        assert_eq!(
            class.contains("CPU") || class.contains("MKL") || class.contains("FPMATH"),
            changes_the_class,
            "{class}"
        );
        let known = by_class.entry(class.clone()).or_insert_with(|| found.clone());
        assert_eq!(*known, found, "other bits in the class {class}");
        bits.push(found);
    }
    bits.sort();
    bits.dedup();
    if cfg!(target_arch = "x86_64") {
        assert!(bits.len() > 1, "none of the settings changed a bit: the test shows nothing");
    }
    assert!(by_class.keys().all(|class| class.contains("/libtorch=")), "{by_class:?}");
}

/// Replays four traces, and tells how many and the class of device of the networks.
fn replay(libtorch_only: bool) {
    let cascade = fixture("deep");
    let traces = ["text_encoder", "base.ddpm", "sr.ddim", "efficient.ddpm"]
        .map(|name| cascade.join(format!("{name}.trace.safetensors")));
    let check_options = CheckOptions { libtorch_only, ..CheckOptions::default() };
    let reports = check(&cascade, &traces, check_options).unwrap();
    assert!(reports.iter().all(TraceReport::passed), "{reports:?}");
    let load = LoadOptions { libtorch_only, ..options() };
    let stage = StageModel::load(&cascade.join("base"), "base", &load).unwrap();
    println!("replayed: {} {}", reports.len(), stage.row_class());
}

#[test]
fn child_replays_traces_on_libtorch_alone() {
    if std::env::var_os(CHILD).is_some() {
        replay(true);
    }
}

#[test]
fn child_replays_traces() {
    if std::env::var_os(CHILD).is_some() {
        replay(false);
    }
}

#[test]
fn the_instruction_sets_of_older_cpus_compute_what_the_reference_does() {
    for variables in [
        &[("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2")][..],
        &[
            ("ATEN_CPU_CAPABILITY", "default"),
            ("ONEDNN_MAX_CPU_ISA", "SSE41"),
            ("MKL_CBWR", "COMPATIBLE"),
        ],
    ] {
        let replayed =
            child("surroundings::child_replays_traces_on_libtorch_alone", variables, "replayed: ");
        assert!(replayed.starts_with("4 "), "{variables:?}: {replayed}");
    }
}

/// The kernels for AVX2, also on CPUs that have more; and none with less.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernels_for_older_cpus_compute_what_the_reference_does() {
    let has_avx2 =
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
    for (capability, kernels) in [("avx2", has_avx2), ("default", false)] {
        let variables = [("ATEN_CPU_CAPABILITY", capability)];
        let replayed = child("surroundings::child_replays_traces", &variables, "replayed: ");
        assert!(replayed.starts_with("4 "), "{capability}: {replayed}");
        assert_eq!(replayed.contains("/kernels="), kernels, "{capability}: {replayed}");
        assert_eq!(replayed.ends_with("/images=any"), kernels, "{capability}: {replayed}");
    }
}
