//! Tables with a header: which column is what, and rows as prompts.

use std::io::Read;

use darkroom_core::prompt::is_blank;

use crate::{
    Error, Format, Options, Prompt,
    detect::is_comment,
    error::shown,
    fields::FIELDS,
    notes::Notes,
    prompt::twice,
    record::{self, Record},
    source::Source,
};

/// Names that a column of prompts plainly has.
const PROMPT_COLUMNS: [&str; 5] = ["prompt", "prompts", "caption", "captions", "text"];
/// Names of columns and keys that mean a field in other tools, but are labels here.
const LIKE_FIELDS: [(&str, &str); 12] = [
    ("negative_prompt", "negative"),
    ("negative prompt", "negative"),
    ("negativeprompt", "negative"),
    ("neg_prompt", "negative"),
    ("num_images", "images"),
    ("n", "images"),
    ("init_image", "image"),
    ("image_path", "image"),
    ("input_image", "image"),
    ("mask_image", "mask"),
    ("mask_path", "mask"),
    ("id", "custom_id"),
];

/// The field that a label may have been meant for.
pub(crate) fn like_field(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    LIKE_FIELDS.iter().find(|(like, _)| *like == name).map(|(_, field)| *field)
}

enum Column {
    Prompt,
    Field(&'static str),
    Label(String),
    Unnamed,
}

/// A table whose header was read.
pub(crate) struct Table {
    separator: u8,
    comments: bool,
    header: Vec<String>,
    columns: Vec<Column>,
}

impl Table {
    /// Reads the header.
    pub(crate) fn open<R: Read>(
        source: &mut Source<R>,
        format: Format,
        options: &Options,
        notes: &mut Notes,
    ) -> Result<Option<Self>, Error> {
        let mut said = None;
        let mut skipped = String::new();
        loop {
            source.skip_marks()?;
            let first = source.peek()?.split('\n').next().unwrap_or_default();
            let separator = match first.as_bytes() {
                // What Excel writes and reads.
                [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator] => Some(*separator),
                _ => None,
            };
            said = separator.or(said);
            let comment = options.comments && is_comment(first);
            if separator.is_none() && !comment && !is_blank(first) {
                break;
            }
            if source.next_line(&mut skipped)?.is_none() {
                return Ok(None);
            }
        }
        let first = source.peek()?.split('\n').next().unwrap_or_default();
        let separator = said.unwrap_or_else(|| separator(first, format, options));
        let Some(record) = record::next(source, separator)? else { return Ok(None) };
        let columns = columns(&record, options, notes)?;
        Ok(Some(Self { separator, comments: options.comments, header: record.cells, columns }))
    }

    /// The next row that says something, as a prompt.
    pub(crate) fn next<R: Read>(&self, source: &mut Source<R>) -> Result<Option<Prompt>, Error> {
        let mut comment = String::new();
        loop {
            source.skip_marks()?;
            if self.comments && source.peek_byte()? == Some(b'#') {
                source.next_line(&mut comment)?;
                continue;
            }
            let Some(record) = record::next(source, self.separator)? else { return Ok(None) };
            if record.cells.iter().all(|cell| is_blank(cell)) {
                continue;
            }
            return self.prompt(record).map(Some);
        }
    }

