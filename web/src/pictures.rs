//! Pictures, sheets of thumbnails, and manifests: files that stream, with ranges and tags.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Caller, Outgoing, Standing, while_it_stands};
use darkroom_proto::{
    json::{self, Named as _},
    v1,
};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde::{Deserialize, Serialize};

use crate::{
    entry::Entry,
    json_answer::{has, header_value},
    problem::Refusal,
    range::{Range, Wanted},
    site::Site,
};

/// How long a browser may show a picture again without asking whether it has changed.
const CACHED: &str = "private, max-age=300";
/// A file whose address has its version never changes.
const KEPT: &str = "private, max-age=31536000, immutable";
/// A file that can change is asked for again each time.
pub(crate) const ASKED: &str = "private, no-cache";
/// Describes a sheet.
const SHEET: &str = "darkroom-sheet";

/// What to show of an image.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PictureQuery {
    /// Name of a stage, to get a picture of its output. Absent: the final picture.
    stage: String,
    /// Scale the picture down until its longer edge has this many pixels: 16, 32, 64, 128, 256 or
    /// 512. Absent: do not scale.
    max_edge: u32,
    /// Name the picture as a file to save.
    download: bool,
    /// The SHA-256 of the file that is expected. If the answer is that file, it may be kept for a
    /// year.
    version: String,
}

/// A file of the farm: how to read it from an offset on, and what it is.
pub(crate) struct File {
    pub(crate) open: Box<dyn Fn(u64) -> BoxFuture<'static, Answer<Opened>> + Send + Sync>,
    pub(crate) cache: &'static str,
}

/// A file that is being read.
pub(crate) struct Opened {
    pub(crate) about: About,
    pub(crate) parts: Outgoing<Bytes>,
}

/// What the first part of a file says.
#[derive(Default)]
pub(crate) struct About {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
    pub(crate) media: &'static str,
    pub(crate) sheet: Option<v1::Sheet>,
}

/// The size of a file, its hash, and so on, if a part says it.
trait Part: Send + 'static {
    fn take(self) -> (About, Bytes);
}

impl Part for v1::FetchImageChunk {
    fn take(self) -> (About, Bytes) {
        let media = match self.format() {
            v1::PictureFormat::Jpeg => "image/jpeg",
            v1::PictureFormat::Webp => "image/webp",
            v1::PictureFormat::Png | v1::PictureFormat::Unspecified => "image/png",
        };
        let about = About { bytes: self.total_bytes, sha256: self.sha256, media, sheet: None };
        (about, self.data.into())
    }
}

impl Part for v1::FetchSheetChunk {
    fn take(self) -> (About, Bytes) {
        let about = About {
            bytes: self.total_bytes,
            sha256: self.sha256,
            media: "image/png",
            sheet: self.sheet,
        };
        (about, self.data.into())
    }
}

impl Part for v1::FetchManifestChunk {
    fn take(self) -> (About, Bytes) {
        let about = About {
            bytes: self.total_bytes,
            sha256: self.sha256,
            media: "application/jsonl",
            sheet: None,
        };
        (about, self.data.into())
    }
}

/// `GET /jobs/{job}/images/{index}/picture`.
pub(crate) async fn picture(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let PictureQuery { stage, max_edge, download, version } = entry.query()?;
    let mut asked = json::FetchImageRequest { stage, max_edge, ..Default::default() };
    entry.params.fill(&mut asked.job_id, "job", "job_id")?;
    entry.params.fill(&mut asked.index, "index", "index")?;
    let asked = v1::FetchImageRequest::from(asked);
    let name = format!("{}-{}", first_part(&asked.job_id), asked.index);
    let mut answer =
        send_picture(site, (entry.caller, entry.standing), asked, &entry.parts).await?;
    name_file(&mut answer, &name, download);
    let status = answer.status();
    let is_file = status.is_success() || status == StatusCode::NOT_MODIFIED;
    let headers = answer.headers_mut();
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if is_file && tag.is_some_and(|tag| tag.trim_matches('"') == version) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(KEPT));
    }
    Ok(answer)
}

