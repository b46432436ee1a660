//! What the given folders contain: stages, a text encoder and its tokenizer, and parts that
//! Darkroom does not run.

use std::path::{Path, PathBuf};

use darkroom_core::{
    error::{Code, UserError},
    shown::shown,
};
use darkroom_diffusion::{EncoderSurvey, StageSurvey, TextEncoder, read_json};
use darkroom_runtime::terminal::shown_path;
use serde_json::Value;

use super::{
    cache,
    error::{refused, wrong},
};
use crate::{args::ImportArgs, failure::Result};

/// Files of a tokenizer that are imported; the first two are read.
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Everything that a cascade consists of.
pub(super) struct Parts {
    pub(super) folders: Vec<Folder>,
    pub(super) encoder: Encoder,
    /// Low resolution first.
    pub(super) stages: Vec<Stage>,
    /// Keys of configurations that were ignored, by part.
    pub(super) unknown_keys: Vec<String>,
}

/// A given folder.
pub(super) struct Folder {
    /// Where its files are: for a cache's folder, the snapshot.
    pub(super) path: PathBuf,
    /// Its name for people.
    pub(super) name: String,
    /// The class of its `model_index.json`.
    pub(super) pipeline: Option<String>,
    /// Parts of the pipeline that exist and that Darkroom does not run.
    pub(super) declined: Vec<String>,
}

/// A text encoder and the tokenizer that belongs to it.
pub(super) struct Encoder {
    pub(super) folder: PathBuf,
    pub(super) tokenizer: PathBuf,
    pub(super) survey: EncoderSurvey,
}

pub(super) struct Stage {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// Edge of its pictures, in pixels.
    pub(super) size: u32,
    pub(super) survey: StageSurvey,
}

impl Parts {
    /// Looks into every folder, and checks it by its configurations and headers alone.
    pub(super) fn find(args: &ImportArgs) -> Result<Self> {
        let folders = args.dirs.iter().map(|dir| Folder::open(dir)).collect::<Result<Vec<_>>>()?;
        let mut stages = Vec::new();
        for folder in folders.iter().filter(|folder| folder.has_stage()) {
            stages.push(Stage::read(folder, args)?);
        }
        stages.sort_by_key(|stage| stage.size);
        check_order(&stages)?;
        let encoder = Encoder::find(&folders, args)?;
        for stage in &stages {
            if stage.survey.text_dim != encoder.survey.dimension {
                return Err(wrong(format!(
                    "{} takes text of width {}, but the encoder {} gives width {}: they do not \
                     match",
                    shown_path(&stage.folder),
                    stage.survey.text_dim,
                    shown_path(&encoder.folder),
                    encoder.survey.dimension
                )));
            }
        }
        let unknown = |stage: &Stage| {
            let keys = stage.survey.unknown_keys.clone();
            let folder = stage.folder.clone();
            keys.into_iter().map(move |key| (folder.clone(), key))
        };
        let of_encoder =
            encoder.survey.unknown_keys.iter().map(|key| (encoder.folder.clone(), key.clone()));
        let unknown: Vec<_> = of_encoder.chain(stages.iter().flat_map(unknown)).collect();
        if let Some((folder, key)) = unknown.first().filter(|_| !args.ignore_unknown_keys) {
            return Err(wrong(format!(
                "the configuration in {} has the key `{}`, which neither Darkroom nor the reference \
                 class knows; accepted: known keys, or --ignore-unknown-keys to ignore it",
                shown_path(folder),
                shown(key)
            )));
        }
        let unknown_keys = unknown
            .into_iter()
            .map(|(folder, key)| format!("{}: {key}", shown_path(&folder)))
            .collect();
        Ok(Self { folders, encoder, stages, unknown_keys })
    }

    /// The name of the first stage's folder, in lower case.
    pub(super) fn default_name(&self) -> String {
        let base = self.stages.first().map(|stage| &stage.folder);
        let folder = self.folders.iter().find(|folder| Some(&folder.path) == base);
        let name = folder.map_or("cascade", |folder| folder.name.as_str()).to_lowercase();
        name.chars().take(64).collect()
    }
}

