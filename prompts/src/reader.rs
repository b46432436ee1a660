//! The reader: decides what a file is, and gives its prompts one after another, each checked.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read,
    vec,
};

use darkroom_core::prompt::is_blank;

use crate::{
    Error, Format, Note, Options, Prompt,
    detect::{self, Name, is_comment},
    error::shown,
    fields,
    json::{self, Array, Coco},
    notes::Notes,
    sample::Chooser,
    source::Source,
    table::{self, Table},
    text,
};

/// The prompts of a file, in its order. After an error nothing comes any more, and what came before should not be used:
/// a file with one bad line is refused whole.
pub struct Reader<R: Read> {
    source: Source<R>,
    format: Format,
    rows: Rows,
    options: Options,
    notes: Notes,
    /// Where each `custom_id` was, by its hash.
    ids: HashMap<u64, u64>,
    read: u64,
    piece: String,
    ended: bool,
}

enum Rows {
    Nothing,
    Lines,
    Table(Table),
    Array(Array),
    Coco(Coco),
    /// A sample that is still to be taken, and one that was.
    Sample(Coco, Chooser),
    Chosen(vec::IntoIter<Prompt>),
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of `file`. `name` is its name with its extensions, if it has one; nothing is opened by it.
    ///
    /// # Errors
    /// When the file's format cannot be told or is none of these, its header is wrong, or an option does not fit it.
    pub fn open(file: R, name: Option<&str>, options: Options) -> Result<Self, Error> {
        let name = Name::of(name.unwrap_or_default());
        let chooser = Chooser::of(options.sample)?;
        let mut source = Source::open(file, options.limits)?;
        let mut notes = Notes::default();
        if name.compressed && !source.is_compressed() {
            notes.add(
                None,
                "the file is named as if it were compressed, but is not; it is read as it is".to_owned(),
            );
        }
        let (mut format, note) = detect::decide(&name, source.peek()?, &options)?;
        if let Some(note) = note {
            notes.add(None, note);
        }
        if format == Format::Json && source.peek()?.trim_start().starts_with('{') {
            format = Format::Coco;
        }
        check_options(format, &options, &mut notes)?;
        let rows = match format {
            Format::Text | Format::JsonLines => Rows::Lines,
            Format::Csv | Format::Tsv => match Table::open(&mut source, format, &options, &mut notes)? {
                Some(table) => Rows::Table(table),
                None => Rows::Nothing,
            },
            _ if is_blank(source.peek()?) => Rows::Nothing,
            Format::Json => Rows::Array(Array::open(&mut source)?),
            Format::Coco => match (Coco::open(&mut source)?, chooser) {
                (coco, Some(chooser)) => Rows::Sample(coco, chooser),
                (coco, None) => Rows::Coco(coco),
            },
        };
        Ok(Self {
            source,
            format,
            rows,
            options,
            notes,
            ids: HashMap::new(),
            read: 0,
            piece: String::new(),
            ended: false,
        })
    }

