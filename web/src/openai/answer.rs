//! The answer with the pictures of a job: in base64 while they are read, or as links.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use darkroom_farm_api::{Answer, Caller, Outgoing, Standing, while_it_stands};
use darkroom_proto::{json, v1};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::ready, stream};
use http::{HeaderValue, header};
use serde::Serialize;

use super::{
    base64_stream::encoded,
    ledger::Seat,
    order::{Delivery, Order},
    progress::Progress,
    size,
};
use crate::{entry::JSON, links, problem::Refusal, site::Site};

/// What reads a job's pictures for a client.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) site: Arc<Site>,
    pub(super) caller: Caller,
    pub(super) standing: Option<Standing>,
    /// The host and port by which the client reached the farm.
    pub(super) authority: String,
}

/// What is told of a job beside its pictures, in an answer and in events.
#[derive(Clone, Debug, Serialize)]
pub(super) struct About {
    pub(super) background: &'static str,
    pub(super) output_format: &'static str,
    pub(super) quality: &'static str,
    pub(super) size: String,
    /// The job's id.
    pub(super) job: String,
}

/// The work for an answer. The farm does not count tokens, and clients need numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Usage {
    input_tokens: u64,
    input_tokens_details: Tokens,
    output_tokens: u64,
    output_tokens_details: Tokens,
    total_tokens: u64,
    /// Model seconds that the job took on all devices.
    device_seconds: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Tokens {
    image_tokens: u64,
    text_tokens: u64,
}

/// The last part of an answer.
#[derive(Serialize)]
struct Tail {
    created: u64,
    #[serde(flatten)]
    about: About,
    usage: Usage,
}

/// A picture behind a link.
#[derive(Serialize)]
struct Linked {
    url: String,
    seed: json::U64,
}

impl About {
    pub(super) fn of(order: &Order, job: &v1::Job) -> Self {
        Self {
            background: "opaque",
            output_format: order.format.name(),
            quality: order.quality.name(),
            size: size::of_job(job),
            job: job.id.clone(),
        }
    }

    /// What is told of one of a job's requests, which has settings of its own.
    pub(super) fn of_image(
        order: &Order,
        image: Option<&v1::Image>,
        job: Option<&v1::Job>,
    ) -> Self {
        let own = image.and_then(|image| image.settings.as_ref());
        let settings = own.or(job.and_then(|job| job.effective_settings.as_ref()));
        Self {
            background: "opaque",
            output_format: order.format.name(),
            quality: order.quality.name(),
            size: size::of_settings(settings),
            job: job.map(|job| job.id.clone()).unwrap_or_default(),
        }
    }
}

impl Usage {
    pub(super) fn of(job: &v1::Job) -> Self {
        Self { device_seconds: job.device_seconds, ..Self::default() }
    }

    /// The work for these images alone.
    pub(super) fn of_images(images: &[v1::Image]) -> Self {
        let stages = images.iter().flat_map(|image| &image.stage_seconds);
        Self { device_seconds: stages.map(|stage| stage.seconds).sum(), ..Self::default() }
    }
}

impl Client {
    /// The bytes of a picture: the final one, or a PNG of a stage's output.
    pub(super) fn picture(&self, asked: v1::FetchImageRequest) -> Outgoing<Bytes> {
        let Self { site, caller, standing, .. } = self.clone();
        let opened = async move {
            let parts = site.farm.fetch_image(&caller, asked).await?;
            Answer::Ok(while_it_stands(standing, parts).map_ok(|part| Bytes::from(part.data)))
        };
        opened.into_stream().try_flatten().boxed()
    }

    /// Watches a job with its images.
    pub(super) async fn progress(&self, id: &str) -> Answer<Progress> {
        let asked = v1::WatchJobRequest { id: id.to_owned(), after_version: 0, images: true };
        let events = self.site.farm.watch_job(&self.caller, asked).await?;
        Ok(Progress::of(id, while_it_stands(self.standing.clone(), events)))
    }

    async fn link(&self, image: &v1::Image) -> Answer<Linked> {
        let asked = v1::SignImageRequest {
            job_id: image.job_id.clone(),
            index: image.index,
            ..Default::default()
        };
        let signed = links::signed(&self.site, &self.caller, asked, &self.authority).await?;
        Ok(Linked { url: signed.url, seed: json::U64(image.seed) })
    }