/// Sends the picture that a request asks for.
pub(crate) async fn send_picture(
    site: Arc<Site>,
    caller: (Caller, Option<Standing>),
    asked: v1::FetchImageRequest,
    request: &Parts,
) -> Result<Response, Refusal> {
    let open = move |offset| {
        let (site, (caller, standing)) = (Arc::clone(&site), caller.clone());
        let asked = v1::FetchImageRequest { offset, ..asked.clone() };
        async move { opened(site.farm.fetch_image(&caller, asked).await?, standing).await }.boxed()
    };
    File { open: Box::new(open), cache: CACHED }.send(request).await
}

/// `GET /jobs/{job}/sheet`.
pub(crate) async fn sheet(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let mut asked: json::FetchSheetRequest = entry.query()?;
    entry.params.fill(&mut asked.job_id, "job", "job_id")?;
    let asked = v1::FetchSheetRequest::from(asked);
    let Entry { caller, standing, parts, .. } = entry;
    // A sheet has no offset: what comes before a range is read and dropped.
    let open = move |offset| {
        let (site, caller, standing) = (Arc::clone(&site), caller.clone(), standing.clone());
        let asked = asked.clone();
        async move {
            let mut opened = opened(site.farm.fetch_sheet(&caller, asked).await?, standing).await?;
            opened.parts = skip(opened.parts, offset);
            Ok(opened)
        }
        .boxed()
    };
    File { open: Box::new(open), cache: ASKED }.send(&parts).await
}

/// `GET /jobs/{job}/manifest`.
pub(crate) async fn manifest(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    entry.no_query()?;
    let mut asked = v1::FetchManifestRequest::default();
    entry.params.fill(&mut asked.job_id, "job", "job_id")?;
    let name = format!("{}-manifest", first_part(&asked.job_id));
    let Entry { caller, standing, parts, .. } = entry;
    let open = move |offset| {
        let (site, caller, standing) = (Arc::clone(&site), caller.clone(), standing.clone());
        let asked = v1::FetchManifestRequest { offset, ..asked.clone() };
        async move { opened(site.farm.fetch_manifest(&caller, asked).await?, standing).await }
            .boxed()
    };
    let mut answer = File { open: Box::new(open), cache: ASKED }.send(&parts).await?;
    name_file(&mut answer, &name, true);
    Ok(answer)
}

/// Reads the first part.
async fn opened<P: Part>(parts: Outgoing<P>, standing: Option<Standing>) -> Answer<Opened> {
    let mut parts = while_it_stands(standing, parts);
    let Some(first) = parts.next().await else {
        let message = "the farm sent no data for this file; send the request again";
        return Err(UserError::new(Code::Internal, "INTERNAL", message));
    };
    let (about, data) = first?.take();
    let first = stream::once(async { Ok(data) });
    let rest = parts.map_ok(|part| part.take().1);
    Ok(Opened { about, parts: first.chain(rest).boxed() })
}

/// The parts without their first bytes.
fn skip(parts: Outgoing<Bytes>, bytes: u64) -> Outgoing<Bytes> {
    let mut left = bytes;
    parts
        .map_ok(move |mut part| {
            let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(part.len());
            left -= skipped as u64;
            part.split_off(skipped)
        })
        .boxed()
}

/// The parts up to a number of bytes, and not one more.
fn first_bytes(parts: Outgoing<Bytes>, bytes: u64) -> Outgoing<Bytes> {
    stream::try_unfold((parts, bytes), |(mut parts, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(mut part) = parts.try_next().await? else { return Ok(None) };
        part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - part.len() as u64;
        Ok(Some((part, (parts, left))))
    })
    .boxed()
}

