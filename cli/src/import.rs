//! `darkroom model import`: a cascade out of Hugging Face folders as people have them.
//!
//! Everything is checked before anything is written: the configuration, every tensor's name, shape, format and values,
//! the tokenizer against the encoder, the parts against each other. Weights are linked, not copied. What Darkroom does
//! not run is named and declined.

mod cache;
mod licence;
mod link;
mod parts;
mod recipe;
mod report;
mod verified;

use std::path::{Path, PathBuf};

use darkroom_artifacts::CascadeBundle;
use darkroom_core::{
    cascade::FILE_NAME,
    error::{Code, UserError},
};
use darkroom_diffusion::LoadError;
use darkroom_runtime::terminal::shown_path;

use crate::{
    args::ImportArgs,
    failure::{self, Result},
    output,
};
use parts::Parts;

/// Imports, and says what came of it.
pub(crate) fn run(args: &ImportArgs, as_json: bool) -> Result<()> {
    let parts = Parts::find(args)?;
    let name = args.name.clone().unwrap_or_else(|| parts.default_name());
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(&name));
    if out.exists() && std::fs::read_dir(&out).map_or(true, |mut entries| entries.next().is_some()) {
        return Err(UserError::invalid(
            "out",
            format!("{} exists already; accepted: a folder that is not there or is empty", shown_path(&out)),
        ));
    }
    let recipe = recipe::write(&name, &parts, args)?;
    let files = verified::verify(&parts)?;
    let linked = build(&out, &recipe, &files, &parts, args)?;
    let bundle = CascadeBundle::recorded(&out)?;
    let report = report::Report { name, out, parts, bundle, linked };
    if as_json { output::json(&report.document()) } else { report.print() }
}

/// Lays the folder out beside its place and moves it there whole.
fn build(
    out: &Path,
    recipe: &str,
    files: &[verified::File],
    parts: &Parts,
    args: &ImportArgs,
) -> Result<link::Linked> {
    let wrong = |error: &std::io::Error| failure::file("out", "write", out, error);
    let above = match out.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(above).map_err(|error| wrong(&error))?;
    let draft =
        tempfile::Builder::new().prefix(".import-").tempdir_in(above).map_err(|error| wrong(&error))?;
    let folder = draft.path().join("cascade");
    let lay = |folder: &Path| -> std::io::Result<link::Linked> {
        let linked = link::place(files, folder, args.copy)?;
        std::fs::write(folder.join("SHA256SUMS"), verified::sums(files))?;
        licence::copy(parts, folder)?;
        // Last, since a folder with it is a cascade.
        std::fs::write(folder.join(FILE_NAME), recipe)?;
        Ok(linked)
    };
    let linked = lay(&folder).map_err(|error| wrong(&error))?;
    if out.exists() {
        std::fs::remove_dir(out).map_err(|error| wrong(&error))?;
    }
    if std::fs::rename(&folder, out).is_ok() {
        return Ok(linked);
    }
    // A file system that cannot rename folders: laid out once more, in its place.
    std::fs::create_dir(out).map_err(|error| wrong(&error))?;
    lay(out).map_err(|error| {
        let _ = std::fs::remove_dir_all(out);
        wrong(&error)
    })
}

/// A model that is not as it should be.
fn refused(error: &LoadError) -> UserError {
    let mut refusal = UserError::new(Code::FailedPrecondition, "BROKEN_MODEL", failure::with_causes(error));
    refusal.field = Some("dir".to_owned());
    refusal
}
