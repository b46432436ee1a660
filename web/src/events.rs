//! Server-sent events: the changes of one job, and of the whole farm.
//!
//! Each event has the cursor or version to resume from as its id, which a browser sends back after
//! a break. A quiet stream sends a beat now and then, so that neither a proxy nor the page takes it
//! for dead. It is an event and no comment, because browsers show no comments to a page.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Caller, Outgoing, while_it_stands};
use darkroom_proto::{json, problem::Problem, v1};
use futures::{Stream, StreamExt as _, future::ready, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::{
    entry::Entry,
    problem::Refusal,
    site::Site,
    words::{told, told_header},
};

/// The id of the last event that a browser received.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often a quiet stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a browser waits before it asks for a broken stream again.
const RETRY: Duration = Duration::from_secs(2);
/// Longest cursor that is taken from a browser, bytes.
const LONGEST: usize = 4096;
/// What a browser may resume from.
const OF_JOB: &str = "the version of an event of this job";
const OF_FARM: &str = "the id of an event of this farm; leave it out to start from the present \
                       state";

/// `GET /jobs/{job}/events`.
pub(crate) async fn of_job(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let mut asked: json::WatchJobRequest = entry.query()?;
    entry.params.fill(&mut asked.id, "job", "id")?;
    let mut asked = v1::WatchJobRequest::from(asked);
    let resumed = last_event(entry.headers(), OF_JOB)?.map(str::to_owned);
    if let Some(version) = &resumed {
        asked.after_version = version.parse().map_err(|_| {
            let version = told(version);
            let message = format!("last-event-id is {version:?}; accepted: {OF_JOB}");
            UserError::invalid("last-event-id", message)
        })?;
    }
    if resumed.is_some() && has_ended(&site, &entry.caller, &asked).await? {
        // A browser asks no more after this status.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = site.farm.watch_job(&entry.caller, asked).await?;
    let events = while_it_stands(entry.standing, events);
    Ok(sent(events, |event| {
        let (id, name) = (event.version.to_string(), if event.end { "end" } else { "change" });
        (id, name, json::WatchEvent::from(event))
    }))
}

/// Whether a browser that resumes has heard of everything, the end included.
async fn has_ended(
    site: &Site,
    caller: &Caller,
    asked: &v1::WatchJobRequest,
) -> Result<bool, Refusal> {
    let job = v1::GetJobRequest { id: asked.id.clone() };
    let job = site.farm.get_job(caller, job).await?;
    let ended =
        matches!(job.state(), v1::JobState::Done | v1::JobState::Failed | v1::JobState::Cancelled);
    let written = job.manifest() == v1::ManifestState::Written;
    Ok(ended && written && asked.after_version >= job.version)
}

/// `GET /events`.
pub(crate) async fn of_farm(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let asked: json::WatchFarmRequest = entry.query()?;
    let mut asked = v1::WatchFarmRequest::from(asked);
    if let Some(cursor) = last_event(entry.headers(), OF_FARM)? {
        asked.cursor = cursor.to_owned();
    }
    let events = site.farm.watch_farm(&entry.caller, asked).await?;
    let events = while_it_stands(entry.standing, events);
    Ok(sent(events, |event| (event.cursor.clone(), "change", json::FarmEvent::from(event))))
}

/// The id of the last event that the client received.
fn last_event<'a>(headers: &'a HeaderMap, accepted: &str) -> Result<Option<&'a str>, UserError> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = id.to_str().ok().filter(|id| id.len() <= LONGEST);
    let id = text.ok_or_else(|| {
        let id = told_header(id);
        let message = format!("last-event-id is {id:?}; accepted: {accepted}");
        UserError::new(Code::InvalidArgument, "INVALID_CURSOR", message)
    })?;
    Ok(Some(id).filter(|id| !id.is_empty()))
}