impl File {
    /// Answers what a request asks for: all of it, a range, or that the client has it already.
    pub(crate) async fn send(self, asked: &Parts) -> Result<Response, Refusal> {
        let Opened { about, parts } = (self.open)(0).await?;
        let tag = format!("\"{}\"", about.sha256);
        let (mut told, ()) = Response::new(()).into_parts();
        let headers = &mut told.headers;
        headers.insert(header::ETAG, header_value(&tag));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(self.cache));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // Whom a browser has logged in decides what is there: what it keeps of one caller's files is
        // no answer to the next caller.
        headers.insert(header::VARY, HeaderValue::from_static("authorization, cookie"));
        if let Some(sheet) = &about.sheet {
            headers.insert(SHEET, header_value(&described(sheet)));
        }
        if has(&asked.headers, &tag) {
            told.status = StatusCode::NOT_MODIFIED;
            return Ok(Response::from_parts(told, Body::empty()));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(about.media));
        let Range { first, length } = match Wanted::of(asked, &tag).within(about.bytes) {
            Ok(None) => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(about.bytes));
                return Ok(Response::from_parts(told, Body::from_stream(parts)));
            }
            Ok(Some(range)) => range,
            Err(_) => {
                told.status = StatusCode::RANGE_NOT_SATISFIABLE;
                let all = format!("bytes */{}", about.bytes);
                headers.insert(header::CONTENT_RANGE, header_value(&all));
                headers.remove(header::CONTENT_TYPE);
                return Ok(Response::from_parts(told, Body::empty()));
            }
        };
        let parts = if first == 0 {
            parts
        } else {
            drop(parts);
            let again = (self.open)(first).await?;
            // The range is one of the bytes that the tag names.
            if again.about.sha256 != about.sha256 {
                return Err(UserError::new(
                    Code::Unavailable,
                    "CHANGED",
                    "the file changed while it was read; send the request again",
                )
                .into());
            }
            again.parts
        };
        told.status = StatusCode::PARTIAL_CONTENT;
        let place = format!("bytes {first}-{}/{}", first + length - 1, about.bytes);
        headers.insert(header::CONTENT_RANGE, header_value(&place));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        Ok(Response::from_parts(told, Body::from_stream(first_bytes(parts, length))))
    }
}

/// A sheet as its header says it.
#[derive(Serialize)]
struct SheetTold {
    first_index: json::U64,
    tile: u32,
    columns: u32,
    rows: u32,
    version: json::U64,
    /// How many tiles show what: "filled", "empty", "later", "lost".
    tiles: std::collections::BTreeMap<&'static str, u32>,
}

fn described(sheet: &v1::Sheet) -> String {
    let mut tiles = std::collections::BTreeMap::new();
    for tile in sheet.tiles() {
        *tiles.entry(tile.name()).or_default() += 1;
    }
    let told = SheetTold {
        first_index: sheet.first_index.into(),
        tile: sheet.tile,
        columns: sheet.columns,
        rows: sheet.rows,
        version: sheet.version.into(),
        tiles,
    };
    // Numbers and words always have a JSON form.
    serde_json::to_string(&told).unwrap_or_default()
}

/// The first part of a job's id, for names of files.
fn first_part(id: &str) -> &str {
    let end = id.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(id.len());
    &id[..end.min(8)]
}

