//! Notes about texts (tokens cut off, unknown words) and pictures (cut, enlarged, turned), as
//! sentences that name their images.
//!
//! A row of `text_notes` is one note on one text in one role (prompt, negative prompt, style) of
//! one job. Its images are counted in two places: a chunk of prompts with an encoded text adds its
//! own images, and a text's result adds the images that came before it. Reading a job makes the
//! sentence from the row.
//!
//! Notes about pictures are known when a prompt comes. All pictures of a job with the same note
//! share one row, which has a negative number, derived from the words, in place of the text's
//! number.

use std::collections::BTreeMap;

use darkroom_core::digest::Digest;

use super::{Error, records::NewPrompt};

/// Most notes that are kept for a job.
pub(super) const NOTES: i64 = 100;

/// Most notes about pictures, so that there is room for notes about texts.
pub(super) const PICTURE_NOTES: i64 = 50;

/// Most prompts whose images are counted when a text is encoded. Each has at least one image.
pub(super) const COUNTED: i64 = OTHERS + 2;

/// Other images are counted up to this number; beyond it, the note says "more than".
const OTHERS: i64 = 10_000;

/// The role of a text or picture for images, as in SQL.
const ROLES: [&str; 5] = ["prompt", "negative prompt", "style", "picture", "mask"];
/// The first role of pictures.
pub(super) const PICTURE: i16 = 3;
const MASK: i16 = 4;

/// A row of a note about pictures of a chunk's prompts. It lacks the job and the position among a
/// text's notes, which is 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PictureNote {
    /// In place of the number of a text; negative.
    pub(super) words: i64,
    pub(super) role: i16,
    pub(super) first_index: u64,
    pub(super) line: Option<u64>,
    pub(super) images: i64,
    pub(super) note: String,
}

/// Notes about the pictures of a chunk's prompts, by words and role.
pub(super) fn of_pictures(prompts: &[NewPrompt]) -> Vec<PictureNote> {
    let mut notes: BTreeMap<(i64, i16), PictureNote> = BTreeMap::new();
    for prompt in prompts {
        for remark in &prompt.remarks {
            let (words, role) =
                (number_of(&remark.text), if remark.of_mask { MASK } else { PICTURE });
            let first = || PictureNote {
                words,
                role,
                first_index: prompt.first_index,
                line: prompt.naming.line,
                images: 0,
                note: remark.text.clone(),
            };
            notes.entry((words, role)).or_insert_with(first).images += i64::from(prompt.images);
        }
    }
    notes.into_values().collect()
}

fn number_of(words: &str) -> i64 {
    let digest = Digest::of(words.as_bytes());
    let number = digest.0.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
    number | i64::MIN
}

/// A row from SQL: a JSON list of first image, line, number of images, role and note.
#[derive(serde::Deserialize)]
struct Row(u64, Option<u64>, i64, usize, String);

/// The sentences of rows.
pub(super) fn sentences(rows: &[String]) -> Result<Vec<String>, Error> {
    rows.iter()
        .map(|row| {
            let row =
                serde_json::from_str(row).map_err(|error| Error::Corrupt(error.to_string()))?;
            Ok(sentence(&row))
        })
        .collect()
}

fn sentence(Row(first, line, images, role, note): &Row) -> String {
    let note = about(note);
    if *images == 0 {
        // From the previous version, which did not record the role of the note.
        return if is_predicate(&note) { format!("a prompt {note}") } else { note };
    }
    let line = line.map_or_else(String::new, |line| format!(" (line {line})"));
    let others = match images - 1 {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        others @ 2..=OTHERS => format!(" and {others} others"),
        _ => format!(" and more than {OTHERS} others"),
    };
    let name = ROLES.get(*role).copied().unwrap_or_default();
    let of_picture = i16::try_from(*role).is_ok_and(|role| role >= PICTURE);
    let note = match note {
        note if of_picture => format!("the {name} {note}"),
        note if is_predicate(&note) => format!("the {name} {note}"),
        note if *role == 0 => note,
        note => format!("{name}: {note}"),
    };
    format!("image {first}{line}{others}: {note}")
}

fn is_predicate(note: &str) -> bool {
    note.starts_with("has ")
}

/// An encoder's note, worded for any text. Encoders name no role, and those of the previous version
/// ended the note with the text's digest, ` (text 0123456789ab)`.
fn about(note: &str) -> String {
    let note = match note.rsplit_once(" (text ") {
        Some((what, digest)) if digest.len() == 13 && digest.ends_with(')') => what,
        _ => note,
    };
    if let Some(words) = note.strip_prefix("the model does not know: ") {
        return format!("has words that the model does not know: {words}");
    }
    match note.strip_prefix("a prompt has ") {
        Some(rest) => format!("has {rest}"),
        None => note.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(row: &str) -> String {
        sentences(&[row.to_owned()]).expect("a row").remove(0)
    }

    #[test]
    fn a_note_names_its_first_image_its_line_and_the_role_of_its_text() {
        let cases = [
            (
                r#"[12, 7, 1, 0, "a prompt has 135 tokens, the last 7 were cut off"]"#,
                "image 12 (line 7): the prompt has 135 tokens, the last 7 were cut off",
            ),
            (
                r#"[0, null, 2, 1, "the model does not know: blorp"]"#,
                "image 0 and 1 other: the negative prompt has words that the model does not know: blorp",
            ),
            (
                r#"[3, null, 10001, 2, "the model does not know: ink (text 0123456789ab)"]"#,
                "image 3 and 10000 others: the style has words that the model does not know: ink",
            ),
            (r#"[3, 1, 10002, 0, "odd"]"#, "image 3 (line 1) and more than 10000 others: odd"),
            (r#"[3, null, 1, 1, "odd"]"#, "image 3: negative prompt: odd"),
            (
                r#"[3, 8, 2, 3, "is 8x4, smaller than 64x32: it is enlarged"]"#,
                "image 3 (line 8) and 1 other: the picture is 8x4, smaller than 64x32: it is enlarged",
            ),
            (
                r#"[3, null, 1, 4, "has transparent parts"]"#,
                "image 3: the mask has transparent parts",
            ),
            (
                r#"[0, null, 0, 0, "a prompt has 7 tokens, the last 2 were cut off (text 0123456789ab)"]"#,
                "a prompt has 7 tokens, the last 2 were cut off",
            ),
            (r#"[0, null, 0, 0, "words (text of mine)"]"#, "words (text of mine)"),
        ];
        for (row, sentence) in cases {
            assert_eq!(told(row), sentence);
        }
        assert!(sentences(&["{}".to_owned()]).is_err());
    }
}
