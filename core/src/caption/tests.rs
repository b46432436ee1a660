//! The table of cases that was run through the reference.

use proptest::prelude::*;
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
    /// Cases in which this implementation is known to differ, and what it returns instead.
    ours: Option<String>,
}

fn table() -> Table {
    serde_json::from_str(include_str!("cases.json")).expect("a table")
}

#[test]
fn captions_are_cleaned_as_the_reference_does() {
    let mut wrong = Vec::new();
    for case in table().cases {
        let found = TextPreparation::IfClean.apply(&case.text).expect("a text that people write");
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
    assert_eq!((PUNCTUATION.len(), SHOP_TALK.len()), (20, 17));
    assert_eq!(
        (reference::LINKS.len(), reference::PUNCTUATION.len(), reference::SHOP_TALK.len()),
        (2, 20, 17)
    );
}

/// Fragments that the patterns look for, joined so that they meet.
fn scraps() -> impl Strategy<Value = String> {
    const SCRAPS: &[&str] = &[
        "http:",
        "https:",
        "www:",
        "/",
        "//",
        ".com",
        ".co",
        ".it",
        "com",
        "@",
        "-",
        "_",
        ".",
        ",",
        ":",
        " ",
        "  ",
        "\n",
        "a",
        "b",
        "é",
        "x",
        "х",
        "×",
        "1",
        "12",
        "123",
        "٣",
        "#",
        "#12",
        "#12345",
        "123456",
        ".png",
        ".jpg",
        "png",
        "image",
        "images",
        "click",
        "for",
        "on",
        "page",
        "free",
        "download",
        "worldwide",
        "shipping",
        "\"",
        "'",
        "(",
        "%",
        "*",
        "\u{301}",
        "\u{1d}",
        "漢",
        "\\n",
        "&quot;",
        "&amp",
        "3x2.5",
        "2.x",
        "‿",
    ];
    proptest::collection::vec(proptest::sample::select(SCRAPS), 0..14)
        .prop_map(|scraps| scraps.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn each_step_finds_what_the_references_pattern_finds(text in scraps()) {
        let links = [&["https:", "http:"][..], &["www:"][..]];
        for (schemes, pattern) in links.iter().zip(reference::LINKS.iter()) {
            prop_assert_eq!(links::removed(&text, schemes), pattern.apply(&text), "links in {:?}", text);
        }
        let ours = PUNCTUATION.iter().chain(SHOP_TALK.iter());
        let theirs = reference::PUNCTUATION.iter().chain(reference::SHOP_TALK.iter());
        for (place, (our, their)) in ours.zip(theirs).enumerate() {
            prop_assert_eq!(our.apply(&text), their.apply(&text), "pattern {} in {:?}", place, text);
        }
    }
}

/// Fragments to fill a text with. Each one once kept a regex engine or a loop busy.
const HOSTILE: [&str; 44] = [
    "a",
    "a.",
    "a-",
    "a-.",
    ".co",
    "a.co@",
    "-",
    "_",
    "a1",
    "1",
    "1a",
    "1x",
    "1.",
    "1.1x1.",
    "<",
    "<a ",
    "<a b='",
    "<!--",
    "<!",
    "</",
    "<?",
    "<![cdata[",
    "<script>",
    "</script",
    "&",
    "&#1",
    "&#",
    "&amp;",
    "&a",
    "%",
    "%41",
    "\"",
    "'",
    "@",
    "#",
    "#1",
    "(",
    " ",
    " .",
    "é",
    "http:",
    "free ",
    ".png",
    "worldwide ",
];

#[test]
fn hostile_texts_of_the_longest_kind_are_cleaned_or_refused_within_bounds() {
    let mut refused = Vec::new();
    for unit in HOSTILE {
        let text: String = unit.chars().cycle().take(crate::prompt::MAX_CHARACTERS).collect();
        if TextPreparation::IfClean.apply(&text).is_err() {
            refused.push(unit);
        }
    }
    // Texts that nobody writes, and texts that would be read in vain.
    assert_eq!(refused, ["<a ", "<a b='", "<!--", "<!", "</", "<?", "</script"]);
}

#[test]
fn references_within_references_are_given_up() {
    // Full-width forms, so that earlier steps do not see them; each round undoes one.
    let nested = |times: usize| format!("\u{ff06}{}lt;", "amp;".repeat(times));
    assert!(TextPreparation::IfClean.apply(&nested(4)).is_ok());
    assert_eq!(TextPreparation::IfClean.apply(&nested(1000)), Err(Error::References));
    let message =
        TextPreparation::IfClean.prepare("prompts[3].text", &nested(1000)).expect_err("refused");
    assert_eq!(message.field.as_deref(), Some("prompts[3].text"));
}

#[test]
fn tags_that_do_not_end_are_read_so_often_and_no_more() {
    let text = |tags: usize| format!("{}{}", "<a ".repeat(tags), "b".repeat(1096));
    assert!(TextPreparation::IfClean.apply(&text(200)).is_ok());
    assert_eq!(TextPreparation::IfClean.apply(&text(1000)), Err(Error::Markup));
}
