//! Tables with a header: the meaning of each column, and rows as prompts.

use std::{collections::HashSet, io::Read};

use darkroom_core::prompt::is_blank;

use crate::{
    Error, Format, Labels, Options, Prompt,
    column_names::{PROMPT_COLUMNS, is_prompt_column, like_field},
    detect::is_comment,
    error::shown,
    fields::FIELDS,
    header,
    notes::Notes,
    prompt::twice,
    record::{self, Record},
    settings::Setting,
    source::Source,
};

/// Most columns that an error lists.
const MOST_SHOWN: usize = 20;
enum Column {
    Prompt,
    Field(&'static str),
    Setting(Setting),
    Label(String),
    Unnamed,
    LeftOut,
}

/// A table after its header was read.
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
                // The line that Excel writes and reads.
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
        if header::is_rule_of_markdown(source.peek()?) {
            return Err(Error::line(
                source.line(),
                "the line is a separator line, as in Markdown tables; accepted: CSV or TSV \
                 without such lines",
            ));
        }
        let columns = columns(&record, options, notes)?;
        Ok(Some(Self { separator, comments: options.comments, header: record.cells, columns }))
    }

    /// The next row with content, as a prompt.
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

    /// The columns that are kept as labels.
    pub(crate) fn labels<'a>(&'a self) -> Vec<&'a str> {
        let label = |column: &'a Column| match column {
            Column::Label(name) => Some(name.as_str()),
            _ => None,
        };
        self.columns.iter().filter_map(label).collect()
    }

    fn prompt(&self, record: Record) -> Result<Prompt, Error> {
        let Record { line, cells } = record;
        if cells.len() != self.columns.len() {
            return Err(Error::line(
                line,
                format!(
                    "the row has {} cells; accepted: {}, as in the header. Put a cell that \
                     contains the separator {} in quotes",
                    cells.len(),
                    self.columns.len(),
                    shown(&char::from(self.separator).to_string())
                ),
            ));
        }
        if cells == self.header {
            return Err(Error::line(
                line,
                "the row repeats the header, perhaps because tables were joined; remove the line",
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
                Column::Setting(setting) => setting
                    .set(prompt.settings.get_or_insert_default(), &cell)
                    .map_err(|message| Error::line(line, message))?,
                Column::Label(name) => {
                    prompt.labels.insert(name.clone(), cell);
                }
                Column::Unnamed | Column::LeftOut => {}
            }
        }
        Ok(prompt)
    }
}

/// A number, written only with digits.
fn number<N: std::str::FromStr>(field: &str, cell: &str, line: u64) -> Result<N, Error> {
    let digits = cell.trim();
    let number =
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
    let accepted = match field {
        "images" => "1 to 10000, or 0 or an empty cell for the job's number",
        _ => "0 to 18446744073709551615, or an empty cell",
    };
    number.ok_or_else(|| {
        Error::line(
            line,
            format!("{field} is {}; accepted: a whole number, {accepted}", shown(cell)),
        )
    })
}

fn columns(header: &Record, options: &Options, notes: &mut Notes) -> Result<Vec<Column>, Error> {
    let names: Vec<&str> = header.cells.iter().map(|name| name.trim()).collect();
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let prompt = prompt_column(&names, &lower, header.line, options)?;
    let labels = match &options.labels {
        Labels::Only(wanted) => Some(label_columns(wanted, &names, &lower, prompt)?),
        Labels::None => Some(Vec::new()),
        Labels::Columns | Labels::All => None,
    };
    let column = |(position, (name, lower)): (usize, (&&str, &String))| {
        Ok(if position == prompt {
            Column::Prompt
        } else if is_blank(name) {
            notes.unnamed_column(header.line, position + 1);
            Column::Unnamed
        } else if labels.as_ref().is_some_and(|labels| labels.contains(&position)) {
            Column::Label((*name).to_owned())
        } else if let Some(field) = FIELDS.iter().copied().find(|field| *field == lower.as_str()) {
            Column::Field(field)
        } else if let Some(setting) = Setting::of_column(lower) {
            Column::Setting(setting.map_err(|message| Error::line(header.line, message))?)
        } else if labels.is_some() {
            Column::LeftOut
        } else {
            if let Some(field) = like_field(name) {
                notes.like_field(header.line, name, field);
            }
            Column::Label((*name).to_owned())
        })
    };
    let columns: Vec<Column> =
        names.iter().zip(&lower).enumerate().map(column).collect::<Result<_, Error>>()?;
    // Of columns that are left out it does not matter, unless what is used has their name.
    let used = |column: &Column| !matches!(column, Column::Unnamed | Column::LeftOut);
    let used: HashSet<&String> = lower
        .iter()
        .zip(&columns)
        .filter(|(_, column)| used(column))
        .map(|(name, _)| name)
        .collect();
    if let Some(name) = twice(lower.iter().filter(|name| used.contains(name)).map(String::as_str)) {
        return Err(Error::line(
            header.line,
            format!("the column {} occurs twice; accepted: each name once", shown(name)),
        ));
    }
    Ok(columns)
}

/// The positions of the columns that become labels.
fn label_columns(
    wanted: &[String],
    names: &[&str],
    lower: &[String],
    prompt: usize,
) -> Result<Vec<usize>, Error> {
    let refuse = |message: String| Error::option("label-columns", message);
    let place = |name: &String| match place(name, names, lower) {
        Some(at) if at == prompt => Err(refuse(format!(
            "label-columns has {}, which holds the prompts; accepted: others",
            shown(name)
        ))),
        Some(at) => Ok(at),
        None => Err(refuse(format!(
            "label-columns has {}; accepted: the table's columns {}",
            shown(name),
            list(names, MOST_SHOWN)
        ))),
    };
    wanted.iter().map(place).collect()
}

/// The column with that name, or else the one with that name in other capitals.
fn place(wanted: &str, names: &[&str], lower: &[String]) -> Option<usize> {
    let exact = names.iter().position(|name| *name == wanted);
    exact.or_else(|| lower.iter().position(|name| *name == wanted.trim().to_lowercase()))
}

/// The first of several names, quoted, and how many more there are.
pub(crate) fn list(names: &[&str], most: usize) -> String {
    let first = names.iter().take(most).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// The column that holds the prompts: the requested one, or the only one with a certain name.
fn prompt_column(
    names: &[&str],
    lower: &[String],
    line: u64,
    options: &Options,
) -> Result<usize, Error> {
    let list = || list(names, MOST_SHOWN);
    if let Some(wanted) = &options.column {
        return place(wanted, names, lower).ok_or_else(|| {
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

/// The separator of the cells: the one that gives the header a column of prompts, or else the first
/// that occurs.
fn separator(header: &str, format: Format, options: &Options) -> u8 {
    let order = match format {
        // If the user named the format, its separator is used.
        Format::Tsv if options.format.is_some() => return b'\t',
        Format::Tsv => ['\t', ',', ';', '|'],
        _ => [',', '\t', ';', '|'],
    };
    let wanted = |name: &str| match &options.column {
        Some(column) => {
            name.trim().trim_matches('"').trim().to_lowercase() == column.trim().to_lowercase()
        }
        None => is_prompt_column(name),
    };
    let present: Vec<char> =
        order.into_iter().filter(|separator| header.contains(*separator)).collect();
    let makes = present.iter().find(|separator| header.split(**separator).any(wanted));
    let chosen = makes.or(present.first()).unwrap_or(&order[0]);
    u8::try_from(*chosen).unwrap_or(b',')
}
