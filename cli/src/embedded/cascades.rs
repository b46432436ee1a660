//! The cascades that a farm of one machine serves.

use std::path::PathBuf;

use darkroom_artifacts::CascadeBundle;
use darkroom_core::error::{Code, UserError};

use crate::failure::{self, Result};

/// Without a farm, a cascade is given as a folder, or as `demo`.
pub(super) fn named_cascade(named: &str) -> Result<PathBuf> {
    let path = PathBuf::from(named);
    if path.is_dir() {
        return Ok(path);
    }
    if named == "demo" {
        return demo_cascade();
    }
    let mut failure = UserError::new(
        Code::NotFound,
        "UNKNOWN_CASCADE",
        format!("cascade is {named:?}; accepted: the folder of a cascade, or demo"),
    );
    failure.field = Some("cascade".to_owned());
    Err(failure)
}

/// The cascade that ships with the project: `models/demo` in the current folder or in a folder
/// above it or above the binary.
pub(crate) fn demo_cascade() -> Result<PathBuf> {
    let here = std::env::current_dir().into_iter();
    let binary = std::env::current_exe().into_iter();
    here.chain(binary)
        .flat_map(|start| {
            start.ancestors().map(|folder| folder.join("models/demo")).collect::<Vec<_>>()
        })
        .find(|folder| folder.join(darkroom_core::cascade::FILE_NAME).is_file())
        .ok_or_else(|| {
            let mut failure = UserError::new(
                Code::NotFound,
                "NO_CASCADE",
                "the demo cascade (models/demo) is neither in this folder nor above it or the \
                 program; name a cascade's folder with --cascade",
            );
            failure.field = Some("cascade".to_owned());
            failure
        })
}

/// Hashes the cascades' files, and refuses two cascades with the same name.
pub(super) async fn load(folders: Vec<PathBuf>) -> Result<Vec<CascadeBundle>> {
    let load = move || {
        let bundles = folders.iter().map(|folder| CascadeBundle::load(folder));
        CascadeBundle::distinct(bundles.collect::<Result<_>>()?)
    };
    tokio::task::spawn_blocking(load).await.map_err(failure::internal)?
}
