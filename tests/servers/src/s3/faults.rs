//! Faults on purpose, and the layer in front of the server that injects them.

use std::{
    fmt, io,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use s3s::{
    Body,
    dto::{Timestamp, TimestampFormat},
    service::S3Service,
};

use super::short_keys::short;

/// Path that sets the fault rules by `POST`, one per line, and lists them by `GET`. No bucket can
/// have this name.
pub const CONTROL: &str = "/-/faults";

/// S3 refuses requests whose time is wrong by more than this.
const MAX_SKEW_SECONDS: u64 = 15 * 60;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out, and is answered with this HTTP status and an S3 error.
    Status(u16),
    /// It is never answered.
    Silence,
    /// It is carried out, but only half of the answer's body comes before the connection closes.
    CutBody,
    /// It is carried out, but one byte of the answer's body is wrong.
    FlipByte,
    /// The server's clock is ahead by this many seconds: beyond 15 minutes it refuses, as S3 does.
    Skew(i64),
    /// A conditional create overwrites, as on servers that do not know `If-None-Match`.
    ForgetCondition,
}

/// The requests that a rule applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// `GET` and `HEAD`.
    Reads,
    /// `PUT`, `POST` and `DELETE`.
    Writes,
}

/// How many of those requests it affects.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum When {
    /// Every one.
    #[default]
    Always,
    /// The next requests, up to this number.
    Next(u32),
    /// A share of them, 0 to 1; the same requests for the same seed.
    Share(f64, u64),
}

/// A fault and the requests that it affects. As text: `status:503 which=writes when=next:3
/// key=cascades/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The fault.
    pub fault: Fault,
    /// The kind of request.
    pub which: Which,
    /// How many.
    pub when: When,
    /// Only requests whose path contains this text.
    pub key: String,
}

/// The rules of a server, and counts of their effects.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    requests: AtomicU64,
    struck: AtomicU64,
    keeps_versions: AtomicBool,
    versions: AtomicU64,
}

impl Rule {
    /// A fault in every request.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self { fault, which: Which::All, when: When::Always, key: String::new() }
    }

    /// A fault in the next `requests` requests.
    #[must_use]
    pub fn next(fault: Fault, requests: u32) -> Self {
        Self { when: When::Next(requests), ..Self::always(fault) }
    }

    /// Everything can be read, but nothing can be written.
    #[must_use]
    pub fn read_only() -> Self {
        Self::always(Fault::Status(403)).on(Which::Writes)
    }

    /// The rule for one kind of request only.
    #[must_use]
    pub fn on(self, which: Which) -> Self {
        Self { which, ..self }
    }

    /// The rule, only for requests whose path contains `text`.
    #[must_use]
    pub fn on_key(self, text: &str) -> Self {
        Self { key: text.to_owned(), ..self }
    }

    fn looks_at(&self, method: &Method, path: &str) -> bool {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let kind = match self.which {
            Which::All => true,
            Which::Reads => reads,
            Which::Writes => !reads,
        };
        kind && path.contains(&self.key)
    }

    fn strikes(&mut self) -> bool {
        match &mut self.when {
            When::Always => true,
            When::Next(0) => false,
            When::Next(left) => {
                *left -= 1;
                true
            }
            When::Share(share, seed) => {
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                unit(*seed) < *share
            }
        }
    }
}

/// A number in 0..1 from a counter, by SplitMix64's finalizer.
fn unit(counter: u64) -> f64 {
    let mixed = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Faults {
    /// Replaces the rules. The first rule that applies to a request decides.
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules.into_iter().collect();
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.set([]);
    }

    /// Number of requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Number of requests so far with a fault.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::SeqCst)
    }

    /// From now on, answers name versions, as those of a bucket with versioning, and
    /// [`versions`](Self::versions) counts them.
    pub fn keep_versions(&self) {
        self.keeps_versions.store(true, Ordering::SeqCst);
    }

    /// Number of versions and delete markers that a bucket would have kept since
    /// [`keep_versions`](Self::keep_versions).
    #[must_use]
    pub fn versions(&self) -> u64 {
        self.versions.load(Ordering::SeqCst)
    }

    /// Names the version in an answer, and counts it if the request made one.
    fn version(&self, method: &Method, answer: &mut Answer) {
        if !self.keeps_versions.load(Ordering::SeqCst) || !answer.status().is_success() {
            return;
        }
        if matches!(*method, Method::PUT | Method::DELETE) {
            self.versions.fetch_add(1, Ordering::SeqCst);
        }
        answer.headers_mut().insert("x-amz-version-id", HeaderValue::from(self.versions()));
    }

    fn pick(&self, method: &Method, path: &str) -> Option<Fault> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = rules.iter_mut().find_map(|rule| {
            let strikes = rule.looks_at(method, path) && rule.strikes();
            strikes.then_some(rule.fault)
        })?;
        self.struck.fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }

    fn text(&self) -> String {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let rules: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
        format!("{rules}# {} requests, {} struck\n", self.requests(), self.struck())
    }
}

