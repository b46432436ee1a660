//! The reader: detects the format of a file, and returns its prompts one after another, each
//! checked.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read,
    vec,
};

use darkroom_core::{label::MAX_LABELS, prompt::is_blank};

use crate::{
    Error, Format, Labels, Note, Options, Prompt,
    column_names::like_field,
    detect::{self, Name, is_comment},
    error::shown,
    fields, header,
    json::{self, Array, Coco},
    notes::Notes,
    prompt::twice,
    sample::Chooser,
    source::Source,
    table::{self, Table},
    text,
};

/// The prompts of a file, in order. After an error it returns nothing more, and the earlier prompts
/// should not be used: a file with one bad line is refused as a whole.
pub struct Reader<R: Read> {
    source: Source<R>,
    format: Format,
    rows: Rows,
    options: Options,
    notes: Notes,
    /// The line of each `custom_id`, by its hash.
    ids: HashMap<u64, u64>,
    /// Requested labels that no prompt has had yet.
    unseen: Vec<String>,
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
    /// A sample that is not taken yet, and one that was taken.
    Sample(Coco, Chooser),
    Chosen(vec::IntoIter<Prompt>),
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of `file`. `name` is its name with its extensions, if it has one; it is
    /// not used to open anything.
    ///
    /// # Errors
    /// When the format cannot be detected or is not supported, the header is wrong, or an option
    /// does not fit the file.
    pub fn open(file: R, name: Option<&str>, options: Options) -> Result<Self, Error> {
        let name = Name::of(name.unwrap_or_default());
        let chooser = Chooser::of(options.sample)?;
        let mut source = Source::open(file, options.limits)?;
        let mut notes = Notes::default();
        if name.compressed && !source.is_compressed() {
            notes.add(
                None,
                "the file is named as if it were compressed, but is not; it is read as it is"
                    .to_owned(),
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
        let unseen = match &options.labels {
            Labels::Only(names) => names.clone(),
            _ => Vec::new(),
        };
        let rows = match format {
            Format::Text | Format::JsonLines => Rows::Lines,
            Format::Csv | Format::Tsv => {
                match Table::open(&mut source, format, &options, &mut notes)? {
                    Some(table) => Rows::Table(table),
                    None => Rows::Nothing,
                }
            }
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
            unseen,
            read: 0,
            piece: String::new(),
            ended: false,
        })
    }

    /// The detected format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// What the user should know about the file although nothing is wrong. Complete when every
    /// prompt was read.
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
                coco.notes().iter().for_each(|(line, note)| {
                    self.notes.add(Some(*line), format!("line {line}: {note}"))
                });
            }
            if self.read == 0 {
                return Err(Error::File("it holds no prompts; accepted: at least one".to_owned()));
            }
            self.note_unseen();
            return Ok(None);
        };
        self.accept(&prompt)?;
        Ok(Some(prompt))
    }

    /// The next prompt, unchecked.
    fn parse(&mut self) -> Result<Option<Prompt>, Error> {
        match &mut self.rows {
            Rows::Lines if self.format == Format::Text => self.text_line(),
            Rows::Lines => self.json_line(),
            Rows::Table(table) => table.next(&mut self.source),
            Rows::Array(array) => match array.next(&mut self.source, &mut self.piece)? {
                Some(line) => fields::prompt(&self.piece, line, &self.options).map(Some),
                None => json::end(&mut self.source).map(|()| None),
            },
            Rows::Coco(coco) | Rows::Sample(coco, _) => {
                match coco.next(&mut self.source, &mut self.piece)? {
                    Some(line) => fields::annotation(&self.piece, line, &self.options).map(Some),
                    None => Ok(None),
                }
            }
            Rows::Nothing | Rows::Chosen(_) => Ok(None),
        }
    }

    /// The next line with content, in `piece`.
    fn line(&mut self) -> Result<Option<u64>, Error> {
        loop {
            let Some(line) = self.source.next_line(&mut self.piece)? else { return Ok(None) };
            let skipped =
                is_blank(&self.piece) || (self.options.comments && is_comment(&self.piece));
            if !skipped {
                return Ok(Some(line));
            }
        }
    }

    fn text_line(&mut self) -> Result<Option<Prompt>, Error> {
        let Some(line) = self.line()? else { return Ok(None) };
        text::check(&self.piece, self.options.format.is_some())
            .map_err(|message| Error::line(line, message))?;
        if self.options.format.is_none() && header::may_be_among(&self.piece) {
            let rest = self.source.peek()?;
            // The first line was checked by the detection of the format.
            if self.read > 0 && header::header_of(&self.piece, rest).is_some() {
                return Err(Error::line(line, text::header(&self.piece)));
            }
        }
        if is_comment(&self.piece) {
            self.notes.hash(line, &self.piece);
        } else if let Some(writing) = text::Writing::of(&self.piece) {
            self.notes.written(line, &self.piece, writing);
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
        prompt
            .check_labels()
            .map_err(|message| Error::line(line, message + &self.about_labels()))?;
        self.unseen.retain(|name| !prompt.labels.contains_key(name));
        self.read += 1;
        if self.read > self.options.limits.prompts {
            let most = self.options.limits.prompts;
            return Err(Error::line(
                line,
                format!(
                    "the file has more than {most} prompts; accepted: at most {most}, so split it"
                ),
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
                        format!(
                            "{what} is {id}, which line {first} already has; accepted: different \
                             ids"
                        ),
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
        if self.options.labels == Labels::All {
            // The notes about a table's columns are made once, from its header.
            let json =
                !matches!(self.format, Format::Csv | Format::Tsv | Format::Coco) && self.read == 1;
            for (name, field) in
                prompt.labels.keys().filter(|_| json).filter_map(|n| Some((n, like_field(n)?)))
            {
                self.notes.like_field(line, name, field);
            }
        }
        Ok(())
    }

    /// Says where labels come from that are refused, and how to avoid them. Empty if the file
    /// itself calls them labels.
    fn about_labels(&self) -> String {
        const MOST: usize = 3;
        let from = match (&self.rows, &self.options.labels) {
            (_, Labels::Only(_)) => return "; --label-columns without it leaves it out".to_owned(),
            (Rows::Table(table), _) => {
                let names = table.labels();
                format!(
                    "the table's other columns are kept as labels: {}",
                    table::list(&names, MOST)
                )
            }
            (_, Labels::All) => "--labels keeps the other keys as labels".to_owned(),
            (_, Labels::Columns | Labels::None) => return String::new(),
        };
        format!("; {from}; --label-columns NAME,NAME,… keeps only those, --no-labels none")
    }

    /// Notes requested labels that no prompt had. For a table they were looked up in its header.
    fn note_unseen(&mut self) {
        let json = matches!(self.format, Format::JsonLines | Format::Json | Format::Coco);
        for name in std::mem::take(&mut self.unseen).into_iter().filter(|_| json) {
            let message =
                format!("no prompt has a value for the key {} of --label-columns", shown(&name));
            self.notes.add(None, message);
        }
    }

    /// Reads the whole file, and returns the first prompt of the sample.
    fn sample(&mut self) -> Result<Option<Prompt>, Error> {
        while let Some(prompt) = self.parse()? {
            self.accept(&prompt)?;
            if let Rows::Sample(_, chooser) = &mut self.rows {
                chooser.show(prompt)?;
            }
        }
        if let Rows::Sample(coco, chooser) = std::mem::replace(&mut self.rows, Rows::Nothing) {
            coco.notes().iter().for_each(|(line, note)| {
                self.notes.add(Some(*line), format!("line {line}: {note}"))
            });
            self.note_unseen();
            let (chosen, short) = chooser.finish();
            if let Some(wanted) = short {
                let message = format!(
                    "the sample has {} prompts, not {wanted}: the file has no more",
                    chosen.len()
                );
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

/// Refuses options that mean nothing for a format, if ignoring them would give other prompts than
/// expected.
fn check_options(format: Format, options: &Options, notes: &mut Notes) -> Result<(), Error> {
    let sampled =
        options.sample.prompts.map(|_| "sample").or(options.sample.per_image.map(|_| "per-image"));
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
    let said = match &options.labels {
        Labels::Columns => None,
        Labels::All => Some("--labels"),
        Labels::Only(_) => Some("--label-columns"),
        Labels::None => Some("--no-labels"),
    };
    if let Some(flag) = said.filter(|_| format == Format::Text) {
        notes.add(None, format!("{flag} changes nothing: the file is plain text"));
    }
    if let Labels::Only(names) = &options.labels {
        check_label_columns(names, options)?;
    }
    if options.comments && matches!(format, Format::Json | Format::Coco) {
        notes.add(None, format!("--comments changes nothing: the file is read as {format}"));
    }
    Ok(())
}

/// Refuses names that cannot all be labels.
fn check_label_columns(names: &[String], options: &Options) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::option("label-columns", message));
    let wanted = options.column.as_deref();
    if names.len() > MAX_LABELS {
        return refuse(format!(
            "label-columns has {} names; accepted: at most {MAX_LABELS}, as many as a prompt has labels",
            names.len()
        ));
    }
    if names.iter().any(|name| is_blank(name)) {
        return refuse(
            "label-columns has a blank name; accepted: names of columns or keys".to_owned(),
        );
    }
    if let Some(name) = twice(names.iter().map(String::as_str)) {
        return refuse(format!(
            "label-columns has {} twice; accepted: each name once",
            shown(name)
        ));
    }
    match names.iter().find(|name| Some(name.as_str()) == wanted) {
        Some(name) => refuse(format!(
            "label-columns has {}, which --column says holds the prompts; accepted: others",
            shown(name)
        )),
        None => Ok(()),
    }
}
