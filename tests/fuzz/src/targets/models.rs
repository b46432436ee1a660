//! The files of a model's folder.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use darkroom_diffusion::{LoadError, StageSurvey, TextEncoder, Tokenizer, fuzzed, scan_weights};
use tempfile::TempDir;

use super::messages::Rough as _;
use crate::verdict::Verdict;

/// Texts that every tokenizer gets.
const TEXTS: [&str; 5] = [
    "",
    "a red circle above a blue square",
    "  two  blanks, <pad> </s> <unk> and \u{fb01}ne e\u{301} \u{ff76}\u{ff9e}",
    "狗🙂\u{200d}\u{e0041}\u{0}\t\r\n",
    "don't 1234 ..... \u{a0}\u{3000}",
];

/// The demo cascade.
fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

/// A folder with one file.
fn folder(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("a file");
    (folder, path)
}

/// A refusal names a path that differs in every run.
fn refused(error: &LoadError, folder: &TempDir, data: &[u8]) -> Verdict {
    let sentence = error.to_string().replace(&*folder.path().to_string_lossy(), "FOLDER");
    Verdict::refused(sentence, data)
}

/// The configuration of a network: its kind, a line for nothing, and the document.
pub(super) fn networks(data: &[u8]) -> Verdict {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let (kind, config) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    let (folder, path) = folder("config.json", config);
    let read = match kind {
        b"t5" => fuzzed::t5(&path),
        b"efficient" => fuzzed::efficient(&path),
        _ => fuzzed::unet(&path),
    };
    if let Err(error) = read {
        return refused(&error, &folder, data);
    }
    // With weights beside it, those of the demo cascade.
    let surveyed = match kind {
        b"t5" => surveyed_encoder(&folder, config),
        b"efficient" => surveyed_stage(&folder, "sr256", config),
        _ => surveyed_stage(&folder, "base", config),
    };
    match surveyed.expect("files") {
        Ok(parameters) => Verdict::accepted(format_args!("{parameters}")),
        Err(error) => refused(&error, &folder, data),
    }
}

fn surveyed_stage(
    folder: &TempDir,
    stage: &str,
    config: &[u8],
) -> io::Result<Result<usize, LoadError>> {
    let (from, to) = (demo().join(stage), folder.path().join("stage"));
    fs::create_dir_all(to.join("unet"))?;
    for part in ["scheduler", "image_noising_scheduler"] {
        if from.join(part).is_dir() {
            symlink(from.join(part).canonicalize()?, to.join(part))?;
        }
    }
    let weights = "unet/diffusion_pytorch_model.safetensors";
    symlink(from.join(weights).canonicalize()?, to.join(weights))?;
    fs::write(to.join("unet/config.json"), config)?;
    Ok(StageSurvey::read(&to, None).map(|survey| survey.weights.parameters))
}

fn surveyed_encoder(folder: &TempDir, config: &[u8]) -> io::Result<Result<usize, LoadError>> {
    let (from, to) = (demo().join("text_encoder"), folder.path().join("encoder"));
    fs::create_dir_all(&to)?;
    symlink(from.join("model.safetensors").canonicalize()?, to.join("model.safetensors"))?;
    fs::write(to.join("config.json"), config)?;
    let tokenizer = demo().join("tokenizer");
    Ok(TextEncoder::survey(&to, &tokenizer, None).map(|survey| survey.weights.parameters))
}

/// The configuration of a schedule.
pub(super) fn schedulers(data: &[u8]) -> Verdict {
    let (folder, path) = folder("scheduler_config.json", data);
    let steps = 1 + data.len() % 60;
    let read = match fuzzed::schedule(&path, steps) {
        Ok(read) => read,
        Err(error) => return refused(&error, &folder, data),
    };
    assert_eq!(read.alphas.len(), read.train);
    let falls = read.alphas.windows(2).all(|pair| pair[0] >= pair[1]);
    let shares = read.alphas.iter().all(|alpha| (0.0..=1.0).contains(alpha));
    assert!(falls && shares, "ᾱ is no falling share");
    for visited in &read.visited {
        match visited {
            Ok(times) => {
                assert_eq!(times.len(), steps);
                assert!(times.iter().all(|time| (*time as usize) < read.train), "{times:?}");
            }
            Err(sentence) => drop(Verdict::refused(sentence, data)),
        }
    }
    let visits: String =
        read.visited.iter().map(|one| if one.is_ok() { '1' } else { '0' }).collect();
    Verdict::accepted(format_args!("{} {visits}", read.train.ilog2_or_zero()))
}

/// A `tokenizer.json`.
pub(super) fn tokenizers(data: &[u8]) -> Verdict {
    tokenized("tokenizer.json", data)
}

/// A `spiece.model`.
pub(super) fn sentencepiece(data: &[u8]) -> Verdict {
    tokenized("spiece.model", data)
}

fn tokenized(name: &str, data: &[u8]) -> Verdict {
    let (folder, _) = folder(name, data);
    let length = if data.len().is_multiple_of(2) { Some(2 + data.len() % 30) } else { None };
    let tokenizer = match Tokenizer::load(folder.path(), length, 0) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return refused(&error, &folder, data),
    };
    let vocabulary = tokenizer.vocabulary();
    let mut shape = String::new();
    for text in TEXTS {
        for whole in [true, false] {
            match tokenizer.ids(text, whole) {
                Ok(ids) => {
                    let most = ids.iter().max().copied().unwrap_or(0) as usize;
                    assert!(ids.is_empty() || most < vocabulary, "id {most} of {vocabulary}");
                    assert!(ids.len() <= 64 * (text.len() + 8), "{text:?}: {} ids", ids.len());
                    if let Some(length) = length.filter(|_| !whole) {
                        assert!(ids.len() <= length, "{} ids; cut to {length}", ids.len());
                    }
                    shape += &format!("{} ", ids.len().ilog2_or_zero());
                }
                Err(error) => {
                    drop(Verdict::refused(error, data));
                    shape += "- ";
                }
            }
        }
    }
    Verdict::accepted(shape)
}

/// A file of weights, read as one does that checks all of it.
pub(super) fn weights(data: &[u8]) -> Verdict {
    let (folder, path) = folder("model.safetensors", data);
    let mut bytes = 0;
    match scan_weights(&path, &mut |piece| bytes += piece.len()) {
        Ok(()) => {
            assert_eq!(bytes, data.len(), "a part of the file is in no hash");
            Verdict::accepted(bytes.ilog2_or_zero())
        }
        Err(error) => refused(&error, &folder, data),
    }
}
