//! What a licence requires of those who run the weights, as far as an import can tell.

use std::{fs, io, path::Path};

use darkroom_runtime::files;

use super::parts::Parts;

/// Whether any folder is one of DeepFloyd IF's pipelines.
pub(super) fn is_deepfloyd(parts: &Parts) -> bool {
    let class = |pipeline: &Option<String>| {
        pipeline.as_deref().is_some_and(|class| class.starts_with("IF"))
    };
    parts.folders.iter().any(|folder| class(&folder.pipeline))
}

/// The licence's name for `cascade.toml`.
pub(super) fn name(parts: &Parts) -> &'static str {
    if is_deepfloyd(parts) { "DeepFloyd IF License Agreement" } else { "" }
}

/// What DeepFloyd IF's licences require of users, in our words.
pub(super) const DEEPFLOYD: [&str; 4] = [
    "DeepFloyd IF's licences bind whoever runs these weights; this is a summary and not legal advice, and the text that you \
     accepted with the weights decides.",
    "Filters: the code's licence (github.com/deep-floyd/IF, LICENSE, condition 2) forbids removing, disabling or going \
     around the inference filters in it and in works derived from it, and the weights' licence (LICENSE-MODEL, section \
     2c) forbids going around protections and usage restrictions. Darkroom contains none of that code and runs no such \
     filter: whoever lets others see pictures made with these weights has to run one on them.",
    "Use: research that is not commercial; section 2a lists what is ruled out (LICENSE-MODEL, sections 1a and 2).",
    "Passing the weights on, to workers of others too: with a copy of the licence and its attribution notice \
     (LICENSE-MODEL, section 3).",
];

/// Copies the licence files that lie in the given folders.
pub(super) fn copy(parts: &Parts, to: &Path) -> io::Result<()> {
    for folder in &parts.folders {
        for entry in fs::read_dir(&folder.path)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if path.is_file() && name.to_uppercase().starts_with("LICEN") {
                let folder = to.join("licences").join(&folder.name);
                fs::create_dir_all(&folder)?;
                files::copy_new(&path, &folder.join(name))?;
            }
        }
    }
    Ok(())
}
