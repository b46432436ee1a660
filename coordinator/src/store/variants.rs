//! Settings of single prompts in a chunk, for both databases.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use darkroom_core::{mix::Mix, settings::Settings};

use super::{
    Error,
    columns::{column, from_json, to_json},
    records::NewPrompt,
};

/// Settings by the number of their variant.
pub(super) type Known = HashMap<i64, Arc<Settings>>;

/// The variants of a chunk by number, each with its number of images; usually none.
pub(super) struct Chunk<'a>(BTreeMap<u32, (&'a Settings, u64)>);

impl<'a> Chunk<'a> {
    pub(super) fn of(prompts: &'a [NewPrompt]) -> Self {
        let mut variants: BTreeMap<u32, (&Settings, u64)> = BTreeMap::new();
        for prompt in prompts {
            let Some(variant) = &prompt.variant else { continue };
            let entry = variants.entry(variant.number).or_insert((&variant.settings, 0));
            entry.1 += u64::from(prompt.images);
        }
        Self(variants)
    }

    /// Number, number of stages and settings as JSON of each, in order of number.
    pub(super) fn rows(&self) -> Result<Vec<(i64, i64, String)>, Error> {
        let row = |(number, (settings, _)): (&u32, &(&Settings, u64))| {
            Ok((i64::from(*number), column(settings.stages.len()), to_json(*settings)?))
        };
        self.0.iter().map(row).collect()
    }

    /// The settings with the most stages.
    pub(super) fn longest(&self) -> Option<&'a Settings> {
        let settings = self.0.values().map(|(settings, _)| *settings);
        settings.max_by_key(|settings| settings.stages.len())
    }

    /// A job's mix with these images added, from and for its column.
    pub(super) fn mixed(&self, before: Option<&str>) -> Result<String, Error> {
        let mut mix: Mix = before.map_or(Ok(Mix::default()), from_json)?;
        for (settings, images) in self.0.values() {
            mix.add(settings, *images);
        }
        to_json(&mix)
    }
}

/// Makes variants from a backend's rows: numbers, and settings as JSON.
pub(super) fn known(rows: Vec<(i64, String)>) -> Result<Known, Error> {
    let one = |(number, settings): (i64, String)| Ok((number, Arc::new(from_json(&settings)?)));
    rows.into_iter().map(one).collect()
}

/// The settings of a variant that must exist.
pub(super) fn of(known: &Known, variant: i64) -> Result<&Arc<Settings>, Error> {
    known.get(&variant).ok_or_else(|| Error::Corrupt(format!("settings {variant} of a prompt")))
}
