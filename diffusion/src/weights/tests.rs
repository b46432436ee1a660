//! Every way in which a weights file can be wrong, and the resulting error.

use std::collections::HashMap;
use std::path::PathBuf;

use darkroom_core::shown::shown_path;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use super::*;
use crate::engine::Engine;

const PLACEMENT: Placement = Placement::new(Engine::Cpu, Kind::Float);

fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.to_string(), TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None::<HashMap<String, String>>).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn folder(tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, tensors);
    (folder, path)
}

/// A sparse file: a header and this many bytes that take no space.
fn write_holes(path: &Path, header: &str, bytes: usize) {
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((8 + header.len() + bytes) as u64).unwrap();
}

fn open(folder: &TempDir) -> Result<Weights, LoadError> {
    Weights::open(folder.path(), "model", PLACEMENT)
}

#[test]
fn f32_f16_and_bf16_are_read_and_converted() {
    let halves =
        |bits: &[u16]| bits.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (folder, _) = folder(&[
        ("a", Dtype::F32, &[2], floats(&[1.5, -2.0])),
        (
            "b",
            Dtype::F16,
            &[2],
            halves(&[f16::from_f32(1.5).to_bits(), f16::from_f32(-2.0).to_bits()]),
        ),
        (
            "c",
            Dtype::BF16,
            &[2],
            halves(&[bf16::from_f32(1.5).to_bits(), bf16::from_f32(-2.0).to_bits()]),
        ),
    ]);
    let weights = open(&folder).unwrap();
    for name in ["a", "b", "c"] {
        let tensor = weights.take(name, &[2]).unwrap();
        assert_eq!(tensor.kind(), Kind::Float);
        assert_eq!(Vec::<f32>::try_from(tensor).unwrap(), [1.5, -2.0]);
    }
    assert_eq!(weights.parameters(), 6);
    weights.finish(|_| false).unwrap();
    let bf16_placement = Placement { kind: Kind::BFloat16, ..PLACEMENT };
    let weights = Weights::open(folder.path(), "model", bf16_placement).unwrap();
    assert_eq!(weights.take("a", &[2]).unwrap().kind(), Kind::BFloat16);
    assert_eq!(weights.take_f32("b", &[2]).unwrap().kind(), Kind::Float);
}

#[test]
fn a_missing_tensor_is_named_with_its_file() {
    let (folder, path) = folder(&[("a", Dtype::F32, &[1], floats(&[1.0]))]);
    let error = open(&folder).unwrap().take("conv_in.weight", &[1]).unwrap_err();
    assert_eq!(error.to_string(), format!("{} has no tensor `conv_in.weight`", shown_path(&path)));
    assert_eq!((error.code(), error.retryable()), ("weights-mismatch", false));
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let (folder, _) = folder(&[("a", Dtype::F32, &[2, 1], floats(&[1.0, 2.0]))]);
    let error = open(&folder).unwrap().take("a", &[1, 2]).unwrap_err().to_string();
    assert!(
        error.contains("`a`") && error.contains("[2, 1]") && error.contains("[1, 2]"),
        "{error}"
    );
}

#[test]
fn a_value_that_is_not_finite_is_found_in_every_format() {
    for (dtype, bytes) in [
        (Dtype::F32, floats(&[1.0, f32::NAN])),
        (Dtype::F32, floats(&[f32::NEG_INFINITY, 1.0])),
        (Dtype::F16, vec![0, 0, 0, 0x7c]),
        (Dtype::BF16, vec![0, 0, 0xc0, 0x7f]),
    ] {
        let (folder, _) = folder(&[("a", dtype, &[2], bytes)]);
        let error = open(&folder).unwrap().take("a", &[2]).unwrap_err();
        assert!(matches!(&error, LoadError::NonFinite { tensor, .. } if tensor == "a"), "{error}");
    }
}

#[test]
fn integers_are_no_weights() {
    let (folder, _) = folder(&[("a", Dtype::I32, &[1], vec![0; 4])]);
    assert!(matches!(open(&folder).unwrap().take("a", &[1]), Err(LoadError::Dtype { .. })));
}

#[test]
fn left_over_tensors_are_an_error_unless_expected() {
    let tensor = |name| (name, Dtype::F32, &[1_usize][..], floats(&[1.0]));
    let (folder, _) = folder(&[tensor("a"), tensor("lora.up"), tensor("decoder.x")]);
    let weights = open(&folder).unwrap();
    assert!(weights.take("a", &[1]).is_ok());
    let error = weights.finish(|name| name.starts_with("decoder.")).unwrap_err();
    assert!(
        matches!(&error, LoadError::Unexpected { tensor, count: 1, .. } if tensor == "lora.up"),
        "{error}"
    );
}

