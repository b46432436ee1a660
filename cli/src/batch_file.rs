//! Batch files: prompts by the line, or JSON lines. One bad line and nothing of the file is accepted.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use darkroom_core::{
    error::UserError,
    prompt::{check_prompt, check_text},
};
use darkroom_proto::v1;
use serde::Deserialize;

use crate::{
    failure::{self, Result},
    inputs::Inputs,
    request::set_inputs,
};

/// How a file's lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    JsonLines,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    #[serde(default)]
    negative: Option<String>,
    #[serde(default)]
    images: u32,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    style: Option<String>,
    #[serde(default)]
    image: Option<PathBuf>,
    #[serde(default)]
    mask: Option<PathBuf>,
}

/// Reads a batch file; `-` is standard input. What `template` says holds for prompts that say nothing else; pictures that
/// lines name are looked at, their paths relative to the file.
pub(crate) fn read(path: &Path, template: &v1::Prompt, inputs: &mut Inputs) -> Result<Vec<v1::Prompt>> {
    let unreadable = |error| failure::file("batch", "read", path, &error);
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(unreadable)?;
        bytes
    } else {
        std::fs::read(path).map_err(unreadable)?
    };
    let json = path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson");
    let format = if json { Format::JsonLines } else { Format::Text };
    parse(path, &bytes, format, template, inputs)
}

fn parse(
    path: &Path,
    bytes: &[u8],
    format: Format,
    template: &v1::Prompt,
    inputs: &mut Inputs,
) -> Result<Vec<v1::Prompt>> {
    let mut prompts = Vec::new();
    for (position, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let place = Place { path, line: position + 1 };
        let line =
            std::str::from_utf8(line).map_err(|_| place.refuse("it is not UTF-8; accepted: UTF-8 text"))?;
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() {
            continue;
        }
        let prompt = match format {
            Format::Text => v1::Prompt { text: line.to_owned(), ..template.clone() },
            Format::JsonLines => {
                parse_json(path, line, template, inputs).map_err(|message| place.refuse(&message))?
            }
        };
        check_prompt("prompt", &prompt.text).map_err(|error| place.refuse(&error.message))?;
        check_text("negative", &prompt.negative).map_err(|error| place.refuse(&error.message))?;
        prompts.push(prompt);
    }
    if prompts.is_empty() {
        return Err(UserError::invalid(
            "batch",
            format!("{} holds no prompts; accepted: one prompt a line", path.display()),
        ));
    }
    Ok(prompts)
}

fn parse_json(
    path: &Path,
    line: &str,
    template: &v1::Prompt,
    inputs: &mut Inputs,
) -> std::result::Result<v1::Prompt, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| {
        let error = error.to_string();
        let what = error.split(" at line ").next().unwrap_or(&error);
        format!(
            r#"{what}; accepted: {{"prompt": "…", "negative": "…", "images": 1, "seed": 1, "style": "…", "image": "a.png", "mask": "b.png"}}, all but prompt optional"#
        )
    })?;
    if line.images > 10_000 {
        return Err(format!("images is {}; accepted: 1 to 10000", line.images));
    }
    let mut prompt = v1::Prompt {
        text: line.prompt,
        negative: line.negative.unwrap_or_else(|| template.negative.clone()),
        style: line.style.unwrap_or_else(|| template.style.clone()),
        images: line.images,
        seed: line.seed,
        ..template.clone()
    };
    check_text("style", &prompt.style).map_err(|error| error.message)?;
    if line.image.is_some() || line.mask.is_some() {
        // A mask is of its own picture: a line that brings a picture brings its mask too.
        let beside = |file: &PathBuf| path.parent().map_or_else(|| file.clone(), |folder| folder.join(file));
        let (image, mask) = (line.image.as_ref().map(beside), line.mask.as_ref().map(beside));
        set_inputs(&mut prompt, image.as_deref(), mask.as_deref(), inputs).map_err(|error| error.message)?;
    }
    Ok(prompt)
}

struct Place<'a> {
    path: &'a Path,
    line: usize,
}

