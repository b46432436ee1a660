//! Puts files into a cascade's folder without copying weights, if the file system allows it
//! (docs/adr/0006).

use std::{fs, io, path::Path};

use darkroom_runtime::files;

use super::verified::File;

/// Files of up to this many bytes are copied: configurations and tokenizers, which people edit.
const SMALL: u64 = 1 << 20;

/// How the files came into the folder.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Linked {
    /// Hard links: the same bytes under two names.
    pub(super) hard: usize,
    /// Symbolic links: they need the files that they point to.
    pub(super) symbolic: usize,
    pub(super) copied: usize,
    pub(super) copied_bytes: u64,
}

/// Puts every file in its place below `folder`.
pub(super) fn place(files: &[File], folder: &Path, copy: bool) -> io::Result<Linked> {
    let mut linked = Linked::default();
    for file in files {
        let to = folder.join(&file.to);
        if let Some(above) = to.parent() {
            fs::create_dir_all(above)?;
        }
        // A cache's files are symbolic links to its blobs; the link must go to the blob.
        let from = fs::canonicalize(&file.from)?;
        if copy || fs::metadata(&from)?.len() <= SMALL {
            linked.copied_bytes += files::copy_new(&from, &to)?;
            linked.copied += 1;
        } else if fs::hard_link(&from, &to).is_ok() {
            linked.hard += 1;
        } else if is_weights(&to) && std::os::unix::fs::symlink(&from, &to).is_ok() {
            linked.symbolic += 1;
        } else {
            // The file system has no links of either kind.
            linked.copied_bytes += files::copy_new(&from, &to)?;
            linked.copied += 1;
        }
    }
    Ok(linked)
}

/// Only links to weights may leave a cascade's folder.
fn is_weights(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "safetensors")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use darkroom_core::digest::Digest;

    use super::*;

    #[test]
    fn large_files_share_their_bytes_and_small_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("blob"), vec![7; (SMALL + 1) as usize]).unwrap();
        std::os::unix::fs::symlink("blob", path("large")).unwrap();
        fs::write(path("small"), "x").unwrap();
        let file = |name: &str| File {
            from: path(name),
            to: format!("unet/{name}"),
            sha256: Digest::of(b""),
        };
        let files = [file("large"), file("small")];
        let linked = place(&files, &path("linked"), false).unwrap();
        assert_eq!(
            (linked.hard, linked.symbolic, linked.copied, linked.copied_bytes),
            (1, 0, 1, 1)
        );
        let inode = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
        assert_eq!(
            inode(&path("linked/unet/large")),
            inode(&path("blob")),
            "the blob, not the link to it"
        );
        assert_ne!(inode(&path("linked/unet/small")), inode(&path("small")));
        let copied = place(&files, &path("copied"), true).unwrap();
        assert_eq!((copied.hard, copied.copied), (0, 2));
        assert_ne!(inode(&path("copied/unet/large")), inode(&path("blob")));
    }
}
