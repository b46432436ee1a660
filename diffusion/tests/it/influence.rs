//! A change of one per cent in any single tensor of a network fails the check of a trace. This
//! tests each tensor of each network in the fixtures in turn. Tensors that cannot have an influence
//! are listed with the reason, and shown to have none even when doubled.

use std::collections::BTreeMap;
use std::path::Path;

use darkroom_diffusion::trace::{CheckOptions, TraceReport, check};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tempfile::TempDir;

use super::fixture;

/// Suffixes of the names of tensors without influence, and the reason.
type Idle<'a> = &'a [(&'a str, &'a str)];

/// A softmax does not change if the same number is added to every score of a query, and a bias of
/// all keys does just that.
const SOFTMAX: &str =
    "a bias of all keys moves every score of a query alike, which a softmax does not see";
const UNUSED: &str = "no layer of this network attends to text";

/// A writable part of a cascade, and its weights in f32.
struct Part {
    folder: TempDir,
    /// The one file of all its weights, below the folder.
    file: &'static str,
    trace: &'static str,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Part {
    /// `own` is what is copied: copying files that the trace does not need would cost time for
    /// every tensor.
    fn copy(cascade: &str, own: &[&str], file: &'static str, trace: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in own.iter().chain([&trace, &"text_encoder.trace.safetensors"]) {
            copy_all(&fixture(cascade).join(name), &folder.path().join(name));
        }
        let path = folder.path().join(file);
        let mut tensors = BTreeMap::new();
        for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
            let shard = entry.unwrap().path();
            if shard.extension().is_none_or(|extension| extension != "safetensors") {
                continue;
            }
            let bytes = std::fs::read(&shard).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                tensors.insert(name, (view.shape().to_vec(), numbers(view.dtype(), view.data())));
            }
            std::fs::remove_file(shard).unwrap();
        }
        let index = path.with_extension("safetensors.index.json");
        if index.exists() {
            std::fs::remove_file(index).unwrap();
        }
        Self { folder, file, trace, tensors }
    }

    /// Writes the weights with the values of one tensor multiplied by `factor`. If they are zero,
    /// `factor` − 1 is added instead.
    fn write(&self, changed: &str, factor: f32) {
        let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let is_zero = values.iter().all(|value| *value == 0.0);
                let change = |value: &f32| match (name == changed, is_zero) {
                    (false, _) => *value,
                    (true, true) => factor - 1.0,
                    (true, false) => *value * factor,
                };
                (name, shape, values.iter().flat_map(|value| change(value).to_le_bytes()).collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap())
        });
        std::fs::write(
            self.folder.path().join(self.file),
            safetensors::serialize(views, None).unwrap(),
        )
        .unwrap();
    }

    fn check(&self) -> TraceReport {
        let trace = self.folder.path().join(self.trace);
        check(self.folder.path(), &[trace], CheckOptions::default()).unwrap().pop().unwrap()
    }

    fn every_tensor_counts(&self, idle: Idle<'_>) {
        self.write("", 1.0);
        let report = self.check();
        assert!(report.passed(), "{report:?}");
        let mut silent = Vec::new();
        let mut found = Vec::new();
        for name in self.tensors.keys() {
            let reason = idle.iter().find(|(end, _)| name.ends_with(end));
            found.extend(reason.map(|(end, _)| *end));
            self.write(name, if reason.is_some() { 2.0 } else { 1.01 });
            let passed = self.check().passed();
            if passed != reason.is_some() {
                silent.push(name);
            }
        }
        assert!(silent.is_empty(), "of {}, not as expected: {silent:?}", self.tensors.len());
        assert!(idle.iter().all(|(end, _)| found.contains(end)), "{found:?}");
    }
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    match dtype {
        Dtype::F32 => {
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
        }
        Dtype::F16 => {
            bytes.chunks_exact(2).map(|pair| f16::from_bits(half(pair)).to_f32()).collect()
        }
        Dtype::BF16 => {
            bytes.chunks_exact(2).map(|pair| bf16::from_bits(half(pair)).to_f32()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy_all(&entry.path(), &to.join(entry.file_name()));
        }
    } else if !to.exists() {
        std::fs::copy(from, to).unwrap();
    }
}

#[test]
fn one_per_cent_off_in_any_tensor_of_a_small_unet_fails() {
    let file = "solver/unet/diffusion_pytorch_model.safetensors";
    Part::copy("odd", &["solver"], file, "solver.dpmsolver++-mask.trace.safetensors")
        .every_tensor_counts(&[]);
}

#[test]
fn one_per_cent_off_in_any_tensor_of_a_unet_without_attention_fails() {
    Part::copy(
        "odd",
        &["plain"],
        "plain/unet/diffusion_pytorch_model.safetensors",
        "plain.ddim.trace.safetensors",
    )
    .every_tensor_counts(&[
        ("encoder_hid_proj.weight", UNUSED),
        ("encoder_hid_proj.bias", UNUSED),
        ("add_embedding.pool.k_proj.bias", SOFTMAX),
    ]);
}

#[test]
fn one_per_cent_off_in_any_tensor_of_an_efficient_unet_fails() {
    Part::copy(
        "odd",
        &["efficient"],
        "efficient/unet/diffusion_pytorch_model.safetensors",
        "efficient.ddpm-mask.trace.safetensors",
    )
    .every_tensor_counts(&[]);
}

#[test]
fn one_per_cent_off_in_any_tensor_of_a_deep_unet_fails() {
    Part::copy(
        "deep",
        &["base"],
        "base/unet/diffusion_pytorch_model.safetensors",
        "base.ddpm.trace.safetensors",
    )
    .every_tensor_counts(&[("add_embedding.pool.k_proj.bias", SOFTMAX)]);
}

#[test]
fn one_per_cent_off_in_any_tensor_of_a_text_encoder_fails() {
    Part::copy(
        "deep",
        &["text_encoder", "tokenizer"],
        "text_encoder/model.safetensors",
        "text_encoder.trace.safetensors",
    )
    .every_tensor_counts(&[]);
}
