//! A client's own names for prompts: an id within the job, labels, and the line of the file they
//! came from. The farm stores and returns them; they change no picture.

use std::collections::BTreeMap;

use crate::{
    error::UserError,
    prompt::{is_blank, or_empty},
};

/// Longest custom id, characters.
pub const MAX_CUSTOM_ID: usize = 128;
/// Most labels of a prompt.
pub const MAX_LABELS: usize = 16;
/// Longest key of a label, characters.
pub const MAX_LABEL_KEY: usize = 64;
/// Longest value of a label, characters.
pub const MAX_LABEL_VALUE: usize = 1024;
/// Most bytes of a prompt's labels together, keys and values.
pub const MAX_LABELS_BYTES: usize = 8192;
/// Highest line number: the largest integer that every JSON reader represents exactly.
pub const MAX_LINE: u64 = (1 << 53) - 1;

/// A client's own names for a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Unique within the job.
    pub custom_id: Option<String>,
    /// Labels by key.
    pub labels: BTreeMap<String, String>,
    /// Line of the file that it came from, counted from 1.
    pub line: Option<u64>,
}

/// A client's own names for a prompt, as they came.
#[derive(Clone, Debug, Default)]
pub struct NamingRequest<'a> {
    /// Blank is none.
    pub custom_id: &'a str,
    /// Labels by key.
    pub labels: BTreeMap<String, String>,
    /// 0 is none.
    pub line: u64,
}

impl Naming {
    /// Checks the names of a prompt as a user gave them. A blank custom id and line 0 mean none.
    /// `path` makes the path of a prompt's field (`prompts[3].labels`). This does not check that
    /// custom ids are unique; the caller that sees the whole job must do that.
    ///
    /// # Errors
    /// The wrong field: too long, too many, or with characters that cannot be printed.
    pub fn check(
        request: NamingRequest<'_>,
        path: &dyn Fn(&str) -> String,
    ) -> Result<Self, UserError> {
        let NamingRequest { custom_id, labels, line } = request;
        check_custom_id(&path("custom_id"), custom_id)?;
        check_labels(&path("labels"), &labels)?;
        if line > MAX_LINE {
            let field = path("line");
            let message = format!("{field} is {line}; accepted: 1 to {MAX_LINE}, or 0 for none");
            return Err(UserError::invalid(field, message));
        }
        let custom_id = Some(or_empty(custom_id)).filter(|id| !id.is_empty()).map(str::to_owned);
        Ok(Self { custom_id, labels, line: Some(line).filter(|line| *line > 0) })
    }
}

/// Checks a custom id; a blank one means none.
///
/// # Errors
/// `field` is named when the id is too long or has a character that cannot be printed.
pub fn check_custom_id(field: &str, id: &str) -> Result<(), UserError> {
    let characters = id.chars().count();
    if characters > MAX_CUSTOM_ID {
        let message =
            format!("{field} has {characters} characters; accepted: 1 to {MAX_CUSTOM_ID}, or none");
        return Err(UserError::invalid(field, message));
    }
    if is_blank(id) {
        return Ok(());
    }
    printable(field, id, &[])
}

/// Checks a prompt's labels.
///
/// # Errors
/// Names `field`, and the key if one is wrong: there are too many labels, a key is blank or too
/// long, a value is too long, all are too long together, or a character cannot be printed. Values
/// may have tabs and line breaks.
pub fn check_labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), UserError> {
    if labels.len() > MAX_LABELS {
        let message =
            format!("{field} has {} labels; accepted: at most {MAX_LABELS}", labels.len());
        return Err(UserError::invalid(field, message));
    }
    for (key, value) in labels {
        let of_key = format!("a key of {field}");
        let characters = key.chars().count();
        if characters > MAX_LABEL_KEY {
            let message =
                format!("{of_key} has {characters} characters; accepted: 1 to {MAX_LABEL_KEY}");
            return Err(UserError::invalid(field, message));
        }
        if is_blank(key) {
            let message = format!("{of_key} is blank; accepted: 1 to {MAX_LABEL_KEY} characters");
            return Err(UserError::invalid(field, message));
        }
        printable(&of_key, key, &[])
            .map_err(|error| UserError { field: Some(field.to_owned()), ..error })?;
        let of_value = format!("{field}[{key:?}]");
        let characters = value.chars().count();
        if characters > MAX_LABEL_VALUE {
            let message = format!(
                "{of_value} has {characters} characters; accepted: at most {MAX_LABEL_VALUE}"
            );
            return Err(UserError::invalid(of_value, message));
        }
        printable(&of_value, value, &['\t', '\n', '\r'])?;
    }
    let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_LABELS_BYTES {
        let message = format!(
            "{field} takes {bytes} bytes, keys and values together; accepted: at most {MAX_LABELS_BYTES}"
        );
        return Err(UserError::invalid(field, message));
    }
    Ok(())
}

