//! The repairs of ftfy that matter to a caption in lower case: compatibility forms, quotes, control
//! characters, and UTF-8 that was read as Windows-1252.
//!
//! ftfy first judges whether a whole segment looks wrongly decoded, knows eight code pages, and
//! repairs sequences that lost a byte. Here only the sequence itself is looked at. It is repaired
//! if all its bytes are characters of Windows-1252 and form UTF-8 of three or four bytes, or of
//! three bytes whose last one became a blank.

use unicode_normalization::UnicodeNormalization;

use super::Error;

/// Characters of Windows-1252's bytes 0x80 to 0x9F. Five of these bytes have no character and keep
/// their control character.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Most rounds of repair. Each round undoes one layer of wrong decoding; real texts have fewer than
/// five layers.
const ROUNDS: usize = 32;

/// The text, repaired until nothing changes.
pub(super) fn repair(text: &str) -> Result<String, Error> {
    let mut text = text.to_owned();
    for _ in 0..ROUNDS {
        let unescaped =
            if text.contains('<') { text.clone() } else { super::markup::unescape_strict(&text) };
        let decoded = decode_again(&unescaped);
        let repaired: String = decoded.chars().flat_map(plain).nfc().collect();
        let repaired =
            without_terminal_escapes(&repaired.replace("\r\n", "\n").replace('\r', "\n"));
        if repaired == text {
            return Ok(repaired);
        }
        text = repaired;
    }
    Err(Error::References)
}

/// A character's plain form; empty for characters that are removed.
fn plain(c: char) -> Vec<char> {
    let one = |c| vec![c];
    match c {
        '\u{80}'..='\u{9f}' if c != '\u{85}' => one(WINDOWS_1252[c as usize - 0x80]),
        // Latin ligatures and digraphs. After lower-casing only these are left, and none in title
        // case.
        'ĳ' => "ij".chars().collect(),
        'ŉ' => "'n".chars().collect(),
        'ǳ' => "dz".chars().collect(),
        'ǆ' => "dž".chars().collect(),
        'ǉ' => "lj".chars().collect(),
        'ǌ' => "nj".chars().collect(),
        'ﬅ' => "ſt".chars().collect(),
        '\u{fb00}'..='\u{fb06}' => c.to_string().nfkc().collect(),
        '\u{3000}' => one(' '),
        '\u{ff01}'..='\u{ffef}' => c.to_string().nfkc().collect(),
        '\u{2bc}' | '‘'..='‛' => one('\''),
        '“'..='‟' => one('"'),
        '\u{2028}' | '\u{2029}' | '\u{85}' => one('\n'),
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1a}' | '\u{1c}'..='\u{1f}' | '\u{7f}' => {
            Vec::new()
        }
        '\u{206a}'..='\u{206f}' | '\u{fff9}'..='\u{fffc}' | '\u{feff}' => Vec::new(),
        _ => one(c),
    }
}

/// Removes `ESC [ numbers letter`, and escape characters that begin no sequence.
fn without_terminal_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut parts = text.split('\u{1b}');
    kept.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let sequence = part.strip_prefix('[').and_then(|rest| {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
            rest.strip_prefix(|c: char| c.is_ascii_alphabetic())
        });
        kept.push_str(sequence.unwrap_or(part));
    }
    kept
}

/// Undoes UTF-8 of three and four bytes that was read as Windows-1252.
fn decode_again(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut decoded = String::with_capacity(text.len());
    let mut position = 0;
    while let Some(c) = characters.get(position) {
        let length = match byte(*c) {
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            _ => 1,
        };
        let bytes: Option<Vec<u8>> =
            characters[position..].iter().take(length).map(|c| byte(*c)).collect();
        let whole = bytes.filter(|bytes| length > 1 && bytes.len() == length);
        let whole = whole.or_else(|| with_lost_blank(&characters[position..]));
        match whole.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            Some(meant) => {
                decoded.push_str(meant);
                position += length;
            }
            None => {
                decoded.push(*c);
                position += 1;
            }
        }
    }
    decoded
}

/// Three bytes of UTF-8 whose last byte, the no-break space 0xA0, has become a plain blank. As in
/// ftfy, the two characters before the blank decide whether it is one.
fn with_lost_blank(characters: &[char]) -> Option<Vec<u8>> {
    let [lead, second, ' ', ..] = characters else { return None };
    let (lead, second) = (byte(*lead)?, byte(*second)?);
    let is_lost = matches!(
        (lead, second),
        (0xe0..=0xe3, 0xa2..=0xa6 | 0xa8 | 0xaa | 0xac | 0xaf | 0xb8 | 0xba)
            | (0xe0, 0xb2 | 0xb5 | 0xb9 | 0xbc..=0xbe)
            | (
                0xe1..=0xe3,
                0x80 | 0x81 | 0x83 | 0x86..=0x89 | 0x8d | 0x8f | 0x90 | 0x98 | 0x9c | 0x9d
            )
    );
    is_lost.then(|| vec![lead, second, 0xa0])
}

/// The Windows-1252 byte of a character.
fn byte(c: char) -> Option<u8> {
    match c {
        '\u{a0}'..='\u{ff}' => u8::try_from(u32::from(c)).ok(),
        _ => WINDOWS_1252
            .iter()
            .position(|known| *known == c)
            .and_then(|place| u8::try_from(place + 0x80).ok()),
    }
}
