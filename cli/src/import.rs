//! `darkroom model import`: makes a cascade from Hugging Face folders.
//!
//! Everything is checked before anything is written: the configuration; every tensor's name, shape,
//! format and values; the tokenizer against the encoder; the parts against each other. Weights are
//! linked, not copied. Parts that Darkroom does not run are named and left out.

mod cache;
mod error;
mod licence;
mod link;
mod parts;
mod recipe;
mod report;
mod verified;

use std::path::{Path, PathBuf};

use darkroom_artifacts::CascadeBundle;
use darkroom_core::{cascade::FILE_NAME, error::UserError};
use darkroom_runtime::terminal::shown_path;

use crate::{
    args::ImportArgs,
    failure::{self, Result},
    output,
};
use parts::Parts;

/// Imports, and prints a report.
pub(crate) fn run(args: &ImportArgs, as_json: bool) -> Result<()> {
    let parts = Parts::find(args)?;
    let name = args.name.clone().unwrap_or_else(|| parts.default_name());
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(&name));
    if out.exists() && std::fs::read_dir(&out).map_or(true, |mut entries| entries.next().is_some())
    {
        return Err(UserError::invalid(
            "out",
            format!(
                "{} exists already; accepted: a folder that is not there or is empty",
                shown_path(&out)
            ),
        ));
    }
    let recipe = recipe::write(&name, &parts, args)?;
    let files = verified::verify(&parts)?;
    let linked = build(&out, &recipe, &files, &parts, args)?;
    let bundle = CascadeBundle::recorded(&out)?;
    let report = report::Report { name, out, parts, bundle, linked };
    if as_json { output::json(&report.document()) } else { report.print() }
}

/// Builds the folder beside its final place, then moves it there in one step.
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
    let draft = tempfile::Builder::new()
        .prefix(".import-")
        .tempdir_in(above)
        .map_err(|error| wrong(&error))?;
    let folder = draft.path().join("cascade");
    let lay = |folder: &Path| -> std::io::Result<link::Linked> {
        let linked = link::place(files, folder, args.copy)?;
        std::fs::write(folder.join("SHA256SUMS"), verified::sums(files))?;
        licence::copy(parts, folder)?;
        // Written last, because a folder with this file is a cascade.
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
    // The file system cannot rename folders, so the folder is built again in its place.
    std::fs::create_dir(out).map_err(|error| wrong(&error))?;
    lay(out).map_err(|error| {
        let _ = std::fs::remove_dir_all(out);
        wrong(&error)
    })
}