impl Folder {
    fn open(given: &Path) -> Result<Self> {
        let path = cache::snapshot(given)?;
        if !path.is_dir() {
            let is_file = path.is_file();
            let is_link = path.symlink_metadata().is_ok() && !path.exists();
            let what = match (is_file, is_link) {
                (true, _) => "is a file",
                (_, true) => "is a link that leads nowhere",
                _ => "is not there",
            };
            let message = format!(
                "{} {what}; accepted: a folder in Hugging Face's layout",
                shown_path(&path)
            );
            return Err(if is_file {
                UserError::invalid("dir", message)
            } else {
                UserError::new(Code::NotFound, "NO_SUCH_FOLDER", message)
            });
        }
        let index = path.join("model_index.json");
        let index = is_there(&index)
            .then(|| read_json(&index))
            .transpose()
            .map_err(|error| refused(&error))?;
        let pipeline =
            index.as_ref().and_then(|index| index["_class_name"].as_str()).map(str::to_owned);
        let listed =
            index.iter().filter_map(Value::as_object).flat_map(|parts| parts.keys().cloned());
        let usual = ["safety_checker", "watermarker", "feature_extractor"].map(str::to_owned);
        let mut declined: Vec<_> = listed
            .chain(usual)
            .filter(|part| {
                let known =
                    ["unet", "scheduler", "image_noising_scheduler", "text_encoder", "tokenizer"];
                !part.starts_with('_')
                    && !known.contains(&part.as_str())
                    && path.join(part).is_dir()
            })
            .collect();
        declined.sort();
        declined.dedup();
        let folder = Self { name: name_of(given), path, pipeline, declined };
        if folder.path.join("vae").is_dir() {
            return Err(wrong(format!(
                "{} is a latent pipeline ({}): it has a vae/, which Darkroom does not run; accepted: pipelines on \
                 pixels, such as DeepFloyd IF's stages I and II",
                shown_path(&folder.path),
                folder.pipeline.as_deref().unwrap_or("no model_index.json")
            )));
        }
        if !folder.has_stage() && folder.encoder_folder()?.is_none() {
            return Err(wrong(format!(
                "{} holds neither a stage (unet/config.json) nor a T5 encoder (text_encoder/config.json, or \
                 config.json with model_type){}; accepted: a pipeline's whole folder, or T5's",
                shown_path(&folder.path),
                folder.instead()
            )));
        }
        Ok(folder)
    }

    fn has_stage(&self) -> bool {
        is_there(&self.path.join("unet/config.json"))
    }

    /// The folder of the encoder, and of the tokenizer beside it.
    fn encoder_folder(&self) -> Result<Option<(PathBuf, PathBuf)>> {
        let inside = self.path.join("text_encoder");
        if is_there(&inside.join("config.json")) {
            return Ok(Some((inside, self.path.join("tokenizer"))));
        }
        let config = self.path.join("config.json");
        if self.has_stage() || !is_there(&config) {
            return Ok(None);
        }
        let config = read_json(&config).map_err(|error| refused(&error))?;
        Ok(config.get("model_type").map(|_| (self.path.clone(), self.path.clone())))
    }

    /// Something there that explains why the rest is missing.
    fn instead(&self) -> String {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        if let Some(name) = names.iter().find(|name| name.ends_with(".safetensors")) {
            return format!(": there is {name}, but no config.json beside it");
        }
        for (name, what) in [("unet", "unet/"), ("text_encoder", "text_encoder/")] {
            if names.iter().any(|found| found == name) {
                return format!(": {what} has no config.json");
            }
        }
        match names.len() {
            0 => ": it is empty".to_owned(),
            1..=5 => format!(": there is {}", names.join(", ")),
            _ => String::new(),
        }
    }
}

impl Stage {
    fn read(folder: &Folder, args: &ImportArgs) -> Result<Self> {
        let path = &folder.path;
        let name = name_of_stage(path);
        let variant = args.variant_of(&name);
        let survey =
            StageSurvey::read(path, variant.as_deref()).map_err(|error| refused(&error))?;
        let size = match survey.sample_size {
            Some((height, width)) if height == width => u32::try_from(height).ok(),
            _ => None,
        };
        let size = size.ok_or_else(|| {
            wrong(format!(
                "{}: `sample_size` is {}; accepted: a number, the edge of the stage's pictures",
                shown_path(&path.join("unet/config.json")),
                survey.sample_size.map_or_else(
                    || "absent".to_owned(),
                    |(height, width)| format!("[{height}, {width}]")
                )
            ))
        })?;
        Ok(Self { name, folder: path.clone(), size, survey })
    }
}