    fn prompt(&self, record: Record) -> Result<Prompt, Error> {
        let Record { line, cells } = record;
        if cells.len() != self.columns.len() {
            return Err(Error::line(
                line,
                format!(
                    "the row has {} cells; accepted: {}, as in the header. A cell with the separator {} in it is put in quotes",
                    cells.len(),
                    self.columns.len(),
                    shown(&char::from(self.separator).to_string())
                ),
            ));
        }
        if cells == self.header {
            return Err(Error::line(
                line,
                "the row repeats the header, as where tables were joined; remove the line",
            ));
        }
        let mut prompt = Prompt { line, ..Prompt::default() };
        for (column, cell) in self.columns.iter().zip(cells) {
            if is_blank(&cell) {
                continue;
            }
            match column {
                Column::Prompt => prompt.text = cell,
                Column::Field("negative") => prompt.negative = Some(cell),
                Column::Field("images") => prompt.images = number("images", &cell, line)?,
                Column::Field("seed") => prompt.seed = Some(number("seed", &cell, line)?),
                Column::Field("style") => prompt.style = Some(cell),
                Column::Field("image") => prompt.image = Some(cell),
                Column::Field("mask") => prompt.mask = Some(cell),
                Column::Field(_) => prompt.custom_id = cell,
                Column::Label(name) => {
                    prompt.labels.insert(name.clone(), cell);
                }
                Column::Unnamed => {}
            }
        }
        Ok(prompt)
    }
}

/// A number in digits alone.
fn number<N: std::str::FromStr>(field: &str, cell: &str, line: u64) -> Result<N, Error> {
    let digits = cell.trim();
    let number = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
    let accepted = match field {
        "images" => "1 to 10000, or 0 or an empty cell for the job's number",
        _ => "0 to 18446744073709551615, or an empty cell",
    };
    number.ok_or_else(|| {
        Error::line(line, format!("{field} is {}; accepted: a whole number, {accepted}", shown(cell)))
    })
}

fn columns(header: &Record, options: &Options, notes: &mut Notes) -> Result<Vec<Column>, Error> {
    let names: Vec<&str> = header.cells.iter().map(|name| name.trim()).collect();
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    if let Some(name) = twice(lower.iter().map(String::as_str).filter(|name| !is_blank(name))) {
        return Err(Error::line(
            header.line,
            format!("the column {} occurs twice; accepted: each name once", shown(name)),
        ));
    }
    let prompt = prompt_column(&names, &lower, header.line, options)?;
    let column = |(position, (name, lower)): (usize, (&&str, &String))| {
        if position == prompt {
            Column::Prompt
        } else if is_blank(name) {
            notes.unnamed_column(header.line, position + 1);
            Column::Unnamed
        } else if let Some(field) = FIELDS.iter().copied().find(|field| *field == lower.as_str()) {
            Column::Field(field)
        } else {
            if let Some(field) = like_field(name) {
                notes.like_field(header.line, name, field);
            }
            Column::Label((*name).to_owned())
        }
    };
    Ok(names.iter().zip(&lower).enumerate().map(column).collect())
}

/// Which column holds the prompts: the one that is asked for, or the only one that plainly does.
fn prompt_column(names: &[&str], lower: &[String], line: u64, options: &Options) -> Result<usize, Error> {
    let list = || names.iter().map(|name| shown(name)).take(20).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = &options.column {
        let exact = names.iter().position(|name| name == wanted);
        let found = exact.or_else(|| lower.iter().position(|name| *name == wanted.trim().to_lowercase()));
        return found.ok_or_else(|| {
            Error::option(
                "column",
                format!("column is {}; accepted: one of the table's: {}", shown(wanted), list()),
            )
        });
    }
    let plain: Vec<usize> = (0..lower.len())
        .filter(|&at| PROMPT_COLUMNS.iter().any(|name| lower.get(at).is_some_and(|l| l == name)))
        .collect();
    match plain.as_slice() {
        [only] => Ok(*only),
        [] => Err(Error::line(
            line,
            format!(
                "no column is plainly the prompt; accepted: a header with prompt, caption or text, or --column NAME with one of {}. A table without a header needs one as its first line",
                list()
            ),
        )),
        several => {
            let several: Vec<_> =
                several.iter().filter_map(|at| names.get(*at)).map(|name| shown(name)).collect();
            Err(Error::line(
                line,
                format!(
                    "{} may each be the prompt; say which with --column NAME; the columns are {}",
                    several.join(" and "),
                    list()
                ),
            ))
        }
    }
}

fn is_prompt_column(name: &str) -> bool {
    PROMPT_COLUMNS.contains(&name.trim().trim_matches('"').trim().to_lowercase().as_str())
}

/// What separates the cells: what makes a column of prompts of the header; or else the first that occurs.
fn separator(header: &str, format: Format, options: &Options) -> u8 {
    let order = match format {
        // Asked for by name, it is what it says.
        Format::Tsv if options.format.is_some() => return b'\t',
        Format::Tsv => ['\t', ',', ';', '|'],
        _ => [',', '\t', ';', '|'],
    };
    let wanted = |name: &str| match &options.column {
        Some(column) => name.trim().trim_matches('"').trim().to_lowercase() == column.trim().to_lowercase(),
        None => is_prompt_column(name),
    };
    let present: Vec<char> = order.into_iter().filter(|separator| header.contains(*separator)).collect();
    let makes = present.iter().find(|separator| header.split(**separator).any(wanted));
    let chosen = makes.or(present.first()).unwrap_or(&order[0]);
    u8::try_from(*chosen).unwrap_or(b',')
}

/// Whether a line somewhere in a text is a table's header, as where a table was added to it. Of lines behind the first,
/// names alone are believed: `a, text` may be a prompt, `id,text` is none.
pub(crate) fn is_header_among(line: &str) -> bool {
    line.contains([',', '\t', ';', '|']) && !line.contains(", ") && header_of(line).is_some()
}

/// Whether a line of text is a table's header: what separates its cells, then.
pub(crate) fn header_of(line: &str) -> Option<u8> {
    if is_prompt_column(line) {
        return Some(b',');
    }
    let separators = [',', '\t', ';', '|'];
    let found = separators.into_iter().find(|separator| {
        let cells: Vec<&str> = line.split(*separator).map(str::trim).collect();
        let words = |cell: &str| cell.split_whitespace().count();
        // Lists of words in a prompt have blanks behind their commas; names in a header have few blanks inside.
        let prose = line.contains(&format!("{separator} ")) && cells.iter().any(|cell| words(cell) > 1);
        cells.len() > 1
            && !prose
            && cells.iter().any(|cell| is_prompt_column(cell))
            && cells.iter().all(|cell| words(cell) <= 3 && cell.chars().count() <= 64)
            && twice(cells.iter().copied().filter(|cell| !cell.is_empty())).is_none()
    });
    found.and_then(|separator| u8::try_from(separator).ok())
}
