//! A finished job's manifest, in JSON lines: one header, one line per image, and totals with the
//! hash of everything before them.
//!
//! Written and read as a stream, so that a million images need little memory. The file alone,
//! without the farm, proves that it is complete: the last line hashes every byte before it.

mod checker;

use std::{collections::BTreeMap, io::Write};

use darkroom_core::digest::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use checker::{Checker, verify};

/// File extension of manifests.
pub const EXTENSION: &str = "jsonl";

/// Longest line that a reader accepts, bytes.
pub(crate) const MAX_LINE: u64 = 1 << 20;

/// First line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this format: 1.
    pub format: u32,
    /// The job's id.
    pub job: String,
    /// The job's generation, raised by each retry.
    pub generation: u32,
    /// Name of the cascade.
    pub cascade: String,
    /// Its digest.
    pub cascade_digest: Digest,
    /// The client's own notes on the job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The settings with every default filled in, of images whose line has none.
    pub settings: serde_json::Value,
}

/// The end state of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageOutcome {
    /// Its picture is stored.
    Done,
    /// It failed for good.
    Dead,
    /// The job was cancelled before.
    Cancelled,
}

/// When and why a picture was removed from storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// When, as in RFC 3339.
    pub at: String,
    /// By which policy; or "the disk budget".
    pub by: String,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageLine {
    /// Position in the job.
    pub index: u64,
    /// The prompt.
    pub prompt: String,
    /// The negative prompt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub negative: String,
    /// Text of the super-resolution stages, if it is not the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// SHA-256 of the picture that the image started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// SHA-256 of the mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Digest>,
    /// The client's own id for its prompt, unique within the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_id: Option<String>,
    /// The client's own labels for its prompt.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Line of the client's file with this prompt, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The settings with every default filled in, where they are not the header's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
    /// The seed.
    pub seed: u64,
    /// Its end state.
    pub state: ImageOutcome,
    /// Key of the picture, if done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// When and why the picture was removed from storage, before the manifest was written. Its key,
    /// size and hash say what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
    /// Class of device that rendered the last stage.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device_class: String,
    /// How often its stages were dispatched, all together.
    pub dispatches: u64,
    /// The worker that rendered the last stage, in manifests of older farms.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub worker: String,
    /// Seconds of model time per stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seconds: BTreeMap<String, f64>,
    /// Its last failure, if it is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Sums over the image lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Images.
    pub images: u64,
    /// Of them done.
    pub done: u64,
    /// Of them dead.
    pub dead: u64,
    /// Of them cancelled.
    pub cancelled: u64,
    /// Bytes of all pictures that were not removed.
    pub bytes: u64,
    /// How many of the done ones have no picture any more, because it was removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Header(Header),
    Image(Box<ImageLine>),
    Totals {
        #[serde(flatten)]
        totals: Totals,
        /// SHA-256 of every byte before this line.
        sha256_above: Digest,
    },
}

/// Why a manifest cannot be written, or is not intact.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("the manifest cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// A line is wrong.
    #[error("line {line} of the manifest: {reason}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
}

impl ImageLine {
    /// Whether its picture was removed from storage.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.state == ImageOutcome::Done && self.removed.is_some()
    }
}

impl Totals {
    fn count(&mut self, image: &ImageLine) {
        self.images += 1;
        self.removed += u64::from(image.is_removed());
        if !image.is_removed() {
            // A manifest that somebody made up may have any size.
            self.bytes = self.bytes.saturating_add(image.size.unwrap_or(0));
        }
        match image.state {
            ImageOutcome::Done => self.done += 1,
            ImageOutcome::Dead => self.dead += 1,
            ImageOutcome::Cancelled => self.cancelled += 1,
        }
    }
}

/// Writes a manifest line by line.
pub struct Writer<W> {
    out: W,
    hasher: Sha256,
    totals: Totals,
}

