//! Pictures to start from, and masks: files on this machine. Each is checked before the farm is
//! asked for anything, and sent once, however many prompts name it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use darkroom_artifacts::input::{Given, MAX_BYTES, NoMask};
use darkroom_core::{digest::Digest, error::UserError, extent::Extent, fit::Fit};
use darkroom_proto::v1;
use darkroom_runtime::terminal::shown_path;

use crate::{
    bounded,
    client::Client,
    failure::{self, Result},
};

/// Most notes that are shown.
const NOTES: usize = 20;

/// The pictures and masks that prompts name; each file once.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    by_path: HashMap<PathBuf, Digest>,
    files: BTreeMap<Digest, File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    extent: Extent,
    notes: Vec<String>,
    mask: std::result::Result<(), NoMask>,
}

impl Inputs {
    /// Checks a picture; prompts name it by its SHA-256. Errors name it by `field`.
    pub(crate) fn picture(&mut self, field: &str, path: &Path) -> Result<Digest> {
        if let Some(known) = self.by_path.get(path) {
            return Ok(*known);
        }
        let bytes = bounded::read(field, path, MAX_BYTES)?;
        let given = decode(field, path, &bytes)?;
        let sha256 = Digest::of(&bytes);
        let mask = given.pixels.check_mask();
        self.by_path.insert(path.to_owned(), sha256);
        self.files.entry(sha256).or_insert(File {
            path: path.to_owned(),
            extent: given.pixels.extent,
            notes: given.notes,
            mask,
        });
        Ok(sha256)
    }

    /// Checks the mask of a picture that has been checked.
    pub(crate) fn mask(&mut self, field: &str, path: &Path, image: Digest) -> Result<Digest> {
        let mask = self.picture(field, path)?;
        let refuse =
            |what: String| Err(UserError::invalid(field, format!("{} {what}", shown_path(path))));
        match (self.files.get(&mask), self.files.get(&image)) {
            (Some(File { mask: Err(why), .. }), _) => refuse(why.to_string()),
            (Some(file), Some(picture)) if file.extent != picture.extent => refuse(format!(
                "has {} pixels, but its picture {} has {}; accepted: {}, the same as its picture",
                file.extent,
                shown_path(&picture.path),
                picture.extent,
                picture.extent
            )),
            _ => Ok(mask),
        }
    }

    /// The size of a checked picture.
    pub(crate) fn extent(&self, sha256: Digest) -> Option<Extent> {
        self.files.get(&sha256).map(|file| file.extent)
    }

    /// The file of a checked picture.
    pub(crate) fn path(&self, sha256: Digest) -> Option<&Path> {
        self.files.get(&sha256).map(|file| file.path.as_path())
    }

    /// The SHA-256 of the farm's stored form of a picture.
    #[cfg(feature = "embedded")]
    pub(crate) fn canonical(field: &str, path: &Path) -> Result<Digest> {
        let given = decode(field, path, &bounded::read(field, path, MAX_BYTES)?)?;
        let canonical = given.pixels.canonical();
        let canonical = canonical
            .map_err(|error| UserError::invalid(field, format!("{} {error}", shown_path(path))))?;
        Ok(Digest::of(&canonical))
    }

    /// What users should know about the files that prompts name: what was done to read them, and to
    /// make them fit pictures of `wanted` pixels.
    pub(crate) fn notes(
        &self,
        prompts: &[v1::Prompt],
        fit: Fit,
        wanted: Option<Extent>,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        let named = |name: &str| name.parse::<Digest>().ok();
        let pictures: BTreeSet<Digest> =
            prompts.iter().filter_map(|prompt| named(&prompt.image)).collect();
        let masks: BTreeSet<Digest> =
            prompts.iter().filter_map(|prompt| named(&prompt.mask)).collect();
        for name in pictures.union(&masks) {
            let Some(file) = self.files.get(name) else { continue };
            // A mask is treated like its picture, so the note about the picture is enough.
            let fitted = wanted
                .filter(|_| pictures.contains(name))
                .and_then(|to| fit.remark(file.extent, to));
            let said = file.notes.iter().chain(&fitted);
            notes.extend(said.map(|note| format!("{} {note}", shown_path(&file.path))));
        }
        let more = notes.len().saturating_sub(NOTES);
        notes.truncate(NOTES);
        if more > 0 {
            notes.push(format!("and {more} more notes about pictures"));
        }
        notes
    }

