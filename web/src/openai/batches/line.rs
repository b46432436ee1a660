//! One line of a batch's file: a request in JSON, with the client's own name for it.
//!
//! A line that is no request at all refuses the whole batch, as OpenAI does. A request that the
//! image API would refuse is refused alone: its error is in the batch's file of errors.

use darkroom_core::{
    error::{Code, UserError},
    label::{MAX_CUSTOM_ID, check_custom_id},
};
use darkroom_farm_api::Answer;
use serde_json::{Map, Value};

use super::super::{
    fields::Fields,
    form::{Inputs, named_inputs},
    order::{Delivery, Endpoint, Order},
};
use crate::words::told;

/// A request of a batch.
pub(super) struct Line {
    /// The client's own name for it.
    pub(super) custom_id: String,
    /// What it asks for, or why the image API refuses it.
    pub(super) order: Answer<(Order, Inputs)>,
}

/// The routes that a batch can have.
pub(super) fn endpoint(path: &str) -> Option<Endpoint> {
    [(super::super::GENERATIONS, Endpoint::Generations), (super::super::EDITS, Endpoint::Edits)]
        .into_iter()
        .find_map(|(known, endpoint)| (known == path).then_some(endpoint))
}

impl Line {
    /// Reads a line of a batch for this route.
    ///
    /// # Errors
    /// If it is no request of the batch: the sentence does not name the line.
    pub(super) fn read(text: &str, route: &str) -> Answer<Self> {
        let mut line: Map<String, Value> =
            darkroom_proto::json::read(text.as_bytes()).map_err(|error| {
                let message = format!("the line is not a JSON object: {}", error.message);
                UserError::new(Code::InvalidArgument, "INVALID_JSON_LINE", message)
            })?;
        let custom_id = custom_id(line.remove("custom_id"))?;
        fixed("method", line.remove("method"), "POST")?;
        fixed("url", line.remove("url"), route)?;
        let body = match line.remove("body") {
            Some(Value::Object(body)) => body,
            None => return Err(UserError::invalid("body", "body is missing; accepted: an object")),
            Some(other) => {
                let other = other.to_string();
                let message = format!("body is {}; accepted: an object", told(&other));
                return Err(UserError::invalid("body", message));
            }
        };
        if let Some(name) = line.keys().next() {
            let message = format!(
                "{:?} is not a key of a line; accepted: custom_id, method, url, body",
                told(name)
            );
            return Err(UserError::new(Code::InvalidArgument, "UNKNOWN_PARAMETER", message));
        }
        let endpoint = endpoint(route).unwrap_or(Endpoint::Generations);
        Ok(Self { custom_id, order: order(Fields::of_json(body), endpoint) })
    }
}

fn order(mut fields: Fields, endpoint: Endpoint) -> Answer<(Order, Inputs)> {
    let inputs = match endpoint {
        Endpoint::Generations => Inputs::default(),
        Endpoint::Edits => named_inputs(&mut fields)?,
    };
    if fields.flag("stream")?.is_some_and(|streams| streams) {
        let message = "stream is true, but nobody waits for a batch's events; accepted: false";
        return Err(UserError::invalid("stream", message));
    }
    // Thirty thousand pictures in base64 are tens of gigabytes.
    Ok((Order::read_for(fields, endpoint, Delivery::Links)?, inputs))
}

fn custom_id(value: Option<Value>) -> Answer<String> {
    let accepted = format!("a text of 1 to {MAX_CUSTOM_ID} printable characters");
    match value {
        None => Err(UserError::invalid(
            "custom_id",
            format!("custom_id is missing; accepted: {accepted}"),
        )),
        Some(Value::String(id))
            if !id.trim().is_empty() && check_custom_id("custom_id", &id).is_ok() =>
        {
            Ok(id)
        }
        Some(other) => {
            let other = other.to_string();
            let message = format!("custom_id is {}; accepted: {accepted}", told(&other));
            Err(UserError::invalid("custom_id", message))
        }
    }
}

