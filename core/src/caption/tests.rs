//! The table of cases that the reference was run on.

use serde::Deserialize;

use super::*;
use crate::prompt::TextPreparation;

/// Made by `tools/reference/captions.py`.
#[derive(Deserialize)]
struct Table {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    clean: String,
    /// Where this implementation is known to differ: what it gives instead.
    ours: Option<String>,
}

fn table() -> Table {
    serde_json::from_str(include_str!("cases.json")).expect("a table")
}

#[test]
fn captions_are_cleaned_as_the_reference_does() {
    let mut wrong = Vec::new();
    for case in table().cases {
        let found = TextPreparation::IfClean.apply(&case.text);
        if found != *case.ours.as_ref().unwrap_or(&case.clean) {
            wrong.push(format!("{:?}: {found:?}, the reference {:?}", case.text, case.clean));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn known_differences_are_few_and_differ() {
    let table = table();
    let known: Vec<_> = table.cases.iter().filter(|case| case.ours.is_some()).collect();
    assert!(known.len() * 20 < table.cases.len(), "{} of {}", known.len(), table.cases.len());
    assert!(known.iter().all(|case| case.ours.as_ref() != Some(&case.clean)));
}

#[test]
fn every_pattern_is_one() {
    assert_eq!((LINKS.len(), PUNCTUATION.len(), SHOP_TALK.len()), (2, 20, 17));
}

#[test]
fn hostile_texts_of_the_longest_kind_take_no_time_to_speak_of() {
    let begin = std::time::Instant::now();
    for unit in ["a", "a.", "a1", "1", "<", "<a ", "&", "-", "%", "\"", "a-", "1x", "@", "<!--", "&#1", "é"]
    {
        let text: String = unit.chars().cycle().take(crate::prompt::MAX_CHARACTERS).collect();
        let _ = TextPreparation::IfClean.apply(&text);
    }
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
