//! Replays recorded runs of the reference libraries: this crate must compute the same.

use std::path::{Path, PathBuf};

use darkroom_diffusion::trace::{CheckOptions, TraceReport, check};

use super::fixture;

fn traces_of(cascade: &Path) -> Vec<PathBuf> {
    let mut traces: Vec<PathBuf> = std::fs::read_dir(cascade)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".trace.safetensors"))
        .collect();
    traces.sort();
    traces
}

fn table(reports: &[TraceReport]) -> String {
    let mut lines = Vec::new();
    for report in reports {
        lines.push(format!("{}", report.trace.file_name().unwrap().to_string_lossy()));
        for row in &report.rows {
            let verdict = if row.pass { "pass" } else { "FAIL" };
            lines.push(format!(
                "  {verdict} {:24} {:?} {:.2e} of {:.2e}",
                row.name, row.shape, row.max_difference, row.tolerance
            ));
        }
    }
    lines.join("\n")
}

fn passes(cascade: &str) {
    let folder = fixture(cascade);
    let traces = traces_of(&folder);
    assert!(!traces.is_empty());
    let reports = check(&folder, &traces, CheckOptions::default()).unwrap();
    println!("{}", table(&reports));
    assert!(reports.iter().all(TraceReport::passed), "{}", table(&reports));
}

#[test]
fn the_example_cascade_computes_what_the_reference_does() {
    passes("example");
}

#[test]
fn deeper_networks_and_other_samplers_settings_compute_what_the_reference_does() {
    passes("deep");
}

#[test]
fn every_other_option_computes_what_the_reference_does() {
    passes("odd");
}

#[test]
fn a_text_encoder_that_rounding_moves_far_computes_what_the_reference_does() {
    passes("sensitive");
}
