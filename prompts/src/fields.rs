//! Makes a prompt from a JSON value. The crate's documentation, and nothing else, says what values
//! mean.

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{
    Error, Labels, Options, Prompt,
    error::shown,
    json::{compact, members, sentence},
    prompt::twice,
    settings,
};

/// What a prompt may look like.
const ACCEPTED: &str = r#"accepted: {"prompt": "…", "negative": "…", "images": 1, "seed": 1, "style": "…", "image": "a.png", "mask": "b.png", "custom_id": "…", "labels": {"key": "…"}, "settings": {"size": 256}}, all but prompt optional"#;

/// Keys whose text is not the prompt.
pub(crate) const FIELDS: [&str; 7] =
    ["negative", "images", "seed", "style", "image", "mask", "custom_id"];

/// Reads a JSON string or object that came from `line`.
pub(crate) fn prompt(json: &str, line: u64, options: &Options) -> Result<Prompt, Error> {
    let refuse = |message: String| Error::line(line, message);
    serde_json::from_str::<IgnoredAny>(json)
        .map_err(|error| refuse(format!("it is not JSON: {}; {ACCEPTED}", sentence(&error))))?;
    let json = json.trim();
    let mut prompt = Prompt { line, ..Prompt::default() };
    if json.starts_with('"') {
        prompt.text = string("prompt", json).map_err(refuse)?.unwrap_or_default();
    } else if json.starts_with('{') {
        fill(&mut prompt, json, options).map_err(refuse)?;
    } else {
        return Err(refuse(format!("it is {}, not a string or an object; {ACCEPTED}", cut(json))));
    }
    Ok(prompt)
}

/// Reads one annotation of a COCO file.
pub(crate) fn annotation(json: &str, line: u64, options: &Options) -> Result<Prompt, Error> {
    let refuse = |message: String| Error::line(line, message);
    if !json.starts_with('{') {
        return Err(refuse(format!(
            "the annotation is {}; accepted: {{\"image_id\": 1, \"id\": 2, \"caption\": \"…\"}}",
            cut(json)
        )));
    }
    let members = members(json).map_err(refuse)?;
    check_keys(&members).map_err(refuse)?;
    let mut prompt = Prompt { line, ..Prompt::default() };
    let mut text = None;
    for (key, value) in members {
        match key.as_str() {
            "caption" => text = string("caption", value).map_err(refuse)?,
            "id" => prompt.custom_id = id("id", value).map_err(refuse)?,
            "image_id" => {
                prompt.labels.insert(key, id("image_id", value).map_err(refuse)?);
            }
            _ => match &options.labels {
                Labels::All => add_label(&mut prompt, key, value).map_err(refuse)?,
                labels if labels.names(&key) => {
                    add_label(&mut prompt, key, value).map_err(refuse)?
                }
                Labels::Columns => return Err(refuse(unknown(&key, "image_id, id, caption"))),
                Labels::Only(_) | Labels::None => {}
            },
        }
    }
    prompt.text = text.ok_or_else(|| {
        refuse("the annotation has no `caption`; accepted: COCO's captions, not its boxes (captions_….json, not instances_….json)".to_owned())
    })?;
    for (field, missing) in
        [("id", prompt.custom_id.is_empty()), ("image_id", !prompt.labels.contains_key("image_id"))]
    {
        if missing {
            return Err(refuse(format!(
                "the annotation has no `{field}`; accepted: COCO captions, each with image_id, id and caption"
            )));
        }
    }
    Ok(prompt)
}

