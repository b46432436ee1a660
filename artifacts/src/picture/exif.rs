//! The text of JPEGs and WebPs: an EXIF block that is written and read here.
//!
//! What `rerender` needs is JSON in the MakerNote, the field that EXIF reserves for the maker of a
//! file. The line for people is in the UserComment, where other programs show it. Programs that
//! know neither copy the block as it is. Together it has at most [`MAX_BYTES`], so that one segment
//! of a JPEG holds it; the line for people is cut where there is no room, and says so.
//!
//! The block is big-endian throughout: readers of UserComment expect its UTF-16 so.

use darkroom_core::{picture_text::PARAMETERS, shown::shown};

use super::{Error, MAX_RECIPE_BYTES, text::Room};
use crate::exif_tags::{self, ASCII, LONG, Tags, UNDEFINED};

/// Most bytes of the block.
const MAX_BYTES: usize = 60_000;
/// Bytes that are always there: the header, two lists of tags, and the values that are short.
const FIXED: usize = MAKER_NOTE as usize;
/// What a MakerNote of ours begins with.
const MAKER: &[u8] = b"Darkroom\0";
/// What UTF-16 in a UserComment begins with.
const UNICODE: &[u8] = b"UNICODE\0";
/// The end of a line that was cut.
const CUT: &str = " … (cut: too long for this file)";

/// Tags that are written or read.
const SOFTWARE: u16 = 0x0131;
const EXIF_VERSION: u16 = 0x9000;
const USER_COMMENT: u16 = 0x9286;
const MAKER_NOTE_TAG: u16 = 0x927c;
/// Where things lie in a block that is written.
const FIRST_TAGS: u32 = 8;
const SOFTWARE_AT: u32 = FIRST_TAGS + 2 + 2 * 12 + 4;
const EXIF_TAGS: u32 = SOFTWARE_AT + 10;
const MAKER_NOTE: u32 = EXIF_TAGS + 2 + 3 * 12 + 4;

/// The text as an EXIF block.
///
/// # Errors
/// If all but the line for people has more bytes than there is room for.
pub(super) fn write(text: &[(String, String)]) -> Result<Vec<u8>, Error> {
    let note = note(text);
    let room = MAX_BYTES
        .checked_sub(FIXED + padded(note.len()) + UNICODE.len())
        .ok_or(Error::LongRecipe { bytes: note.len() })?;
    let people = text.iter().find(|(keyword, _)| keyword == PARAMETERS);
    let comment = comment(people.map_or("", |(_, text)| text.as_str()), room / 2);

    let comment_at = MAKER_NOTE + padded(note.len()) as u32;
    let mut block = Vec::with_capacity(comment_at as usize + comment.len());
    block.extend(b"MM\0\x2a");
    block.extend(FIRST_TAGS.to_be_bytes());
    block.extend(2_u16.to_be_bytes());
    tag(&mut block, SOFTWARE, ASCII, (MAKER.len(), SOFTWARE_AT));
    tag(&mut block, exif_tags::EXIF, LONG, (1, EXIF_TAGS));
    block.extend(0_u32.to_be_bytes());
    block.extend(MAKER);
    block.push(0);
    block.extend(3_u16.to_be_bytes());
    tag(&mut block, EXIF_VERSION, UNDEFINED, (4, u32::from_be_bytes(*b"0232")));
    tag(&mut block, MAKER_NOTE_TAG, UNDEFINED, (note.len(), MAKER_NOTE));
    tag(&mut block, USER_COMMENT, UNDEFINED, (comment.len(), comment_at));
    block.extend(0_u32.to_be_bytes());
    block.extend(&note);
    block.resize(comment_at as usize, 0);
    block.extend(comment);
    Ok(block)
}

/// Bytes that all of the text but the line for people takes.
pub(super) fn note_bytes(text: &[(String, String)]) -> usize {
    note(text).len()
}

fn note(text: &[(String, String)]) -> Vec<u8> {
    let pairs: Vec<_> = text.iter().filter(|(keyword, _)| keyword != PARAMETERS).collect();
    let mut note = MAKER.to_vec();
    note.extend(serde_json::to_vec(&pairs).expect("texts have a JSON"));
    note
}

/// The readable line in UTF-16, cut to this many units.
fn comment(line: &str, units: usize) -> Vec<u8> {
    if line.is_empty() {
        return Vec::new();
    }
    let mut utf16: Vec<u16> = line.encode_utf16().collect();
    if utf16.len() > units {
        let Some(mut kept) = units.checked_sub(CUT.encode_utf16().count()) else {
            return Vec::new();
        };
        // Not between the halves of a character.
        if kept > 0 && (0xd800..0xdc00).contains(&utf16[kept - 1]) {
            kept -= 1;
        }
        utf16.truncate(kept);
        utf16.extend(CUT.encode_utf16());
    }
    UNICODE.iter().copied().chain(utf16.into_iter().flat_map(u16::to_be_bytes)).collect()
}

/// Values lie at even places.
fn padded(length: usize) -> usize {
    length.next_multiple_of(2)
}

/// `value` is how many there are, and the value or where it lies.
fn tag(block: &mut Vec<u8>, tag: u16, kind: u16, value: (usize, u32)) {
    block.extend(tag.to_be_bytes());
    block.extend(kind.to_be_bytes());
    block.extend((value.0 as u32).to_be_bytes());
    block.extend(value.1.to_be_bytes());
}

