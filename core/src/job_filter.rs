//! Which jobs a listing is about: those with some labels, a name, or some text.

use std::collections::BTreeMap;

use crate::{error::UserError, prompt, prompt_filter::PromptFilter};

/// Longest name of a job, characters.
pub const MAX_NAME: usize = 200;

/// Which jobs are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    labels: PromptFilter,
    /// In lower case; empty: any.
    name: String,
    text: PromptFilter,
}

/// Whether a job is meant, as far as the job itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// It is if one of its prompts [has the text](JobFilter::accepts_prompt).
    AskPrompts,
}

impl JobFilter {
    /// Jobs that have all of `labels` with these values, whose name contains `name` in any case,
    /// and of which the name, or the text or custom id of a prompt, contains `text` in any case.
    /// An empty or blank field accepts every job.
    ///
    /// # Errors
    /// The field (`labels`, `name` or `text`) whose limits are exceeded: those of a job's labels
    /// and name, and of a prompt's text.
    pub fn new(
        labels: BTreeMap<String, String>,
        name: &str,
        text: &str,
    ) -> Result<Self, UserError> {
        let characters = name.chars().count();
        if characters > MAX_NAME {
            let message = format!("name has {characters} characters; accepted: at most {MAX_NAME}");
            return Err(UserError::invalid("name", message));
        }
        Ok(Self {
            labels: PromptFilter::new(labels, "")?,
            name: prompt::or_empty(name).to_lowercase(),
            text: PromptFilter::new(BTreeMap::new(), text)?,
        })
    }

    /// Whether it accepts every job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.name.is_empty() && self.text.is_empty()
    }

    /// Whether a job of this name and these labels is meant.
    #[must_use]
    pub fn accepts(&self, name: &str, labels: &BTreeMap<String, String>) -> Verdict {
        let named = self.name.is_empty() || name.to_lowercase().contains(&self.name);
        if !named || !self.labels.accepts("", None, labels) {
            return Verdict::No;
        }
        if self.accepts_prompt(name, None) { Verdict::Yes } else { Verdict::AskPrompts }
    }

    /// Whether a prompt has the text that is searched for.
    #[must_use]
    pub fn accepts_prompt(&self, text: &str, custom_id: Option<&str>) -> bool {
        self.text.accepts(text, custom_id, &BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_job_is_meant_that_has_the_labels_and_the_name_and_somewhere_the_text() {
        let filter =
            JobFilter::new(labels(&[("set", "a")]), "ÉTÉ", "cake").expect("within the limits");
        let full = labels(&[("set", "a"), ("more", "b")]);
        assert_eq!(filter.accepts("un été", &full), Verdict::AskPrompts);
        assert_eq!(filter.accepts("Été with CAKES", &full), Verdict::Yes, "the name has it");
        assert_eq!(filter.accepts("hiver", &full), Verdict::No);
        assert_eq!(filter.accepts("été", &labels(&[("set", "b")])), Verdict::No);
        assert!(filter.accepts_prompt("two Cakes", None));
        assert!(filter.accepts_prompt("x", Some("cake-7")), "the custom id counts too");
        assert!(!filter.accepts_prompt("pie", Some("7")));
    }

    #[test]
    fn without_a_text_no_prompt_is_asked() {
        let filter = JobFilter::new(BTreeMap::new(), "a", " ").expect("a name");
        assert!(!filter.is_empty());
        assert_eq!(filter.accepts("A", &BTreeMap::new()), Verdict::Yes);
        let all = JobFilter::new(BTreeMap::new(), "\u{200B}", "").expect("blank is none");
        assert!(all.is_empty() && all.accepts("", &BTreeMap::new()) == Verdict::Yes);
    }

    #[test]
    fn what_no_job_can_have_is_refused_by_field() {
        let refused = |labels, name: &str, text: &str| {
            JobFilter::new(labels, name, text).expect_err("too long").field
        };
        assert_eq!(refused(labels(&[("", "")]), "", "").as_deref(), Some("labels"));
        let none = BTreeMap::new;
        assert_eq!(refused(none(), &"é".repeat(201), "").as_deref(), Some("name"));
        assert_eq!(refused(none(), "", &"é".repeat(4097)).as_deref(), Some("text"));
        JobFilter::new(none(), &"é".repeat(200), &"é".repeat(4096)).expect("within the limits");
    }
}
