//! Text as a model knows it: characters mapped by the file's table, blanks made visible and counted once.
//!
//! The table is a trie of byte strings, longest match first, so that it must be walked from left to right: a letter and
//! the combining marks behind it may be one entry, or several.

/// How a blank stands in the vocabulary.
const BLANK: &str = "\u{2581}";

/// What a model file says about normalising.
#[derive(Debug)]
pub(super) struct NormalizerSpec {
    /// The table as the file has it; empty: none.
    pub(super) charsmap: Vec<u8>,
    /// A blank is added to the text,
    pub(super) add_blank: bool,
    /// behind it, not before it.
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
    /// Symbols that stay as they are, longest first.
    symbols: Vec<String>,
    spec: NormalizerSpec,
}

/// A text as normalised, and where each of its bytes comes from.
pub(super) struct Normalized {
    pub(super) text: String,
    /// For each byte, and the end: the byte of the original text where what it stands for begins.
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
        let mut normalized = Normalized { text: String::with_capacity(text.len() + 3), origins: Vec::new() };
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

    /// What the beginning of a text, which is not empty, becomes, and how many bytes of it that takes.
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

/// A table of replacements: a double-array trie (as `darts-clone` lays it out) over byte strings, whose values are
/// offsets of replacements that each end with a zero byte.
struct Table {
    units: Vec<u32>,
    replacements: String,
}

impl Table {
    /// The file's form: size of the trie in bytes, the trie, the replacements; little-endian.
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
        Ok(Self { units, replacements })
    }

    /// The replacement of the longest entry that a text begins with, and that entry's length. Entries end where
    /// characters do, in any table that was made from text; others are passed over.
    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        let unit = |position: u32| self.units.get(usize::try_from(position).ok()?).copied();
        let mut position = offset(unit(0)?);
        let mut found = None;
        for (index, byte) in text.bytes().enumerate() {
            position ^= u32::from(byte);
            let Some(here) = unit(position).filter(|unit| label(*unit) == u32::from(byte)) else { break };
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

/// The byte that leads to a unit; no byte for a unit that holds a value.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}
