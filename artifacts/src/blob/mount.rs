//! What the file system of a folder supports.

use std::path::Path as FilePath;

use darkroom_core::shown::shown_path;
use uuid::Uuid;

use crate::error::Error;

/// What the file system of a folder supports.
pub(super) struct Mount {
    pub(super) links: bool,
    pub(super) syncs_folders: bool,
}

impl Mount {
    /// Checks that files can be written and renamed in the folder, and tries everything else.
    pub(super) fn look(folder: &FilePath) -> Result<Self, Error> {
        let name = shown_path(folder);
        let id = Uuid::new_v4();
        let [probe, other] =
            ["one", "two"].map(|which| folder.join(format!(".probe-{id}-{which}")));
        // Made new, so that a link that lies there leads nowhere.
        let written = std::fs::File::create_new(&probe)
            .and_then(|mut file| std::io::Write::write_all(&mut file, id.to_string().as_bytes()));
        let links = std::fs::hard_link(&probe, &other).is_ok();
        let renamed = std::fs::rename(&probe, &other);
        let syncs_folders =
            std::fs::File::open(folder).is_ok_and(|folder| folder.sync_all().is_ok());
        // If two names are one file, renaming one to the other keeps both.
        for file in [&probe, &other] {
            let _ = std::fs::remove_file(file);
        }
        written.map_err(|error| Error::of_io(&name, &error))?;
        renamed.map_err(|error| Error::Unusable {
            folder: name,
            reason: format!(
                "its file system cannot rename files ({error}); choose a folder on another"
            ),
        })?;
        Ok(Self { links, syncs_folders })
    }
}