impl<W: Write> Writer<W> {
    /// Starts with the header.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(out: W, header: &Header) -> Result<Self, Error> {
        let mut writer = Self { out, hasher: Sha256::new(), totals: Totals::default() };
        writer.line(&Line::Header(header.clone()))?;
        Ok(writer)
    }

    /// Adds an image. Images must come in the order of their index.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn image(&mut self, image: ImageLine) -> Result<(), Error> {
        self.totals.count(&image);
        self.line(&Line::Image(Box::new(image)))
    }

    /// Writes the totals, and returns them with the writer.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn finish(mut self) -> Result<(W, Totals), Error> {
        let sha256_above = Digest(self.hasher.clone().finalize().into());
        let totals = self.totals.clone();
        self.line(&Line::Totals { totals, sha256_above })?;
        self.out.flush()?;
        Ok((self.out, self.totals))
    }

    fn line(&mut self, line: &Line) -> Result<(), Error> {
        let mut text = serde_json::to_vec(line).map_err(std::io::Error::from)?;
        text.push(b'\n');
        self.hasher.update(&text);
        Ok(self.out.write_all(&text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_indices_at_the_end_of_their_ranges_are_refused_and_do_not_overflow() {
        let mut text = Vec::new();
        let mut writer = Writer::new(&mut text, &header()).unwrap();
        for index in [0, 1, 2, u64::MAX] {
            let size = Some(u64::MAX - index % 2);
            writer.image(ImageLine { index, size, ..line(0) }).unwrap();
        }
        let (_, totals) = writer.finish().unwrap();
        assert_eq!(totals.bytes, u64::MAX);
        let error = verify(&text[..], |_| {}).unwrap_err().to_string();
        assert!(error.contains("image 0 has 18446744073709551615 bytes; accepted: "), "{error}");
        // One that goes on after a wrong line.
        let mut checker = Checker::default();
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let wrong = lines.filter(|line| checker.line(line).1.is_some()).count();
        assert!(wrong >= 4, "{wrong}");
        assert_eq!(checker.counted().bytes, u64::MAX);
    }

    fn header() -> Header {
        Header {
            format: 1,
            job: "0190".to_owned(),
            generation: 1,
            cascade: "demo".to_owned(),
            cascade_digest: Digest::of(b"c"),
            labels: BTreeMap::from([("set".to_owned(), "a".to_owned())]),
            settings: serde_json::json!({"stages": []}),
        }
    }

    fn line(index: u64) -> ImageLine {
        ImageLine {
            index,
            prompt: "a \"red\" circle\n".to_owned(),
            negative: String::new(),
            style: (index == 2).then(|| "ink".to_owned()),
            image: (index == 2).then(|| Digest::of(b"cat")),
            mask: None,
            custom_id: (index == 2).then(|| "a/1".to_owned()),
            labels: (index == 2)
                .then(|| ("tag".to_owned(), "two\nlines".to_owned()))
                .into_iter()
                .collect(),
            line: (index == 2).then_some(7),
            settings: (index == 2).then(|| serde_json::json!({"stages": []})),
            seed: u64::MAX - index,
            state: if index == 1 { ImageOutcome::Dead } else { ImageOutcome::Done },
            key: Some(format!("tasks/x/{index}.png")),
            size: Some(100),
            sha256: Some(Digest::of(&index.to_le_bytes())),
            removed: None,
            device_class: "fake".to_owned(),
            dispatches: 3,
            worker: "w".to_owned(),
            seconds: [("base".to_owned(), 0.25)].into(),
            error: None,
        }
    }

    fn manifest(images: u64) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        (0..images).for_each(|index| writer.image(line(index)).unwrap());
        writer.finish().unwrap().0
    }

    #[test]
    fn a_manifest_proves_itself_and_its_images_come_back() {
        let mut images = Vec::new();
        let (found, totals) = verify(manifest(3).as_slice(), |image| images.push(image)).unwrap();
        assert_eq!(found, header());
        assert_eq!(
            totals,
            Totals { images: 3, done: 2, dead: 1, cancelled: 0, bytes: 300, removed: 0 }
        );
        assert_eq!(images, (0..3).map(line).collect::<Vec<_>>());
        verify(manifest(0).as_slice(), drop).expect("a job may be empty");
    }

    #[test]
    fn a_removed_picture_is_counted_and_says_when_and_by_which_policy() {
        let removed = Removed { at: "2026-11-30T05:00:00Z".to_owned(), by: "a policy".to_owned() };
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.image(ImageLine { removed: Some(removed.clone()), ..line(0) }).unwrap();
        writer.image(line(1)).unwrap();
        let written = writer.finish().unwrap().0;
        let mut images = Vec::new();
        let (_, totals) = verify(written.as_slice(), |image| images.push(image)).unwrap();
        assert_eq!((totals.done, totals.dead, totals.removed), (1, 1, 1));
        assert_eq!(totals.bytes, 100, "of a removed picture there is nothing to verify");
        assert_eq!(images[0].removed, Some(removed));
        assert!(images[0].is_removed() && !images[1].is_removed());
    }

    #[test]
    fn manifests_without_names_and_with_keys_of_a_later_version_are_read() {
        let mut names = Vec::new();
        let text = String::from_utf8(manifest(3)).unwrap();
        let old = text.lines().nth(1).unwrap();
        for key in ["custom_id", "labels", "line"] {
            assert!(!old.contains(key), "absent values are not written: {old}");
        }
        // As another version would write it: one more key, and the hash that includes it.
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let above: String = lines[..4]
            .iter()
            .map(|line| line.replace("\"seed\"", "\"later\":{\"x\":[1]},\"seed\"") + "\n")
            .collect();
        let totals = lines[4].rsplit_once("\"sha256_above\"").unwrap().0;
        let other =
            format!("{above}{totals}\"sha256_above\":\"{}\"}}\n", Digest::of(above.as_bytes()));
        verify(other.as_bytes(), |image| {
            names.push((image.custom_id, image.labels.len(), image.line))
        })
        .unwrap();
        assert_eq!(names, [(None, 0, None), (None, 0, None), (Some("a/1".to_owned()), 1, Some(7))]);
    }

    #[test]
    fn every_damage_is_found_and_its_line_named() {
        let whole = String::from_utf8(manifest(3)).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let without = |skip: usize| {
            let kept: Vec<_> =
                lines.iter().enumerate().filter(|(i, _)| *i != skip).map(|(_, l)| *l).collect();
            kept.join("\n") + "\n"
        };
        let cases = [
            (without(0), 1),
            (without(2), 3),
            (without(4), 5),
            (whole.replace("\"seed\":18446744073709551614", "\"seed\":1"), 5),
            (whole.replace("\"bytes\":300", "\"bytes\":301"), 5),
            (whole[..whole.len() - 1].to_owned(), 5),
            (whole.clone() + "{}\n", 6),
            (String::new(), 1),
        ];
        for (damaged, expected) in cases {
            assert_ne!(damaged, whole);
            match verify(damaged.as_bytes(), drop) {
                Err(Error::Line { line, .. }) => assert_eq!(line, expected, "{damaged}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
