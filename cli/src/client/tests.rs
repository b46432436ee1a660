//! The client against a series of made-up answers, in paused time.

use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use darkroom_proto::status::to_status;
use darkroom_runtime::{peer::Address, tls::ClientSettings};
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tokio::time::Instant;
use tonic::body::Body;
use tower::{BoxError, service_fn, util::BoxCloneSyncService};

use super::*;

type Answer = std::result::Result<http::Response<Body>, BoxError>;

/// A client whose nth call, counted from 1, gets this answer.
fn client(answer: impl FnMut(u32, &http::Request<Body>) -> Answer + Send + 'static) -> Client {
    let state = Arc::new(Mutex::new((0, answer)));
    let caller = service_fn(move |request| {
        let mut state = state.lock().expect("no panic before");
        state.0 += 1;
        let number = state.0;
        std::future::ready((state.1)(number, &request))
    });
    let address = Address { host: "farm".to_owned(), port: 7878, tls: false };
    Client::over(Peers::over(vec![(address, BoxCloneSyncService::new(caller))]))
}

/// A part of a streamed answer.
#[derive(Clone)]
enum Part {
    Message(Vec<u8>),
    Compressed(Vec<u8>),
    Quiet(Duration),
    Broken,
    Status(tonic::Code),
}

/// An answer of these parts. Without a status at its end it is cut off there.
fn stream(parts: Vec<Part>) -> http::Response<Body> {
    let frames = futures::stream::iter(parts).then(async |part| {
        let data = |flag: u8, message: Vec<u8>| {
            let mut bytes = BytesMut::new();
            bytes.put_u8(flag);
            bytes.put_u32(u32::try_from(message.len()).expect("small"));
            bytes.put_slice(&message);
            Frame::data(bytes.freeze())
        };
        Ok::<_, BoxError>(match part {
            Part::Message(message) => data(0, message),
            Part::Compressed(message) => data(1, message),
            Part::Quiet(time) => {
                tokio::time::sleep(time).await;
                Frame::data(Bytes::new())
            }
            Part::Broken => return Err("connection reset".into()),
            Part::Status(code) => {
                let status = Status::new(code, "the end").into_http::<()>();
                Frame::trailers(status.headers().clone())
            }
        })
    });
    http::Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(frames)))
        .expect("an answer")
}

fn proxy(status: u16, headers: &[(&str, &str)]) -> http::Response<Body> {
    let answer = http::Response::builder().status(status).header("server", "nginx/1.22.1");
    let answer = headers.iter().fold(answer, |answer, (name, value)| answer.header(*name, *value));
    answer.body(Body::empty()).expect("an answer")
}

fn event(version: u64, end: bool) -> Part {
    let job = v1::Job { version, ..v1::Job::default() };
    Part::Message(
        v1::WatchEvent { job: Some(job), version, end, images: Vec::new() }.encode_to_vec(),
    )
}

fn farm_event(cursor: &str) -> Part {
    let event = v1::FarmEvent { cursor: cursor.to_owned(), ..v1::FarmEvent::default() };
    Part::Message(event.encode_to_vec())
}