/// Checks a key that must have the same value in every line of a batch.
fn fixed(name: &str, value: Option<Value>, accepted: &str) -> Answer<()> {
    let told = match value {
        Some(Value::String(text)) if text == accepted => return Ok(()),
        None => "missing".to_owned(),
        Some(other) => told(&other.to_string()),
    };
    Err(UserError::invalid(name, format!("{name} is {told}; accepted: {accepted:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "/v1/images/generations";

    fn line(more: &str) -> String {
        format!(r#"{{"custom_id": "a", "method": "POST", "url": "{ROUTE}"{more}}}"#)
    }

    #[test]
    fn a_line_is_a_request_with_a_name_and_links_are_its_default() {
        let text = line(r#", "body": {"prompt": "a fox", "n": 2}"#);
        let read = Line::read(&text, ROUTE).expect("a line");
        let (order, _) = read.order.expect("an order");
        assert_eq!((read.custom_id.as_str(), order.pictures), ("a", 2));
        assert_eq!(order.delivery, Delivery::Links);
        let text = line(r#", "body": {"prompt": "a fox", "response_format": "b64_json"}"#);
        let (order, _) = Line::read(&text, ROUTE).expect("a line").order.expect("an order");
        assert_eq!(order.delivery, Delivery::Inline);
    }

    #[test]
    fn a_request_that_the_image_api_refuses_is_refused_alone() {
        for (body, field) in [
            (r#"{"prompt": ""}"#, "prompt"),
            (r#"{"prompt": "a", "n": 0}"#, "n"),
            (r#"{"prompt": "a", "stream": true}"#, "stream"),
            (r#"{"prompt": "a", "colour": "red"}"#, "colour"),
            (r#"{}"#, "prompt"),
        ] {
            let text = line(&format!(r#", "body": {body}"#));
            let refused = Line::read(&text, ROUTE).expect("a line").order.expect_err(body);
            assert_eq!(refused.field.as_deref(), Some(field), "{refused}");
        }
        let edits = r#"{"custom_id": "a", "method": "POST", "url": "/v1/images/edits",
                        "body": {"prompt": "a"}}"#;
        let refused = Line::read(edits, "/v1/images/edits").expect("a line").order;
        assert_eq!(refused.expect_err("no image").field.as_deref(), Some("image"));
    }

    #[test]
    fn what_is_no_request_of_the_batch_is_refused() {
        let body = r#", "body": {"prompt": "a"}"#;
        let with = |custom_id: &str, method: &str, url: &str, rest: &str| {
            format!(r#"{{"custom_id": {custom_id}, "method": {method}, "url": {url}{rest}}}"#)
        };
        let (post, route) = ("\"POST\"", "\"/v1/images/generations\"");
        let long = format!("\"{}\"", "x".repeat(129));
        for (text, part) in [
            ("{", "the line is not a JSON object"),
            ("[]", "the line is not a JSON object"),
            ("7", "the line is not a JSON object"),
            ("{}", "custom_id is missing"),
            (&with("\" \"", post, route, body), "custom_id is \" \""),
            (&with("7", post, route, body), "custom_id is 7"),
            (&with("\"a\\u0000\"", post, route, body), "custom_id is"),
            (&with("\"a\\u202e\"", post, route, body), "custom_id is"),
            (&with("\"a\\u2028\"", post, route, body), "custom_id is"),
            (&with(&long, post, route, body), "custom_id is"),
            (&with("\"a\"", "\"GET\"", route, body), "method is \"GET\"; accepted: \"POST\""),
            (&with("\"a\"", post, "\"/v1/images/edits\"", body), "url is \"/v1/images/edits\""),
            (&with("\"a\"", post, route, ""), "body is missing"),
            (&with("\"a\"", post, route, ", \"body\": []"), "body is []"),
            (&with("\"a\"", post, route, ", \"body\": {}, \"x\": 1"), "\"x\" is not a key"),
        ] {
            let error = Line::read(text, ROUTE).err().unwrap_or_else(|| panic!("{text} is read"));
            assert!(error.message.starts_with(part), "{text}: {error}");
        }
    }
}