    /// What the file is read as.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// What one should know of the file although nothing is wrong; complete when every prompt was read.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.notes.all()
    }

    fn read(&mut self) -> Result<Option<Prompt>, Error> {
        if let Rows::Chosen(chosen) = &mut self.rows {
            return Ok(chosen.next());
        }
        if let Rows::Sample(..) = &self.rows {
            return self.sample();
        }
        let Some(prompt) = self.parse()? else {
            if let Rows::Coco(coco) = &self.rows {
                coco.notes()
                    .iter()
                    .for_each(|(line, note)| self.notes.add(Some(*line), format!("line {line}: {note}")));
            }
            if self.read == 0 {
                return Err(Error::File("it holds no prompts; accepted: at least one".to_owned()));
            }
            return Ok(None);
        };
        self.accept(&prompt)?;
        Ok(Some(prompt))
    }

    /// The next prompt as it is written.
    fn parse(&mut self) -> Result<Option<Prompt>, Error> {
        match &mut self.rows {
            Rows::Lines if self.format == Format::Text => self.text_line(),
            Rows::Lines => self.json_line(),
            Rows::Table(table) => table.next(&mut self.source),
            Rows::Array(array) => match array.next(&mut self.source, &mut self.piece)? {
                Some(line) => fields::prompt(&self.piece, line, &self.options).map(Some),
                None => json::end(&mut self.source).map(|()| None),
            },
            Rows::Coco(coco) | Rows::Sample(coco, _) => match coco.next(&mut self.source, &mut self.piece)? {
                Some(line) => fields::annotation(&self.piece, line, &self.options).map(Some),
                None => Ok(None),
            },
            Rows::Nothing | Rows::Chosen(_) => Ok(None),
        }
    }

    /// The next line that says something, in `piece`.
    fn line(&mut self) -> Result<Option<u64>, Error> {
        loop {
            let Some(line) = self.source.next_line(&mut self.piece)? else { return Ok(None) };
            let skipped = is_blank(&self.piece) || (self.options.comments && is_comment(&self.piece));
            if !skipped {
                return Ok(Some(line));
            }
        }
    }

    fn text_line(&mut self) -> Result<Option<Prompt>, Error> {
        let Some(line) = self.line()? else { return Ok(None) };
        text::check(&self.piece, self.options.format.is_some())
            .map_err(|message| Error::line(line, message))?;
        if is_comment(&self.piece) {
            self.notes.hash(line, &self.piece);
        }
        Ok(Some(Prompt { line, text: self.piece.clone(), ..Prompt::default() }))
    }

    fn json_line(&mut self) -> Result<Option<Prompt>, Error> {
        let Some(line) = self.line()? else { return Ok(None) };
        fields::prompt(&self.piece, line, &self.options).map(Some)
    }

    /// Checks a prompt, and counts it.
    fn accept(&mut self, prompt: &Prompt) -> Result<(), Error> {
        let line = prompt.line;
        prompt.check().map_err(|message| Error::line(line, message))?;
        self.read += 1;
        if self.read > self.options.limits.prompts {
            let most = self.options.limits.prompts;
            return Err(Error::line(
                line,
                format!("the file has more than {most} prompts; accepted: at most so many, split it"),
            ));
        }
        if !is_blank(&prompt.custom_id) {
            let mut hasher = DefaultHasher::new();
            prompt.custom_id.hash(&mut hasher);
            match self.ids.entry(hasher.finish()) {
                Entry::Occupied(first) => {
                    let what = if self.format == Format::Coco { "id" } else { "custom_id" };
                    let id = shown(&prompt.custom_id);
                    let first = first.get();
                    return Err(Error::line(
                        line,
                        format!("{what} is {id}, as on line {first} already; accepted: each once"),
                    ));
                }
                Entry::Vacant(free) => {
                    free.insert(line);
                }
            }
        }
        if let Some(word) = text::other_tools_words(&prompt.text) {
            self.notes.other_tool(line, word);
        }
        if self.options.labels {
            // A table's are noted once, from its header.
            let json = !matches!(self.format, Format::Csv | Format::Tsv | Format::Coco) && self.read == 1;
            for (name, field) in
                prompt.labels.keys().filter(|_| json).filter_map(|n| Some((n, table::like_field(n)?)))
            {
                self.notes.like_field(line, name, field);
            }
        }
        Ok(())
    }

    /// Reads the whole file, and gives the first of what was chosen.
    fn sample(&mut self) -> Result<Option<Prompt>, Error> {
        while let Some(prompt) = self.parse()? {
            self.accept(&prompt)?;
            if let Rows::Sample(_, chooser) = &mut self.rows {
                chooser.show(prompt)?;
            }
        }
        if let Rows::Sample(coco, chooser) = std::mem::replace(&mut self.rows, Rows::Nothing) {
            coco.notes()
                .iter()
                .for_each(|(line, note)| self.notes.add(Some(*line), format!("line {line}: {note}")));
            let (chosen, short) = chooser.finish();
            if let Some(wanted) = short {
                let message =
                    format!("the sample has {} prompts, not {wanted}: the file has no more", chosen.len());
                self.notes.add(None, message);
            }
            if chosen.is_empty() {
                return Err(Error::File("it holds no captions; accepted: at least one".to_owned()));
            }
            self.rows = Rows::Chosen(chosen.into_iter());
        }
        self.read()
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Prompt, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Refuses options that mean nothing for a format, where ignoring them would give other prompts than expected.
fn check_options(format: Format, options: &Options, notes: &mut Notes) -> Result<(), Error> {
    let sampled = options.sample.prompts.map(|_| "sample").or(options.sample.per_image.map(|_| "per-image"));
    match (format, sampled) {
        (Format::Coco, _) | (_, None) => {}
        (_, Some(option)) => {
            return Err(Error::option(
                option,
                format!("{option} is for COCO captions; the file is read as {format}"),
            ));
        }
    }
    if options.column.is_some() && matches!(format, Format::Text | Format::Coco) {
        return Err(Error::option(
            "column",
            format!("column is for tables and JSON objects; the file is read as {format}"),
        ));
    }
    if options.labels && format == Format::Text {
        notes.add(None, "--labels changes nothing: the file is plain text".to_owned());
    }
    if options.comments && matches!(format, Format::Json | Format::Coco) {
        notes.add(None, format!("--comments changes nothing: the file is read as {format}"));
    }
    Ok(())
}
