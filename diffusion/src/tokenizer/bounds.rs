//! Limits for the numbers in a tokenizer.json. The library allocates memory for every id up to the
//! largest, and for every position of a padded text, before anybody can notice that there are too
//! many.

use serde_json::Value;

use super::{MAX_TOKENS, MAX_VOCABULARY};

/// Longest token of a vocabulary, in bytes. Tokens of T5 and CLIP have less than 100. The library
/// keeps a vocabulary as a tree with one level per byte, and each level uses stack.
const LONGEST_TOKEN: usize = 1024;

/// Checks every id and every length of a file.
pub(super) fn check(file: &Value) -> Result<(), String> {
    let model = &file["model"]["vocab"];
    for (token, id) in model.as_object().into_iter().flatten() {
        check_id(id, || format!("model.vocab[{token:?}]"))?;
    }
    let pieces = model.as_array().into_iter().flatten().filter_map(|piece| piece[0].as_str());
    let named = model.as_object().into_iter().flatten().map(|(token, _)| token.as_str());
    let longest = pieces.chain(named).map(str::len).max().unwrap_or(0);
    if longest > LONGEST_TOKEN {
        return Err(format!(
            "model.vocab has a token of {longest} bytes; accepted: at most {LONGEST_TOKEN}"
        ));
    }
    if model.as_array().is_some_and(|pieces| pieces.len() > MAX_VOCABULARY) {
        return Err(format!("model.vocab has more than {MAX_VOCABULARY} pieces"));
    }
    for (position, token) in file["added_tokens"].as_array().into_iter().flatten().enumerate() {
        check_id(&token["id"], || format!("added_tokens[{position}].id"))?;
    }
    check_processor(&file["post_processor"], "post_processor")?;
    check_id(&file["padding"]["pad_id"], || "padding.pad_id".to_owned())?;
    for (value, path) in [
        (&file["padding"]["strategy"]["Fixed"], "padding.strategy.Fixed"),
        (&file["padding"]["pad_to_multiple_of"], "padding.pad_to_multiple_of"),
        (&file["truncation"]["max_length"], "truncation.max_length"),
    ] {
        check_number(value, MAX_TOKENS, || path.to_owned())?;
    }
    // What is cut off is not used, and the library panics where a stride is longer than a text.
    check_number(&file["truncation"]["stride"], 0, || "truncation.stride".to_owned())
}

/// Ids that are put around a text; a sequence has several processors.
fn check_processor(processor: &Value, path: &str) -> Result<(), String> {
    for (token, of) in processor["special_tokens"].as_object().into_iter().flatten() {
        for (position, id) in of["ids"].as_array().into_iter().flatten().enumerate() {
            check_id(id, || format!("{path}.special_tokens[{token:?}].ids[{position}]"))?;
        }
    }
    for key in ["sep", "cls"] {
        check_id(&processor[key][1], || format!("{path}.{key}[1]"))?;
    }
    for (position, inner) in processor["processors"].as_array().into_iter().flatten().enumerate() {
        check_processor(inner, &format!("{path}.processors[{position}]"))?;
    }
    Ok(())
}

/// A number above every id that a file puts around a text, or fills it up with.
pub(super) fn beyond_ids(file: &Value) -> usize {
    beyond_processor(&file["post_processor"]).max(beyond(&file["padding"]["pad_id"]))
}

fn beyond_processor(processor: &Value) -> usize {
    let special = processor["special_tokens"].as_object().into_iter().flatten();
    let special = special.flat_map(|(_, token)| token["ids"].as_array().into_iter().flatten());
    let around = ["sep", "cls"].into_iter().map(|key| &processor[key][1]);
    let inner = processor["processors"].as_array().into_iter().flatten();
    special.chain(around).map(beyond).chain(inner.map(beyond_processor)).max().unwrap_or(0)
}

fn beyond(id: &Value) -> usize {
    id.as_u64().and_then(|id| usize::try_from(id).ok()).map_or(0, |id| id.saturating_add(1))
}

fn check_id(value: &Value, path: impl Fn() -> String) -> Result<(), String> {
    check_number(value, MAX_VOCABULARY - 1, path)
}

/// A whole number up to `most`, or absent.
fn check_number(value: &Value, most: usize, path: impl Fn() -> String) -> Result<(), String> {
    let fits = value.is_null() || value.as_u64().is_some_and(|number| number <= most as u64);
    if fits {
        Ok(())
    } else {
        Err(format!("{} is {value}; accepted: a whole number up to {most}", path()))
    }
}
