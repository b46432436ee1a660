//! A job's prompts on their way to the farm, in messages of limited size. Some of them stay in
//! memory; the rest go to an unnamed file, so that a batch of millions takes no more memory than
//! one of thousands.

use std::{
    collections::HashSet,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
    sync::{Mutex, PoisonError},
};

use darkroom_core::error::UserError;
use darkroom_proto::v1;
use prost::Message as _;
use tempfile::SpooledTempFile;

use crate::failure::{self, Result};

/// Most prompts and bytes per message.
pub(crate) const CHUNK_PROMPTS: usize = 1_000;
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of messages that stay in memory.
const IN_MEMORY: usize = 8 << 20;

/// Prompts that are still being collected.
pub(crate) struct Spool {
    prompts: Prompts,
    filling: v1::PromptChunk,
    filling_bytes: usize,
    end: u64,
    named: HashSet<Pictured>,
}

/// What a farm checks a prompt's pictures by: their names, and whether settings of its own may ask
/// for another shape.
#[derive(PartialEq, Eq, Hash)]
struct Pictured {
    image: String,
    mask: String,
    has_settings: bool,
}

/// A job's prompts, stored as encoded messages until they are sent.
pub(crate) struct Prompts {
    file: Mutex<SpooledTempFile>,
    /// The position of each message.
    chunks: Vec<Range<u64>>,
    count: u64,
    pictured: Vec<v1::Prompt>,
}

impl Spool {
    pub(crate) fn new() -> Self {
        let prompts = Prompts {
            file: Mutex::new(SpooledTempFile::new(IN_MEMORY)),
            chunks: Vec::new(),
            count: 0,
            pictured: Vec::new(),
        };
        Self {
            prompts,
            filling: v1::PromptChunk::default(),
            filling_bytes: 0,
            end: 0,
            named: HashSet::new(),
        }
    }

    /// Adds a prompt.
    pub(crate) fn push(&mut self, prompt: v1::Prompt) -> Result<()> {
        self.prompts.count += 1;
        let size = prompt.encoded_len();
        if size > CHUNK_BYTES {
            let message = format!(
                "prompt {} takes {size} bytes; the limit of a message is {CHUNK_BYTES}, so make the prompt shorter",
                self.prompts.count
            );
            return Err(UserError::invalid("prompt", message));
        }
        if self.filling.prompts.len() >= CHUNK_PROMPTS || self.filling_bytes + size > CHUNK_BYTES {
            self.flush()?;
        }
        let pictured = || Pictured {
            image: prompt.image.clone(),
            mask: prompt.mask.clone(),
            has_settings: prompt.settings.is_some(),
        };
        if !prompt.image.is_empty() && self.named.insert(pictured()) {
            self.prompts.pictured.push(prompt.clone());
        }
        self.filling_bytes += size;
        self.filling.prompts.push(prompt);
        Ok(())
    }

    /// All of them: at least one message, which may be empty.
    pub(crate) fn finish(mut self) -> Result<Prompts> {
        if !self.filling.prompts.is_empty() || self.prompts.chunks.is_empty() {
            self.flush()?;
        }
        Ok(self.prompts)
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.filling).encode_to_vec();
        self.filling_bytes = 0;
        let file = self.prompts.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&bytes).map_err(|error| {
            failure::file("batch", "keep prompts in", &std::env::temp_dir(), &error)
        })?;
        let begin = self.end;
        self.end += bytes.len() as u64;
        self.prompts.chunks.push(begin..self.end);
        Ok(())
    }
}

impl Prompts {
    /// Prompts that are already in memory.
    pub(crate) fn of(prompts: impl IntoIterator<Item = v1::Prompt>) -> Result<Self> {
        let mut spool = Spool::new();
        prompts.into_iter().try_for_each(|prompt| spool.push(prompt))?;
        spool.finish()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those that name pictures; of several that name the same picture and mask, the first with
    /// settings of its own, and the first without.
    pub(crate) fn pictured(&self) -> &[v1::Prompt] {
        &self.pictured
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<v1::Prompt> {
        (0..self.chunks())
            .flat_map(|position| self.chunk(position).expect("there").prompts)
            .collect()
    }

    /// The number of messages.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// One message.
    pub(crate) fn chunk(&self, position: usize) -> io::Result<v1::PromptChunk> {
        let place = &self.chunks[position];
        let mut bytes =
            vec![0; usize::try_from(place.end - place.start).map_err(io::Error::other)?];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place.start))?;
        file.read_exact(&mut bytes)?;
        v1::PromptChunk::decode(bytes.as_slice()).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::error::Code;

    use super::*;

    fn text(text: String) -> v1::Prompt {
        v1::Prompt { text, ..v1::Prompt::default() }
    }

    #[test]
    fn chunks_hold_every_prompt_once_in_order_within_their_bounds() {
        let sent: Vec<_> = (0..5_000)
            .map(|number| text(format!("{number} {}", "x".repeat(number % 4_000))))
            .collect();
        let prompts = Prompts::of(sent.clone()).expect("small prompts");
        assert!(prompts.chunks() > 5);
        let file = prompts.file.lock().expect("nobody panicked");
        assert!(file.is_rolled(), "ten megabytes do not stay in memory");
        drop(file);
        // Read twice and out of order, as when a submit is retried.
        for _ in 0..2 {
            let chunks: Vec<_> =
                (0..prompts.chunks()).rev().map(|at| prompts.chunk(at).expect("there")).collect();
            for chunk in &chunks {
                assert!(
                    chunk.prompts.len() <= CHUNK_PROMPTS
                        && chunk.encoded_len() < CHUNK_BYTES + 32_768
                );
            }
            let again: Vec<_> = chunks.into_iter().rev().flat_map(|chunk| chunk.prompts).collect();
            assert!(again == sent);
        }
    }

    #[test]
    fn a_prompt_that_fits_into_no_message_is_named() {
        let error =
            Prompts::of([text("small".to_owned()), text("x".repeat(CHUNK_BYTES + 1))]).map(|_| ());
        let error = error.expect_err("too large");
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.starts_with("prompt 2 takes"), "{error}");
    }

    #[test]
    fn few_prompts_stay_in_memory_and_pictures_are_told_once() {
        let with = |image: &str, mask: &str| v1::Prompt {
            image: image.to_owned(),
            mask: mask.to_owned(),
            ..text("a".to_owned())
        };
        let sent =
            [text("b".to_owned()), with("1", ""), with("1", ""), with("1", "2"), with("3", "")];
        let prompts = Prompts::of(sent).expect("small");
        assert!(!prompts.file.lock().expect("nobody panicked").is_rolled());
        assert_eq!((prompts.chunks(), prompts.is_empty()), (1, false));
        let told: Vec<_> = prompts
            .pictured()
            .iter()
            .map(|prompt| (prompt.image.as_str(), prompt.mask.as_str()))
            .collect();
        assert_eq!(told, [("1", ""), ("1", "2"), ("3", "")]);
        let none = Prompts::of([]).expect("none");
        assert_eq!((none.chunks(), none.is_empty()), (1, true));
        assert!(none.chunk(0).expect("there").prompts.is_empty());
    }
}
