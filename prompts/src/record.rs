//! Records of a table in the form of RFC 4180: quoted cells may contain separators, line breaks and
//! doubled quotes.
//!
//! It is stricter than most readers. Broken input that others accept silently (a quote that is
//! never closed, text after a closing quote) is refused with its line. The size of a record is
//! limited.

use std::io::Read;

use crate::{
    Error,
    source::{Source, too_long},
};

/// One record.
pub(crate) struct Record {
    /// The number of its first line.
    pub(crate) line: u64,
    pub(crate) cells: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Plain,
    Quoted,
    /// After a quote inside a quoted cell: either the cell's end, or the first half of a doubled
    /// quote.
    Closed,
}

/// Reads the next record; `None` at the end.
pub(crate) fn next<R: Read>(
    source: &mut Source<R>,
    separator: u8,
) -> Result<Option<Record>, Error> {
    source.skip_marks()?;
    if source.peek_byte()?.is_none() {
        return Ok(None);
    }
    let line = source.line();
    let mut opened = line;
    let mut cells = Vec::new();
    let mut cell = Vec::new();
    let mut state = State::Start;
    let mut length = 0;
    loop {
        let here = source.line();
        let byte = source.byte()?;
        length += 1;
        if length > source.longest() {
            return Err(if state == State::Quoted {
                Error::line(opened, too_long("the cell whose quote opens here", source.longest()))
            } else {
                Error::line(line, too_long("the row", source.longest()))
            });
        }
        state = match (state, byte) {
            (State::Quoted, None) => {
                return Err(Error::line(
                    opened,
                    "a cell's quote opens here and never closes; accepted: a closing quote, and \"\" for a quote inside",
                ));
            }
            (State::Quoted, Some(b'"')) => State::Closed,
            (State::Closed, Some(b'"')) => {
                cell.push(b'"');
                State::Quoted
            }
            (State::Quoted, Some(byte)) => {
                cell.push(byte);
                State::Quoted
            }
            (_, Some(byte)) if byte == separator => {
                cells.push(text(std::mem::take(&mut cell)));
                State::Start
            }
            (_, None | Some(b'\n')) => {
                cells.push(text(cell));
                return Ok(Some(Record { line, cells }));
            }
            (State::Closed, Some(_)) => {
                return Err(Error::line(
                    here,
                    "text follows a cell's closing quote; accepted: the separator or the line's end, and \"\" for a quote inside",
                ));
            }
            (State::Start, Some(b'"')) => {
                opened = here;
                State::Quoted
            }
            (State::Plain, Some(b'"')) if cell.iter().all(|byte| *byte == b' ') => {
                return Err(Error::line(
                    here,
                    "a blank stands before a cell's opening quote; accepted: the quote directly \
                     after the separator",
                ));
            }
            (_, Some(byte)) => {
                cell.push(byte);
                State::Plain
            }
        };
    }
}

fn text(cell: Vec<u8>) -> String {
    String::from_utf8(cell).expect("cells are cut from text at ASCII characters")
}