    /// Sends every file. Only one is in memory at a time.
    pub(crate) async fn send(&self, client: &Client) -> Result<()> {
        for (sha256, file) in &self.files {
            let path = file.path.clone();
            let reading =
                tokio::task::spawn_blocking(move || bounded::read("image", &path, MAX_BYTES));
            let bytes = reading.await.map_err(failure::internal)??;
            if Digest::of(&bytes) != *sha256 {
                let message = format!(
                    "{} changed while it was being sent; accepted: a file that does not change",
                    shown_path(&file.path)
                );
                return Err(UserError::invalid("image", message));
            }
            client.upload(bytes).await?;
        }
        Ok(())
    }
}

/// Whether a job's note is about the pictures that its prompts start from. The sender of the files
/// has already shown that note with the file's name.
pub(crate) fn is_note_about_pictures(note: &str) -> bool {
    let said = note.split_once(": ").map_or("", |(_, said)| said);
    ["the picture ", "the mask "].iter().any(|about| said.starts_with(about))
}

fn decode(field: &str, path: &Path, bytes: &[u8]) -> Result<Given> {
    Given::decode(bytes)
        .map_err(|error| UserError::invalid(field, format!("{} {error}", shown_path(path))))
}

#[cfg(test)]
mod tests {
    use darkroom_artifacts::picture::encode_rgb;

    use super::*;

    fn png(folder: &Path, name: &str, edge: u32, value: u8) -> PathBuf {
        let path = folder.join(name);
        let rgb = vec![value; 3 * (edge * edge) as usize];
        std::fs::write(&path, encode_rgb(edge, edge, &rgb, &[]).expect("a picture"))
            .expect("written");
        path
    }

    #[test]
    fn a_picture_is_named_by_its_bytes_and_kept_once() {
        let folder = tempfile::tempdir().expect("folder");
        let (one, same) =
            (png(folder.path(), "one.png", 8, 9), png(folder.path(), "same.png", 8, 9));
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
        assert!(
            error.message.contains("text.png is no picture that can be read; accepted:"),
            "{error}"
        );
        let image =
            inputs.picture("image", &png(folder.path(), "image.png", 8, 9)).expect("a picture");
        for (name, edge, value, says) in
            [("small.png", 4, 255, "accepted: 8x8"), ("black.png", 8, 0, "dark everywhere")]
        {
            let error =
                inputs.mask("mask", &png(folder.path(), name, edge, value), image).expect_err(name);
            assert!(error.message.contains(name) && error.message.contains(says), "{error}");
        }
        inputs.mask("mask", &png(folder.path(), "white.png", 8, 255), image).expect("a mask");
    }

    #[test]
    fn what_is_done_to_a_picture_is_noted_with_its_file() {
        let folder = tempfile::tempdir().expect("folder");
        let mut inputs = Inputs::default();
        let path = png(folder.path(), "grey.png", 8, 9);
        let image = inputs.picture("image", &path).expect("a picture").to_string();
        let prompt = v1::Prompt { image, ..v1::Prompt::default() };
        let wanted = Extent { width: 64, height: 32 };
        let notes = inputs.notes(&[prompt.clone(), prompt.clone()], Fit::Crop, Some(wanted));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("grey.png is 8x8: the 8x4 in its middle are used"), "{notes:?}");
        assert!(inputs.notes(&[prompt], Fit::Crop, None).is_empty());
        assert!(is_note_about_pictures(
            "image 2 (line 2) and 3 others: the picture is 8x8: the 8x4 in its"
        ));
        assert!(is_note_about_pictures("image 0: the mask has transparent parts: a picture has"));
        assert!(!is_note_about_pictures(
            "image 0: the prompt has words that the model does not know: the picture "
        ));
        #[cfg(feature = "embedded")]
        assert_eq!(
            Inputs::canonical("image", &path).expect("stored"),
            inputs.by_path[&path],
            "it is canonical"
        );
    }
}
