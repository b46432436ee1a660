//! Files that once caused errors, byte for byte.

use darkroom_prompts::{Format, Options};

use crate::{forced, lines, read, read_with, refused, refused_with, texts};

const DRAWBENCH: &str = "Prompts,Category\n\"A green kite, high above a pier.\",Descriptions\n\"A sign that says \"\"Open\"\".\",Text\nthree yellow cups,Counting\n";
const QUOTED: &str = "\"a red circle, big\",Colors\n\"a \"\"blue\"\" square\",Colors\n";
const UPPER: &str = "{\"prompt\": \"a red circle\"}\n{\"prompt\": \"a blue square\"}\n";
const EMPTY_IMAGE: &str = "{\"prompt\": \"a red circle\", \"image\": \"\"}\n";
const ESCAPED_NUL: &str = "{\"prompt\": \"a red circle\\nabove a blue square\\u0000\"}\n";
const MARKED: &[u8] = b"\xef\xbb\xbfa red circle\r\na blue square\r\n";
const OLD_MAC: &str = "a red circle\ra blue square\ra green ring\r";
const BLANKS: &str = "\u{a0}\na red circle\n\u{200b}\n\u{2028}\n";
const COMMENTS: &str = "# my prompts, v2\n\na red circle\n# a blue square\na green ring\n";

#[test]
fn a_table_with_a_header_gives_its_prompts_and_its_other_columns_as_labels() {
    let prompts = read(DRAWBENCH, "drawbench-like.csv");
    let seen: Vec<_> =
        prompts.iter().map(|p| (p.line, p.text.as_str(), p.labels["Category"].as_str())).collect();
    assert_eq!(
        seen,
        [
            (2, "A green kite, high above a pier.", "Descriptions"),
            (3, "A sign that says \"Open\".", "Text"),
            (4, "three yellow cups", "Counting"),
        ]
    );
    assert_eq!(read(DRAWBENCH, "DrawBench.CSV"), prompts);
    assert_eq!(read(DRAWBENCH.replace('\n', "\r\n"), "d.csv"), prompts);
}

#[test]
fn a_table_under_another_name_is_never_rendered() {
    for name in ["drawbench.txt", "drawbench", "", "drawbench.prompts"] {
        refused(
            DRAWBENCH,
            name,
            &["line 1: ", "Prompts,Category", "--format csv", "--format text"],
        );
    }
    refused(DRAWBENCH, "d.json", &["line 1: ", ".json", "--format csv"]);
    refused(DRAWBENCH, "d.jsonl", &["line 1: ", ".jsonl", "--format csv"]);
    let (prompts, _) =
        read_with(DRAWBENCH.as_bytes(), "d.txt", forced(Format::Csv)).expect("a table");
    assert_eq!(prompts.len(), 3);
    let (prompts, _) =
        read_with(DRAWBENCH.as_bytes(), "d.csv", forced(Format::Text)).expect("lines");
    assert_eq!(prompts[0].text, "Prompts,Category", "accepted, because the format was requested");
}

#[test]
fn a_table_without_a_header_is_refused_with_its_columns() {
    refused(
        QUOTED,
        "quoted.csv",
        &["line 1: ", "a red circle, big", "Colors", "--column", "header"],
    );
}

#[test]
fn json_lines_are_told_by_extensions_in_capitals_and_from_pipes() {
    let expected = lines(&[(1, "a red circle"), (2, "a blue square")]);
    for name in ["UPPER.JSONL", "a.ndjson", "a.NDJson", "a.jsonlines", "", "prompts", "p.dat"] {
        assert_eq!(texts(UPPER, name), expected, "{name}");
    }
    refused(UPPER, "UPPER.TXT", &["line 1: ", "JSON", "--format jsonl", "--format text"]);
    refused(UPPER, "a.csv", &["line 1: ", "JSON", "--format jsonl"]);
    let (prompts, notes) =
        read_with(UPPER.as_bytes(), "a.json", Options::default()).expect("one meaning");
    assert_eq!((prompts.len(), notes.len()), (2, 1));
    assert!(notes[0].message.contains("JSON lines"), "{notes:?}");
}

