//! A file's text: decompressed, decoded to UTF-8, with every line end as LF, and limited in size.
//! It knows the current line. An error in the encoding is reported after everything before it has
//! been read.

use std::io::Read;

use crate::{
    Error, Limits,
    compression::{self, Input},
    foreign,
};

/// Bytes per read.
const BLOCK: usize = 64 << 10;
/// U+FEFF: a byte order mark at the start of a file.
pub(crate) const MARK: char = '\u{feff}';

/// Reads a file's text line by line.
pub(crate) struct Source<R: Read> {
    input: Input<R>,
    limits: Limits,
    encoding: Option<Encoding>,
    /// Bytes read so far, after decompression.
    bytes: u64,
    /// Bytes of a character that continues in the next block.
    raw: Vec<u8>,
    text: String,
    /// How much of `text` has been read.
    at: usize,
    /// Current line.
    line: u64,
    after_cr: bool,
    ended: bool,
    /// What follows `text`, if that is not the end of the file.
    trouble: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16 { big_endian: bool },
}

impl<R: Read> Source<R> {
    pub(crate) fn open(file: R, limits: Limits) -> Result<Self, Error> {
        Ok(Self {
            input: Input::open(file)?,
            limits,
            encoding: None,
            bytes: 0,
            raw: Vec::new(),
            text: String::new(),
            at: 0,
            line: 1,
            after_cr: false,
            ended: false,
            trouble: None,
        })
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.input.is_compressed()
    }

    /// The current line, counted from 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Most bytes of a line or record.
    pub(crate) fn longest(&self) -> usize {
        self.limits.record
    }

    /// The beginning of the unread text: at least one block, if there is that much.
    pub(crate) fn peek(&mut self) -> Result<&str, Error> {
        while self.rest().len() < BLOCK && self.fill()? {}
        Ok(self.rest())
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next byte, without reading it.
    pub(crate) fn peek_byte(&mut self) -> Result<Option<u8>, Error> {
        while self.at == self.text.len() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(self.text.as_bytes().get(self.at).copied())
    }

    /// Reads the next byte.
    pub(crate) fn byte(&mut self) -> Result<Option<u8>, Error> {
        let byte = self.peek_byte()?;
        if let Some(byte) = byte {
            self.at += 1;
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }

    /// Skips byte order marks.
    pub(crate) fn skip_marks(&mut self) -> Result<(), Error> {
        while self.peek_byte()?.is_some() && self.rest().starts_with(MARK) {
            self.at += MARK.len_utf8();
        }
        Ok(())
    }

    /// Reads the next line, without its end and without byte order marks at its beginning. Returns
    /// its number; `None` at the end.
    pub(crate) fn next_line(&mut self, line: &mut String) -> Result<Option<u64>, Error> {
        line.clear();
        self.skip_marks()?;
        if self.peek_byte()?.is_none() {
            return Ok(None);
        }
        let number = self.line;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let (part, ends) = match rest.split_once('\n') {
                Some((part, _)) => (part, true),
                None => (rest, false),
            };
            if line.len() + part.len() > self.limits.record {
                return Err(Error::line(number, too_long("it", self.limits.record)));
            }
            line.push_str(part);
            self.at += part.len();
            if ends {
                self.at += 1;
                self.line += 1;
                return Ok(Some(number));
            }
            if !self.fill()? {
                return Ok(Some(number));
            }
        }
    }

    /// Decodes one more block after the unread text. `false` at the end of the file.
    fn fill(&mut self) -> Result<bool, Error> {
        self.text.drain(..self.at);
        self.at = 0;
        loop {
            if let Some(trouble) = &self.trouble {
                return if self.text.is_empty() {
                    Err(Error::line(self.line, trouble.clone()))
                } else {
                    Ok(false)
                };
            }
            if self.ended {
                return Ok(false);
            }
            let before = self.text.len();
            self.read_block()?;
            if self.text.len() > before {
                return Ok(true);
            }
        }
    }

    fn read_block(&mut self) -> Result<(), Error> {
        let carried = self.raw.len();
        let mut raw = std::mem::take(&mut self.raw);
        raw.resize(carried + BLOCK, 0);
        let length = self.input.read_block(raw.get_mut(carried..).unwrap_or_default())?;
        raw.truncate(carried + length);
        self.ended = length < BLOCK;
        self.bytes += length as u64;
        if self.bytes > self.limits.bytes {
            return Err(Error::File(too_big(self.limits.bytes, self.is_compressed())));
        }
        let encoding = match self.encoding {
            Some(encoding) => encoding,
            None => {
                let (encoding, mark) = self.begin(&raw)?;
                raw.drain(..mark);
                *self.encoding.insert(encoding)
            }
        };
        match encoding {
            Encoding::Utf8 => self.decode_utf8(raw),
            Encoding::Utf16 { big_endian } => self.decode_utf16(&raw, big_endian),
        }
        Ok(())
    }

    /// What the first block tells about the file: its encoding, and the length of its byte order
    /// mark.
    fn begin(&self, head: &[u8]) -> Result<(Encoding, usize), Error> {
        if self.is_compressed() {
            if compression::is_compressed(head) {
                return Err(Error::File("it is compressed twice; unpack it once".to_owned()));
            }
            foreign::check(head)?;
        }
        let refuse = |what: &str, name: &str| {
            Err(Error::line(
                1,
                format!(
                    "the file is {what}; accepted: UTF-8, or UTF-16 with a byte order mark; convert it with `iconv -f {name} -t UTF-8 FILE`"
                ),
            ))
        };
        match head {
            [0xef, 0xbb, 0xbf, ..] => Ok((Encoding::Utf8, 3)),
            [0xff, 0xfe, 0, 0, ..] => refuse("UTF-32", "UTF-32"),
            [0, 0, 0xfe, 0xff, ..] => refuse("UTF-32", "UTF-32"),
            [0xff, 0xfe, ..] => Ok((Encoding::Utf16 { big_endian: false }, 2)),
            [0xfe, 0xff, ..] => Ok((Encoding::Utf16 { big_endian: true }, 2)),
            _ => match without_mark(head) {
                Some(name) => refuse(&format!("{name} without a byte order mark"), name),
                None => Ok((Encoding::Utf8, 0)),
            },
        }
    }

    fn decode_utf8(&mut self, raw: Vec<u8>) {
        match std::str::from_utf8(&raw) {
            Ok(text) => self.push(text),
            Err(error) => {
                let (good, bad) = raw.split_at(error.valid_up_to());
                self.push(std::str::from_utf8(good).unwrap_or_default());
                if error.error_len().is_none() && !self.ended {
                    self.raw = bad.to_vec();
                } else if self.trouble.is_none() {
                    self.trouble = Some(match bad {
                        bad if error.error_len().is_none() => format!(
                            "the file ends in the middle of a character (byte 0x{:02X}); it is cut short, or not UTF-8",
                            bad.first().copied().unwrap_or_default()
                        ),
                        bad => format!(
                            "the byte 0x{:02X} is not UTF-8; accepted: UTF-8, or UTF-16 with a \
                             byte order mark; convert the file from its own encoding, for example \
                             with `iconv -f WINDOWS-1252 -t UTF-8 FILE`",
                            bad.first().copied().unwrap_or_default()
                        ),
                    });
                }
            }
        }
    }

    fn decode_utf16(&mut self, raw: &[u8], big_endian: bool) {
        let unit = |pair: &[u8; 2]| {
            if big_endian { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) }
        };
        let (pairs, odd) = raw.as_chunks::<2>();
        let mut units: Vec<u16> = pairs.iter().map(unit).collect();
        let mut carried = odd.to_vec();
        if let Some(&last) =
            units.last().filter(|last| !self.ended && (0xd800..0xdc00).contains(*last))
        {
            // The other half is in the next block.
            units.pop();
            let bytes = if big_endian { last.to_be_bytes() } else { last.to_le_bytes() };
            carried = [bytes.as_slice(), odd].concat();
        }
        let mut text = String::with_capacity(units.len());
        let mut lone = None;
        for decoded in char::decode_utf16(units) {
            match decoded {
                Ok(character) => text.push(character),
                Err(error) => {
                    lone = Some(error.unpaired_surrogate());
                    break;
                }
            }
        }
        self.push(&text);
        if self.trouble.is_some() {
            return;
        }
        if let Some(lone) = lone {
            self.trouble = Some(format!(
                "the UTF-16 text has half a character (a lone surrogate, U+{lone:04X}); it is damaged"
            ));
        } else if self.ended && !carried.is_empty() {
            self.trouble = Some(
                "the UTF-16 text has an odd number of bytes; it is cut short or damaged".to_owned(),
            );
        } else {
            self.raw = carried;
        }
    }