impl Place<'_> {
    fn refuse(&self, message: &str) -> UserError {
        let path: PathBuf = self.path.into();
        UserError::invalid(
            format!("batch:{}", self.line),
            format!("{}, line {}: {message}; nothing was submitted", path.display(), self.line),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, format: Format) -> Result<Vec<v1::Prompt>> {
        let template =
            v1::Prompt { negative: "blur".to_owned(), style: "ink".to_owned(), ..v1::Prompt::default() };
        parse(Path::new("prompts"), text.as_bytes(), format, &template, &mut Inputs::default())
    }

    #[test]
    fn blank_lines_and_line_ends_of_other_systems_do_no_harm() {
        let prompts = parsed("a red circle\r\n\n  \na blue star", Format::Text).expect("valid");
        let texts: Vec<_> = prompts.iter().map(|p| (p.text.as_str(), p.negative.as_str())).collect();
        assert_eq!(texts, [("a red circle", "blur"), ("a blue star", "blur")]);
    }

    #[test]
    fn json_lines_bring_their_own_negative_images_and_seed() {
        let text = r#"{"prompt": "a", "negative": "", "images": 3, "seed": 9, "style": "oil"}
{"prompt": "b"}"#;
        let prompts = parsed(text, Format::JsonLines).expect("valid");
        assert_eq!((prompts[0].negative.as_str(), prompts[0].images, prompts[0].seed), ("", 3, Some(9)));
        assert_eq!((prompts[1].negative.as_str(), prompts[1].images, prompts[1].seed), ("blur", 0, None));
        assert_eq!((prompts[0].style.as_str(), prompts[1].style.as_str()), ("oil", "ink"));
    }

    #[test]
    fn pictures_lie_beside_the_file_and_bring_masks_of_their_own() {
        let folder = tempfile::tempdir().expect("folder");
        let png = darkroom_artifacts::picture::encode_rgb(1, 1, &[255; 3], &[]).expect("a picture");
        std::fs::write(folder.path().join("a.png"), &png).expect("written");
        let template = v1::Prompt { image: "i".to_owned(), mask: "m".to_owned(), ..v1::Prompt::default() };
        let file = folder.path().join("prompts.jsonl");
        let mut inputs = Inputs::default();
        let mut read = |text: &str| {
            std::fs::write(&file, text).expect("written");
            super::read(&file, &template, &mut inputs)
        };
        let lines = r#"{"prompt": "a"}
{"prompt": "b", "image": "a.png"}
{"prompt": "c", "image": "a.png", "mask": "a.png"}"#;
        let prompts = read(lines).expect("valid");
        let seen: Vec<_> =
            prompts.iter().map(|prompt| (prompt.image.as_str(), prompt.mask.as_str())).collect();
        let name = darkroom_core::digest::Digest::of(&png).to_string();
        assert_eq!(seen, [("i", "m"), (name.as_str(), ""), (name.as_str(), name.as_str())]);
        for (line, says) in [
            (r#"{"prompt": "a", "image": "b.png"}"#, "b.png"),
            (r#"{"prompt": "a", "mask": "a.png"}"#, "without an image"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.message.contains("line 1: ") && error.message.contains(says), "{error}");
        }
    }

    #[test]
    fn the_bad_line_is_named_and_nothing_is_taken() {
        let long = "x".repeat(5000);
        for (text, format, line, says) in [
            (format!("good\n{long}\n"), Format::Text, 2, "5000 characters"),
            ("{\"prompt\": \"a\"}\n{\"promt\": \"b\"}".to_owned(), Format::JsonLines, 2, "promt"),
            ("\n\nnot json".to_owned(), Format::JsonLines, 3, "accepted"),
            ("{\"prompt\": \"\"}".to_owned(), Format::JsonLines, 1, "accepted"),
            ("{\"prompt\": \"a\", \"images\": 10001}".to_owned(), Format::JsonLines, 1, "10001"),
        ] {
            let error = parsed(&text, format).expect_err("bad");
            assert!(error.message.starts_with(&format!("prompts, line {line}: ")), "{error}");
            assert!(error.message.contains(says), "{error}");
            assert!(error.message.ends_with("nothing was submitted"), "{error}");
        }
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(parsed("\n \n", Format::Text).expect_err("empty").message.contains("no prompts"));
    }
}