/// The text of ours in an EXIF block; nothing where there is none, or the block is broken.
///
/// # Errors
/// If our note is there and cannot be read, or is too long.
pub(super) fn read(block: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let mut room = Room::default();
    let Some(tags) = Tags::of(block) else { return Ok(room.into_text()) };
    if let Some(note) = tags.exif(MAKER_NOTE_TAG).and_then(|note| note.strip_prefix(MAKER)) {
        if note.len() > room.left() {
            return Err(Error::Text("MakerNote".to_owned(), room.too_long()));
        }
        // Some programs fill values up with zeros.
        let end = note.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let pairs: Vec<(String, String)> =
            serde_json::from_slice(&note[..end]).map_err(|error| {
                let reason = shown(&error.to_string()).into_owned();
                Error::Text("MakerNote".to_owned(), reason)
            })?;
        for (keyword, text) in pairs {
            if room.wants(&keyword) {
                room.take(&keyword, Ok(text))?;
            }
        }
    }
    if let Some(line) = tags.exif(USER_COMMENT).and_then(|comment| comment.strip_prefix(UNICODE)) {
        let units = line.chunks_exact(2).map(|unit| tags.u16_of([unit[0], unit[1]]));
        let line: Result<String, _> = char::decode_utf16(units).collect();
        if let (Ok(line), true) = (line, room.wants(PARAMETERS)) {
            room.take(PARAMETERS, Ok(line))?;
        }
    }
    Ok(room.into_text())
}

/// The longest note leaves room for a class of device and for what says that a line was cut.
const _: () = assert!(MAX_RECIPE_BYTES + FIXED + UNICODE.len() + 600 < MAX_BYTES);

#[cfg(test)]
mod tests {
    use darkroom_core::picture_text::{PROMPT, SEED};

    use super::*;

    fn text(prompt: &str, line: &str) -> Vec<(String, String)> {
        [(PROMPT, prompt), (SEED, "7"), (PARAMETERS, line)]
            .map(|(keyword, text)| (keyword.to_owned(), text.to_owned()))
            .to_vec()
    }

    #[test]
    fn text_comes_back_and_the_line_for_people_stands_in_the_comment() {
        let text = text("ein Kreis\n\"über\" 青い四角 🙂", "ein Kreis 🙂\nSeed: 7");
        let block = write(&text).expect("written");
        assert_eq!(read(&block).expect("read"), text);
        assert_eq!(read(&[b"Exif\0\0", &block[..]].concat()).expect("read"), text);
        let units: Vec<u8> = "Seed: 7".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(block.ends_with(&units));
    }

    #[test]
    fn a_line_without_room_is_cut_at_a_character_and_says_so() {
        for more in 0..3 {
            let line = format!("{}{}", "x".repeat(more), "🙂".repeat(20_000));
            let text = text(&"p".repeat(40_000), &line);
            let block = write(&text).expect("written");
            assert!(block.len() <= MAX_BYTES && block.len() > MAX_BYTES - 8, "{}", block.len());
            let read = read(&block).expect("read");
            assert_eq!(read[..2], text[..2], "what rerender needs is whole");
            let kept = read[2].1.strip_suffix(CUT).expect("it says so");
            assert!(line.starts_with(kept) && kept.len() > 19_000, "{}", kept.len());
        }
    }

    #[test]
    fn a_recipe_that_is_too_long_is_refused_and_the_longest_is_whole() {
        let longest = text(&"p".repeat(MAX_RECIPE_BYTES - note_bytes(&text("", ""))), "line");
        assert_eq!(note_bytes(&longest), MAX_RECIPE_BYTES);
        assert_eq!(read(&write(&longest).expect("written")).expect("read"), longest);
        let error = write(&text(&"p".repeat(MAX_BYTES), "line")).expect_err("too long");
        assert!(matches!(error, Error::LongRecipe { bytes } if bytes > MAX_BYTES), "{error}");
    }

    #[test]
    fn little_endian_blocks_of_others_are_read() {
        let note = [MAKER, br#"[["darkroom.seed","7"]]"#, &[0, 0]].concat();
        let mut block = b"II\x2a\0\x08\0\0\0".to_vec();
        let mut list = |tags: &[(u16, u16, u32, u32)]| {
            block.extend((tags.len() as u16).to_le_bytes());
            for (tag, kind, count, value) in tags {
                block.extend(tag.to_le_bytes());
                block.extend(kind.to_le_bytes());
                block.extend(count.to_le_bytes());
                block.extend(value.to_le_bytes());
            }
            block.extend([0; 4]);
        };
        list(&[(exif_tags::EXIF, LONG, 1, 26)]);
        list(&[(MAKER_NOTE_TAG, UNDEFINED, note.len() as u32, 44)]);
        block.extend(note);
        assert_eq!(read(&block).expect("read"), [(SEED.to_owned(), "7".to_owned())]);
    }

    #[test]
    fn what_is_broken_or_anothers_is_no_text_and_a_broken_note_of_ours_is_told() {
        let block = write(&text("a ring", "a ring")).expect("written");
        for end in 0..block.len() {
            // Never a panic, never half a text.
            if let Ok(text) = read(&block[..end]) {
                assert!(text.iter().all(|(_, text)| text == "a ring" || text == "7"), "{text:?}");
            }
        }
        let mut random = 7_u32;
        for _ in 0..20_000 {
            let mut broken = block.clone();
            for _ in 0..3 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (random >> 8) as usize % broken.len();
                broken[at] = random as u8;
            }
            let _ = read(&broken);
        }
        let mut other = block.clone();
        other[MAKER_NOTE as usize] = b'N';
        assert_eq!(read(&other).expect("another maker's").len(), 1);
        let mut broken = block;
        broken[MAKER_NOTE as usize + MAKER.len()] = b'x';
        assert!(matches!(read(&broken), Err(Error::Text(name, _)) if name == "MakerNote"));
    }
}
