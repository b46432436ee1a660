//! Names of models that mean a cascade of the farm: programs often have a model's name built in.

use std::{collections::BTreeMap, str::FromStr};

use darkroom_core::shown::shown;

/// The aliases of every farm. They mean its default cascade.
const BUILT_IN: [&str; 2] = ["gpt-image-1", "dall-e-3"];
/// Longest name, characters.
const LONGEST: usize = 128;

/// One alias as a flag gives it: `NAME=CASCADE`, or `NAME=` for no such alias.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct ModelAlias {
    name: String,
    cascade: String,
}

impl TryFrom<String> for ModelAlias {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for ModelAlias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{:?} is not an alias; accepted: NAME=CASCADE, like gpt-image-2=demo, or NAME= to \
                 remove an alias; both have no blanks and at most {LONGEST} characters, and NAME \
                 has no slash",
                shown(text)
            )
        };
        let (name, cascade) = text.split_once('=').ok_or_else(wrong)?;
        let (name, cascade) = (name.trim(), cascade.trim());
        let is_name = |name: &str| {
            name.chars().count() <= LONGEST
                && name.chars().all(|letter| !letter.is_whitespace() && !letter.is_control())
        };
        if name.is_empty() || name.contains('/') || !is_name(name) || !is_name(cascade) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), cascade: cascade.to_owned() })
    }
}

/// Names that mean a cascade of the farm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aliases {
    /// Maps each alias to a cascade's name or digest. Empty means the default cascade.
    cascades: BTreeMap<String, String>,
}

impl Default for Aliases {
    fn default() -> Self {
        let cascades = BUILT_IN.iter().map(|name| ((*name).to_owned(), String::new()));
        Self { cascades: cascades.collect() }
    }
}

impl Aliases {
    /// The built-in aliases with these changes, the last one of a name counting.
    pub(crate) fn with(changes: &[ModelAlias]) -> Self {
        let mut all = Self::default();
        for ModelAlias { name, cascade } in changes {
            if cascade.is_empty() {
                all.cascades.remove(name);
            } else {
                all.cascades.insert(name.clone(), cascade.clone());
            }
        }
        all
    }

    /// The cascade that a name means; empty for the default one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.cascades.get(name).map(String::as_str)
    }

    /// All names, with the cascades that they mean.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.cascades.iter().map(|(name, cascade)| (name.as_str(), cascade.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_a_name_and_a_cascade_and_the_built_in_ones_can_be_changed_or_removed() {
        let flag = |text: &str| text.parse::<ModelAlias>().expect(text);
        let all = Aliases::with(&[flag("gpt-image-2=demo"), flag(" dall-e-3 = "), flag("a=b=c")]);
        let all: Vec<_> = all.all().collect();
        assert_eq!(all, [("a", "b=c"), ("gpt-image-1", ""), ("gpt-image-2", "demo")]);
        assert_eq!(Aliases::default().get("dall-e-3"), Some(""));
        let long = "x".repeat(LONGEST + 1);
        for wrong in ["", "demo", "=demo", "a b=c", "a=b c", "a/b=c", &format!("{long}=demo")] {
            let said = wrong.parse::<ModelAlias>().expect_err(wrong);
            assert!(said.contains("accepted: NAME=CASCADE"), "{said}");
        }
    }
}