impl Encoder {
    /// The first folder that has an encoder with weights provides it; a super-resolution pipeline
    /// often has none.
    fn find(folders: &[Folder], args: &ImportArgs) -> Result<Self> {
        let found = folders.iter().map(Folder::encoder_folder).collect::<Result<Vec<_>>>()?;
        let found: Vec<_> = found.into_iter().flatten().collect();
        let variant = args.variant_of("encode");
        let mut first_refusal = None;
        for (folder, beside) in &found {
            let has = |folder: &&PathBuf| {
                TOKENIZER_FILES[..2].iter().any(|name| is_there(&folder.join(name)))
            };
            let all = std::iter::once(beside).chain(found.iter().map(|(_, tokenizer)| tokenizer));
            let elsewhere: Vec<_> =
                folders.iter().map(|folder| folder.path.join("tokenizer")).collect();
            let Some(tokenizer) = all.chain(&elsewhere).find(has) else {
                first_refusal.get_or_insert_with(|| {
                    wrong(format!(
                        "{} has no tokenizer; accepted: a tokenizer.json or a spiece.model in it, or in another \
                         folder's tokenizer/",
                        shown_path(beside)
                    ))
                });
                continue;
            };
            match TextEncoder::survey(folder, tokenizer, variant.as_deref()) {
                Ok(survey) => {
                    let (folder, tokenizer) = (folder.clone(), tokenizer.clone());
                    return Ok(Self { folder, tokenizer, survey });
                }
                Err(error) => {
                    first_refusal.get_or_insert_with(|| refused(&error));
                }
            }
        }
        Err(first_refusal.unwrap_or_else(|| {
            wrong(
                "none of the folders holds a text encoder; give a T5 v1.1's folder as well"
                    .to_owned(),
            )
        }))
    }

    /// The tokenizer's files.
    pub(super) fn tokenizer_files(&self) -> Vec<PathBuf> {
        TOKENIZER_FILES
            .iter()
            .map(|name| self.tokenizer.join(name))
            .filter(|path| path.is_file())
            .collect()
    }
}

/// `base`, or a name like `sr256` for a network that also gets a picture. The survey reports any
/// other error of the configuration.
fn name_of_stage(folder: &Path) -> String {
    let config = read_json(&folder.join("unet/config.json")).unwrap_or(Value::Null);
    match (config["in_channels"].as_u64(), config["sample_size"].as_u64()) {
        (Some(6), Some(size)) => format!("sr{size}"),
        _ => "base".to_owned(),
    }
}

fn check_order(stages: &[Stage]) -> Result<()> {
    let bases = stages.iter().filter(|stage| !stage.survey.takes_low_res).count();
    let folders = || {
        let said =
            stages.iter().map(|stage| format!("{} ({})", shown_path(&stage.folder), stage.name));
        said.collect::<Vec<_>>().join(", ")
    };
    if bases != 1 || stages[0].survey.takes_low_res {
        return Err(wrong(format!(
            "a cascade starts with one stage that takes text alone (in_channels 3), and of the \
             given stages {bases} do: {}; accepted: one such folder, with super-resolution stages \
             of larger sizes",
            if stages.is_empty() { "there is no stage".to_owned() } else { folders() }
        )));
    }
    match stages.windows(2).find(|pair| pair[0].size == pair[1].size) {
        None => Ok(()),
        Some(pair) => Err(wrong(format!(
            "{} and {} both make pictures of {} pixels; accepted: one stage of each size",
            shown_path(&pair[0].folder),
            shown_path(&pair[1].folder),
            pair[0].size
        ))),
    }
}

impl ImportArgs {
    /// The requested variant of a part, if any.
    fn variant_of(&self, part: &str) -> Option<String> {
        let named = self.variants.iter().filter_map(|variant| variant.split_once('='));
        let own = named.filter(|(name, _)| *name == part).map(|(_, variant)| variant).next_back();
        let all = self.variants.iter().map(String::as_str).rfind(|variant| !variant.contains('='));
        own.or(all).map(str::to_owned)
    }
}

/// `IF-I-XL-v1.0` of `…/models--DeepFloyd--IF-I-XL-v1.0` or `…/IF-I-XL-v1.0/`.
fn name_of(given: &Path) -> String {
    let whole = std::path::absolute(given).unwrap_or_else(|_| given.to_owned());
    let name =
        whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut cached = whole.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let cached = cached.rfind(|part| part.starts_with("models--")).unwrap_or(name);
    cached.rsplit("--").next().unwrap_or_default().to_owned()
}

/// Whether something has that name, even a link that leads nowhere; reading it reports that.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
