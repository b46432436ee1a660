//! Takes a part of COCO captions. The docs of [`Sample`] have the rule.

use std::collections::BTreeMap;

use darkroom_core::digest::{Digest, FieldHasher};

use crate::{Error, Prompt, Sample};

/// Most prompts of a sample, because it is kept in memory.
const MOST: u64 = 1_000_000;

/// A caption, its rank within its image, and its position in the file.
struct Ranked {
    rank: Digest,
    position: u64,
    prompt: Prompt,
}

/// Keeps the best of the captions that it is given.
pub(crate) struct Chooser {
    seed: [u8; 8],
    by_image: bool,
    wanted: usize,
    /// Whether a number was requested.
    bounded: bool,
    per_image: usize,
    /// By the rank of the image (or of the caption, if each is ranked alone).
    groups: BTreeMap<Digest, Vec<Ranked>>,
    kept: usize,
    shown: u64,
}

impl Chooser {
    /// `None` if all captions are wanted.
    pub(crate) fn of(sample: Sample) -> Result<Option<Self>, Error> {
        if sample.prompts.is_none() && sample.per_image.is_none() {
            return Ok(None);
        }
        if let Some(prompts) = sample.prompts.filter(|prompts| !(1..=MOST).contains(prompts)) {
            return Err(Error::option(
                "sample",
                format!("sample is {prompts}; accepted: 1 to {MOST}"),
            ));
        }
        if sample.per_image == Some(0) {
            return Err(Error::option("per-image", "per-image is 0; accepted: at least 1"));
        }
        let size = |number: Option<u64>, most| {
            number.and_then(|n| usize::try_from(n).ok()).unwrap_or(most)
        };
        Ok(Some(Self {
            seed: sample.seed.to_le_bytes(),
            by_image: sample.per_image.is_some(),
            wanted: size(sample.prompts, size(Some(MOST), usize::MAX)),
            bounded: sample.prompts.is_some(),
            per_image: size(sample.per_image, usize::MAX),
            groups: BTreeMap::new(),
            kept: 0,
            shown: 0,
        }))
    }

    /// Adds the next caption of the file.
    pub(crate) fn show(&mut self, prompt: Prompt) -> Result<(), Error> {
        let image = prompt.labels.get("image_id").cloned().unwrap_or_default();
        let hash =
            |domain: &str| FieldHasher::new(domain).field(&self.seed).field(image.as_bytes());
        let rank = hash("sample/caption/1").field(prompt.custom_id.as_bytes()).finish();
        let group = if self.by_image { hash("sample/image/1").finish() } else { rank };
        self.shown += 1;
        let full = self.kept >= self.wanted;
        if full
            && self.bounded
            && self.groups.last_key_value().is_some_and(|(last, _)| group > *last)
        {
            return Ok(());
        }
        let captions = self.groups.entry(group).or_default();
        let at = captions.partition_point(|other| other.rank < rank);
        captions.insert(at, Ranked { rank, position: self.shown, prompt });
        self.kept += 1;
        if captions.len() > self.per_image {
            captions.pop();
            self.kept -= 1;
        }
        if self.kept > self.wanted && !self.bounded {
            return Err(Error::option(
                "sample",
                format!("the file has more than {MOST} captions to choose; accepted: --sample N"),
            ));
        }
        // If the better-ranked groups already hold enough captions without this group, no later
        // caption can bring it back.
        while let Some((_, last)) = self.groups.last_key_value() {
            if self.kept - last.len() < self.wanted {
                break;
            }
            self.kept -= last.len();
            self.groups.pop_last();
        }
        Ok(())
    }

    /// The sample in the file's order, and the requested number if there are fewer captions.
    pub(crate) fn finish(self) -> (Vec<Prompt>, Option<usize>) {
        let (wanted, bounded) = (self.wanted, self.bounded);
        let mut chosen: Vec<Ranked> = self.groups.into_values().flatten().take(wanted).collect();
        chosen.sort_unstable_by_key(|caption| caption.position);
        let short = Some(wanted).filter(|wanted| bounded && chosen.len() < *wanted);
        (chosen.into_iter().map(|caption| caption.prompt).collect(), short)
    }
}