    /// Adds decoded text: CRLF and CR become LF, and a NUL is an error.
    fn push(&mut self, text: &str) {
        let (text, nul) = match text.split_once('\0') {
            Some((before, _)) => (before, true),
            None => (text, false),
        };
        let mut text = text;
        if self.after_cr && !text.is_empty() {
            self.after_cr = false;
            text = text.strip_prefix('\n').unwrap_or(text);
        }
        while let Some((before, after)) = text.split_once('\r') {
            self.text.push_str(before);
            self.text.push('\n');
            self.after_cr = after.is_empty();
            text = after.strip_prefix('\n').unwrap_or(after);
        }
        self.text.push_str(text);
        if nul {
            self.trouble = Some(
                "it contains a NUL character; accepted: text. A file with such characters is not \
                 text, or it is UTF-16 or UTF-32 without a byte order mark"
                    .to_owned(),
            );
        }
    }
}

/// Guesses the encoding of text without a byte order mark, if its zero bytes are where Latin
/// letters have them.
fn without_mark(head: &[u8]) -> Option<&'static str> {
    let head = head.get(..1024).unwrap_or(head);
    let zeros = |step: usize, offset: usize| {
        head.iter().skip(offset).step_by(step).filter(|byte| **byte == 0).count() * step * 2
            >= head.len()
    };
    let any =
        |step: usize, offset: usize| head.iter().skip(offset).step_by(step).any(|byte| *byte != 0);
    if head.len() < 2 {
        return None;
    }
    match () {
        () if zeros(4, 1) && zeros(4, 2) && zeros(4, 3) && any(4, 0) => Some("UTF-32LE"),
        () if zeros(4, 0) && zeros(4, 1) && zeros(4, 2) && any(4, 3) => Some("UTF-32BE"),
        () if zeros(2, 1) && any(2, 0) && !zeros(2, 0) => Some("UTF-16LE"),
        () if zeros(2, 0) && any(2, 1) && !zeros(2, 1) => Some("UTF-16BE"),
        () => None,
    }
}

/// The error for a line or record that is too long.
pub(crate) fn too_long(what: &str, longest: usize) -> String {
    format!("{what} is longer than {longest} bytes; accepted: at most {longest}")
}

fn too_big(limit: u64, compressed: bool) -> String {
    let unpacked = if compressed { " when it is unpacked" } else { "" };
    let most = limit >> 20;
    format!("it has more than {most} MiB{unpacked}; accepted: at most {most} MiB, so split it")
}