/// Refuses characters that cannot be printed.
pub(crate) fn printable(field: &str, text: &str, but: &[char]) -> Result<(), UserError> {
    match text.chars().find(|c| is_unprintable(*c) && !but.contains(c)) {
        None => Ok(()),
        Some(bad) => {
            let message = format!(
                "{field} contains U+{:04X}, which cannot be printed; accepted: printable text",
                bad as u32
            );
            Err(UserError::invalid(field, message))
        }
    }
}

/// Whether a character would break a line, control a terminal, or change the direction of the text
/// beside it: control characters, line and paragraph separators, bidirectional controls,
/// noncharacters.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
            | '\u{FDD0}'..='\u{FDEF}')
        || (c as u32) & 0xFFFE == 0xFFFE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn check(id: &str, labels: BTreeMap<String, String>, line: u64) -> Result<Naming, UserError> {
        let request = NamingRequest { custom_id: id, labels, line };
        Naming::check(request, &|key| format!("prompts[3].{key}"))
    }

    #[test]
    fn names_within_their_limits_are_kept_and_blank_ones_are_none() {
        let full = labels(
            &[
                ("tag", "two \"objects\"\n\tof a kind"),
                (&"k".repeat(64), &"\u{E9}".repeat(1024)),
                ("", ""),
            ][..2],
        );
        let named = check(&"\u{E9}".repeat(128), full.clone(), 7).expect("all within limits");
        assert_eq!(
            (named.custom_id.map(|id| id.chars().count()), named.line),
            (Some(128), Some(7))
        );
        assert_eq!(named.labels, full);
        for blank in ["", " ", "\u{200B}", "\u{FEFF}\u{A0}"] {
            assert_eq!(check(blank, BTreeMap::new(), 0).expect("none"), Naming::default());
        }
        let empty = labels(&[("column", "")]);
        assert_eq!(check("", empty.clone(), 0).expect("a column may be empty").labels, empty);
        check("\u{1F468}\u{200D}\u{1F469} caf\u{E9} \u{6F22}", BTreeMap::new(), MAX_LINE)
            .expect("any script");
    }

    #[test]
    fn what_is_too_long_too_many_or_not_printable_is_refused_by_field() {
        let many: Vec<(String, String)> = (0..17).map(|n| (n.to_string(), String::new())).collect();
        let long = (0..9).map(|n| (n.to_string(), "x".repeat(1000))).collect();
        let cases = [
            (check(&"x".repeat(129), BTreeMap::new(), 0), "prompts[3].custom_id", "129 characters"),
            (check("a\u{7}", BTreeMap::new(), 0), "prompts[3].custom_id", "U+0007"),
            (check("a\nb", BTreeMap::new(), 0), "prompts[3].custom_id", "U+000A"),
            (check("a\u{202E}gnp", BTreeMap::new(), 0), "prompts[3].custom_id", "U+202E"),
            (check("a\u{2028}", BTreeMap::new(), 0), "prompts[3].custom_id", "U+2028"),
            (check("a\u{FFFF}", BTreeMap::new(), 0), "prompts[3].custom_id", "U+FFFF"),
            (check("", many.into_iter().collect(), 0), "prompts[3].labels", "17 labels"),
            (check("", labels(&[("", "x")]), 0), "prompts[3].labels", "blank"),
            (check("", labels(&[("\u{A0}", "x")]), 0), "prompts[3].labels", "blank"),
            (check("", labels(&[("a\tb", "x")]), 0), "prompts[3].labels", "U+0009"),
            (check("", labels(&[(&"x".repeat(65), "x")]), 0), "prompts[3].labels", "65 characters"),
            (
                check("", labels(&[("k", &"x".repeat(1025))]), 0),
                "prompts[3].labels[\"k\"]",
                "1025 characters",
            ),
            (check("", labels(&[("k", "\u{0}")]), 0), "prompts[3].labels[\"k\"]", "U+0000"),
            (check("", labels(&[("k", "\u{1b}[2J")]), 0), "prompts[3].labels[\"k\"]", "U+001B"),
            (check("", long, 0), "prompts[3].labels", "9009 bytes"),
            (check("", BTreeMap::new(), 1 << 53), "prompts[3].line", "9007199254740992"),
        ];
        for (refused, field, word) in cases {
            let error = refused.expect_err(word);
            assert_eq!(error.field.as_deref(), Some(field), "{}", error.message);
            assert!(
                error.message.contains(word) && error.message.contains("accepted:"),
                "{}",
                error.message
            );
            assert!(!error.message.contains('\n'), "{}", error.message);
        }
    }
}
