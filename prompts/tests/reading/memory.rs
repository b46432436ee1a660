//! A million prompts take no more memory than a few.

use std::io::Read;

use darkroom_prompts::{Options, Reader};

/// A file that is generated while it is read.
struct Rows<F> {
    rows: std::ops::Range<u64>,
    row: F,
    left: Vec<u8>,
}

impl<F: Fn(u64) -> String> Read for Rows<F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.left.is_empty() {
            self.left =
                self.rows.next().map(|number| (self.row)(number).into_bytes()).unwrap_or_default();
        }
        let length = self.left.len().min(into.len());
        into[..length].copy_from_slice(&self.left[..length]);
        self.left.drain(..length);
        Ok(length)
    }
}

/// Resident memory of this process, kilobytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn streams(name: &str, prompts: u64, row: impl Fn(u64) -> String) {
    let file = Rows { rows: 0..prompts + 2, row, left: Vec::new() };
    let reader = Reader::open(file, Some(name), Options::default()).expect(name);
    let mut most = 0;
    let mut before = 0;
    let mut read = 0;
    for prompt in reader {
        let prompt = prompt.expect(name);
        assert!(!prompt.text.is_empty());
        read += 1;
        if read == 1_000 {
            before = resident();
        }
        if read % 50_000 == 0 {
            most = most.max(resident());
        }
    }
    assert_eq!(read, prompts);
    assert!(most < before + 4_096, "{name}: grew from {before} to {most} kilobytes");
}

#[test]
fn a_million_lines_of_text_stream() {
    streams("a.txt", 1_000_000, |number| match number {
        0 | 1 => "\n".to_owned(),
        _ => format!("a red circle, number {number}\r\n"),
    });
}

#[test]
fn large_tables_and_arrays_stream() {
    streams("a.csv", 200_000, |number| match number {
        0 => "prompt,tag\n".to_owned(),
        1 => "\n".to_owned(),
        _ => format!("\"a circle, number {number}\",t{number}\n"),
    });
    streams("a.jsonl", 200_000, |number| match number {
        0 | 1 => "\n".to_owned(),
        _ => format!("{{\"prompt\": \"number {number}\", \"seed\": {number}}}\n"),
    });
    streams("a.json", 200_000, |number| match number {
        0 => "[\"one\"".to_owned(),
        200_001 => "]".to_owned(),
        200_000 => "\n".to_owned(),
        _ => format!(",\n\"number {number}\""),
    });
}
