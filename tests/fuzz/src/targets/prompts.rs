//! Files of prompts, in every format, compressed or not.

use std::io::Read;

use darkroom_prompts::{Labels, Limits, Options, Prompt, Reader, Sample};

use super::messages::Rough as _;
use crate::verdict::Verdict;

/// Most bytes after decompression, and of one record.
const LIMITS: Limits = Limits { bytes: 1 << 20, prompts: 5000, record: 16 << 10 };

const NAMES: [&str; 8] =
    ["", "a.txt", "a.jsonl", "a.csv", "a.tsv", "a.json", "a.csv.gz", "a.jsonl.zst"];

/// A byte of options, then a file.
pub(super) fn prompts(data: &[u8]) -> Verdict {
    let (chosen, file) = data.split_first().unwrap_or((&0, &[]));
    let name = NAMES[usize::from(chosen & 7)];
    let options = Options {
        labels: match chosen >> 3 & 3 {
            0 | 1 => Labels::Columns,
            2 => Labels::All,
            _ => Labels::None,
        },
        comments: chosen & 0x20 != 0,
        sample: if chosen & 0x40 != 0 {
            Sample { prompts: Some(3), per_image: Some(1), seed: 7 }
        } else {
            Sample::default()
        },
        limits: LIMITS,
        ..Options::default()
    };
    let read = read(file, name, &options);
    if chosen & 0x80 != 0 {
        let split = self::read(Split { bytes: file, turn: 0 }, name, &options);
        assert_eq!(format!("{split:?}"), format!("{read:?}"), "how a file is split matters");
    }
    match read {
        Ok((prompts, notes)) => {
            prompts.iter().for_each(check);
            written_again(&prompts);
            let notes = notes.min(3);
            let count = prompts.len().ilog2_or_zero();
            Verdict::accepted(format_args!("{name} {count} {notes} {}", parts(&prompts)))
        }
        Err(sentence) => Verdict::refused(sentence, data),
    }
}

/// The prompts and the number of notes, or the refusal.
fn read(file: impl Read, name: &str, options: &Options) -> Result<(Vec<Prompt>, usize), String> {
    let told = |error: darkroom_prompts::Error| error.to_string();
    let mut reader = Reader::open(file, Some(name), options.clone()).map_err(told)?;
    let mut prompts = Vec::new();
    for prompt in &mut reader {
        prompts.push(prompt.map_err(told)?);
        assert!(prompts.len() as u64 <= options.limits.prompts, "more prompts than the limit");
    }
    assert!(reader.next().is_none(), "it goes on after its end");
    let notes = reader.notes();
    for note in &notes {
        let bad = note.message.chars().find(|character| character.is_control());
        assert!(bad.is_none(), "a note has {bad:?}: {note:?}");
    }
    Ok((prompts, notes.len()))
}

/// What is accepted can be submitted.
fn check(prompt: &Prompt) {
    assert!(!prompt.text.trim().is_empty(), "a blank prompt is accepted: {prompt:?}");
    assert!(prompt.line >= 1 && prompt.images <= 10_000, "{prompt:?}");
    let texts = [Some(&prompt.text), prompt.negative.as_ref(), prompt.style.as_ref()];
    for text in texts.into_iter().flatten() {
        let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r'));
        assert!(bad.is_none(), "a text has {bad:?}: {prompt:?}");
    }
}

fn parts(prompts: &[Prompt]) -> String {
    let has = |part: fn(&Prompt) -> bool| if prompts.iter().any(part) { '1' } else { '0' };
    [
        has(|prompt| prompt.negative.is_some()),
        has(|prompt| prompt.images > 0),
        has(|prompt| prompt.seed.is_some()),
        has(|prompt| !prompt.custom_id.is_empty()),
        has(|prompt| !prompt.labels.is_empty()),
        has(|prompt| prompt.settings.is_some()),
    ]
    .iter()
    .collect()
}

/// The same prompts as JSON lines are read as the same texts.
fn written_again(prompts: &[Prompt]) {
    let lines: String = prompts
        .iter()
        .map(|prompt| serde_json::json!({ "prompt": prompt.text }).to_string() + "\n")
        .collect();
    let options = Options {
        limits: Limits { bytes: 64 << 20, prompts: 5000, record: 1 << 20 },
        ..Options::default()
    };
    let (again, _) = read(lines.as_bytes(), "again.jsonl", &options)
        .unwrap_or_else(|error| panic!("our own lines are refused: {error}"));
    let texts = |prompts: &[Prompt]| prompts.iter().map(|one| one.text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&again), texts(prompts));
}

/// Gives a file in small pieces.
struct Split<'a> {
    bytes: &'a [u8],
    turn: usize,
}

impl Read for Split<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.turn += 1;
        let length = (1 + self.turn * 7 % 13).min(into.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(length);
        into[..length].copy_from_slice(now);
        self.bytes = later;
        Ok(length)
    }
}
