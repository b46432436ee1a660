//! Properties that hold for any prompts, however the file is split.

use std::io::Read;

use darkroom_prompts::Options;
use proptest::{collection::vec, prelude::*};

use crate::read_with;

/// Returns a file in pieces of these lengths, over and over.
struct Split<'a> {
    bytes: &'a [u8],
    lengths: &'a [usize],
    turn: usize,
}

impl Read for Split<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let length =
            self.lengths[self.turn % self.lengths.len()].min(into.len()).min(self.bytes.len());
        self.turn += 1;
        into[..length].copy_from_slice(&self.bytes[..length]);
        self.bytes = &self.bytes[length..];
        Ok(length)
    }
}

/// A prompt with characters that tables and JSON must quote.
fn prompt() -> impl Strategy<Value = String> {
    "[a-z\",;\t \u{e9}\u{4e00}\u{1f600}\\\\{}\\[\\]#=]{0,40}[a-z]"
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![4 => prompt(), 1 => "[ \u{a0}]{0,3}", 1 => "[\\PC]{0,30}"]
}

fn seen(bytes: impl Read, name: &str) -> String {
    format!("{:?}", read_with(bytes, name, Options::default()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_a_file_is_split_changes_nothing(
        rows in vec(line(), 0..20),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        lengths in vec(1usize..70, 1..8),
        utf16 in any::<bool>(),
        name in prop_oneof![Just("a.txt"), Just("a.csv"), Just("a.jsonl"), Just("a.json"), Just("")],
    ) {
        let text = rows.join(end);
        let text = match name {
            "a.csv" => format!("prompt,tag{end}{text}"),
            "a.json" => serde_json::to_string_pretty(&rows).expect("JSON"),
            "a.jsonl" => rows.iter().map(|row| serde_json::to_string(row).expect("JSON") + end).collect(),
            _ => text,
        };
        let bytes: Vec<u8> = if utf16 {
            [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
        } else {
            text.into_bytes()
        };
        let whole = seen(bytes.as_slice(), name);
        prop_assert_eq!(seen(Split { bytes: &bytes, lengths: &lengths, turn: 0 }, name), whole);
    }

    #[test]
    fn tables_json_and_text_of_the_same_prompts_give_the_same_prompts(prompts in vec(prompt(), 1..20)) {
        let texts = |bytes: &[u8], name: &str| -> Vec<String> {
            let (prompts, _) = read_with(bytes, name, Options::default()).expect(name);
            prompts.into_iter().map(|prompt| prompt.text).collect()
        };
        for (delimiter, name) in [(b',', "a.csv"), (b'\t', "a.tsv"), (b';', "a.csv")] {
            let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
            table.write_record(["tag", "prompt"]).expect("written");
            prompts.iter().for_each(|prompt| table.write_record(["t", prompt]).expect("written"));
            let table = table.into_inner().expect("finished");
            prop_assert_eq!(&texts(&table, name), &prompts);
        }
        let json = serde_json::to_vec(&prompts).expect("JSON");
        prop_assert_eq!(&texts(&json, "a.json"), &prompts);
        let lines: String = prompts.iter().map(|p| serde_json::json!({"prompt": p}).to_string() + "\n").collect();
        prop_assert_eq!(&texts(lines.as_bytes(), "a.jsonl"), &prompts);
        let options = Options { format: Some(darkroom_prompts::Format::Text), ..Options::default() };
        let (text, _) = read_with(prompts.join("\n").as_bytes(), "a.txt", options).expect("text");
        prop_assert_eq!(text.into_iter().map(|prompt| prompt.text).collect::<Vec<_>>(), prompts);
    }

    /// A table that is accepted here is read as the csv crate reads it.
    #[test]
    fn tables_are_read_as_others_read_them(text in "[ab,\"\n]{0,60}") {
        let table = format!("prompt,tag\n{text}");
        if let Ok((prompts, _)) = read_with(table.as_bytes(), "a.csv", Options::default()) {
            let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(table.as_bytes());
            let theirs: Vec<String> = reader
                .records()
                .map(|record| record.expect("a record"))
                .filter(|record| record.iter().any(|cell| !cell.trim().is_empty()))
                .map(|record| record[0].to_owned())
                .collect();
            let ours: Vec<String> = prompts.into_iter().map(|prompt| prompt.text).collect();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'"'), Just(b'{'), Just(b'['), Just(b','), Just(0u8)], 0..300),
        start in prop_oneof![Just(&b""[..]), Just(&b"\xff\xfe"[..]), Just(&b"\xef\xbb\xbf"[..]), Just(&b"\x1f\x8b\x08"[..]), Just(&b"\x28\xb5\x2f\xfd"[..]), Just(&b"prompt,a\n"[..]), Just(&b"[{"[..]), Just(&b"{\"annotations\":["[..])],
        name in prop_oneof![Just("a.txt"), Just("a.csv"), Just("a.tsv"), Just("a.jsonl"), Just("a.json"), Just("")],
    ) {
        let bytes = [start, &bytes].concat();
        if let Err(error) = read_with(bytes.as_slice(), name, Options::default()) {
            let text = error.to_string();
            prop_assert!(!text.is_empty() && !text.chars().any(char::is_control), "{:?}", text);
        }
    }
}
