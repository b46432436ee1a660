//! Which sets of weights a folder holds: the plain one, `fp16`, `bf16`, in one file or in shards.
//!
//! Published folders often hold several. Their names are those that diffusers and transformers write:
//! `{stem}.safetensors`, `{stem}.fp16.safetensors`, or shards behind `{stem}.safetensors.index.json`,
//! `{stem}.safetensors.index.fp16.json`. Files that Python's pickle wrote run code when they are read: they are named
//! and never opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::LoadError;

/// Extensions of pickled weights.
const PICKLED: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

/// One set of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// `fp16`, `bf16` or another word; empty for the plain one.
    pub(crate) name: String,
    /// Its one file, or the index of its shards.
    pub(crate) file: PathBuf,
    pub(crate) sharded: bool,
}

impl Variant {
    /// The sets of a folder, in the order in which they are preferred: plain, `fp16`, `bf16`, then others by name.
    ///
    /// # Errors
    /// One sentence that names what is missing, or what lies there instead.
    pub(crate) fn all(folder: &Path, stem: &str) -> Result<Vec<Self>, LoadError> {
        let mut found = BTreeMap::new();
        let (mut shard, mut pickled) = (None, None);
        for entry in std::fs::read_dir(folder).map_err(|source| LoadError::read(folder, source))? {
            let path = entry.map_err(|source| LoadError::read(folder, source))?.path();
            let Some(file) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file())
            else {
                continue;
            };
            if path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| PICKLED.contains(&e))
            {
                pickled = pickled.max(Some(path));
            } else if let Some((name, sharded)) = parse(file, stem) {
                let variant = Self { name: name.clone(), file: path.clone(), sharded };
                let key = (rank(&name), name);
                // A single file wins over an index of the same variant.
                if !(sharded && found.contains_key(&key)) {
                    found.insert(key, variant);
                }
            } else if file.starts_with(stem) && file.ends_with(".safetensors") {
                shard = shard.max(Some(path));
            }
        }
        if !found.is_empty() {
            return Ok(found.into_values().collect());
        }
        let plain = format!("{stem}.safetensors");
        Err(match (shard, pickled) {
            (Some(shard), _) => LoadError::NoIndex { shard, index: folder.join(index_name(stem, "")) },
            (None, Some(path)) => LoadError::Pickle { path, wanted: plain },
            (None, None) => {
                let absent = std::io::Error::new(std::io::ErrorKind::NotFound, "no weights there");
                LoadError::read(&folder.join(plain), absent)
            }
        })
    }

    /// The variant asked for by name (`fp32` is the plain one), or the first.
    pub(crate) fn choose(folder: &Path, stem: &str, wanted: Option<&str>) -> Result<Self, LoadError> {
        let all = Self::all(folder, stem)?;
        let plain = |name: &str| if name == "fp32" { String::new() } else { name.to_owned() };
        let wanted = wanted.map(plain);
        let chosen = all.iter().position(|variant| wanted.as_ref().is_none_or(|name| *name == variant.name));
        let names = || all.iter().map(|variant| variant.label().to_owned()).collect::<Vec<_>>().join(", ");
        match (chosen, wanted) {
            (Some(position), _) => Ok(all[position].clone()),
            (None, wanted) => Err(LoadError::NoVariant {
                path: folder.to_owned(),
                variant: wanted.filter(|name| !name.is_empty()).unwrap_or_else(|| "fp32".to_owned()),
                accepted: names(),
            }),
        }
    }

    /// Its name for people; `fp32` for the plain one, as the option calls it.
    pub(crate) fn label(&self) -> &str {
        if self.name.is_empty() { "fp32" } else { &self.name }
    }
}

fn index_name(stem: &str, variant: &str) -> String {
    let dotted = if variant.is_empty() { String::new() } else { format!(".{variant}") };
    format!("{stem}.safetensors.index{dotted}.json")
}

/// The variant that a file's name stands for and whether it is an index; `None` for shards and other files.
fn parse(file: &str, stem: &str) -> Option<(String, bool)> {
    let rest = file.strip_prefix(stem)?.strip_prefix('.')?;
    let (name, sharded) = if let Some(index) = rest.strip_prefix("safetensors.index.") {
        (index.strip_suffix("json")?, true)
    } else if let Some(name) = rest.strip_suffix("safetensors.index.json") {
        (name, true)
    } else {
        (rest.strip_suffix("safetensors")?, false)
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_shard =
        name.split_once("-of-").is_some_and(|(_, count)| count.bytes().all(|b| b.is_ascii_digit()));
    (!is_shard && !name.contains('.')).then(|| (name.to_owned(), sharded))
}

fn rank(name: &str) -> usize {
    ["", "fp16", "bf16"].iter().position(|known| *known == name).unwrap_or(3)
}

/// An index's `weight_map`: the file of every tensor, all of them in the index's own folder.
pub(crate) fn shard_map(index: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let invalid = |message: String| LoadError::Config { path: index.to_owned(), message };
    let text = std::fs::read(index).map_err(|source| LoadError::read(index, source))?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let map = value["weight_map"].as_object().ok_or_else(|| invalid("`weight_map` is missing".to_owned()))?;
    map.iter()
        .map(|(tensor, file)| {
            let file =
                file.as_str().ok_or_else(|| invalid("`weight_map` holds something not a text".to_owned()))?;
            if file.contains(['/', '\\']) || file.starts_with('.') {
                return Err(invalid(format!(
                    "`weight_map` names {file}, which is not a file of this folder"
                )));
            }
            if !file.ends_with(".safetensors") {
                return Err(invalid(format!("`weight_map` names {file}; accepted: .safetensors files")));
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
        let folder =
            folder(&["m.safetensors", "m.bf16.safetensors", "m.fp16.safetensors", "m.ema.safetensors"]);
        let names: Vec<_> =
            Variant::all(folder.path(), "m").unwrap().iter().map(|v| v.name.clone()).collect();
        assert_eq!(names, ["", "fp16", "bf16", "ema"]);
        let choose = |wanted| Variant::choose(folder.path(), "m", wanted);
        assert_eq!(choose(None).unwrap().name, "");
        assert_eq!(choose(Some("fp32")).unwrap().name, "");
        assert_eq!(choose(Some("bf16")).unwrap().name, "bf16");
        let error = choose(Some("int8")).unwrap_err().to_string();
        assert!(error.contains("int8") && error.contains("accepted: fp32, fp16, bf16, ema"), "{error}");
    }

    #[test]
    fn pickles_are_refused_with_a_way_out_and_lost_indexes_are_named() {
        let error = Variant::all(folder(&["pytorch_model.bin"]).path(), "model").unwrap_err().to_string();
        assert!(error.contains("pytorch_model.bin") && error.contains("safe_serialization=True"), "{error}");
        let error = Variant::all(folder(&["model-00001-of-00002.safetensors"]).path(), "model").unwrap_err();
        assert!(error.to_string().contains("model.safetensors.index.json"), "{error}");
    }
}
