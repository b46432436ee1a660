//! What values of JSON mean: the table in the crate's documentation, row by row.

use darkroom_prompts::{Labels, Options, Prompt};

use crate::{read, read_with, refused, refused_with};

fn one(json: &str) -> Prompt {
    let line = read(json, "a.jsonl").remove(0);
    let array = read(format!("[{json}]"), "a.json").remove(0);
    assert_eq!(line, array, "the same in every format");
    line
}

fn labels() -> Options {
    Options { labels: Labels::All, ..Options::default() }
}

#[test]
fn null_and_absent_are_not_said_and_empty_text_is_said() {
    let nothing = Prompt { line: 1, text: "a".to_owned(), ..Prompt::default() };
    assert_eq!(one(r#"{"prompt": "a"}"#), nothing);
    let null = r#"{"prompt": "a", "negative": null, "images": null, "seed": null, "style": null, "image": null, "mask": null, "custom_id": null, "labels": null}"#;
    assert_eq!(one(null), nothing);
    let empty = one(
        r#"{"prompt": "a", "negative": "", "images": 0, "style": "", "image": "", "mask": "", "custom_id": "", "labels": {}}"#,
    );
    let none = Some(String::new());
    let expected = Prompt {
        negative: none.clone(),
        style: none.clone(),
        image: none.clone(),
        mask: none,
        ..nothing
    };
    assert_eq!(empty, expected);
}

#[test]
fn every_field_is_read() {
    let full = one(
        r#"{"custom_id": "x", "mask": "m.png", "image": "i.png", "style": "ink", "seed": 18446744073709551615, "images": 10000, "negative": "blur", "labels": {"k": "v", "n": 1.50, "o": {"a" : [1, 2], "b": "c d"}, "z": null}, "prompt": "a"}"#,
    );
    assert_eq!((full.images, full.seed, full.custom_id.as_str()), (10_000, Some(u64::MAX), "x"));
    assert_eq!(
        (full.style.as_deref(), full.image.as_deref(), full.mask.as_deref()),
        (Some("ink"), Some("i.png"), Some("m.png"))
    );
    let labels: Vec<_> =
        full.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("k", "v"), ("n", "1.50"), ("o", r#"{"a":[1,2],"b":"c d"}"#)]);
    assert_eq!(one(r#""a \"quoted\" prompt""#).text, "a \"quoted\" prompt");
}

#[test]
fn what_is_not_quite_right_is_refused_with_what_it_is() {
    for (json, words) in [
        (r#"{"prompt": "a", "images": "3"}"#, ["images is \"3\"", "whole number"]),
        (r#"{"prompt": "a", "images": 1.0}"#, ["images is 1.0", "whole number"]),
        (r#"{"prompt": "a", "images": 1e3}"#, ["images is 1e3", "whole number"]),
        (r#"{"prompt": "a", "images": -1}"#, ["images is -1", "whole number"]),
        (r#"{"prompt": "a", "images": true}"#, ["images is true", "whole number"]),
        (r#"{"prompt": "a", "images": [1]}"#, ["images is [1]", "whole number"]),
        (r#"{"prompt": "a", "images": 10001}"#, ["images is 10001", "10000"]),
        (r#"{"prompt": "a", "images": 4294967296}"#, ["images is 4294967296", "10000"]),
        (r#"{"prompt": "a", "seed": -1}"#, ["seed is -1", "18446744073709551615"]),
        (
            r#"{"prompt": "a", "seed": 18446744073709551616}"#,
            ["seed is 18446744073709551616", "accepted"],
        ),
        (r#"{"prompt": "a", "seed": "1"}"#, ["seed is \"1\"", "accepted"]),
        (r#"{"prompt": "a", "style": 1}"#, ["style is 1", "a string"]),
        (r#"{"prompt": "a", "image": false}"#, ["image is false", "a string"]),
        (r#"{"prompt": "a", "custom_id": 7}"#, ["custom_id is 7", "a string"]),
        (r#"{"prompt": "a", "negative": {}}"#, ["negative is {}", "a string"]),
        (r#"{"prompt": "a", "labels": []}"#, ["labels is []", "an object"]),
        (r#"{"prompt": "a", "labels": {"k": 1, "k": 2}}"#, ["\"k\" occurs twice", "accepted"]),
        (r#"{"prompt": 5}"#, ["prompt is 5", "a string"]),
        (r#"{"prompt": null}"#, ["prompt is missing", "accepted"]),
        (r#"{"negative": "a"}"#, ["prompt is missing", "--column"]),
        (r#"{"prompt": ""}"#, ["prompt is empty", "accepted"]),
        (r#"{"prompt": "a", "prompt": "b"}"#, ["\"prompt\" occurs twice", "accepted"]),
        (r#"{"prompt": "a", "\u0070rompt": "b"}"#, ["\"prompt\" occurs twice", "accepted"]),
        (r#"{"prompt": "a", "promt": "b"}"#, ["\"promt\" is unknown", "--labels"]),
        (r#"{"prompt": "a", "Images": 3}"#, ["\"Images\" is unknown", "images"]),
        (r#"{"prompt": "a\ud800"}"#, ["prompt is", "hex escape"]),
        (r#"{"prompt": "a"} {"prompt": "b"}"#, ["not JSON", "trailing"]),
        (r#"{"prompt": "a"},"#, ["not JSON", "trailing"]),
        (r#"{"prompt": "a""#, ["not JSON", "accepted"]),
        (r#"{'prompt': 'a'}"#, ["not JSON", "accepted"]),
        (r#"5"#, ["it is 5", "accepted"]),
        (r#"["a"]"#, ["it is [\"a\"]", "accepted"]),
        (r#"NaN"#, ["not JSON", "accepted"]),
    ] {
        let text = format!("{{\"prompt\": \"good\"}}\n{json}\n");
        refused(text, "a.jsonl", &[&["line 2: "], words.as_slice()].concat());
    }
}

#[test]
fn unknown_keys_become_labels_when_asked_for() {
    let line = r#"{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}"#;
    refused(line, "evaluation_metadata.jsonl", &["line 1: ", "\"tag\" is unknown", "--labels"]);
    let (prompts, notes) =
        read_with(line.as_bytes(), "evaluation_metadata.jsonl", labels()).expect("kept");
    assert_eq!(notes, []);
    assert_eq!(prompts[0].text, "a photo of a bench");
    assert_eq!(prompts[0].labels["tag"], "single_object");
    assert_eq!(prompts[0].labels["include"], r#"[{"class":"bench","count":1}]"#);
    let both = r#"{"prompt": "a", "tag": "x", "labels": {"tag": "y"}}"#;
    refused_with(both, "a.jsonl", labels(), &["line 1: ", "\"tag\" occurs twice"]);
    let (_, notes) =
        read_with(r#"{"prompt": "a", "negative_prompt": "b"}"#.as_bytes(), "a.jsonl", labels())
            .expect("kept");
    assert!(notes[0].message.contains("`negative`"), "{notes:?}");
    for (key, value, says) in [
        ("", "v".to_owned(), "blank"),
        (&*"k".repeat(65), "v".to_owned(), "65"),
        ("k", "v".repeat(1025), "1025"),
        ("k", "\\u0000".to_owned(), "U+0000"),
        ("a\\u001b", "v".to_owned(), "U+001B"),
    ] {
        refused_with(
            format!("{{\"prompt\": \"a\", \"{key}\": \"{value}\"}}"),
            "a.jsonl",
            labels(),
            &["line 1: ", says],
        );
    }
    let many: String = (0..17).map(|number| format!(", \"k{number}\": 1")).collect();
    refused_with(
        format!("{{\"prompt\": \"a\"{many}}}"),
        "a.jsonl",
        labels(),
        &["line 1: ", "17", "16"],
    );
    refused_with(
        format!("{{\"prompt\": \"a\", \"k\": [{}]}}", "1,".repeat(600) + "1"),
        "a.jsonl",
        labels(),
        &["line 1: ", "1203"],
    );
}

#[test]
fn another_key_can_hold_the_prompt() {
    let options = Options { column: Some("text".to_owned()), ..Options::default() };
    let (prompts, _) =
        read_with(r#"{"text": "a", "seed": 1}"#.as_bytes(), "a.jsonl", options.clone())
            .expect("named");
    assert_eq!((prompts[0].text.as_str(), prompts[0].seed), ("a", Some(1)));
    refused_with(r#"{"prompt": "a"}"#, "a.jsonl", options, &["line 1: ", "\"prompt\" is unknown"]);
}

#[test]
fn a_custom_id_names_one_prompt_of_the_file() {
    let lines = "{\"prompt\": \"a\", \"custom_id\": \"x\"}\n{\"prompt\": \"b\", \"custom_id\": \"\"}\n{\"prompt\": \"c\", \"custom_id\": \"\"}\n{\"prompt\": \"d\", \"custom_id\": \"x\"}\n";
    refused(lines, "a.jsonl", &["line 4: ", "custom_id is \"x\"", "line 1"]);
    let blank = "{\"prompt\": \"a\", \"custom_id\": \" \"}\n";
    assert_eq!(read(blank.repeat(2), "a.jsonl").len(), 2, "a blank one is none");
}

#[test]
fn nesting_without_end_is_refused_and_breaks_nothing() {
    let deep =
        format!("{{\"prompt\": \"a\", \"k\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    refused_with(&deep, "a.jsonl", labels(), &["line 1: ", "labels"]);
    refused(format!("[{deep}]"), "a.json", &["line 1: ", "\"k\" is unknown"]);
}