    /// The answer with all pictures of a job.
    pub(super) async fn answer(
        &self,
        order: &Order,
        progress: Progress,
        seat: Seat,
    ) -> Result<Response, Refusal> {
        let job = progress.job();
        let mut pieces = vec![text("{\"data\":[")];
        for (position, image) in progress.images().enumerate() {
            if position > 0 {
                pieces.push(text(","));
            }
            if order.delivery == Delivery::Links {
                pieces.push(text(written(&self.link(image).await?)));
                continue;
            }
            let picture = self.picture(final_picture(image));
            // The first one is begun before the answer is, so that its fault has a status.
            let picture = if position == 0 { begun(picture).await? } else { picture };
            pieces.extend(inline(picture, image.seed));
        }
        let tail = Tail {
            created: seconds(job.created_at.as_ref()),
            about: About::of(order, job),
            usage: Usage::of(job),
        };
        pieces.push(text(format!("],{}", inner(&tail))));
        let pieces = stream::iter(pieces).flatten().boxed();
        let mut answer = Response::new(Body::from_stream(until_sent(pieces, seat)));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }
}

/// The request for the final picture of an image.
pub(super) fn final_picture(image: &v1::Image) -> v1::FetchImageRequest {
    v1::FetchImageRequest { job_id: image.job_id.clone(), index: image.index, ..Default::default() }
}

/// The bytes of a picture whose first part has come.
pub(super) async fn begun(mut picture: Outgoing<Bytes>) -> Answer<Outgoing<Bytes>> {
    let first = picture.next().await.transpose()?;
    Ok(stream::iter(first.map(Ok)).chain(picture).boxed())
}

/// A picture as one object of the answer's list.
pub(super) fn inline(picture: Outgoing<Bytes>, seed: u64) -> [Outgoing<Bytes>; 3] {
    let end = format!("\",\"seed\":{}}}", written(&json::U64(seed)));
    [text("{\"b64_json\":\""), encoded(picture), text(end)]
}

/// A text as a part of an answer.
pub(super) fn text(text: impl Into<String>) -> Outgoing<Bytes> {
    stream::iter([Ok(Bytes::from(text.into()))]).boxed()
}

/// A value in JSON. Those of this API always have a form.
pub(super) fn written<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A struct in JSON without its opening brace, to follow other keys.
pub(super) fn inner<T: Serialize>(value: &T) -> String {
    written(value).split_off(1)
}

/// Passes the parts on. After the last one, marks the seat as answered.
pub(super) fn until_sent(pieces: Outgoing<Bytes>, seat: Seat) -> Outgoing<Bytes> {
    let end = async move {
        seat.answered();
        None
    };
    let pieces = pieces.map(Some).chain(end.into_stream());
    pieces.filter_map(ready).boxed()
}

/// Seconds since 1970.
pub(super) fn seconds(time: Option<&prost_types::Timestamp>) -> u64 {
    time.map_or(0, |time| u64::try_from(time.seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use darkroom_core::error::{Code, UserError};
    use serde_json::Value;

    use super::*;

    async fn read(pieces: Vec<Outgoing<Bytes>>) -> String {
        let parts: Vec<Bytes> = stream::iter(pieces).flatten().try_collect().await.expect("pieces");
        String::from_utf8(parts.concat()).expect("text")
    }

    #[tokio::test]
    async fn a_picture_and_what_is_told_of_it_are_json() {
        let picture = || stream::iter([Ok(Bytes::from_static(b"abcd"))]).boxed();
        let job = v1::Job {
            id: "j1".into(),
            device_seconds: 1.5,
            effective_settings: Some(v1::Settings { size: 64, ..Default::default() }),
            ..Default::default()
        };
        let about = About {
            background: "opaque",
            output_format: "png",
            quality: "medium",
            size: size::of_job(&job),
            job: job.id.clone(),
        };
        let tail = Tail { created: 7, about, usage: Usage::of(&job) };
        let mut pieces = vec![text("{\"data\":[")];
        pieces.extend(inline(picture(), 7));
        pieces.push(text(","));
        pieces.extend(inline(picture(), u64::MAX));
        pieces.push(text(format!("],{}", inner(&tail))));
        let answer: Value = serde_json::from_str(&read(pieces).await).expect("JSON");
        assert_eq!(
            answer,
            serde_json::json!({
                "created": 7, "background": "opaque", "output_format": "png", "quality": "medium",
                "size": "64x64", "job": "j1",
                "data": [
                    {"b64_json": "YWJjZA==", "seed": 7},
                    {"b64_json": "YWJjZA==", "seed": "18446744073709551615"},
                ],
                "usage": {
                    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
                    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
                    "output_tokens_details": {"image_tokens": 0, "text_tokens": 0},
                    "device_seconds": 1.5,
                },
            })
        );
    }

    #[tokio::test]
    async fn a_picture_that_cannot_be_read_is_an_error_before_the_answer_begins() {
        let lost = UserError::new(Code::NotFound, "LOST", "lost");
        let picture = stream::iter([Err(lost.clone())]).boxed();
        assert_eq!(begun(picture).await.err(), Some(lost));
        let picture = stream::iter([Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))]);
        let picture = begun(picture.boxed()).await.expect("begun");
        assert_eq!(read(vec![picture]).await, "ab");
    }
}
