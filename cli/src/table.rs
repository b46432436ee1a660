//! Rows in columns, for people.

use crate::{failure::Result, output};

/// What a cell without a value has.
pub(crate) fn none() -> String {
    "-".to_owned()
}

/// Prints rows in columns; the first so many are words, the others numbers.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], words: usize) -> Result<()> {
    for row in rows {
        output::line(&aligned(rows, row, words))?;
    }
    Ok(())
}

fn aligned<const N: usize>(rows: &[[String; N]], row: &[String; N], words: usize) -> String {
    let cells = row.iter().enumerate().map(|(column, cell)| {
        let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        if column < words { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_aligned_to_the_left_and_numbers_to_the_right() {
        let rows = [["STAGE", "READY"], ["sr1024", "7"], ["é", "12345678"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let lines: Vec<_> = rows.iter().map(|row| aligned(&rows, row, 1)).collect();
        assert_eq!(lines, ["STAGE      READY", "sr1024         7", "é       12345678"]);
    }
}