/// Messages as events. The stream ends after an error, which it tells.
fn sent<T: Send + 'static, J: Serialize + 'static>(
    messages: Outgoing<T>,
    told: fn(T) -> (String, &'static str, J),
) -> Response {
    let events = messages.map(move |message| match message {
        Ok(message) => {
            let (id, name, form) = told(message);
            event(name, &form).map(|event| event.id(id))
        }
        Err(error) => event("problem", &Problem::from(&error)),
    });
    let begin = stream::once(ready(Ok(Event::default().retry(RETRY))));
    let mut answer = Sse::new(infallible(begin.chain(events)))
        .keep_alive(KeepAlive::new().interval(HEARTBEAT).event(beat()))
        .into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies like nginx would gather events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// The event of a quiet stream.
fn beat() -> Event {
    Event::default().event("beat").data("{}")
}

fn event<T: Serialize>(name: &str, data: &T) -> Answer<Event> {
    let event = Event::default().event(name).json_data(data);
    event.map_err(|error| {
        tracing::error!(%error, "an event cannot be written as JSON");
        let message = "an event cannot be written as JSON; the farm's log may say why; please \
                       report this";
        UserError::new(Code::Internal, "INTERNAL", message)
    })
}

/// The events up to the first that cannot be written.
fn infallible(
    events: impl Stream<Item = Answer<Event>> + Send + 'static,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    events.take_while(|event| ready(event.is_ok())).filter_map(|event| ready(event.ok().map(Ok)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(messages: Vec<Answer<v1::FarmEvent>>) -> String {
        let messages = stream::iter(messages).boxed();
        let told =
            |event: v1::FarmEvent| (event.cursor.clone(), "change", json::FarmEvent::from(event));
        let answer = sent(messages, told);
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("bytes");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn an_event_has_its_cursor_as_id_and_an_error_is_told() {
        let event = v1::FarmEvent { cursor: "c1".into(), caught_up: true, ..Default::default() };
        let gone = UserError::new(Code::Unauthenticated, "EXPIRED_KEY", "key 7 has\nexpired");
        let text = text(vec![Ok(event), Err(gone)]).await;
        let mut events = text.split("\n\n");
        assert_eq!(events.next(), Some("retry: 2000"));
        let change = events.next().expect("a change");
        assert!(change.contains("event: change\n") && change.contains("id: c1"), "{change}");
        assert!(change.contains("\"caught_up\":true"), "{change}");
        let problem = events.next().expect("a problem");
        assert!(problem.contains("event: problem\n"), "{problem}");
        assert!(problem.contains("\"detail\":\"key 7 has\\nexpired\""), "{problem}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_sends_an_event_that_a_page_sees_every_15_seconds() {
        let answer = sent(stream::pending().boxed(), |event: v1::FarmEvent| {
            (event.cursor.clone(), "change", json::FarmEvent::from(event))
        });
        let mut parts = answer.into_body().into_data_stream();
        let mut next = async || {
            let began = tokio::time::Instant::now();
            let part = parts.next().await.expect("a part").expect("no error");
            (began.elapsed(), String::from_utf8(part.to_vec()).expect("text"))
        };
        assert_eq!(next().await.1, "retry: 2000\n\n");
        for _ in 0..2 {
            let (after, text) = next().await;
            assert_eq!(text, "event: beat\ndata: {}\n\n");
            // The timer counts whole milliseconds.
            assert!(
                (HEARTBEAT..HEARTBEAT + Duration::from_millis(5)).contains(&after),
                "{after:?}"
            );
        }
    }

    #[test]
    fn the_id_of_an_event_is_text_of_a_bounded_length() {
        let last = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, HeaderValue::from_bytes(id).expect("a header"));
            last_event(&headers, OF_FARM).map(|id| id.map(str::to_owned))
        };
        assert_eq!(last(b"c1"), Ok(Some("c1".into())));
        assert_eq!(last(b""), Ok(None));
        assert_eq!(last("é".as_bytes()).expect_err("no ASCII").reason, "INVALID_CURSOR");
        assert!(last(&[b'x'; LONGEST + 1]).is_err());
    }
}
