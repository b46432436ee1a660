//! Notes: what a reader of a file should know although nothing is wrong.

use crate::{error::shown, text::Writing};

/// A note about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The line that it is about, counted from 1; the first line if there are several.
    pub line: Option<u64>,
    /// A sentence that names the line.
    pub message: String,
}

/// Lines with the same note: the first of them, and how many there are.
#[derive(Default)]
struct Lines {
    first: Option<(u64, String)>,
    count: u64,
}

impl Lines {
    fn add(&mut self, line: u64, example: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| (line, shown(example)));
    }

    /// "line 3 begins", or "line 3 and 4 others begin".
    fn note(&self, one: &str, several: &str, rest: &str) -> Option<Note> {
        let (line, example) = self.first.as_ref()?;
        let others = self.count - 1;
        let who = match others {
            0 => format!("line {line} {one}"),
            1 => format!("line {line} and 1 other {several}"),
            _ => format!("line {line} and {others} others {several}"),
        };
        Some(Note { line: Some(*line), message: format!("{who} {}", rest.replace("{}", example)) })
    }
}

/// Collects notes. Lines with the same note are counted in one note.
#[derive(Default)]
pub(crate) struct Notes {
    plain: Vec<Note>,
    hashes: Lines,
    other_tool: Lines,
    quoted: Lines,
    listed: Lines,
}

impl Notes {
    /// Adds a note, unless there are very many.
    pub(crate) fn add(&mut self, line: Option<u64>, message: String) {
        const MOST: usize = 100;
        if self.plain.len() < MOST {
            self.plain.push(Note { line, message });
        }
    }

    pub(crate) fn unnamed_column(&mut self, line: u64, number: usize) {
        self.add(Some(line), format!("line {line}: column {number} has no name and is left out"));
    }

    /// A label that may have been meant as a field.
    pub(crate) fn like_field(&mut self, line: u64, name: &str, field: &str) {
        let message = format!(
            "line {line}: {} is kept as a label; if it is meant for the prompt, call it `{field}`",
            shown(name)
        );
        self.add(Some(line), message);
    }

    /// A line of plain text that begins with `#` and is read as a prompt.
    pub(crate) fn hash(&mut self, line: u64, text: &str) {
        self.hashes.add(line, text);
    }

    /// A line of plain text that is formatted for another program.
    pub(crate) fn written(&mut self, line: u64, text: &str, writing: Writing) {
        match writing {
            Writing::Quoted => self.quoted.add(line, text.trim()),
            Writing::Listed => self.listed.add(line, text.trim()),
        }
    }

    /// A prompt with options of another tool.
    pub(crate) fn other_tool(&mut self, line: u64, word: &str) {
        self.other_tool.add(line, word);
    }

    /// All notes.
    pub(crate) fn all(&self) -> Vec<Note> {
        let hashes = self.hashes.note(
            "begins",
            "begin",
            "with # ({}); such lines are prompts unless --comments skips them",
        );
        let other_tool = self.other_tool.note(
            "has",
            "have",
            "another tool's options ({}); here they are part of the prompt",
        );
        let quoted =
            self.quoted.note("is", "are", "in quotes ({}), which are part of the prompt here");
        let listed = self.listed.note(
            "begins",
            "begin",
            "with a list marker ({}), which is part of the prompt here",
        );
        let lines = [hashes, other_tool, quoted, listed].into_iter().flatten();
        self.plain.iter().cloned().chain(lines).collect()
    }
}