fn fill(prompt: &mut Prompt, json: &str, options: &Options) -> Result<(), String> {
    let wanted = options.column.as_deref().unwrap_or("prompt");
    let members = members(json)?;
    check_keys(&members)?;
    let mut text = None;
    for (key, value) in members {
        match key.as_str() {
            key if key == wanted => text = string(key, value)?,
            name if options.labels.names(name) => add_label(prompt, key, value)?,
            "negative" => prompt.negative = string("negative", value)?,
            "images" => {
                prompt.images = number(
                    "images",
                    value,
                    "1 to 10000, or 0 or null to use the job's number of images",
                )?
                .unwrap_or(0)
            }
            "seed" => prompt.seed = number("seed", value, "0 to 18446744073709551615, or null")?,
            "style" => prompt.style = string("style", value)?,
            "image" => prompt.image = string("image", value)?,
            "mask" => prompt.mask = string("mask", value)?,
            "custom_id" => prompt.custom_id = string("custom_id", value)?.unwrap_or_default(),
            "labels" if value == "null" => {}
            "labels" if value.starts_with('{') => {
                let labels = self::members(value)?;
                check_keys(&labels)?;
                labels.into_iter().try_for_each(|(key, value)| add_label(prompt, key, value))?;
            }
            "labels" => {
                return Err(format!(
                    "labels is {}; accepted: an object of strings, or null",
                    cut(value)
                ));
            }
            "settings" if value == "null" => {}
            "settings" if value.starts_with('{') => {
                prompt.settings = Some(settings::object(value)?);
            }
            "settings" if options.labels != Labels::All => {
                return Err(format!("settings is {}; {}", cut(value), settings::ACCEPTED));
            }
            _ => match options.labels {
                Labels::All => add_label(prompt, key, value)?,
                Labels::Columns => {
                    let known =
                        [&[wanted], &FIELDS[..], &["labels", "settings"]].concat().join(", ");
                    return Err(unknown(&key, &known));
                }
                Labels::Only(_) | Labels::None => {}
            },
        }
    }
    prompt.text = text.ok_or_else(|| match wanted {
        "prompt" => format!("prompt is missing; {ACCEPTED}, or another key with --column NAME"),
        wanted => format!("the key {} of --column is missing; accepted: a string", shown(wanted)),
    })?;
    Ok(())
}

fn check_keys(members: &[(String, &str)]) -> Result<(), String> {
    match twice(members.iter().map(|(key, _)| key.as_str())) {
        Some(key) => Err(format!("the key {} occurs twice; accepted: each key once", shown(key))),
        None => Ok(()),
    }
}

fn unknown(key: &str, known: &str) -> String {
    format!(
        "the key {} is unknown; accepted: {known}; --labels keeps other keys as labels, --label-columns NAME,… some of \
         them, --no-labels none",
        shown(key)
    )
}

fn add_label(prompt: &mut Prompt, key: String, value: &str) -> Result<(), String> {
    let value = match value {
        "null" => return Ok(()),
        value if value.starts_with('"') => string(&key, value)?.unwrap_or_default(),
        value => compact(value),
    };
    if prompt.labels.contains_key(&key) {
        return Err(format!("the label {} occurs twice; accepted: each once", shown(&key)));
    }
    prompt.labels.insert(key, value);
    Ok(())
}

fn string(field: &str, value: &str) -> Result<Option<String>, String> {
    parsed(value)
        .map_err(|why| format!("{field} is {}{why}; accepted: a string, or null", cut(value)))
}

fn number<N: DeserializeOwned>(
    field: &str,
    value: &str,
    accepted: &str,
) -> Result<Option<N>, String> {
    parsed(value)
        .map_err(|_| format!("{field} is {}; accepted: a whole number, {accepted}", cut(value)))
}

/// An id in COCO: a whole number, or a string.
fn id(field: &str, value: &str) -> Result<String, String> {
    let refuse = || format!("{field} is {}; accepted: a whole number or a string", cut(value));
    if value.starts_with('"') {
        return string(field, value)?.filter(|id| !id.is_empty()).ok_or_else(refuse);
    }
    match serde_json::from_str::<i64>(value) {
        Ok(number) => Ok(number.to_string()),
        Err(_) => Err(refuse()),
    }
}

/// A value; the error says what is wrong inside a string.
fn parsed<T: DeserializeOwned>(value: &str) -> Result<Option<T>, String> {
    serde_json::from_str(value).map_err(|error| match error.classify() {
        serde_json::error::Category::Syntax => format!(" ({})", sentence(&error)),
        _ => String::new(),
    })
}

/// A JSON value, shortened for an error.
fn cut(value: &str) -> String {
    const LONGEST: usize = 60;
    let value = compact(value);
    let end = value.char_indices().nth(LONGEST).map(|(end, _)| end);
    let part = end.and_then(|end| value.get(..end)).unwrap_or(&value);
    let escaped = |character: char| match character {
        '"' | '\\' => character.to_string(),
        other => other.escape_debug().to_string(),
    };
    part.chars().map(escaped).collect::<String>() + if end.is_some() { "…" } else { "" }
}