/// The server with faults in front.
#[derive(Debug)]
pub(super) struct Front {
    service: S3Service,
    faults: Arc<Faults>,
    /// Of all buckets.
    folder: PathBuf,
    /// One conditional write at a time, because `s3s-fs` checks first and writes later.
    conditional: tokio::sync::Mutex<()>,
}

type Answer = Response<Body>;

impl Front {
    pub(super) fn new(service: S3Service, faults: Arc<Faults>, folder: PathBuf) -> Self {
        Self { service, faults, folder, conditional: tokio::sync::Mutex::default() }
    }

    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Answer, io::Error> {
        if request.uri().path() == CONTROL {
            return self.control(request).await;
        }
        let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        match self.faults.pick(request.method(), &target) {
            None => self.carry_out(request).await,
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Status(status)) => {
                let code = code_of(status);
                refuse(request, status, format!("<Code>{code}</Code><Message>on purpose</Message>"))
                    .await
            }
            Some(Fault::CutBody) => {
                let mut answer = spoil(self.carry_out(request).await?, cut).await?;
                // Its version differs from the next answer's, so a client cannot just continue
                // where it was cut.
                answer.headers_mut().insert(header::ETAG, HeaderValue::from_static("\"cut\""));
                Ok(answer)
            }
            Some(Fault::FlipByte) => spoil(self.carry_out(request).await?, flip).await,
            Some(Fault::ForgetCondition) => {
                // The header is signed and must stay, so the existing file is removed instead.
                if request.headers().contains_key(header::IF_NONE_MATCH) {
                    let _ = std::fs::remove_file(
                        self.folder.join(short(request.uri().path().trim_start_matches('/'))),
                    );
                }
                self.carry_out(request).await
            }
            Some(Fault::Skew(seconds)) if seconds.unsigned_abs() > MAX_SKEW_SECONDS => {
                let asked = request.headers().get("x-amz-date").and_then(|date| date.to_str().ok());
                let detail = format!(
                    "<Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the \
                     current time is too large.</Message><RequestTime>{}</RequestTime><ServerTime>{}</ServerTime>\
                     <MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>",
                    asked.unwrap_or_default(),
                    clock(seconds, TimestampFormat::DateTime),
                );
                refuse(request, 403, detail).await
            }
            Some(Fault::Skew(seconds)) => {
                let mut answer = self.carry_out(request).await?;
                let now = HeaderValue::from_str(&clock(seconds, TimestampFormat::HttpDate))
                    .expect("a date is a header's value");
                answer.headers_mut().insert(header::DATE, now.clone());
                if answer.headers().contains_key(header::LAST_MODIFIED) {
                    answer.headers_mut().insert(header::LAST_MODIFIED, now);
                }
                Ok(answer)
            }
        }
    }

    async fn carry_out(
        &self,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Answer, io::Error> {
        // `s3s-fs` would make the bucket when it writes to it.
        let bucket =
            request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        if !self.folder.join(bucket).is_dir() {
            let detail =
                "<Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message>";
            return refuse(request, 404, detail.to_owned()).await;
        }
        let conditional = request.headers().contains_key(header::IF_NONE_MATCH);
        let _turn = if conditional { Some(self.conditional.lock().await) } else { None };
        let method = request.method().clone();
        let answer = self.service.call(request.map(Body::from)).await;
        let mut answer = answer.map_err(|error| io::Error::other(format!("{error:?}")))?;
        self.faults.version(&method, &mut answer);
        Ok(answer)
    }

    async fn control(&self, request: Request<hyper::body::Incoming>) -> Result<Answer, io::Error> {
        if request.method() == Method::POST {
            let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            let text = String::from_utf8_lossy(&body).into_owned();
            let lines = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            match lines.map(str::parse).collect::<Result<Vec<Rule>, _>>() {
                Ok(rules) => self.faults.set(rules),
                Err(message) => return Ok(plain(StatusCode::BAD_REQUEST, message)),
            }
        }
        Ok(plain(StatusCode::OK, self.faults.text()))
    }
}

fn plain(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer
}

/// An S3 error, sent after the request's body was read. Otherwise a client that is still sending
/// would see a broken connection.
async fn refuse(
    request: Request<hyper::body::Incoming>,
    status: u16,
    detail: String,
) -> Result<Answer, io::Error> {
    let head = request.method() == Method::HEAD;
    request.into_body().collect().await.map_err(io::Error::other)?;
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error>{detail}</Error>");
    let status = StatusCode::from_u16(status).map_err(io::Error::other)?;
    let mut answer = plain(status, if head { String::new() } else { body });
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    Ok(answer)
}

fn code_of(status: u16) -> &'static str {
    match status {
        403 => "AccessDenied",
        500 => "InternalError",
        501 => "NotImplemented",
        503 => "SlowDown",
        507 => "XMinioStorageFull",
        _ => "Fault",
    }
}

