//! Pictures to start from, and masks: files of this machine, looked at before anything is asked of a farm, and sent to it
//! once each, however many prompts name them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use darkroom_artifacts::input::{MAX_BYTES, Pixels, Seen};
use darkroom_core::{digest::Digest, error::UserError, extent::Extent};

use crate::{
    client::Client,
    failure::{self, Result},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    by_path: HashMap<PathBuf, Digest>,
    files: BTreeMap<Digest, File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    seen: Seen,
}

impl Inputs {
    /// Looks at a picture; its SHA-256 is its name in prompts. `field` is what names it in errors.
    pub(crate) fn picture(&mut self, field: &str, path: &Path) -> Result<Digest> {
        if let Some(known) = self.by_path.get(path) {
            return Ok(*known);
        }
        let bytes = std::fs::read(path).map_err(|error| failure::file(field, "read", path, &error))?;
        let refuse = |what: &str| UserError::invalid(field, format!("{} {what}", path.display()));
        if bytes.len() > MAX_BYTES {
            return Err(refuse(&format!("has {} bytes; accepted: at most {MAX_BYTES}", bytes.len())));
        }
        let seen = Pixels::decode(&bytes).map_err(|error| refuse(&error.to_string()))?.seen();
        let sha256 = Digest::of(&bytes);
        self.by_path.insert(path.to_owned(), sha256);
        self.files.entry(sha256).or_insert(File { path: path.to_owned(), seen });
        Ok(sha256)
    }

    /// Looks at a mask of a picture that was looked at.
    pub(crate) fn mask(&mut self, field: &str, path: &Path, image: Digest) -> Result<Digest> {
        let mask = self.picture(field, path)?;
        let refuse = |what: String| Err(UserError::invalid(field, format!("{} {what}", path.display())));
        match (self.files.get(&mask), self.extent(image)) {
            (Some(file), _) if !file.seen.is_mask => refuse(
                "is in colour, or black alone; accepted: black and white, white where the picture is painted anew"
                    .to_owned(),
            ),
            (Some(file), Some(extent)) if file.seen.extent != extent => refuse(format!(
                "has {} pixels; accepted: {extent}, as many as its picture",
                file.seen.extent
            )),
            _ => Ok(mask),
        }
    }

    /// How big a picture is that was looked at.
    pub(crate) fn extent(&self, sha256: Digest) -> Option<Extent> {
        self.files.get(&sha256).map(|file| file.seen.extent)
    }

    /// Sends every file. One is in memory at a time.
    pub(crate) async fn send(&self, client: &Client) -> Result<()> {
        for (sha256, file) in &self.files {
            let path = file.path.clone();
            let read =
                tokio::task::spawn_blocking(move || std::fs::read(path)).await.map_err(failure::internal)?;
            let bytes = read.map_err(|error| failure::file("image", "read", &file.path, &error))?;
            if Digest::of(&bytes) != *sha256 {
                let message = format!(
                    "{} changed while it was being sent; accepted: a file that stays",
                    file.path.display()
                );
                return Err(UserError::invalid("image", message));
            }
            client.upload(bytes).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use darkroom_artifacts::picture::encode_rgb;

    use super::*;

    fn png(folder: &Path, name: &str, edge: u32, value: u8) -> PathBuf {
        let path = folder.join(name);
        let rgb = vec![value; 3 * (edge * edge) as usize];
        std::fs::write(&path, encode_rgb(edge, edge, &rgb, &[]).expect("a picture")).expect("written");
        path
    }

    #[test]
    fn a_picture_is_named_by_its_bytes_and_kept_once() {
        let folder = tempfile::tempdir().expect("folder");
        let (one, same) = (png(folder.path(), "one.png", 8, 9), png(folder.path(), "same.png", 8, 9));
        let mut inputs = Inputs::default();
        let name = inputs.picture("image", &one).expect("a picture");
        assert_eq!(inputs.picture("image", &same).expect("a picture"), name);
        assert_eq!((inputs.files.len(), inputs.extent(name)), (1, Some(Extent::square(8))));
    }

    #[test]
    fn what_cannot_be_started_from_is_refused_with_its_file_and_what_can() {
        let folder = tempfile::tempdir().expect("folder");
        let mut inputs = Inputs::default();
        let text = folder.path().join("text.png");
        std::fs::write(&text, "no picture").expect("written");
        let error = inputs.picture("image", &text).expect_err("no picture");
        assert!(error.message.contains("text.png is no PNG; accepted:"), "{error}");
        let image = inputs.picture("image", &png(folder.path(), "image.png", 8, 9)).expect("a picture");
        for (name, edge, value, says) in
            [("small.png", 4, 255, "accepted: 8x8"), ("black.png", 8, 0, "black alone")]
        {
            let error = inputs.mask("mask", &png(folder.path(), name, edge, value), image).expect_err(name);
            assert!(error.message.contains(name) && error.message.contains(says), "{error}");
        }
        inputs.mask("mask", &png(folder.path(), "white.png", 8, 255), image).expect("a mask");
    }
}