#[test]
fn a_truncated_or_foreign_file_is_one_clear_sentence() {
    let (folder, path) = folder(&[("a", Dtype::F32, &[64], floats(&[1.0; 64]))]);
    let whole = std::fs::read(&path).unwrap();
    for bytes in [
        &whole[..whole.len() - 1],
        &whole[..20],
        &whole[..3],
        b"",
        b"PK\x03\x04 this is a zip file, not that",
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = open(&folder).err().unwrap();
        assert!(matches!(error, LoadError::Corrupt { .. }), "{error:?}");
        let sentence = error.to_string();
        assert!(
            sentence.starts_with(&shown_path(&path)) && sentence.lines().count() == 1,
            "{sentence}"
        );
    }
}

#[test]
fn shards_are_found_by_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write(&path("m1.safetensors"), &[("a", Dtype::F32, &[1], floats(&[1.0]))]);
    write(&path("m2.safetensors"), &[("b", Dtype::F32, &[1], floats(&[2.0]))]);
    let index = |map: &str| {
        std::fs::write(path("model.safetensors.index.json"), format!("{{\"weight_map\":{map}}}"))
    };
    index(r#"{"a": "m1.safetensors", "b": "m2.safetensors"}"#).unwrap();
    let weights = open(&folder).unwrap();
    assert!(weights.take("a", &[1]).is_ok() && weights.take("b", &[1]).is_ok());
    index(r#"{"a": "m1.safetensors", "c": "m2.safetensors"}"#).unwrap();
    assert!(matches!(open(&folder), Err(LoadError::Missing { tensor, .. }) if tensor == "c"));
    index(r#"{"a": "../m1.safetensors"}"#).unwrap();
    assert!(matches!(open(&folder), Err(LoadError::Config { .. })));
    index(r#"{"a": "absent.safetensors"}"#).unwrap();
    assert!(matches!(open(&folder), Err(LoadError::Read { .. })));
}

#[test]
fn a_published_variant_is_taken_where_there_is_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    assert!(open(&folder).err().unwrap().to_string().contains("model.safetensors"));
    write(&folder.path().join("model.fp16.safetensors"), &[("a", Dtype::F16, &[1], vec![0, 0])]);
    assert!(open(&folder).unwrap().take("a", &[1]).is_ok());
}

#[test]
fn weights_may_grow_up_to_two_gibibytes_in_the_networks_format() {
    // 1.2 GiB in bf16, 2.4 in f32; a sparse file.
    let (folder, path) = folder(&[]);
    let numbers = 600 << 20;
    let header = format!(
        r#"{{"a":{{"dtype":"BF16","shape":[{numbers}],"data_offsets":[0,{}]}}}}"#,
        2 * numbers
    );
    write_holes(&path, &header, 2 * numbers);
    let may_grow = |kind| {
        let placement = Placement { kind, ..PLACEMENT };
        Weights::open(folder.path(), "model", placement).unwrap().may_grow()
    };
    assert_eq!((may_grow(Kind::BFloat16), may_grow(Kind::Float)), (true, false));
}

#[test]
fn a_survey_counts_what_wide_convolutions_grow_by() {
    let tensor = |shape: &[usize]| vec![0; 2 * shape.iter().product::<usize>()];
    let shapes: [(&str, [usize; 4]); 4] = [
        ("wide", [64, 72, 3, 3]),
        ("few", [3, 64, 3, 3]),
        ("narrow", [64, 32, 3, 3]),
        ("single", [64, 64, 1, 1]),
    ];
    let tensors: Vec<_> = shapes
        .iter()
        .map(|(name, shape)| (*name, Dtype::BF16, &shape[..], tensor(shape)))
        .collect();
    let (folder, _) = folder(&tensors);
    let weights = Weights::survey(folder.path(), "model", None).unwrap();
    // Taken twice, like a layer that two parts share, but counted once.
    for (name, shape) in shapes.iter().chain(&shapes[..1]) {
        let _ = weights.take_channels_last(name, shape).unwrap();
    }
    let survey = weights.describe();
    let all: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    for (kind, bytes) in [(Kind::BFloat16, 2), (Kind::Float, 4)] {
        let packed = |engine| survey.packed(Placement::new(engine, kind));
        let grown = 64 * 72 * 16 + all - 64 * 72 * 9;
        assert_eq!(
            (packed(Engine::Cpu), packed(Engine::CpuKernels)),
            ((all * bytes) as u64, (grown * bytes) as u64)
        );
        let bf16 = kind == Kind::BFloat16;
        let here = packed(Engine::of_this_cpu());
        assert_eq!(
            (survey.memory(bf16), survey.memory_on_this_cpu(bf16)),
            (packed(Engine::Cpu), here)
        );
    }
}

#[test]
fn networks_added_up_grow_as_each_does_alone() {
    // 1.2 GiB in bf16 each, 2.4 together; sparse files.
    let numbers = 600 << 20;
    let rest = numbers - 64 * 64 * 9;
    let tensor = |name: &str, shape: &str, from: usize, to: usize| {
        format!(r#""{name}":{{"dtype":"BF16","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let first = tensor("rest", &format!("[{rest}]"), 0, 2 * rest);
    let header = format!("{{{first},{}}}", tensor("wide", "[64,64,3,3]", 2 * rest, 2 * numbers));
    let (folder, path) = folder(&[]);
    write_holes(&path, &header, 2 * numbers);
    let weights = Weights::survey(folder.path(), "model", None).unwrap();
    let _ = weights.take_channels_last("wide", &[64, 64, 3, 3]).unwrap();
    let alone = weights.describe();
    let both = alone.clone().and(&alone);
    let grows_by = |survey: &WeightsSurvey, kind| {
        let packed = |engine| survey.packed(Placement::new(engine, kind));
        packed(Engine::CpuKernels) - packed(Engine::Cpu)
    };
    let added = 64 * 64 * 7 * 2;
    assert_eq!(
        (grows_by(&alone, Kind::BFloat16), grows_by(&both, Kind::BFloat16)),
        (added, 2 * added)
    );
    assert_eq!((grows_by(&alone, Kind::Float), grows_by(&both, Kind::Float)), (0, 0));
}

#[test]
fn weights_that_are_cut_short_while_they_load_fail_to_load_and_harm_nothing_else() {
    let (folder, path) = folder(&[]);
    let numbers = 3 * PIECE / 4;
    let header = format!(
        r#"{{"a":{{"dtype":"F32","shape":[{numbers}],"data_offsets":[0,{}]}}}}"#,
        3 * PIECE
    );
    let cut = |length: usize| {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length as u64).unwrap();
    };
    for left in [0, 4, 100, 4096, PIECE, 2 * PIECE + 1] {
        write_holes(&path, &header, 3 * PIECE);
        let weights = open(&folder).unwrap();
        cut(left);
        let error = weights.take("a", &[numbers]).err().unwrap();
        assert_eq!(error.code(), "weights-corrupt");
        assert!(error.to_string().contains("cut short while it was read"), "{left}: {error}");
    }

    write_holes(&path, &header, 3 * PIECE);
    let (mut pieces, mut read) = (0, 0);
    let scanned = scan(&path, &mut |bytes| {
        pieces += 1;
        read += bytes.len();
        // The header is the first.
        if pieces == 2 {
            cut(PIECE);
        }
    });
    let error = scanned.err().unwrap();
    assert!(error.to_string().contains("cut short while it was read"), "{error}");
    assert!(read < 2 * PIECE, "{read} bytes");
}

#[test]
fn weights_that_are_rewritten_while_they_load_are_checked_as_they_are_used() {
    let (folder, path) = folder(&[("a", Dtype::F32, &[2], floats(&[1.0, 2.0]))]);
    let weights = open(&folder).unwrap();
    write(&path, &[("a", Dtype::F32, &[2], floats(&[1.0, f32::NAN]))]);
    let error = weights.take("a", &[2]).err().unwrap();
    assert_eq!(error.code(), "weights-not-finite", "{error}");
}

#[test]
fn a_row_larger_than_a_piece_is_read_too() {
    let (folder, path) = folder(&[]);
    let numbers = PIECE / 4 + 5;
    let header = format!(
        r#"{{"a":{{"dtype":"F32","shape":[2,{numbers}],"data_offsets":[0,{}]}}}}"#,
        8 * numbers
    );
    write_holes(&path, &header, 8 * numbers);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let last = (8 + header.len() + 8 * numbers - 4) as u64;
    std::os::unix::fs::FileExt::write_all_at(&file, &2.5_f32.to_le_bytes(), last).unwrap();
    let tensor = open(&folder).unwrap().take("a", &[2, numbers]).unwrap();
    assert_eq!(tensor.double_value(&[1, numbers as i64 - 1]), 2.5);
    assert_eq!(tensor.double_value(&[1, 0]), 0.0);
}
