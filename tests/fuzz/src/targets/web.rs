//! Requests over HTTP: queries, forms, masks, and what every request passes first.

use darkroom_artifacts::input::Given;
use darkroom_web::fuzzed;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::messages::{Rough as _, refusal};
use crate::verdict::Verdict;

/// The query of a URL.
pub(super) fn queries(data: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(data);
    match fuzzed::query(&text) {
        Ok(forms) => Verdict::accepted(format_args!("{forms} {}", data.len().ilog2_or_zero())),
        Err(error) => refusal(&error, data),
    }
}

/// The form of a request for edits.
pub(super) fn forms(data: &[u8]) -> Verdict {
    match fuzzed::form(data) {
        Ok(pictures) => {
            assert!((1..=10).contains(&pictures), "{pictures} pictures");
            Verdict::accepted(pictures)
        }
        Err(error) => refusal(&error, data),
    }
}

/// A mask as OpenAI's clients send it. What it becomes is a mask that the farm takes.
pub(super) fn masks(data: &[u8]) -> Verdict {
    match fuzzed::mask(data) {
        Ok(strokes) => {
            let given = Given::decode(&strokes).expect("our own picture");
            Verdict::accepted(given.pixels.extent.area().ilog2())
        }
        Err(error) => refusal(&error, data),
    }
}

/// A request's first line, and a header in each other one.
pub(super) fn routes(data: &[u8]) -> Verdict {
    let Some((method, uri, headers)) = request(data) else { return Verdict::accepted("none") };
    match fuzzed::route(&method, &uri, &headers) {
        Ok(treated) => Verdict::accepted(format_args!("{method} {treated}")),
        Err((status, error)) => {
            assert!([403, 421].contains(&status), "{status}");
            refusal(&error, data)
        }
    }
}

fn request(data: &[u8]) -> Option<(Method, Uri, HeaderMap)> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, uri) = first.split_once(' ')?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some((method.parse().ok()?, uri.parse().ok()?, headers))
}