/// Replaces the body of an answer that has one. Its stated length does not change.
async fn spoil(answer: Answer, how: fn(Bytes) -> Body) -> Result<Answer, io::Error> {
    let (mut parts, body) = answer.into_parts();
    let bytes =
        body.collect().await.map_err(|error| io::Error::other(error.to_string()))?.to_bytes();
    if bytes.is_empty() {
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    Ok(Response::from_parts(parts, how(bytes)))
}

fn cut(bytes: Bytes) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let sent = stream::once(async { Ok(Frame::data(half)) });
    let broken = stream::once(async {
        // Otherwise the connection would break before anything was sent.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::other("cut on purpose"))
    });
    Body::http_body_unsync(StreamBody::new(stream::StreamExt::chain(sent, broken)))
}

fn flip(bytes: Bytes) -> Body {
    let mut bytes = bytes.to_vec();
    bytes[0] ^= 1;
    Body::from(bytes)
}

fn clock(ahead_seconds: i64, format: TimestampFormat) -> String {
    let offset = Duration::from_secs(ahead_seconds.unsigned_abs());
    let now = SystemTime::now();
    let there = if ahead_seconds < 0 { now - offset } else { now + offset };
    let mut text = Vec::new();
    Timestamp::from(there).format(format, &mut text).expect("the time is in the valid range");
    String::from_utf8(text).expect("a date is text")
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::Status(status) => write!(f, "status:{status}")?,
            Fault::Silence => f.write_str("silence")?,
            Fault::CutBody => f.write_str("cut-body")?,
            Fault::FlipByte => f.write_str("flip-byte")?,
            Fault::Skew(seconds) => write!(f, "skew:{seconds}")?,
            Fault::ForgetCondition => f.write_str("forget-condition")?,
        }
        let which = match self.which {
            Which::All => "all",
            Which::Reads => "reads",
            Which::Writes => "writes",
        };
        write!(f, " which={which}")?;
        match self.when {
            When::Always => f.write_str(" when=always")?,
            When::Next(left) => write!(f, " when=next:{left}")?,
            When::Share(share, seed) => write!(f, " when=share:{share}:{seed}")?,
        }
        if self.key.is_empty() { Ok(()) } else { write!(f, " key={}", self.key) }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |word: &str| {
            format!(
                "{word:?} in {text:?}; accepted: status:CODE, silence, cut-body, flip-byte, skew:SECONDS or \
                 forget-condition, then which=all|reads|writes, when=always|next:N|share:SHARE:SEED, key=TEXT"
            )
        };
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let (name, value) = first.split_once(':').unwrap_or((first, ""));
        let fault = match name {
            "status" => Fault::Status(value.parse().map_err(|_| wrong(first))?),
            "silence" => Fault::Silence,
            "cut-body" => Fault::CutBody,
            "flip-byte" => Fault::FlipByte,
            "skew" => Fault::Skew(value.parse().map_err(|_| wrong(first))?),
            "forget-condition" => Fault::ForgetCondition,
            _ => return Err(wrong(first)),
        };
        let mut rule = Self::always(fault);
        for word in words {
            match word.split_once('=').ok_or_else(|| wrong(word))? {
                ("which", "all") => rule.which = Which::All,
                ("which", "reads") => rule.which = Which::Reads,
                ("which", "writes") => rule.which = Which::Writes,
                ("when", "always") => rule.when = When::Always,
                ("when", when) => rule.when = parse_when(when).ok_or_else(|| wrong(word))?,
                ("key", key) => key.clone_into(&mut rule.key),
                _ => return Err(wrong(word)),
            }
        }
        Ok(rule)
    }
}

fn parse_when(text: &str) -> Option<When> {
    let (kind, value) = text.split_once(':')?;
    match kind {
        "next" => Some(When::Next(value.parse().ok()?)),
        "share" => {
            let (share, seed) = value.split_once(':')?;
            Some(When::Share(share.parse().ok()?, seed.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_survives_as_text() {
        for text in [
            "status:503 which=writes when=next:3 key=cascades/",
            "silence which=all when=always",
            "skew:-1200 which=reads when=share:0.25:7",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        assert_eq!("cut-body".parse(), Ok(Rule::always(Fault::CutBody)));
        for text in ["", "status:x", "silence when=next", "silence which=some", "silence 3"] {
            text.parse::<Rule>().expect_err(text);
        }
    }

    #[test]
    fn a_share_strikes_about_as_many_and_the_same_ones_again() {
        let run = || {
            let faults = Faults::default();
            faults.set([Rule { when: When::Share(0.25, 1), ..Rule::always(Fault::Silence) }]);
            (0..1000).map(|_| faults.pick(&Method::GET, "/").is_some()).collect::<Vec<_>>()
        };
        let struck = run().into_iter().filter(|struck| *struck).count();
        assert!((200..300).contains(&struck), "{struck}");
        assert_eq!(run(), run());
    }
}
