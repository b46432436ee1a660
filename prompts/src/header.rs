//! Whether a line of text is a table's header. If so, the file is not a list of prompts.
//!
//! A line is certainly a header if all its cells have usual column names (`id,prompt`). A line that
//! also has other cells (`cat, text`) is a header only if the next lines look like rows with the
//! same number of cells. In doubt it is a prompt.

use darkroom_core::prompt::is_blank;

use crate::{
    column_names::{is_prompt_column, like_field},
    fields::FIELDS,
    prompt::twice,
    settings::Setting,
};

/// How many rows after the header are looked at.
const ROWS: usize = 20;
/// Usual names of columns, beside those of prompts and fields.
const USUAL: &str = "author categories category challenge class date description file filename group id idx img \
                     index key label labels lang language link name no note notes nr number path rating score sku \
                     source split subject tag tags title topic type uid url value";

/// Whether a line is a table's header; returns the separator of its cells. `rest` is the visible
/// text that follows.
pub(crate) fn header_of(line: &str, rest: &str) -> Option<u8> {
    if is_prompt_column(line) {
        return is_lone_header(line, rest).then_some(b',');
    }
    let is_header = |separator: &char| {
        let Some(cells) = cells(line, *separator) else { return false };
        let tight = is_tight(line, *separator);
        // `image, text` may be a prompt; nobody writes `prompt, category` as one.
        let plain = tight || cells.iter().any(|cell| is_prompt_column(cell) && !is_text(cell));
        (plain && cells.iter().all(|cell| is_usual(cell)))
            || has_rows(rest, *separator, cells.len(), tight)
    };
    [',', '\t', ';', '|']
        .into_iter()
        .find(is_header)
        .and_then(|separator| u8::try_from(separator).ok())
}

/// Whether some line of a text may be a header, as when a table was appended. For lines after the
/// first, only names without blanks between them count: `a, text` may be a prompt, `id,text` is
/// not.
pub(crate) fn may_be_among(line: &str) -> bool {
    let names = |separator| is_tight(line, separator) && cells(line, separator).is_some();
    !line.contains(", ") && [',', '\t', ';', '|'].into_iter().any(names)
}

/// Whether a text continues like a Markdown table after its header: `| --- | :---: |`.
pub(crate) fn is_rule_of_markdown(behind: &str) -> bool {
    let line = behind.lines().next().unwrap_or_default().trim();
    line.contains('|')
        && line.contains("--")
        && line.chars().all(|character| matches!(character, '|' | '-' | ':' | ' ' | '\t'))
}

/// Whether it is only a column's name. `text` may also be a word in a list of words.
fn is_lone_header(line: &str, rest: &str) -> bool {
    if !is_text(line) {
        return true;
    }
    let rows: Vec<&str> = rest.lines().filter(|row| !is_blank(row)).take(ROWS).collect();
    let sentences = rows.iter().filter(|row| row.split_whitespace().count() > 1).count();
    2 * sentences > rows.len()
}

/// The cells of a possible header: each has few words, no two are equal, and one of them names
/// prompts.
fn cells(line: &str, separator: char) -> Option<Vec<&str>> {
    let cells: Vec<&str> = line.split(separator).map(str::trim).collect();
    let words = |cell: &str| cell.split_whitespace().count();
    // Lists of words in a prompt have blanks after their commas. Names in a header contain few
    // blanks.
    let prose = !is_tight(line, separator) && cells.iter().any(|cell| words(cell) > 1);
    let names = cells.len() > 1
        && !prose
        && cells.iter().any(|cell| is_prompt_column(cell))
        && cells.iter().all(|cell| words(cell) <= 3 && cell.chars().count() <= 64)
        && twice(cells.iter().copied().filter(|cell| !cell.is_empty())).is_none();
    names.then_some(cells)
}

/// Whether no separator is followed by a blank, as in tables that programs write.
fn is_tight(line: &str, separator: char) -> bool {
    !line.contains(&format!("{separator} "))
}

fn is_text(cell: &str) -> bool {
    cell.trim().eq_ignore_ascii_case("text")
}

fn is_usual(cell: &str) -> bool {
    let name = cell.trim_matches('"').trim().to_lowercase();
    is_prompt_column(&name)
        || FIELDS.contains(&name.as_str())
        || like_field(&name).is_some()
        || matches!(Setting::of_column(&name), Some(Ok(_)))
        || name.is_empty()
        || USUAL.split(' ').any(|usual| usual == name)
        || (name.contains('_') && !name.contains(char::is_whitespace))
}

/// Whether the next lines look like a table of `width` columns: at least half of the first rows.
/// After a header with blanks, which may be a prompt, three in four.
fn has_rows(rest: &str, separator: char, width: usize, tight: bool) -> bool {
    let rows = rows(rest, separator);
    let fits = |row: &&Row| row.cells == width || (tight && row.tight == width);
    let fitting = rows.iter().filter(fits).count();
    let wanted = if tight { rows.len().div_ceil(2) } else { (3 * rows.len()).div_ceil(4) };
    !rows.is_empty() && fitting >= wanted
}

/// A row, as a table reader sees it.
struct Row {
    cells: usize,
    /// The cells, if separators followed by a blank do not count: those are commas inside prompts.
    tight: usize,
}

/// The first rows of a text.
fn rows(text: &str, separator: char) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut characters = text.chars().peekable();
    while rows.len() < ROWS && characters.peek().is_some() {
        let mut row = Row { cells: 1, tight: 1 };
        let (mut blank, mut start, mut quoted) = (true, true, false);
        while let Some(character) = characters.next() {
            match character {
                '\n' if !quoted => break,
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                }
                '"' if quoted || start => quoted = !quoted,
                _ if quoted => {}
                _ if character == separator => {
                    row.cells += 1;
                    row.tight += usize::from(characters.peek() != Some(&' '));
                    start = true;
                    continue;
                }
                _ => {}
            }
            blank = blank && character.is_whitespace();
            start = false;
        }
        if !blank || row.cells > 1 {
            rows.push(row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_as_a_reader_of_tables_counts_them() {
        let seen = |text: &str| {
            rows(text, ',').iter().map(|row| (row.cells, row.tight)).collect::<Vec<_>>()
        };
        assert_eq!(
            seen("a,b\n\n \n\"a, \"\"b\"\"\nc\",d\na, b,c\n,\n"),
            [(2, 2), (2, 2), (3, 2), (2, 2)]
        );
        assert_eq!(seen("a \"b, c\n"), [(2, 1)], "a quote inside a cell opens no quoted cell");
        assert_eq!(seen("\"a,b\nc,d\n"), [(1, 1)], "a quote that never closes");
        assert_eq!(seen(&"a,b\n".repeat(99)).len(), ROWS);
    }
}
