//! The sets of weights in a folder: the plain one, `fp16`, `bf16`, in one file or in shards.
//!
//! Published folders often have several. Their names are those that diffusers and transformers
//! write: `{stem}.safetensors`, `{stem}.fp16.safetensors`, or shards behind
//! `{stem}.safetensors.index.json`, `{stem}.safetensors.index.fp16.json`, and in some releases
//! `{stem}.safetensors.fp16.index.json`. A folder with none of these and only one other set is
//! accepted too: T5 is distributed as `t5xxl_fp16.safetensors`, or with the stem of the pickled
//! file that it was converted from. Files from Python's pickle can run code when they are read, so
//! they are named in errors and never opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::lying::Lying;
use crate::error::LoadError;
use crate::{foreign, json};

/// Stems of other libraries and older releases, tried in turn if nothing has the usual stem.
const OTHER_STEMS: [&str; 3] = ["model", "pytorch_model", "diffusion_pytorch_model"];

/// One set of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// `fp16`, `bf16` or another word; empty for the plain one.
    pub(crate) name: String,
    /// Its single file, or the index of its shards.
    pub(crate) file: PathBuf,
    pub(crate) sharded: bool,
}

impl Variant {
    /// The sets of a folder, in order of preference: plain, `fp16`, `bf16`, then others by name.
    ///
    /// # Errors
    /// One sentence that names what is missing, or what is in the folder instead.
    pub(crate) fn all(folder: &Path, stem: &str) -> Result<Vec<Self>, LoadError> {
        let lying = Lying::look(folder)?;
        let mut found = sets(&lying, stem)?;
        if found.is_empty() {
            found = other_sets(&lying, stem)?;
        }
        if found.is_empty() {
            return Err(lying.none(stem));
        }
        for variant in found.values() {
            if let Some(beside) = foreign::control_file(&variant.file) {
                return Err(LoadError::Unfinished { path: variant.file.clone(), beside });
            }
        }
        Ok(found.into_values().collect())
    }

    /// The variant with the given name (`fp32` is the plain one), or the first.
    pub(crate) fn choose(
        folder: &Path,
        stem: &str,
        wanted: Option<&str>,
    ) -> Result<Self, LoadError> {
        let all = Self::all(folder, stem)?;
        let plain = |name: &str| if name == "fp32" { String::new() } else { name.to_owned() };
        let wanted = wanted.map(plain);
        let chosen =
            all.iter().position(|variant| wanted.as_ref().is_none_or(|name| *name == variant.name));
        let names =
            || all.iter().map(|variant| variant.label().to_owned()).collect::<Vec<_>>().join(", ");
        match (chosen, wanted) {
            (Some(position), _) => Ok(all[position].clone()),
            (None, wanted) => Err(LoadError::NoVariant {
                path: folder.to_owned(),
                variant: wanted
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| "fp32".to_owned()),
                accepted: names(),
            }),
        }
    }

    /// Its name for people; `fp32` for the plain one, as in the option.
    pub(crate) fn label(&self) -> &str {
        if self.name.is_empty() { "fp32" } else { &self.name }
    }
}

/// Sets by rank and name.
type Sets = BTreeMap<(usize, String), Variant>;

/// The sets of one stem.
fn sets(lying: &Lying, stem: &str) -> Result<Sets, LoadError> {
    let mut found = Sets::new();
    for file in &lying.files {
        let Some((name, sharded)) = parse(file, stem) else { continue };
        let path = lying.folder.join(file);
        let variant = Variant { name: name.clone(), file: path.clone(), sharded };
        let key = (rank(&name), name);
        match found.get(&key) {
            // A single file is preferred to an index of the same variant.
            Some(other) if sharded && !other.sharded => {}
            // Two spellings of an index's name are one set if their contents agree.
            Some(other) if sharded && shard_map(&path)? != shard_map(&other.file)? => {
                return Err(LoadError::Ambiguous {
                    path: lying.folder.clone(),
                    found: format!(
                        "{} and {file}, which do not say the same",
                        file_name(&other.file)
                    ),
                    wanted: "one index of a set's shards".to_owned(),
                });
            }
            Some(other) if sharded && other.sharded => {}
            _ => {
                found.insert(key, variant);
            }
        }
    }
    Ok(found)
}

