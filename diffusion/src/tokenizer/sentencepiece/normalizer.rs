//! The normal form of text for a model: characters are mapped by the file's table, blanks are made
//! visible, and runs of blanks become one.
//!
//! The table is a trie of byte strings, longest match first. So it must be applied from left to
//! right: a letter and its combining marks may be one entry or several.

/// The symbol of a blank in the vocabulary.
const BLANK: &str = "\u{2581}";

/// A model file's settings for normalisation.
#[derive(Debug)]
pub(super) struct NormalizerSpec {
    /// The table as in the file; empty if there is none.
    pub(super) charsmap: Vec<u8>,
    /// Whether a blank is added to the text,
    pub(super) add_blank: bool,
    /// and whether at its end instead of its beginning.
    pub(super) blank_behind: bool,
    pub(super) remove_extra_blanks: bool,
    pub(super) escape_blanks: bool,
}

impl Default for NormalizerSpec {
    fn default() -> Self {
        Self {
            charsmap: Vec::new(),
            add_blank: true,
            blank_behind: false,
            remove_extra_blanks: true,
            escape_blanks: true,
        }
    }
}

/// Normalises texts.
pub(super) struct Normalizer {
    table: Option<Table>,
    /// Symbols that are not changed, longest first.
    symbols: Vec<String>,
    spec: NormalizerSpec,
}

/// A normalised text, and the origin of each of its bytes.
pub(super) struct Normalized {
    pub(super) text: String,
    /// For each byte, and for the end: the byte of the original text at which its source begins.
    origins: Vec<usize>,
}

impl Normalized {
    /// The part of the original text that a range of bytes stands for.
    pub(super) fn span(&self, from: usize, to: usize) -> (usize, usize) {
        let at = |byte: usize| self.origins.get(byte).copied().unwrap_or(0);
        (at(from), at(to))
    }

    fn push(&mut self, text: &str, origin: usize) {
        self.text.push_str(text);
        self.origins.resize(self.text.len(), origin);
    }
}

impl Normalizer {
    pub(super) fn new<'a>(
        spec: &NormalizerSpec,
        symbols: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let table = if spec.charsmap.is_empty() { None } else { Some(Table::new(&spec.charsmap)?) };
        let mut symbols: Vec<String> =
            symbols.filter(|symbol| !symbol.is_empty()).map(str::to_owned).collect();
        symbols.sort_by_key(|symbol| std::cmp::Reverse(symbol.len()));
        let spec = NormalizerSpec { charsmap: Vec::new(), ..*spec };
        Ok(Self { table, symbols, spec })
    }

    pub(super) fn normalize(&self, text: &str) -> Normalized {
        let blank = if self.spec.escape_blanks { BLANK } else { " " };
        let mut normalized =
            Normalized { text: String::with_capacity(text.len() + 3), origins: Vec::new() };
        let mut begin = 0;
        if self.spec.remove_extra_blanks {
            while let (" ", length @ 1..) = self.first(&text[begin..]) {
                begin += length;
            }
        }
        if begin == text.len() {
            normalized.origins.push(begin);
            return normalized;
        }
        if self.spec.add_blank && !self.spec.blank_behind {
            normalized.push(blank, begin);
        }
        let mut after_blank = self.spec.remove_extra_blanks;
        while begin < text.len() {
            let (mut mapped, length) = self.first(&text[begin..]);
            while after_blank && let Some(rest) = mapped.strip_prefix(' ') {
                mapped = rest;
            }
            if !mapped.is_empty() {
                for (place, run) in mapped.split(' ').enumerate() {
                    if place > 0 {
                        normalized.push(blank, begin);
                    }
                    normalized.push(run, begin);
                }
                after_blank = mapped.ends_with(' ');
            }
            begin += length;
            after_blank &= self.spec.remove_extra_blanks;
        }
        if self.spec.remove_extra_blanks {
            while normalized.text.ends_with(blank) {
                normalized.text.truncate(normalized.text.len() - blank.len());
                begin = normalized.origins.get(normalized.text.len()).copied().unwrap_or(begin);
            }
            normalized.origins.truncate(normalized.text.len());
        }
        if self.spec.add_blank && self.spec.blank_behind {
            normalized.push(blank, begin);
        }
        normalized.origins.push(begin);
        normalized
    }

    /// The replacement for the beginning of a non-empty text, and how many bytes of the text it
    /// replaces.
    fn first<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if let Some(symbol) = self.symbols.iter().find(|symbol| text.starts_with(symbol.as_str())) {
            return (&text[..symbol.len()], symbol.len());
        }
        if let Some(found) = self.table.as_ref().and_then(|table| table.longest(text)) {
            return found;
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (&text[..length], length)
    }
}

