//! The answer as server-sent events: previews as stages finish, then the picture.
//!
//! A picture's digits are written while they are read, so an event is not in memory as a whole.

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use darkroom_core::error::UserError;
use darkroom_farm_api::{Answer, Outgoing};
use darkroom_proto::{json, v1};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, header};
use serde::Serialize;

use super::{
    answer::{
        About, Client, Usage, begun, final_picture, inner, seconds, text, until_sent, written,
    },
    base64_stream::encoded,
    dialect::Told,
    ledger::Seat,
    order::Order,
    progress::Progress,
};

/// How often a quiet stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest edge of a preview, pixels; larger ones are scaled down.
const PREVIEW: u32 = 512;

/// What an event says beside the picture.
#[derive(Serialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    created_at: u64,
    #[serde(flatten)]
    about: About,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_image_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<json::U64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// The answer, which begins at once and ends with the job.
pub(super) fn streamed(client: Client, order: Order, progress: Progress, seat: Seat) -> Response {
    let streaming =
        Streaming { client, order, progress, sent: Vec::new(), partials: 0, over: false };
    let pieces = stream::unfold(streaming, |mut streaming| async move {
        let next = streaming.next().await?;
        Some((next, streaming))
    });
    let pieces = until_sent(pieces.flatten().boxed(), seat);
    let mut answer = Response::new(Body::from_stream(pieces));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies like nginx would gather events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

struct Streaming {
    client: Client,
    order: Order,
    progress: Progress,
    /// Stages whose previews were sent, or cannot be.
    sent: Vec<String>,
    partials: usize,
    over: bool,
}

impl Streaming {
    /// The next events, or a comment after a while without any; none behind the end.
    async fn next(&mut self) -> Option<Outgoing<Bytes>> {
        if self.over {
            return None;
        }
        loop {
            if let Some(stage) = self.next_preview() {
                self.sent.push(stage.clone());
                match self.preview(stage).await {
                    Ok(event) => return Some(event),
                    // The picture itself may still come.
                    Err(error) => tracing::debug!(%error, "a preview cannot be sent"),
                }
                continue;
            }
            if let Some(outcome) = self.progress.outcome() {
                self.over = true;
                let completed = match outcome {
                    Ok(()) => self.completed().await,
                    Err(error) => Err(error),
                };
                return Some(completed.unwrap_or_else(|error| failed(&error)));
            }
            match tokio::time::timeout(HEARTBEAT, self.progress.change()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.over = true;
                    return Some(failed(&error));
                }
                Err(_) => return Some(text(": the job goes on\n\n")),
            }
        }
    }

    /// A stage whose preview is to be sent.
    fn next_preview(&self) -> Option<String> {
        let wanted = self.order.partials as usize;
        let passed = self.progress.passed().into_iter().take(wanted);
        let new = passed.filter(|stage| !self.sent.iter().any(|sent| sent == stage));
        new.map(str::to_owned).next()
    }

    async fn preview(&mut self, stage: String) -> Answer<Outgoing<Bytes>> {
        let Some(image) = self.progress.images().next() else { return Ok(text("")) };
        let asked = v1::FetchImageRequest { stage, max_edge: PREVIEW, ..final_picture(image) };
        // A preview is small, and one that breaks off must not break the stream.
        let digits: Vec<Bytes> = encoded(self.client.picture(asked)).try_collect().await?;
        let digits = stream::iter(digits).map(Ok).boxed();
        let index = self.partials;
        self.partials += 1;
        let about = About::of(&self.order, self.progress.job());
        let event = Event {
            about: About { output_format: "png", ..about },
            partial_image_index: Some(index),
            ..self.event("partial_image")
        };
        Ok(sent(&event, digits))
    }

    async fn completed(&mut self) -> Answer<Outgoing<Bytes>> {
        let Some(image) = self.progress.images().next() else { return Ok(text("")) };
        let picture = begun(self.client.picture(final_picture(image))).await?;
        let event = Event {
            seed: Some(json::U64(image.seed)),
            usage: Some(Usage::of(self.progress.job())),
            ..self.event("completed")
        };
        Ok(sent(&event, encoded(picture)))
    }

    fn event(&self, name: &str) -> Event {
        let job = self.progress.job();
        Event {
            kind: format!("{}.{name}", self.order.endpoint.event()),
            created_at: seconds(job.created_at.as_ref()),
            about: About::of(&self.order, job),
            partial_image_index: None,
            seed: None,
            usage: None,
        }
    }
}

/// An event with a picture. Base64 and JSON have no line ends.
fn sent(event: &Event, digits: Outgoing<Bytes>) -> Outgoing<Bytes> {
    let begin = format!("event: {}\ndata: {{\"b64_json\":\"", event.kind);
    let end = format!("\",{}\n\n", inner(event));
    stream::iter([text(begin), digits, text(end)]).flatten().boxed()
}

/// The event that tells an error, which clients raise.
fn failed(error: &UserError) -> Outgoing<Bytes> {
    text(format!("event: error\ndata: {}\n\n", written(&Told::from(error))))
}

#[cfg(test)]
mod tests {
    use darkroom_core::error::Code;
    use serde_json::{Value, json};

    use super::*;

    async fn read(pieces: Outgoing<Bytes>) -> (String, Value) {
        let parts: Vec<Bytes> = pieces.try_collect().await.expect("pieces");
        let text = String::from_utf8(parts.concat()).expect("text");
        let (name, rest) =
            text.strip_prefix("event: ").expect("a name").split_once('\n').expect("a line");
        let data = rest.strip_prefix("data: ").and_then(|data| data.strip_suffix("\n\n"));
        let data = data.expect("one line of data");
        assert!(!data.contains('\n'));
        (name.to_owned(), serde_json::from_str(data).expect("JSON"))
    }

    #[tokio::test]
    async fn an_event_has_its_name_as_type_and_the_picture_in_base64() {
        let about = About {
            background: "opaque",
            output_format: "png",
            quality: "low",
            size: "64x64".into(),
            job: "j1".into(),
        };
        let event = Event {
            kind: "image_edit.partial_image".into(),
            created_at: 7,
            about,
            partial_image_index: Some(0),
            seed: None,
            usage: None,
        };
        let digits = encoded(stream::iter([Ok(Bytes::from_static(b"abc"))]).boxed());
        let (name, data) = read(sent(&event, digits)).await;
        assert_eq!(name, "image_edit.partial_image");
        assert_eq!(
            data,
            json!({"type": "image_edit.partial_image", "b64_json": "YWJj", "created_at": 7,
                   "background": "opaque", "output_format": "png", "quality": "low",
                   "size": "64x64", "job": "j1", "partial_image_index": 0})
        );
    }

    #[tokio::test]
    async fn an_error_is_an_event_that_clients_raise() {
        let error = UserError::new(Code::Internal, "IMAGE_FAILED", "picture 0\nfailed");
        let (name, data) = read(failed(&error)).await;
        assert_eq!(name, "error");
        assert_eq!(
            data,
            json!({"error": {"message": "picture 0\nfailed", "type": "server_error", "param": null,
                             "code": "image_failed"}})
        );
    }
}
