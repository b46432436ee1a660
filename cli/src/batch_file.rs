//! Batch files: turns the prompts of a file into prompts of a job. If one line is wrong, nothing of
//! the file is accepted.

use std::{
    io::{ErrorKind, Read},
    path::Path,
};

use darkroom_core::error::UserError;
use darkroom_prompts::{Error, Labels, Limits, Options, Prompt, Reader, Sample};
use darkroom_proto::v1;
use darkroom_runtime::terminal::shown_path;

use crate::{
    args::BatchArgs,
    batch_open,
    failure::{self, Result},
    inputs::Inputs,
    request::{PictureFiles, set_inputs},
    spool::{Prompts, Spool},
};

/// Prompts, and notes about the file that they came from.
pub(crate) type Batch = (Prompts, Vec<String>);

/// Reads a batch file; `-` is standard input. `template` has the values for prompts that give none.
/// Pictures that lines name are checked; their paths are relative to the file.
pub(crate) fn read(
    path: &Path,
    args: &BatchArgs,
    template: &v1::Prompt,
    inputs: &mut Inputs,
) -> Result<Batch> {
    let options = Options {
        format: args
            .format
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error| refuse(path, error))?,
        column: args.column.clone(),
        labels: labels(args),
        comments: args.comments,
        sample: Sample {
            prompts: args.sample,
            per_image: args.per_image,
            seed: args.sample_seed.unwrap_or(0),
        },
        limits: Limits::default(),
    };
    if args.sample_seed.is_some() && args.sample.is_none() && args.per_image.is_none() {
        let message = "sample-seed is given, but no sample is taken; accepted: sample-seed \
            together with --sample N or --per-image K";
        return Err(UserError::invalid("sample-seed", message));
    }
    let file = batch_open::open(path, options.limits.bytes)?;
    parse(file, path, options, template, inputs)
}

fn labels(args: &BatchArgs) -> Labels {
    if args.no_labels {
        Labels::None
    } else if !args.label_columns.is_empty() {
        Labels::Only(args.label_columns.clone())
    } else if args.labels {
        Labels::All
    } else {
        Labels::Columns
    }
}

fn parse(
    file: impl Read,
    path: &Path,
    options: Options,
    template: &v1::Prompt,
    inputs: &mut Inputs,
) -> Result<Batch> {
    let name = path.file_name().filter(|_| !batch_open::is_standard_input(path));
    let name = name.map(|name| name.to_string_lossy());
    let mut reader =
        Reader::open(file, name.as_deref(), options).map_err(|error| refuse(path, error))?;
    let mut prompts = Spool::new();
    for prompt in &mut reader {
        let prompt = prompt.map_err(|error| refuse(path, error))?;
        let line = prompt.line;
        let prompt = of_job(prompt, path, template, inputs);
        prompts.push(prompt.map_err(|error| at_line(path, line, &explained(error, path)))?)?;
    }
    let remark = |note: darkroom_prompts::Note| format!("{}: {}", shown(path), note.message);
    Ok((prompts.finish()?, reader.notes().into_iter().map(remark).collect()))
}

/// Turns a file's prompt into one of a job.
fn of_job(
    prompt: Prompt,
    path: &Path,
    template: &v1::Prompt,
    inputs: &mut Inputs,
) -> Result<v1::Prompt> {
    let mut new = v1::Prompt {
        text: prompt.text,
        negative: prompt.negative.unwrap_or_else(|| template.negative.clone()),
        style: prompt.style.unwrap_or_else(|| template.style.clone()),
        images: prompt.images,
        seed: prompt.seed,
        custom_id: prompt.custom_id,
        labels: prompt.labels,
        line: prompt.line,
        settings: prompt.settings.as_ref().map(v1::Settings::from),
        ..template.clone()
    };
    // For standard input, pictures are relative to the current folder.
    let folder = path.parent().filter(|_| !batch_open::is_standard_input(path));
    let beside = |file: &String| folder.map_or_else(|| file.into(), |folder| folder.join(file));
    let given = |file: &Option<String>| file.as_ref().filter(|file| !file.is_empty()).map(beside);
    match (&prompt.image, given(&prompt.mask)) {
        // A mask belongs to one picture. So a line that gives a picture, or none, must give the
        // mask too.
        (Some(_), mask) => {
            let image = given(&prompt.image);
            let files = PictureFiles { image: image.as_deref(), mask: mask.as_deref() };
            set_inputs(&mut new, files, inputs)?;
        }
        (None, Some(mask)) => {
            set_inputs(&mut new, PictureFiles { image: None, mask: Some(&mask) }, inputs)?;
        }
        (None, None) if prompt.mask.is_some() => new.mask = String::new(),
        (None, None) => {}
    }
    Ok(new)
}

/// The value may not be a picture's path at all: tables of captions and of products also have
/// columns of that name.
fn explained(error: UserError, path: &Path) -> String {
    let lie = match batch_open::is_standard_input(path) {
        true => "the folder where the command runs",
        false => "the file of prompts",
    };
    match (error.reason.as_str(), error.field) {
        ("NO_SUCH_FILE" | "UNUSABLE_PATH", Some(field)) => format!(
            "{}; `{field}` names a picture to start from, relative to {lie}; --label-columns {field} keeps the names as a \
             label and starts from none of them",
            error.message
        ),
        _ => error.message,
    }
}

fn refuse(path: &Path, error: Error) -> UserError {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::IsADirectory => {
            UserError::invalid("batch", format!("{} is a folder; accepted: a file", shown(path)))
        }
        Error::Io(error) => failure::file("batch", "read", path, &error),
        Error::Line { line, message } => at_line(path, line, &message),
        Error::File(message) => UserError::invalid(
            "batch",
            format!("{}: {message}; nothing was submitted", shown(path)),
        ),
        Error::Option { option, message } => {
            UserError::invalid(option, format!("{}: {message}; nothing was submitted", shown(path)))
        }
    }
}

