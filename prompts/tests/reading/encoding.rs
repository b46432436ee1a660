//! Encodings, line ends, and invalid characters.

use darkroom_prompts::{Error, Format, Limits, Options};

use crate::{forced, lines, read_with, refused, refused_with, texts};

const TEXT: &str = "a red circle\nécru 漢字 😀\nlast";

fn utf16(text: &str, big_endian: bool, mark: bool) -> Vec<u8> {
    let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
    units
        .flat_map(|unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
        .collect()
}

#[test]
fn utf_8_and_utf_16_with_any_line_ends_give_the_same_prompts() {
    let expected = lines(&[(1, "a red circle"), (2, "écru 漢字 😀"), (3, "last")]);
    for end in ["\n", "\r\n", "\r"] {
        for last in ["", end] {
            let text = TEXT.replace('\n', end) + last;
            assert_eq!(texts(&text, "a.txt"), expected);
            assert_eq!(texts(format!("\u{feff}{text}"), "a.txt"), expected);
            assert_eq!(texts(utf16(&text, false, true), "a.txt"), expected);
            assert_eq!(texts(utf16(&text, true, true), "a.txt"), expected);
        }
    }
    let json = "{\"prompt\": \"écru\"}\r\n";
    assert_eq!(texts(utf16(json, false, true), "a.jsonl"), lines(&[(1, "écru")]));
    assert_eq!(
        texts(utf16("prompt\tnote\r\na b\tc\r\n", false, true), "a.tsv"),
        lines(&[(2, "a b")])
    );
    assert_eq!(
        texts("a\r\nb\rc\nd\r\r\n\ne", "mixed"),
        lines(&[(1, "a"), (2, "b"), (3, "c"), (4, "d"), (7, "e")])
    );
}

#[test]
fn line_breaks_inside_quotes_are_the_same_whichever_way_the_file_ends_its_lines() {
    for end in ["\n", "\r\n", "\r"] {
        let table = format!("prompt,note{end}\"a{end}b\",c{end}d,e{end}");
        assert_eq!(texts(table, "a.csv"), lines(&[(2, "a\nb"), (4, "d")]));
    }
}

#[test]
fn other_encodings_are_refused_with_their_line_and_a_way_out() {
    refused(b"good\ncaf\xe9\n", "a.txt", &["line 2: ", "0xE9", "iconv"]);
    refused(b"a\r\rb\r\n\xff", "a.txt", &["line 4: ", "0xFF", "iconv"]);
    refused(b"{\"prompt\": \"caf\xe9\"}", "a.jsonl", &["line 1: ", "0xE9"]);
    refused(b"prompt\n\"a\nb\xe9\"", "a.csv", &["line 3: ", "0xE9"]);
    refused(b"[\"a\",\n\"caf\xe9\"]", "a.json", &["line 2: ", "0xE9"]);
    refused(b"good\ncaf\xc3", "a.txt", &["line 2: ", "cut short", "0xC3"]);
    refused(b"half \xed\xa0\x80 a character", "a.txt", &["line 1: ", "0xED"]);
    refused(b"too \xc0\xaflong", "a.txt", &["line 1: ", "0xC0"]);
    for (big_endian, name) in [(false, "UTF-16LE"), (true, "UTF-16BE")] {
        refused(
            utf16("a red circle\n", big_endian, false),
            "a.txt",
            &["line 1: ", name, "iconv -f"],
        );
    }
    let utf32: Vec<u8> = "a red circle".chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    refused(&utf32, "a.txt", &["line 1: ", "UTF-32LE"]);
    refused(
        [b"\xff\xfe\0\0".as_slice(), &utf32].concat(),
        "a.txt",
        &["line 1: ", "UTF-32", "iconv"],
    );
    let utf32: Vec<u8> = "a red circle".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    refused(&utf32, "a.txt", &["line 1: ", "UTF-32BE"]);
    refused([b"\0\0\xfe\xff".as_slice(), &utf32].concat(), "a.txt", &["line 1: ", "UTF-32"]);
}

#[test]
fn damaged_utf_16_is_refused_with_its_line() {
    let mut odd = utf16("a\nb", false, true);
    odd.push(b'c');
    refused(odd, "a.txt", &["line 2: ", "odd number of bytes"]);
    let lone = |unit: u16, after: &str| {
        let mut bytes = utf16("a\r\n", true, true);
        bytes.extend(unit.to_be_bytes());
        bytes.extend(utf16(after, true, false));
        bytes
    };
    refused(lone(0xd83d, "x"), "a.txt", &["line 2: ", "U+D83D"]);
    refused(lone(0xd83d, ""), "a.txt", &["line 2: ", "U+D83D"]);
    refused(lone(0xde00, "x"), "a.txt", &["line 2: ", "U+DE00"]);
}

#[test]
fn nul_and_control_characters_are_refused_wherever_they_are() {
    refused(b"a\nb\0c\n", "a.txt", &["line 2: ", "NUL"]);
    refused(vec![0; 1000], "a.txt", &["line 1: ", "NUL"]);
    refused(utf16("a\nb\0", false, true), "a.txt", &["line 2: ", "NUL"]);
    refused(b"prompt,tag\na,b\n\"c\",\"\0\"", "a.csv", &["line 3: ", "NUL"]);
    for bad in ["\u{1b}[31m", "\u{7}", "\u{7f}", "\u{9b}", "\u{85}", "\u{b}", "\u{c}"] {
        let code = format!("U+{:04X}", u32::from(bad.chars().next().expect("one")));
        refused(format!("a\nb{bad}c"), "a.txt", &["line 2: ", "prompt", &code]);
        refused(format!("prompt,tag\na,b{bad}c"), "a.csv", &["line 2: ", "labels", &code]);
        refused(format!("prompt,negative\na,b{bad}c"), "a.csv", &["line 2: ", "negative", &code]);
        refused(format!("prompt,image\na,b{bad}c"), "a.csv", &["line 2: ", "image", &code]);
        refused(format!("prompt,custom_id\na,b{bad}c"), "a.csv", &["line 2: ", "custom_id", &code]);
    }
    assert_eq!(texts("a\tb", "a.txt"), lines(&[(1, "a\tb")]));
}

#[test]
fn joined_files_lose_their_byte_order_marks_or_are_refused() {
    assert_eq!(texts("\u{feff}a\n\u{feff}b\n", "a.txt"), lines(&[(1, "a"), (2, "b")]));
    assert_eq!(texts("\u{feff}\u{feff}a\n", "a.txt"), lines(&[(1, "a")]));
    let json = "{\"prompt\": \"a\"}\n";
    assert_eq!(
        texts(format!("\u{feff}{json}\u{feff}{json}"), "a.jsonl"),
        lines(&[(1, "a"), (2, "a")])
    );
    assert_eq!(
        texts("\u{feff}prompt,tag\na,b\n\u{feff}c,d\n", "a.csv"),
        lines(&[(2, "a"), (3, "c")])
    );
    refused("a\nb\u{feff}c\n", "a.txt", &["line 2: ", "U+FEFF", "joined"]);
    refused("prompt,tag\na,b\nprompt,tag\nc,d\n", "a.csv", &["line 3: ", "repeats the header"]);
}

#[test]
fn separators_that_may_or_may_not_end_a_line_are_refused_in_text_and_kept_in_json() {
    for separator in ["\u{2028}", "\u{2029}"] {
        let code = format!("U+{:04X}", u32::from(separator.chars().next().expect("one")));
        refused(format!("a\nb{separator}c"), "a.txt", &["line 2: ", &code, "accepted"]);
        refused_with(format!("b{separator}c"), "a.txt", forced(Format::Text), &["line 1: ", &code]);
        let kept = format!("b{separator}c");
        assert_eq!(texts(format!("{{\"prompt\": \"{kept}\"}}"), "a.jsonl"), lines(&[(1, &kept)]));
    }
}

#[test]
fn what_has_no_end_is_refused_after_bounded_reading() {
    let endless = std::io::repeat(b'x');
    let error = read_with(endless, "a.txt", Options::default()).expect_err("endless");
    assert!(matches!(error, Error::Line { line: 1, .. }), "{error}");
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let blank = std::io::repeat(b'\n');
    let error =
        read_with(blank, "", Options { limits, ..Options::default() }).expect_err("endless");
    assert!(error.to_string().contains("more than 1 MiB"), "{error}");
    for (start, name) in [
        ("{\"prompt\": \"", "a.jsonl"),
        ("prompt\n\"", "a.csv"),
        ("[\"", "a.json"),
        ("[[", "a.json"),
    ] {
        let endless = std::io::Read::chain(start.as_bytes(), std::io::repeat(b'x'));
        let error = read_with(endless, name, Options::default()).expect_err("endless");
        assert!(matches!(error, Error::Line { .. }), "{name}: {error}");
    }
    let deep = std::io::Read::chain("[".as_bytes(), std::io::repeat(b'['));
    let error = read_with(deep, "a.json", forced_json()).expect_err("endless");
    assert!(error.to_string().contains("longer than"), "{error}");
    let limits = Limits { prompts: 2, ..Limits::default() };
    refused_with(
        "a\nb\nc\n",
        "a.txt",
        Options { limits, ..Options::default() },
        &["line 3: ", "more than 2 prompts"],
    );
}

fn forced_json() -> Options {
    forced(Format::Json)
}