/// Most bytes that stand for one entry of a table. NFKC's longest replacement has 33.
const MAX_REPLACEMENT: usize = 64;
/// Most bytes of a table that is checked as a whole. Published ones have a quarter of a megabyte.
const MAX_TABLE: usize = 4 << 20;

/// Whether another reader, which checks nothing, can use a table.
pub(in crate::tokenizer) fn check_table(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > MAX_TABLE {
        return Err(format!("it has {} bytes; accepted: at most {MAX_TABLE}", bytes.len()));
    }
    Table::new(bytes)?.check()
}

/// A table of replacements: a double-array trie (in the layout of `darts-clone`) over byte strings.
/// Its values are offsets of replacements, each of which ends with a zero byte.
struct Table {
    units: Vec<u32>,
    replacements: String,
}

impl Table {
    /// The file's format: size of the trie in bytes, the trie, the replacements; little-endian.
    fn new(bytes: &[u8]) -> Result<Self, String> {
        const BROKEN: &str = "its table of character normalisations is broken";
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or(BROKEN)?;
        let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|_| BROKEN)?;
        let (trie, replacements) = rest.split_at_checked(size).ok_or(BROKEN)?;
        let (units, odd) = trie.as_chunks::<4>();
        if units.is_empty() || !odd.is_empty() {
            return Err(BROKEN.to_owned());
        }
        let units = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements = String::from_utf8(replacements.to_vec()).map_err(|_| BROKEN)?;
        let longest = replacements.split('\0').map(str::len).max().unwrap_or(0);
        if longest > MAX_REPLACEMENT {
            return Err(format!(
                "its table of character normalisations replaces a character by {longest} bytes; \
                 accepted: at most {MAX_REPLACEMENT}"
            ));
        }
        Ok(Self { units, replacements })
    }

    /// Walks through every state of the trie, as any text could, and checks that it never leads out
    /// of the table. Readers that do not check that themselves would panic.
    fn check(&self) -> Result<(), String> {
        const BROKEN: &str = "it leads out of its own table";
        let unit = |position: u32| self.units.get(position as usize).copied();
        let mut seen = vec![false; self.units.len()];
        let mut states = vec![offset(unit(0).ok_or(BROKEN)?)];
        while let Some(state) = states.pop() {
            for byte in 1..=255 {
                let position = state ^ byte;
                let here = unit(position).ok_or(BROKEN)?;
                if label(here) != byte || std::mem::replace(&mut seen[position as usize], true) {
                    continue;
                }
                let next = position ^ offset(here);
                if has_value(here) {
                    let value = unit(next).ok_or(BROKEN)? & 0x7fff_ffff;
                    self.replacements.get(value as usize..).ok_or(BROKEN)?;
                }
                states.push(next);
            }
        }
        Ok(())
    }

    /// The replacement for the longest entry at the start of a text, and that entry's length. In
    /// every table made from text, entries end at the borders of characters; other entries are
    /// skipped.
    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        let unit = |position: u32| self.units.get(usize::try_from(position).ok()?).copied();
        let mut position = offset(unit(0)?);
        let mut found = None;
        for (index, byte) in text.bytes().enumerate() {
            position ^= u32::from(byte);
            let Some(here) = unit(position).filter(|unit| label(*unit) == u32::from(byte)) else {
                break;
            };
            position ^= offset(here);
            if has_value(here)
                && text.is_char_boundary(index + 1)
                && let Some(value) = unit(position)
            {
                found = Some((value & 0x7fff_ffff, index + 1));
            }
        }
        let (value, length) = found?;
        let replacement = self.replacements.get(usize::try_from(value).ok()?..)?;
        Some((replacement.split('\0').next().unwrap_or_default(), length))
    }
}

fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

/// The byte that leads to a unit; `None` for a unit that holds a value.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}
