//! Notes about texts (cut off tokens, unknown words) as sentences that name the images they are about.
//!
//! A row of `text_notes` is one note on one text in one role (prompt, negative prompt, style) of one job. It is counted by
//! whoever learns of it: a chunk of prompts whose text is encoded adds its own images, and the result of a text counts those
//! that came before it. What is told is made of the row when a job is read.

use super::Error;

/// Most notes kept for a job.
pub(super) const NOTES: i64 = 100;

/// Most prompts whose images are counted when a text is encoded; each has at least one.
pub(super) const COUNTED: i64 = OTHERS + 2;

/// Up to here other images are counted, beyond it they are said to be more.
const OTHERS: i64 = 10_000;

/// What a text is to images, as in SQL.
const ROLES: [&str; 3] = ["prompt", "negative prompt", "style"];

/// A row as SQL gives it: a JSON list of first image, line, number of images, role and note.
#[derive(serde::Deserialize)]
struct Row(u64, Option<u64>, i64, usize, String);

/// The sentences of rows.
pub(super) fn sentences(rows: &[String]) -> Result<Vec<String>, Error> {
    rows.iter()
        .map(|row| {
            let row = serde_json::from_str(row).map_err(|error| Error::Corrupt(error.to_string()))?;
            Ok(sentence(&row))
        })
        .collect()
}

fn sentence(Row(first, line, images, role, note): &Row) -> String {
    let note = about(note);
    if *images == 0 {
        // Of the version before, which did not say what the note is about.
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
    let note = match note {
        note if is_predicate(&note) => format!("the {name} {note}"),
        note if *role == 0 => note,
        note => format!("{name}: {note}"),
    };
    format!("image {first}{line}{others}: {note}")
}

fn is_predicate(note: &str) -> bool {
    note.starts_with("has ")
}

/// An encoder's note as what can be said of any text. Encoders name no role, and those of the version before ended it with
/// the text's digest, ` (text 0123456789ab)`.
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