fn at_line(path: &Path, line: u64, message: &str) -> UserError {
    let message = format!("{}, line {line}: {message}; nothing was submitted", shown(path));
    UserError::invalid(format!("batch:{line}"), message)
}

fn shown(path: &Path) -> String {
    match batch_open::is_standard_input(path) {
        true => "standard input".to_owned(),
        false => shown_path(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, name: &str) -> Result<Vec<v1::Prompt>> {
        let template = v1::Prompt {
            negative: "blur".to_owned(),
            style: "ink".to_owned(),
            ..v1::Prompt::default()
        };
        let inputs = &mut Inputs::default();
        parse(text.as_bytes(), Path::new(name), Options::default(), &template, inputs)
            .map(|(prompts, _)| prompts.all())
    }

    #[test]
    fn blank_lines_and_line_ends_of_other_systems_do_no_harm() {
        let prompts = parsed("a red circle\r\n\n  \na blue star", "prompts").expect("valid");
        let texts: Vec<_> =
            prompts.iter().map(|p| (p.text.as_str(), p.negative.as_str(), p.line)).collect();
        assert_eq!(texts, [("a red circle", "blur", 1), ("a blue star", "blur", 4)]);
    }

    #[test]
    fn what_a_line_says_replaces_what_the_flags_say_and_null_does_not() {
        let text = r#"{"prompt": "a", "negative": "", "images": 3, "seed": 9, "style": "oil", "custom_id": "x"}
{"prompt": "b", "negative": null, "images": 0, "seed": null, "style": null, "custom_id": ""}
{"prompt": "c", "style": "", "labels": {"tag": "t"}}"#;
        let prompts = parsed(text, "p.JSONL").expect("valid");
        let seen: Vec<_> = prompts
            .iter()
            .map(|p| {
                (
                    p.negative.as_str(),
                    p.images,
                    p.seed,
                    p.style.as_str(),
                    p.custom_id.as_str(),
                    p.line,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("", 3, Some(9), "oil", "x", 1),
                ("blur", 0, None, "ink", "", 2),
                ("blur", 0, None, "", "", 3)
            ]
        );
        assert_eq!(prompts[2].labels["tag"], "t");
    }

    #[test]
    fn pictures_lie_beside_the_file_and_bring_masks_of_their_own() {
        let folder = tempfile::tempdir().expect("folder");
        let png = darkroom_artifacts::picture::encode_rgb(1, 1, &[255; 3], &[]).expect("a picture");
        std::fs::write(folder.path().join("a.png"), &png).expect("written");
        let template =
            v1::Prompt { image: "i".to_owned(), mask: "m".to_owned(), ..v1::Prompt::default() };
        let file = folder.path().join("prompts.jsonl");
        let mut inputs = Inputs::default();
        let mut read = |text: &str| {
            std::fs::write(&file, text).expect("written");
            super::read(&file, &BatchArgs::default(), &template, &mut inputs)
                .map(|(prompts, _)| prompts.all())
        };
        let lines = r#"{"prompt": "a"}
{"prompt": "b", "image": "a.png"}
{"prompt": "c", "image": "a.png", "mask": "a.png"}
{"prompt": "d", "image": "", "mask": null}
{"prompt": "e", "mask": ""}
{"prompt": "f", "image": null, "mask": null}"#;
        let prompts = read(lines).expect("valid");
        let seen: Vec<_> =
            prompts.iter().map(|prompt| (prompt.image.as_str(), prompt.mask.as_str())).collect();
        let name = darkroom_core::digest::Digest::of(&png).to_string();
        let name = name.as_str();
        assert_eq!(seen, [("i", "m"), (name, ""), (name, name), ("", ""), ("i", ""), ("i", "m")]);
        for (line, says) in [
            (r#"{"prompt": "a", "image": "b.png"}"#, "b.png"),
            (
                r#"{"prompt": "a", "image": "b.png"}"#,
                "--label-columns image keeps the names as a label",
            ),
            (r#"{"prompt": "a", "mask": "a.png"}"#, "without an image"),
            (r#"{"prompt": "a", "image": "", "mask": "a.png"}"#, "without an image"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.message.contains("line 1: ") && error.message.contains(says), "{error}");
        }
    }

    #[test]
    fn the_bad_line_is_named_and_nothing_is_taken() {
        let long = "x".repeat(5000);
        for (text, name, line, says) in [
            (format!("good\n{long}\n"), "prompts", 2, "5000 characters"),
            ("{\"prompt\": \"a\"}\n{\"promt\": \"b\"}".to_owned(), "p.jsonl", 2, "promt"),
            ("\n\nnot json".to_owned(), "p.jsonl", 3, "accepted"),
            ("{\"prompt\": \"\"}".to_owned(), "p.jsonl", 1, "accepted"),
            ("{\"prompt\": \"a\", \"images\": 10001}".to_owned(), "p.jsonl", 1, "10001"),
        ] {
            let error = parsed(&text, name).expect_err("bad");
            assert!(error.message.starts_with(&format!("{name}, line {line}: ")), "{error}");
            assert!(error.message.contains(says), "{error}");
            assert!(error.message.ends_with("nothing was submitted"), "{error}");
            assert_eq!(error.field, Some(format!("batch:{line}")));
        }
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(parsed("\n \n", "prompts").expect_err("empty").message.contains("no prompts"));
    }
}
