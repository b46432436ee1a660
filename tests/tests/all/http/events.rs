//! Server-sent events: resumed without a gap, and ended when there is no more.

use std::{io::Write as _, net::SocketAddr};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::{ended, kept, open, submit};
use darkroom_tests::http::Http;

/// A stream of events.
struct Events {
    body: Incoming,
    text: String,
}

/// One event.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Events {
    async fn of(http: &Http, path: &str) -> Self {
        let answer = http.open("GET", path, "").await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body(), text: String::new() }
    }

    /// The next event; none at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim_start_matches(':').trim().to_owned())
                };
                let (name, id, data) = (field("event"), field("id"), field("data"));
                self.text = rest.to_owned();
                if let Some(data) = data {
                    return Some(Event {
                        name: name.unwrap_or_default(),
                        id: id.unwrap_or_default(),
                        data: serde_json::from_str(&data).expect("JSON"),
                    });
                }
            }
            let frame = self.body.frame().await?.expect("not broken off");
            self.text.push_str(std::str::from_utf8(frame.data_ref()?).expect("UTF-8"));
        }
    }
}

#[tokio::test]
async fn a_jobs_events_end_with_it_and_go_on_where_they_broke_off() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let id = submit(&http, "a red circle", 40).await;
    let path = format!("/api/v1/jobs/{id}/events");
    let mut events = Events::of(&http, &path).await;
    let first = events.next().await.expect("the present state");
    assert_eq!(first.name, "change");
    assert_eq!(first.data["job"]["id"], *id);
    drop(events);
    let resumed = http.clone().with("last-event-id", &first.id);
    let mut events = Events::of(&resumed, &format!("{path}?images=true")).await;
    let (mut last, mut done) = (None, std::collections::BTreeSet::new());
    while let Some(event) = events.next().await {
        for image in event.data["images"].as_array().expect("images") {
            if image["state"] == "done" {
                done.insert(image["index"].as_u64().expect("an index"));
            }
        }
        last = Some(event);
    }
    let last = last.expect("events");
    assert_eq!((last.name.as_str(), &last.data["end"]), ("end", &Value::Bool(true)));
    assert_eq!(last.data["job"]["state"], "done");
    // Those that were done before are not told again.
    let before = first.data["job"]["images_done"].as_u64().unwrap_or_default();
    assert_eq!(done.len() as u64 + before, 40, "{before} before: {done:?}");
    let over = http.clone().with("last-event-id", &last.id).get(&path).await;
    assert_eq!((over.status.as_u16(), over.body.len()), (204, 0));
    let wrong = http.clone().with("last-event-id", "x").get(&path).await.problem();
    assert_eq!((wrong.0, wrong.2.as_deref()), (400, Some("last-event-id")));
}

#[tokio::test]
async fn the_farms_events_tell_of_every_job_after_a_break() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let mut events = Events::of(&http, "/api/v1/events").await;
    let first = events.next().await.expect("the present state");
    assert!(first.data["workers"]["workers"].is_array(), "{first:?}");
    drop(events);
    let missed = submit(&http, "a red circle", 1).await;
    ended(&http, &missed).await;
    let resumed = http.clone().with("last-event-id", &first.id);
    let mut events = Events::of(&resumed, "/api/v1/events").await;
    loop {
        let event = events.next().await.expect("it does not end");
        assert_eq!(event.data["reset"], false);
        let jobs = event.data["jobs"].as_array().expect("jobs");
        if jobs.iter().any(|job| job["id"] == *missed && job["state"] == "done") {
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_a_problem_when_its_key_is_revoked() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, owner, _) = kept(folder.path());
    let made = serde_json::json!({"tenant": "studio", "scopes": ["read"]});
    let made = owner.post("/api/v1/keys", &made).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let reader = Http::new(&farm.address).with_key(made["secret"].as_str().expect("a key"));
    let mut events = Events::of(&reader, "/api/v1/events").await;
    let first = events.next().await.expect("the present state");
    assert_eq!(first.data.get("workers"), None, "workers are an operator's business");
    let id = made["key"]["id"].as_str().expect("an id");
    assert_eq!(owner.send("DELETE", &format!("/api/v1/keys/{id}"), "").await.status, 200);
    let mut last = first;
    while let Some(event) = events.next().await {
        last = event;
    }
    assert_eq!((last.name.as_str(), &last.data["reason"]), ("problem", &"UNKNOWN_KEY".into()));
}

/// Bytes of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

#[tokio::test]
async fn watchers_that_never_read_hold_up_nobody_and_take_no_memory() {
    const WATCHERS: u64 = 30;
    let folder = tempfile::tempdir().expect("folder");
    let (farm, http) = open(folder.path());
    let address: SocketAddr = farm.address.parse().expect("an address");
    // Long enough that what nobody reads does not fit into the system's buffers.
    let id = submit(&http, &"a red circle ".repeat(230), 5_000).await;
    let before = resident(farm.pid());
    let ask = |path: &str| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("one");
        // The rest must wait in the farm.
        socket.set_recv_buffer_size(4096).expect("small");
        socket.connect(&address.into()).expect("connected");
        (&socket)
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes())
            .expect("asked");
        socket
    };
    let of_job = format!("/api/v1/jobs/{id}/events?images=true");
    let resting: Vec<Socket> = (0..WATCHERS).map(|_| ask(&of_job)).collect();
    // This watcher reads all events, to measure what each of the others would be sent.
    let mut events = Events::of(&http, &of_job).await;
    let mut bytes = 0;
    while let Some(event) = events.next().await {
        bytes += event.data.to_string().len() as u64;
    }
    assert_eq!(ended(&http, &id).await["images_done"], 5_000);
    let grown = resident(farm.pid()).saturating_sub(before);
    assert!(bytes > 10 << 20, "{bytes} bytes of events are too few to tell");
    assert!(grown < 128 << 20, "the farm took {grown} bytes more, for {bytes} of events");
    let after = submit(&http, "a blue square", 1).await;
    ended(&http, &after).await;
    drop(resting);
}