fn refused() -> Answer {
    Err(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)))
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_address_without_a_port_is_refused() {
    for address in ["", "localhost", "::::", "http://localhost", "https://localhost"] {
        let error = Addresses::parse(address).expect_err(address);
        assert_eq!(error.field.as_deref(), Some("farm"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_farm_that_is_not_there_is_named_with_a_way_out() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    let addresses = Addresses::parse(&address).expect("an address");
    let error = Client::new(&addresses, &ClientSettings::default(), &Credentials::none())
        .expect("a client")
        .cascades()
        .await
        .expect_err("no farm");
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&address) && error.message.contains("darkroom up"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn after_an_hour_of_silence_a_watch_survives_a_restart() {
    let start = Instant::now();
    let client = client(move |number, _| match number {
        1 => Ok(stream(vec![event(1, false), Part::Quiet(60 * MINUTE), Part::Broken])),
        _ if start.elapsed() < 64 * MINUTE => refused(),
        _ => Ok(stream(vec![event(2, true), Part::Status(tonic::Code::Ok)])),
    });
    let mut watch = client.watch("job", 0, true);
    assert_eq!(watch.next().await.expect("fine").expect("an event").version, 1);
    assert_eq!(watch.next().await.expect("fine").expect("an event").version, 2);
    assert!(watch.next().await.expect("fine").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_given_up_five_minutes_after_its_farm_went() {
    let client = client(|number, _| match number {
        1 => Ok(stream(vec![event(1, false), Part::Quiet(60 * MINUTE), Part::Broken])),
        _ => refused(),
    });
    let mut watch = client.watch("job", 0, true);
    watch.next().await.expect("fine");
    let start = Instant::now();
    let error = watch.next().await.expect_err("nobody is there");
    let waited = start.elapsed().saturating_sub(60 * MINUTE);
    assert!(waited >= 5 * MINUTE && waited < 6 * MINUTE, "{waited:?}");
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, "FARM_UNREACHABLE"));
    assert!(error.message.contains("farm:7878"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_a_proxy_cuts_every_minute_goes_on_for_hours() {
    let client = client(|number, _| match number {
        1..100 => Ok(stream(vec![Part::Quiet(MINUTE)])),
        _ => Ok(stream(vec![event(7, true), Part::Status(tonic::Code::Ok)])),
    });
    let mut watch = client.watch("job", 6, true);
    assert_eq!(watch.next().await.expect("fine").expect("an event").version, 7);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_the_farm_that_is_cut_or_silent_goes_on_from_its_cursor() {
    let client = client(|number, _| match number {
        1 => Ok(stream(vec![farm_event("a")])),
        2 => Ok(proxy(502, &[])),
        3 => Ok(stream(vec![farm_event("b"), Part::Quiet(600 * MINUTE)])),
        4 => refused(),
        5 => Ok(stream(vec![farm_event("c"), Part::Status(tonic::Code::NotFound)])),
        _ => panic!("it is over"),
    });
    let start = Instant::now();
    let mut watch = client.watch_farm(v1::WatchFarmRequest::default());
    for cursor in ["a", "b", "c"] {
        assert_eq!(watch.next().await.expect("fine").cursor, cursor);
        assert_eq!(watch.request.cursor, cursor, "it would go on from here");
    }
    assert!(start.elapsed() < 5 * MINUTE, "{:?}", start.elapsed());
    assert_eq!(watch.next().await.expect_err("the farm says so").code, Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_a_proxy_cuts_goes_on_from_its_version() {
    let client = client(|number, _| match number {
        // Cut without a status, as by HAProxy.
        1 => Ok(stream(vec![event(1, false)])),
        2 => Ok(proxy(502, &[])),
        3 => Ok(stream(vec![event(2, false), Part::Broken])),
        4 => Ok(proxy(503, &[("retry-after", "5")])),
        5 => Ok(proxy(429, &[])),
        // Cut in the middle of a message.
        6 => Ok(stream(vec![event(3, false), Part::Status(tonic::Code::Unavailable)])),
        7 => Ok(proxy(504, &[])),
        8 => Ok(stream(Vec::new())),
        9 => Err("the connection broke".into()),
        10 => Ok(Status::unavailable("no healthy upstream").into_http()),
        _ => Ok(stream(vec![event(4, true), Part::Status(tonic::Code::Ok)])),
    });
    let mut watch = client.watch("job", 0, true);
    for version in 1..=4 {
        assert_eq!(watch.next().await.expect("fine").expect("an event").version, version);
    }
    assert!(watch.next().await.expect("fine").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_repeated_itself_and_falls_silent_is_resumed() {
    let client = client(|number, _| match number {
        1 => Ok(stream(vec![
            event(1, false),
            Part::Quiet(MINUTE / 3),
            event(1, false),
            Part::Quiet(600 * MINUTE),
        ])),
        _ => Ok(stream(vec![event(2, true), Part::Status(tonic::Code::Ok)])),
    });
    let start = Instant::now();
    let mut watch = client.watch("job", 0, true);
    watch.next().await.expect("fine");
    assert!(!watch.repeated());
    assert_eq!(watch.next().await.expect("fine").expect("an event").version, 1);
    assert!(watch.repeated(), "nothing changed");
    assert_eq!(watch.next().await.expect("fine").expect("an event").version, 2);
    assert!(!watch.repeated() && start.elapsed() < 3 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_proxys_refusal_is_told_at_once_and_named() {
    for (status, words) in [
        (401, "asks for a login"),
        (403, "forbids"),
        (404, "no farm behind"),
        (407, "asks for a login"),
        (413, "too large"),
        (301, "redirects"),
        (200, "web server"),
    ] {
        let client = client(move |number, _| {
            assert_eq!(number, 1, "a retry of {status} is useless");
            Ok(proxy(status, &[]))
        });
        let error = client.cascades().await.expect_err("refused");
        assert_eq!(
            (error.code, error.reason.as_str()),
            (Code::FailedPrecondition, "PROXY_ANSWERED")
        );
        for words in [words, "farm:7878 (nginx/1.22.1)", &status.to_string()] {
            assert!(error.message.contains(words), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_without_a_farm_is_asked_again_for_a_while() {
    let start = Instant::now();
    let error = client(|_, _| Ok(proxy(502, &[]))).cascades().await.expect_err("no farm");
    assert!(start.elapsed() >= PATIENCE && start.elapsed() < 2 * PATIENCE, "{:?}", start.elapsed());
    assert_eq!(error.code, Code::Unavailable);
    assert!(
        error.message.contains("farm:7878 (nginx/1.22.1)") && error.message.contains("502"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn other_grpc_servers_are_no_farm() {
    let answers = |status: Status| client(move |_, _| Ok(status.clone().into_http()));
    let error = answers(Status::unimplemented("")).cascades().await.expect_err("no farm");
    assert!(error.message.contains("farm:7878 speaks gRPC but does not know this call"), "{error}");
    let error =
        answers(Status::permission_denied("RBAC: access denied")).cascades().await.expect_err("no");
    assert!(
        error.message.contains("proxy at farm:7878") && error.message.contains("RBAC"),
        "{error}"
    );
    let large = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
    let error = answers(Status::out_of_range(large)).cascades().await.expect_err("too large");
    assert!(error.message.contains("SubmitJobStream"), "{error}");
}

#[tokio::test]
async fn compressed_answers_are_taken_and_requests_are_not_compressed() {
    let plain = v1::ListWorkersResponse {
        workers: vec![v1::Worker { id: "w".repeat(1000), ..v1::Worker::default() }],
    };
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, &plain.encode_to_vec()).expect("in memory");
        encoder.finish().expect("in memory")
    };
    let zstd = zstd::encode_all(plain.encode_to_vec().as_slice(), 1).expect("in memory");
    for (name, bytes) in [("gzip", gzip), ("zstd", zstd)] {
        let client = client(move |_, request| {
            let accepted = request.headers()["grpc-accept-encoding"].to_str().expect("text");
            assert!(accepted.contains(name), "{accepted}");
            assert!(!request.headers().contains_key("grpc-encoding"));
            let mut answer =
                stream(vec![Part::Compressed(bytes.clone()), Part::Status(tonic::Code::Ok)]);
            answer.headers_mut().insert("grpc-encoding", name.parse().expect("a value"));
            Ok(answer)
        });
        assert_eq!(client.workers().await.expect("workers"), plain.workers);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_whose_answer_was_lost_is_not_called_a_failure() {
    let job = |state: v1::JobState| {
        let job = v1::Job { id: "job".to_owned(), state: state.into(), ..v1::Job::default() };
        Ok(stream(vec![Part::Message(job.encode_to_vec()), Part::Status(tonic::Code::Ok)]))
    };
    let wrong = || {
        let error =
            UserError::new(Code::FailedPrecondition, "WRONG_JOB_STATE", "the job is active");
        Ok(darkroom_proto::status::to_status(&error).into_http())
    };
    let request = || v1::RetryJobRequest { id: "job".to_owned(), ..v1::RetryJobRequest::default() };
    let lost = client(move |number, _| match number {
        1 => job(v1::JobState::Failed),
        2 => Err("the connection broke".into()),
        3 => wrong(),
        _ => job(v1::JobState::Active),
    });
    assert_eq!(lost.retry(request()).await.expect("retried").state(), v1::JobState::Active);
    // An active job that was never retried is still refused.
    for first in [v1::JobState::Active, v1::JobState::Failed] {
        let refused = client(move |number, _| match number {
            1 => job(first),
            2 if first == v1::JobState::Active => Err("the connection broke".into()),
            _ => wrong(),
        });
        assert_eq!(refused.retry(request()).await.expect_err("active").reason, "WRONG_JOB_STATE");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_make_no_sense_end_in_a_sentence() {
    let grpc = |headers: &[(&str, &str)], parts: Vec<Part>| {
        let mut answer = stream(parts);
        for (name, value) in headers {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            answer
                .headers_mut()
                .append(http::HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
        }
        answer
    };
    let plain = |status: u16, kind: &str, body: &'static [u8]| {
        let answer = http::Response::builder().status(status).header("content-type", kind);
        answer
            .body(Body::new(http_body_util::Full::new(Bytes::from_static(body))))
            .expect("an answer")
    };
    let done = Part::Status(tonic::Code::Ok);
    let long: &'static str = "x".repeat(100_000).leak();
    type Make<'a> = Box<dyn Fn() -> http::Response<Body> + Send + Sync + 'a>;
    let cases: Vec<(&str, Make<'_>)> = vec![
        ("no status", Box::new(|| grpc(&[], vec![]))),
        ("status 99", Box::new(|| grpc(&[("grpc-status", "99")], vec![]))),
        ("status -1", Box::new(|| grpc(&[("grpc-status", "-1")], vec![]))),
        ("an empty status", Box::new(|| grpc(&[("grpc-status", "")], vec![]))),
        ("a status in words", Box::new(|| grpc(&[("grpc-status", "OK")], vec![]))),
        ("two statuses", Box::new(|| grpc(&[("grpc-status", "3"), ("grpc-status", "0")], vec![]))),
        ("well, and nothing", Box::new(|| grpc(&[("grpc-status", "0")], vec![]))),
        ("well, and nothing, at the end", Box::new(|| grpc(&[], vec![done.clone()]))),
        (
            "a long message",
            Box::new(|| grpc(&[("grpc-status", "3"), ("grpc-message", long)], vec![])),
        ),
        ("percents", Box::new(|| grpc(&[("grpc-status", "3"), ("grpc-message", "%zz%")], vec![]))),
        (
            "no UTF-8",
            Box::new(|| grpc(&[("grpc-status", "3"), ("grpc-message", "%ff%fe")], vec![])),
        ),
        (
            "a terminal's words",
            Box::new(|| {
                grpc(&[("grpc-status", "3"), ("grpc-message", "%1b[2J%0aerror: x")], vec![])
            }),
        ),
        (
            "details that are none",
            Box::new(|| grpc(&[("grpc-status", "3"), ("grpc-status-details-bin", "%%%")], vec![])),
        ),
        (
            "details of nothing",
            Box::new(|| grpc(&[("grpc-status", "3"), ("grpc-status-details-bin", "AAAA")], vec![])),
        ),
        (
            "bytes that are no message",
            Box::new(|| grpc(&[], vec![Part::Message(vec![0xff; 40]), done.clone()])),
        ),
        (
            "two messages",
            Box::new(|| {
                grpc(
                    &[],
                    vec![
                        Part::Message(vec![0x0a, 0x01, 0xff]),
                        Part::Message(vec![0xff]),
                        done.clone(),
                    ],
                )
            }),
        ),
        (
            "packed without a word",
            Box::new(|| grpc(&[], vec![Part::Compressed(vec![1, 2, 3]), done.clone()])),
        ),
        (
            "packed and broken",
            Box::new(|| {
                grpc(
                    &[("grpc-encoding", "gzip")],
                    vec![Part::Compressed(vec![1, 2, 3]), done.clone()],
                )
            }),
        ),
        (
            "packed by what nobody knows",
            Box::new(|| {
                grpc(
                    &[("grpc-encoding", "rot13")],
                    vec![Part::Compressed(vec![1, 2, 3]), done.clone()],
                )
            }),
        ),
        (
            "a message of 4 GiB",
            Box::new(|| plain(200, "application/grpc", &[0, 0xff, 0xff, 0xff, 0xff, 1])),
        ),
        ("a prefix cut short", Box::new(|| plain(200, "application/grpc", &[0, 0]))),
        ("gRPC-web", Box::new(|| plain(200, "application/grpc-web+proto", &[0, 0, 0, 0, 0]))),
        ("a page", Box::new(|| plain(200, "text/html", b"<html>"))),
        ("nothing at all", Box::new(|| plain(204, "", b""))),
        ("a status of no kind", Box::new(|| plain(599, "", b""))),
        ("a teapot", Box::new(|| plain(418, "text/plain", b"short and stout"))),
    ];
    for (what, make) in cases {
        let answers: Vec<http::Response<Body>> = (0..40).map(|_| make()).collect();
        let mut answers = answers.into_iter();
        let client =
            client(move |_, _| answers.next().ok_or_else(|| "it asks again and again".into()));
        let start = Instant::now();
        let said = client.cascades().await.expect_err(what).message;
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: {:?}", start.elapsed());
        let shown = darkroom_core::shown::shown(&said).into_owned();
        assert!(
            !said.is_empty() && shown.len() < 8_000 && !shown.contains(['\u{1b}', '\n']),
            "{what}: {shown}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_for_its_key_is_not_repeated_and_says_what_to_do() {
    for (code, reason, says) in [
        (Code::Unauthenticated, "NO_KEY", "run `darkroom login --farm farm:7878`"),
        (Code::PermissionDenied, "SCOPE", "a sentence"),
    ] {
        let client = client(move |number, _| {
            assert_eq!(number, 1, "once");
            Ok(to_status(&UserError::new(code, reason, "a sentence")).into_http())
        });
        let refused = client.cascades().await.expect_err("refused");
        assert_eq!((refused.code, refused.code.exit_code()), (code, 3));
        assert!(refused.message.contains(says), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_not_made_again_when_the_answer_is_lost() {
    for answer in [|| Err("the connection broke".into()), || Ok(proxy(504, &[]))] {
        let answer: fn() -> Answer = answer;
        let client = client(move |number, _| {
            assert_eq!(number, 1, "once");
            answer()
        });
        let lost = client.create_key(v1::CreateKeyRequest::default()).await.expect_err("lost");
        assert!(lost.message.contains("the key may have been made: `darkroom key list`"), "{lost}");
    }
}