/// The only set with another name, if there is exactly one.
fn other_sets(lying: &Lying, stem: &str) -> Result<Sets, LoadError> {
    let stems = OTHER_STEMS.iter().filter(|other| **other != stem);
    let by_stem = stems.map(|other| sets(lying, other)).collect::<Result<Vec<_>, _>>()?;
    let mut by_stem: Vec<Sets> = by_stem.into_iter().filter(|sets| !sets.is_empty()).collect();
    let strangers: Vec<&String> = lying
        .files
        .iter()
        .filter(|file| file.ends_with(".safetensors") && !is_shard(file) && !foreign::is_copy(file))
        .filter(|file| OTHER_STEMS.iter().all(|other| parse(file, other).is_none()))
        .collect();
    match (by_stem.as_mut_slice(), strangers.as_slice()) {
        ([only], []) => Ok(std::mem::take(only)),
        ([], [only]) => {
            let name = format_in(only);
            let variant =
                Variant { name: name.clone(), file: lying.folder.join(only), sharded: false };
            Ok(Sets::from([((rank(&name), name), variant)]))
        }
        ([], []) => Ok(Sets::new()),
        (sets, strangers) => {
            let of_stems =
                sets.iter().flat_map(BTreeMap::values).map(|variant| file_name(&variant.file));
            let names: Vec<String> =
                of_stems.chain(strangers.iter().map(|name| (*name).clone())).collect();
            Err(LoadError::Ambiguous {
                path: lying.folder.clone(),
                found: names.join(", "),
                wanted: format!("only the intended file, as {stem}.safetensors"),
            })
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The number format that a variant's file name contains, e.g. `fp16`.
fn format_in(file: &str) -> String {
    let lower = file.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words.find(|word| ["fp16", "bf16"].contains(word)).unwrap_or_default().to_owned()
}

/// The name of the index of a variant's shards.
pub(super) fn index_name(stem: &str, variant: &str) -> String {
    let dotted = if variant.is_empty() { String::new() } else { format!(".{variant}") };
    format!("{stem}.safetensors.index{dotted}.json")
}

/// Whether a file is part of a set, judged by its name.
pub(super) fn is_shard(file: &str) -> bool {
    file.split(['-', '.'])
        .zip(file.split(['-', '.']).skip(1))
        .zip(file.split(['-', '.']).skip(2))
        .any(|((first, of), last)| {
            let is_number =
                |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            of == "of" && is_number(first) && is_number(last)
        })
}

/// The variant in a file's name, and whether the file is an index; `None` for shards and other
/// files.
pub(super) fn parse(file: &str, stem: &str) -> Option<(String, bool)> {
    let rest = file.strip_prefix(stem)?.strip_prefix('.')?;
    let (name, sharded) = if let Some(index) = rest.strip_prefix("safetensors.index.") {
        (index.strip_suffix("json")?, true)
    } else if let Some(name) = rest.strip_suffix("safetensors.index.json") {
        (name, true)
    } else if let Some(index) =
        rest.strip_prefix("safetensors.").and_then(|rest| rest.strip_suffix(".index.json"))
    {
        (index, true)
    } else {
        (rest.strip_suffix("safetensors")?, false)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_variant = !is_shard(file) && !name.contains(['.', ' ', '(']);
    is_variant.then(|| (name.to_owned(), sharded))
}

fn rank(name: &str) -> usize {
    ["", "fp16", "bf16"].iter().position(|known| *known == name).unwrap_or(3)
}

/// An index's `weight_map`: the file of each tensor. All files must be in the index's own folder.
pub(crate) fn shard_map(index: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let invalid = |message: String| LoadError::Config { path: index.to_owned(), message };
    let value = json::read(index)?;
    let map = value["weight_map"]
        .as_object()
        .ok_or_else(|| invalid("`weight_map` is missing".to_owned()))?;
    map.iter()
        .map(|(tensor, file)| {
            let file = file
                .as_str()
                .ok_or_else(|| invalid("`weight_map` holds something not a text".to_owned()))?;
            if file.contains(['/', '\\']) || file.starts_with('.') {
                return Err(invalid(format!(
                    "`weight_map` names {file}, which is not a file of this folder"
                )));
            }
            if !file.ends_with(".safetensors") {
                return Err(invalid(format!(
                    "`weight_map` names {file}; accepted: .safetensors files"
                )));
            }
            Ok((tensor.clone(), file.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        folder
    }

    #[test]
    fn every_published_way_of_naming_is_known() {
        let stem = "diffusion_pytorch_model";
        for (file, expected) in [
            ("diffusion_pytorch_model.safetensors", Some(("", false))),
            ("diffusion_pytorch_model.fp16.safetensors", Some(("fp16", false))),
            ("diffusion_pytorch_model.safetensors.index.json", Some(("", true))),
            ("diffusion_pytorch_model.safetensors.index.bf16.json", Some(("bf16", true))),
            ("diffusion_pytorch_model.fp16.safetensors.index.json", Some(("fp16", true))),
            ("diffusion_pytorch_model-00001-of-00002.fp16.safetensors", None),
            ("diffusion_pytorch_model.fp16-00001-of-00002.safetensors", None),
            ("diffusion_pytorch_model-00001-of-00002.safetensors", None),
            ("diffusion_pytorch_model.safetensors.fp16.index.json", Some(("fp16", true))),
            ("diffusion_pytorch_model.non_ema.safetensors", Some(("non_ema", false))),
            ("diffusion_pytorch_model.safetensors.part", None),
            ("diffusion_pytorch_model (1).safetensors", None),
            ("diffusion_pytorch_model.fp16 (1).safetensors", None),
            ("diffusion_pytorch_model.bin.index.json", None),
            ("other.safetensors", None),
        ] {
            assert_eq!(
                parse(file, stem),
                expected.map(|(name, sharded)| (name.to_owned(), sharded)),
                "{file}"
            );
        }
    }

    #[test]
    fn the_plain_one_comes_first_and_another_is_had_by_name() {
        let folder = folder(&[
            "m.safetensors",
            "m.bf16.safetensors",
            "m.fp16.safetensors",
            "m.ema.safetensors",
        ]);
        let names: Vec<_> =
            Variant::all(folder.path(), "m").unwrap().iter().map(|v| v.name.clone()).collect();
        assert_eq!(names, ["", "fp16", "bf16", "ema"]);
        let choose = |wanted| Variant::choose(folder.path(), "m", wanted);
        assert_eq!(choose(None).unwrap().name, "");
        assert_eq!(choose(Some("fp32")).unwrap().name, "");
        assert_eq!(choose(Some("bf16")).unwrap().name, "bf16");
        let error = choose(Some("int8")).unwrap_err().to_string();
        assert!(
            error.contains("int8") && error.contains("accepted: fp32, fp16, bf16, ema"),
            "{error}"
        );
    }

    #[test]
    fn pickles_are_refused_with_a_way_out_and_lost_indexes_are_named() {
        let error =
            Variant::all(folder(&["pytorch_model.bin"]).path(), "model").unwrap_err().to_string();
        assert!(
            error.contains("pytorch_model.bin") && error.contains("safe_serialization=True"),
            "{error}"
        );
        let error = Variant::all(folder(&["model-00001-of-00002.safetensors"]).path(), "model")
            .unwrap_err();
        assert!(error.to_string().contains("model.safetensors.index.json"), "{error}");
    }

    #[test]
    fn one_set_of_another_name_is_taken_and_several_are_named() {
        let chosen = |names: &[&str]| {
            let folder = folder(names);
            Variant::choose(folder.path(), "model", None)
                .map(|variant| (file_name(&variant.file), variant.label().to_owned()))
        };
        for (names, file, label) in [
            (&["t5xxl_fp16.safetensors"][..], "t5xxl_fp16.safetensors", "fp16"),
            (&["t5xxl-BF16.safetensors", "config.json", "x.txt"], "t5xxl-BF16.safetensors", "bf16"),
            (&["t5.safetensors"], "t5.safetensors", "fp32"),
            (&["pytorch_model.safetensors"], "pytorch_model.safetensors", "fp32"),
            (
                &["pytorch_model.fp16.safetensors", "pytorch_model.bin"],
                "pytorch_model.fp16.safetensors",
                "fp16",
            ),
            (
                &["model.safetensors", "t5xxl_fp16.safetensors", "pytorch_model.safetensors"],
                "model.safetensors",
                "fp32",
            ),
            (
                &["t5xxl_fp16.safetensors", "t5xxl_fp16 (1).safetensors"],
                "t5xxl_fp16.safetensors",
                "fp16",
            ),
        ] {
            assert_eq!(chosen(names).unwrap(), (file.to_owned(), label.to_owned()), "{names:?}");
        }
        for names in [
            &["t5xxl_fp16.safetensors", "t5xxl_fp8_e4m3fn.safetensors"][..],
            &["pytorch_model.safetensors", "t5xxl_fp16.safetensors"],
        ] {
            let error = chosen(names).unwrap_err().to_string();
            assert!(names.iter().all(|name| error.contains(name)), "{error}");
            assert!(error.contains("as model.safetensors"), "{error}");
        }
    }

    #[test]
    fn two_spellings_of_an_index_are_one_set_if_they_say_the_same() {
        let folder = folder(&[]);
        let write = |name: &str, shard: &str| {
            let text = format!("{{\"weight_map\": {{\"a\": \"{shard}\"}}}}");
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("m.safetensors.index.fp16.json", "m.fp16-00001-of-00001.safetensors");
        write("m.safetensors.fp16.index.json", "m.fp16-00001-of-00001.safetensors");
        assert_eq!(Variant::all(folder.path(), "m").unwrap().len(), 1);
        write("m.safetensors.fp16.index.json", "m-00001-of-00001.fp16.safetensors");
        let error = Variant::all(folder.path(), "m").unwrap_err().to_string();
        assert!(
            error.contains("m.safetensors.index.fp16.json")
                && error.contains("do not say the same"),
            "{error}"
        );
    }

    #[test]
    fn what_lies_there_instead_is_named() {
        let said =
            |names: &[&str]| Variant::all(folder(names).path(), "model").unwrap_err().to_string();
        for (names, words) in [
            (&[][..], &["has no weights", "model.safetensors", "it is empty"][..]),
            (&["config.json"], &["there is config.json"]),
            (&["model.safetensors.incomplete"], &["model.safetensors.incomplete", "not finished"]),
            (&["Unconfirmed 7.crdownload"], &["Unconfirmed 7.crdownload", "not finished"]),
            (&["model.safetensors.part"], &["model.safetensors.part", "not finished"]),
            (
                &["model (1).safetensors"],
                &["model (1).safetensors", "a copy", "rename it to model.safetensors"],
            ),
            (&["flax_model.msgpack", "tf_model.h5"], &["flax_model.msgpack", "tf_model.h5"]),
        ] {
            let error = said(names);
            assert!(words.iter().all(|word| error.contains(word)), "{names:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let folder = folder(&["model.fp16.safetensors", "model.fp16.safetensors.aria2"]);
        let error = Variant::all(folder.path(), "model").unwrap_err().to_string();
        assert!(
            error.contains("model.fp16.safetensors.aria2") && error.contains("not finished"),
            "{error}"
        );
        let folder = self::folder(&[]);
        std::os::unix::fs::symlink("../../blobs/ab12", folder.path().join("model.safetensors"))
            .unwrap();
        let error = Variant::all(folder.path(), "model").unwrap_err().to_string();
        assert!(
            error.contains("model.safetensors") && error.contains("link to ../../blobs/ab12"),
            "{error}"
        );
    }
}
