//! Formats by name.

use darkroom_prompts::{Format, Options, Reader};

use crate::{forced, read_with, refused_with};

#[test]
fn formats_have_names_and_others_are_refused() {
    for (name, format) in [
        ("text", Format::Text),
        ("jsonl", Format::JsonLines),
        ("csv", Format::Csv),
        ("tsv", Format::Tsv),
        ("json", Format::Json),
        ("coco", Format::Coco),
    ] {
        assert_eq!(name.parse::<Format>().expect(name), format);
        assert_eq!(name.to_uppercase().parse::<Format>().expect(name), format);
        assert_eq!(format.to_string(), name);
    }
    let error = "yaml".parse::<Format>().expect_err("no format of ours").to_string();
    assert!(error.contains("\"yaml\"") && error.contains("text, jsonl, csv"), "{error}");
}

#[test]
fn a_format_that_is_asked_for_counts_whatever_the_name_says() {
    let format = |text: &str, name: &str, options| {
        let mut reader = Reader::open(text.as_bytes(), Some(name), options).expect(name);
        reader.by_ref().try_for_each(|prompt| prompt.map(drop)).expect(name);
        reader.format()
    };
    assert_eq!(
        format("{\"prompt\": \"a\"}", "a.txt", forced(Format::JsonLines)),
        Format::JsonLines
    );
    assert_eq!(format("prompt\na", "a.txt", forced(Format::Csv)), Format::Csv);
    assert_eq!(format("[\"a\"]", "a.txt", forced(Format::Json)), Format::Json);
    assert_eq!(format("[\"a\"]", "a.json", forced(Format::Text)), Format::Text);
    let coco = "{\"annotations\": [{\"image_id\": 1, \"id\": 1, \"caption\": \"a\"}]}";
    assert_eq!(format(coco, "a.txt", forced(Format::Coco)), Format::Coco);
    assert_eq!(format(coco, "a.txt", forced(Format::Json)), Format::Coco);
    refused_with("a red circle", "a.txt", forced(Format::Json), &["line 1: ", "\"a\"", "an array"]);
    refused_with("[\"a\"]", "a.json", forced(Format::Coco), &["line 1: ", "annotations"]);
    refused_with("a red circle", "a.jsonl", forced(Format::JsonLines), &["line 1: ", "not JSON"]);
}

#[test]
fn files_whose_name_says_that_they_are_something_else_are_refused() {
    for name in ["prompts.yaml", "prompts.YML", "a.toml", "a.html", "a.py", "a.yaml.gz"] {
        refused_with("- a red circle\n", name, Options::default(), &["named .", "--format text"]);
        let (prompts, _) = read_with("- a red circle\n".as_bytes(), name, forced(Format::Text))
            .expect("asked for");
        assert_eq!(prompts.len(), 1);
    }
}