#[test]
fn json_in_a_later_line_of_text_is_refused_too() {
    let text = format!("a red circle\n{UPPER}");
    refused(&text, "", &["line 2: ", "JSON", "--format"]);
    refused("a\n{\"prompt\": \"cut", "a.txt", &["line 2: ", "JSON"]);
    refused("a\n[\"a\", \"b\"]\n", "a.txt", &["line 2: ", "JSON"]);
    refused("{'prompt': 'a cat', 'seed': 1}\n", "a.txt", &["line 1: ", "Python", "json.dumps"]);
    refused("a cat\n[{'prompt': 'a cat'}]\n", "a.txt", &["line 2: ", "Python"]);
    let (prompts, _) = read_with(text.as_bytes(), "", forced(Format::Text)).expect("asked for");
    assert_eq!(prompts.len(), 3);
    assert_eq!(
        texts("{red|blue} circle\n[photo] of a cat\n[1]\n{'tis} the season}\n", "wild.txt").len(),
        4,
        "no JSON"
    );
}

#[test]
fn an_empty_picture_is_none() {
    let prompts = read(EMPTY_IMAGE, "emptyimg.jsonl");
    assert_eq!(prompts[0].image.as_deref(), Some(""));
}

#[test]
fn an_escaped_control_character_is_refused_with_its_line() {
    refused(ESCAPED_NUL, "escnl.jsonl", &["line 1: ", "prompt", "U+0000"]);
    let (prompts, _) =
        read_with(ESCAPED_NUL.replace("\\u0000", "").as_bytes(), "a.jsonl", Options::default())
            .expect("good");
    assert_eq!(prompts[0].text, "a red circle\nabove a blue square", "a line break may be escaped");
    for escape in ["\\u001b", "\\u007f", "\\u0085", "\\u000b", "\\b"] {
        refused(
            format!("{{\"prompt\": \"a{escape}\"}}"),
            "a.jsonl",
            &["line 1: ", "control character"],
        );
    }
}

#[test]
fn byte_order_marks_and_line_ends_of_other_systems_are_no_part_of_prompts() {
    assert_eq!(texts(MARKED, "bom.txt"), lines(&[(1, "a red circle"), (2, "a blue square")]));
    let expected = lines(&[(1, "a red circle"), (2, "a blue square"), (3, "a green ring")]);
    assert_eq!(texts(OLD_MAC, "cr.txt"), expected);
}

#[test]
fn what_cannot_be_seen_is_no_prompt() {
    assert_eq!(texts(BLANKS, "nbsp.txt"), lines(&[(2, "a red circle")]));
    for blank in [
        "\u{feff}", "\u{200b}", "\u{a0}", "\u{2028}", "\u{85}", "\u{b}", "\u{c}", "\u{3000}",
        "\u{2060}",
    ] {
        assert_eq!(
            texts(format!("a\n{blank}\n{blank}{blank}\nb"), "a.txt"),
            lines(&[(1, "a"), (4, "b")])
        );
        let code = u32::from(blank.chars().next().expect("one"));
        let padded = format!("{{\"prompt\": \"\\u{code:04x}\"}}");
        refused(padded, "a.jsonl", &["line 1: ", "prompt is empty"]);
        refused(format!("id,prompt\n1,\"{blank}\"\n"), "a.csv", &["line 2: ", "prompt is empty"]);
    }
    refused("\u{a0}\n\u{feff}\n \t\n", "a.txt", &["no prompts"]);
}

#[test]
fn lines_with_a_hash_are_prompts_with_a_note_or_comments() {
    let (prompts, notes) =
        read_with(COMMENTS.as_bytes(), "comments.txt", Options::default()).expect("text");
    assert_eq!(prompts.len(), 4);
    assert_eq!((notes.len(), notes[0].line), (1, Some(1)));
    assert!(notes[0].message.contains("line 1 and 1 other begin with #"), "{notes:?}");
    assert!(notes[0].message.contains("--comments"), "{notes:?}");
    let options = Options { comments: true, ..Options::default() };
    let (prompts, notes) =
        read_with(COMMENTS.as_bytes(), "comments.txt", options.clone()).expect("text");
    let seen: Vec<_> = prompts.iter().map(|p| (p.line, p.text.as_str())).collect();
    assert_eq!(
        (seen.as_slice(), notes.len()),
        ([(3, "a red circle"), (5, "a green ring")].as_slice(), 0)
    );
    refused_with("# only\n# comments\n", "a.txt", options.clone(), &["no prompts"]);
    let commented = format!("# a table\n{DRAWBENCH}# its end, \"unclosed\n");
    assert_eq!(
        read_with(commented.as_bytes(), "a.csv", options.clone()).expect("a table").0.len(),
        3
    );
    let commented = format!("#\n{UPPER}  # more\n");
    assert_eq!(read_with(commented.as_bytes(), "", options).expect("JSON lines").0.len(), 2);
}