/// Says under which name a browser saves it.
fn name_file(answer: &mut Response, name: &str, save: bool) {
    let media = answer.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let ending = match media {
        Some(b"image/jpeg") => "jpg",
        Some(b"image/webp") => "webp",
        Some(b"application/jsonl") => "jsonl",
        Some(_) => "png",
        None => return,
    };
    let how = if save { "attachment" } else { "inline" };
    let place = format!("{how}; filename=\"{name}.{ending}\"");
    answer.headers_mut().insert(header::CONTENT_DISPOSITION, header_value(&place));
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    const BYTES: &[u8] = b"0123456789";

    /// A file of ten bytes that is read three bytes at a time.
    fn file() -> File {
        let open = |offset: u64| {
            let rest = &BYTES[usize::try_from(offset).expect("small")..];
            let parts = rest.chunks(3).map(|part| Ok(Bytes::from_static(part)));
            let parts = stream::iter(parts.collect::<Vec<_>>()).boxed();
            let about =
                About { bytes: 10, sha256: "ab".into(), media: "image/png", ..About::default() };
            async move { Ok(Opened { about, parts }) }.boxed()
        };
        File { open: Box::new(open), cache: CACHED }
    }

    async fn ask(headers: &[(header::HeaderName, &str)]) -> (u16, Option<String>, String) {
        ask_by(Method::GET, headers).await
    }

    async fn ask_by(
        method: Method,
        headers: &[(header::HeaderName, &str)],
    ) -> (u16, Option<String>, String) {
        let (mut asked, ()) = http::Request::new(()).into_parts();
        asked.method = method;
        for (name, value) in headers {
            asked.headers.insert(name, header_value(value));
        }
        let answer = file().send(&asked).await.expect("sends");
        let (parts, body) = answer.into_parts();
        let range = parts.headers.get(header::CONTENT_RANGE);
        let range = range.map(|range| range.to_str().expect("text").to_owned());
        let bytes = axum::body::to_bytes(body, 100).await.expect("bytes");
        if let Some(length) = parts.headers.get(header::CONTENT_LENGTH) {
            assert_eq!(*length, HeaderValue::from(bytes.len()));
        }
        (parts.status.as_u16(), range, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_range_is_answered_with_its_bytes() {
        assert_eq!(ask(&[]).await, (200, None, "0123456789".into()));
        for (range, place, bytes) in [
            ("bytes=0-0", "0-0", "0"),
            ("bytes=2-5", "2-5", "2345"),
            ("bytes=4-", "4-9", "456789"),
            ("bytes=-3", "7-9", "789"),
            ("bytes=8-99", "8-9", "89"),
            ("bytes=-99", "0-9", "0123456789"),
        ] {
            let expected = (206, Some(format!("bytes {place}/10")), bytes.to_owned());
            assert_eq!(ask(&[(header::RANGE, range)]).await, expected, "{range}");
        }
        for beyond in ["bytes=10-", "bytes=-0", "bytes=99-100"] {
            let expected = (416, Some("bytes */10".to_owned()), String::new());
            assert_eq!(ask(&[(header::RANGE, beyond)]).await, expected, "{beyond}");
        }
    }

    #[tokio::test]
    async fn ranges_are_for_get_alone() {
        for range in ["bytes=2-5", "bytes=99-"] {
            let answer = ask_by(Method::HEAD, &[(header::RANGE, range)]).await;
            assert_eq!((answer.0, answer.1), (200, None), "{range}");
        }
        let known = ask_by(Method::HEAD, &[(header::IF_NONE_MATCH, "\"ab\"")]).await;
        assert_eq!(known.0, 304);
    }

    #[tokio::test]
    async fn a_range_of_an_older_file_gets_the_whole_new_one() {
        let asked = |tag| [(header::RANGE, "bytes=2-3"), (header::IF_RANGE, tag)];
        assert_eq!(ask(&asked("\"ab\"")).await.0, 206);
        for other in ["\"cd\"", "W/\"ab\"", "Tue, 01 Dec 2026 00:00:00 GMT"] {
            assert_eq!(ask(&asked(other)).await, (200, None, "0123456789".into()), "{other}");
        }
        assert_eq!(ask(&[(header::IF_NONE_MATCH, "\"ab\"")]).await, (304, None, String::new()));
    }

    #[tokio::test]
    async fn the_first_bytes_of_a_stream_can_be_skipped() {
        for offset in 0..=10 {
            let parts = BYTES.chunks(3).map(|part| Ok(Bytes::from_static(part)));
            let parts = stream::iter(parts.collect::<Vec<_>>()).boxed();
            let rest: Vec<Bytes> = skip(parts, offset).try_collect().await.expect("no error");
            assert_eq!(rest.concat(), BYTES[usize::try_from(offset).expect("small")..]);
        }
    }
}
