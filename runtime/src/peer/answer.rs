//! An HTTP answer that is not gRPC, sent by a proxy instead of the farm.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, Response, StatusCode, header};

/// Longest part of a header that is quoted in a sentence.
const SHOWN: usize = 100;

/// The answer of a proxy or a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// Its `Server` header, if that is printable.
    pub server: Option<String>,
    /// How long it asks the client to wait.
    pub retry_after: Option<Duration>,
    /// Where it redirects to.
    pub location: Option<String>,
}

impl Answer {
    /// The content of `response` if that is not gRPC; `None` if it is gRPC.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<Self> {
        let headers = response.headers();
        let kind = headers
            .get(header::CONTENT_TYPE)
            .map(header::HeaderValue::as_bytes)
            .unwrap_or_default();
        if headers.contains_key("grpc-status")
            || (response.status() == StatusCode::OK && kind.starts_with(b"application/grpc"))
        {
            return None;
        }
        Some(Self {
            status: response.status(),
            server: printable(headers, &header::SERVER),
            retry_after: retry_after(headers, SystemTime::now()),
            location: printable(headers, &header::LOCATION),
        })
    }

    /// Whether the same call may succeed soon: the proxy cannot reach a farm now, or is busy.
    #[must_use]
    pub fn passes(&self) -> bool {
        // A large content network answers 520 to 524 when it cannot reach the server behind it.
        matches!(self.status.as_u16(), 408 | 425 | 429 | 502..=504 | 520..=524)
    }

    /// The proxy's name and version, in brackets, to follow its address.
    #[must_use]
    pub fn named(&self) -> String {
        self.server.as_ref().map(|server| format!(" ({server})")).unwrap_or_default()
    }

    /// A sentence about the answer of the proxy at `address`, and how to fix it.
    pub(super) fn sentence(&self, address: &str) -> String {
        let proxy = format!("the proxy at {address}{}", self.named());
        let status = self.status.as_u16();
        match status {
            200..=299 => format!(
                "{address}{} answers with a page (HTTP {status}), not gRPC, so it is a web server and no farm; name the farm's \
                 own address with --farm",
                self.named()
            ),
            300..=399 => {
                let to = self.location.as_deref().unwrap_or("another place");
                format!(
                    "{proxy} redirects to {to} (HTTP {status}), and gRPC does not follow redirects; name an address with \
                     --farm that passes gRPC to the farm in plain text"
                )
            }
            400 => format!(
                "{proxy} does not understand the call (HTTP 400); it must take HTTP/2 in plain text on this port (nginx: \
                 listen … http2; HAProxy: proto h2)"
            ),
            401 | 407 => format!(
                "{proxy} asks for a login (HTTP {status}), and Darkroom cannot send one; let the proxy pass \
                 /darkroom.v1.Farm/ without one, or name the farm's own address with --farm"
            ),
            403 => format!(
                "{proxy} forbids the call (HTTP 403); allow /darkroom.v1.Farm/ there, or name the farm's own address with \
                 --farm"
            ),
            404 => format!(
                "{proxy} has no farm behind this address (HTTP 404); let it pass /darkroom.v1.Farm/ to the farm (nginx: \
                 grpc_pass), or name the farm's own address with --farm"
            ),
            405 | 415 | 501 => format!(
                "{proxy} does not take gRPC (HTTP {status}); let it pass /darkroom.v1.Farm/ to the farm as gRPC (nginx: \
                 grpc_pass), or name the farm's own address with --farm"
            ),
            411 => format!(
                "{proxy} asks for the length of the request (HTTP 411), which a gRPC call does not send; turn that \
                 off \
                 there, or name the farm's own address with --farm"
            ),
            413 => format!(
                "{proxy} refuses the call as too large (HTTP 413); raise its limit (nginx: client_max_body_size 0), or name \
                 the farm's own address with --farm"
            ),
            421 => format!(
                "{proxy} does not serve this host name (HTTP 421); add the name there, or name another address with --farm"
            ),
            426 | 505 => format!(
                "{proxy} wants another version of HTTP (HTTP {status}); it must take HTTP/2 in plain text on this port"
            ),
            431 => format!(
                "{proxy} refuses the call's headers as too large (HTTP 431); raise its limit"
            ),
            429 => format!("{proxy} has had too many calls (HTTP 429){}", self.later()),
            408 | 425 | 502..=504 | 520..=524 => {
                format!("{proxy} does not reach the farm ({}){}", self.name(), self.later())
            }
            _ => {
                format!("{proxy} answers {} in the farm's place; see the proxy's log", self.name())
            }
        }
    }

    fn later(&self) -> String {
        match self.retry_after {
            Some(wait) => format!("; it asks to try again in {} s", wait.as_secs()),
            None => "; try again in a while, and see the proxy's log".to_owned(),
        }
    }

    fn name(&self) -> String {
        match self.status.canonical_reason() {
            Some(reason) => format!("HTTP {}, {}", self.status.as_u16(), reason.to_lowercase()),
            None => format!("HTTP {}", self.status.as_u16()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answers {}{}", self.name(), self.named())
    }
}

/// A header of printable ASCII, cut to a limited length.
fn printable(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    shown(headers.get(name)?.as_bytes())
}

/// Bytes from an unknown server as text, if all of them are printable.
pub(super) fn shown(bytes: &[u8]) -> Option<String> {
    let plain = !bytes.is_empty() && bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    plain.then(|| {
        bytes.iter().take(SHOWN).map(|byte| char::from(*byte)).collect::<String>().trim().to_owned()
    })
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Option<Answer> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, value.as_bytes());
        }
        Answer::of(&response.body(()).expect("a response"))
    }

    #[test]
    fn a_farms_answer_is_not_a_proxys() {
        assert_eq!(answer(200, &[("content-type", "application/grpc")]), None);
        assert_eq!(answer(200, &[("content-type", "application/grpc+proto")]), None);
        assert_eq!(answer(503, &[("content-type", "text/html"), ("grpc-status", "14")]), None);
        assert!(answer(200, &[("content-type", "text/html")]).is_some());
        assert!(answer(200, &[]).is_some());
        assert!(answer(503, &[("content-type", "application/grpc")]).is_some());
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        for (status, passes) in [
            (429, true),
            (502, true),
            (503, true),
            (504, true),
            (408, true),
            (522, true),
            (200, false),
            (302, false),
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (413, false),
            (500, false),
            (501, false),
        ] {
            assert_eq!(answer(status, &[]).expect("no gRPC").passes(), passes, "{status}");
        }
    }

    #[test]
    fn every_answer_names_the_proxy_and_its_status() {
        for status in (200..600).filter(|status| ![101].contains(status)) {
            let answer = answer(status, &[("server", "nginx/1.22.1")]).expect("no gRPC");
            let text = answer.sentence("farm:80");
            assert!(
                text.contains("farm:80 (nginx/1.22.1)") && text.contains(&status.to_string()),
                "{text}"
            );
        }
        let text = answer(413, &[]).expect("no gRPC").sentence("farm:80");
        assert!(text.contains("client_max_body_size"), "{text}");
        let text =
            answer(301, &[("location", "https://farm/")]).expect("no gRPC").sentence("farm:80");
        assert!(text.contains("https://farm/"), "{text}");
    }

    #[test]
    fn what_cannot_be_printed_is_left_out() {
        for server in ["a\tb", "é", ""] {
            let Some(answer) = answer(502, &[("server", server)]) else { panic!("no gRPC") };
            assert_eq!(answer.server, None, "{server:?}");
        }
        let long = "x".repeat(1000);
        let answer = answer(502, &[("server", &long)]).expect("no gRPC");
        assert_eq!(answer.server.map(|server| server.len()), Some(SHOWN));
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date() {
        let asked =
            |text: &str| answer(503, &[("retry-after", text)]).expect("no gRPC").retry_after;
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-1"), None);
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90));
        let wait = asked(&date).expect("a date");
        assert!(wait > Duration::from_secs(80) && wait <= Duration::from_secs(90), "{wait:?}");
    }
}