#[test]
fn lines_written_as_in_programs_and_lists_get_a_note_and_stay_as_they_are() {
    for (line, says) in [
        ("\"a red circle\",", "line 2 and 1 other are in quotes (\"\\\"a red circle\\\",\")"),
        ("'a red circle';", "in quotes"),
        ("\u{201c}a red circle\u{201d}", "in quotes"),
        ("`a red circle`", "in quotes"),
        ("- a red circle", "line 2 and 1 other begin with a list marker (\"- a red circle\")"),
        ("* a red circle", "list marker"),
        ("  \u{2022} a red circle", "list marker"),
        ("12. a red circle", "list marker"),
        ("1) a red circle", "list marker"),
    ] {
        let text = format!("a blue star\n{line}\n{line}\n");
        let (prompts, notes) = read_with(text.as_bytes(), "a.txt", Options::default()).expect(line);
        assert_eq!((prompts[1].text.as_str(), notes.len()), (line, 1), "{notes:?}");
        assert!(notes[0].message.contains(says), "{notes:?}");
        let json = format!("{{\"prompt\": {}}}", serde_json::to_string(line).expect("JSON"));
        assert_eq!(read(json, "a.jsonl").len(), 1, "nobody wonders at it in JSON");
    }
    let plain = "\"stop\" and \"go\"\n-5 degrees\n*\n3.5 stars\n2024 in red\n'tis a 'cat'\n\"\"\n12345. a\n";
    assert_eq!(texts(plain, "a.txt").len(), 8);
}

#[test]
fn what_is_fetched_or_copied_from_a_page_is_refused_by_what_it_is() {
    for (text, says) in [
        ("<prompts>\n<prompt>a cat</prompt>\n</prompts>\n", "XML"),
        ("<p>a cat</p>\n", "a part of a web page"),
        ("| prompt | tag |\n| --- | :---: |\n| a cat | x |\n", "Markdown"),
        ("prompt | tag\n--- | ---\na cat | x\n", "Markdown"),
        ("404: Not Found", "no such file"),
        ("503 Service Unavailable\n", "no such file"),
    ] {
        for name in ["a.txt", "a.md", ""] {
            refused(text, name, &["line 1: ", says, "--format text"]);
        }
        read_with(text.as_bytes(), "a.txt", forced(Format::Text)).expect("asked for");
    }
    refused("| prompt |\n| --- |\n| a cat |\n", "a.csv", &["Markdown"]);
    let markdown = "prompt|tag\n---|---\na cat|x\n";
    refused_with(
        markdown,
        "a.txt",
        forced(Format::Csv),
        &["line 2: ", "a separator line", "Markdown"],
    );
    let few =
        "<cat-toy> on <grass>\n<lora:x:1> a cat\n<cat-toy>\n404: Not Found, a poster\na | b\n";
    let (prompts, _) = read_with(few.as_bytes(), "a.txt", Options::default()).expect("prompts");
    assert_eq!(prompts.len(), 5);
    assert_eq!(texts("404: Not Found\na cat\n", "a.txt").len(), 2);
}

#[test]
fn lines_of_other_tools_get_a_note_with_their_line() {
    for (line, word) in [
        ("--prompt \"a cat\" --steps 20", "--prompt"),
        ("a cat --ar 16:9", "--ar"),
        ("a cat --no-hands", "--no-hands"),
        ("a cat <lora:detail:0.8>", "<lora:detail:0.8>"),
        ("Negative prompt: blur", "Negative prompt:"),
        ("Steps: 20, Sampler: Euler a", "Steps:"),
    ] {
        let text = format!("a red circle\n{line}\n{line}\n{line}\n");
        let (prompts, notes) = read_with(text.as_bytes(), "a.txt", Options::default()).expect(line);
        assert_eq!((prompts.len(), notes.len()), (4, 1), "{line}");
        assert_eq!(notes[0].line, Some(2));
        assert!(notes[0].message.starts_with("line 2 and 2 others have"), "{notes:?}");
        assert!(notes[0].message.contains(word), "{notes:?}");
    }
    read("a cat -- in fog\n--\na cat - a dog\n-5 degrees\n", "a.txt");
}
