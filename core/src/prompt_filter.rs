//! Which prompts a listing or a command applies to: those with given labels, those with a given
//! text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{error::UserError, label, prompt};

/// Which prompts are meant. Written once here, because databases do not agree on what an upper-case
/// letter is outside ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptFilter {
    labels: BTreeMap<String, String>,
    /// In lower case; empty: any.
    text: String,
}

impl PromptFilter {
    /// Selects prompts that have all of `labels` with these values, and whose text or custom id
    /// contains `text` in any case. No labels and an empty or blank text select every prompt.
    ///
    /// # Errors
    /// The field (`labels` or `text`) that exceeds its limits. They are the same as for a prompt's
    /// own labels and text.
    pub fn new(labels: BTreeMap<String, String>, text: &str) -> Result<Self, UserError> {
        label::check_labels("labels", &labels)?;
        let characters = text.chars().count();
        if characters > prompt::MAX_CHARACTERS {
            let most = prompt::MAX_CHARACTERS;
            let message = format!("text has {characters} characters; accepted: at most {most}");
            return Err(UserError::invalid("text", message));
        }
        Ok(Self { labels, text: prompt::or_empty(text).to_lowercase() })
    }

    /// Whether it selects every prompt.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.text.is_empty()
    }

    /// Whether it selects a prompt with this text, custom id and labels.
    #[must_use]
    pub fn accepts(
        &self,
        text: &str,
        custom_id: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let contains = |text: &str| text.to_lowercase().contains(&self.text);
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (self.text.is_empty() || contains(text) || custom_id.is_some_and(contains))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_prompt_is_meant_that_has_every_label_and_the_text_in_any_case() {
        let filter =
            PromptFilter::new(labels(&[("a", "1"), ("b", "")]), "ÉCLAIR").expect("a filter");
        let full = labels(&[("a", "1"), ("b", ""), ("c", "3")]);
        assert!(filter.accepts("two éclairs", None, &full));
        assert!(filter.accepts("cakes", Some("Éclair-7"), &full), "the custom id counts too");
        assert!(!filter.accepts("two eclairs", None, &full));
        assert!(!filter.accepts("two éclairs", None, &labels(&[("a", "1")])), "a label is missing");
        assert!(!filter.accepts("two éclairs", None, &labels(&[("a", "2"), ("b", "")])));
    }

    #[test]
    fn an_empty_filter_means_every_prompt_and_a_blank_text_is_none() {
        for text in ["", " ", "\u{200B}"] {
            let filter = PromptFilter::new(BTreeMap::new(), text).expect("a filter");
            assert!(filter.is_empty() && filter.accepts("a", None, &BTreeMap::new()));
        }
        assert!(!PromptFilter::new(BTreeMap::new(), "a").expect("a filter").is_empty());
        assert!(!PromptFilter::new(labels(&[("a", "")]), "").expect("a filter").is_empty());
    }

    #[test]
    fn what_no_prompt_can_have_is_refused_by_field() {
        let long = PromptFilter::new(BTreeMap::new(), &"é".repeat(4097)).expect_err("too long");
        assert_eq!(long.field.as_deref(), Some("text"));
        let key = PromptFilter::new(labels(&[("", "x")]), "").expect_err("a blank key");
        assert_eq!(key.field.as_deref(), Some("labels"));
    }
}
