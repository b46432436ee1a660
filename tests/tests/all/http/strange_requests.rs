//! Requests that no good client sends: they are refused in one sentence, and cost little.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use darkroom_tests::http::Http;
use serde_json::json;

use super::{open, submit};

#[tokio::test]
async fn what_the_farm_does_not_have_or_take_is_said_in_one_sentence() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    for (method, path, status, reason) in [
        ("GET", "/api/v1/nothing", 404, "NO_SUCH_ROUTE"),
        ("GET", "/api/", 404, "NO_SUCH_ROUTE"),
        ("GET", "/api/v1/jobs/", 404, "NO_SUCH_ROUTE"),
        ("GET", "/assets/nothing.js", 404, "NO_SUCH_ROUTE"),
        ("POST", "/", 404, "NO_SUCH_ROUTE"),
        ("PUT", "/api/v1/jobs", 405, "METHOD"),
        ("GET", "/api/v1/drains", 405, "METHOD"),
        ("GET", "/api/v1/jobs?size=3", 400, "INVALID_QUERY"),
        ("GET", "/api/v1/jobs?page_size=x", 400, "INVALID_QUERY"),
        ("GET", "/api/v1/jobs/%FF", 400, "INVALID_PATH"),
        ("POST", "/api/v1/jobs", 415, "MEDIA_TYPE"),
        ("PUT", "/api/v1/jobs/x/pause?id=y", 400, "INVALID_QUERY"),
    ] {
        let (told, why, _, detail) = http.send(method, path, "").await.problem();
        assert_eq!((told, why.as_str()), (status, reason), "{method} {path}: {detail}");
        assert!(detail.len() > 20, "{detail}");
    }
    let id = submit(&http, "a red circle", 1).await;
    let path = format!("/api/v1/jobs/{id}/image-retries");
    let twice = json!({"job_id": "other", "filter": {"states": ["dead"]}});
    let twice = http.post(&path, &twice).await.problem();
    assert_eq!((twice.0, twice.2.as_deref()), (400, Some("job_id")));
    let index = http.get(&format!("/api/v1/jobs/{id}/images/-1")).await.problem();
    assert_eq!((index.0, index.2.as_deref()), (400, Some("index")));
    for (body, field) in
        [("{", None), ("[]", None), ("{\"spec\": 1}", Some("spec")), ("{\"x\": 1}", Some("x"))]
    {
        let json = http.clone().with("content-type", "application/json");
        let (status, reason, told, _) = json.send("POST", "/api/v1/jobs", body).await.problem();
        assert_eq!((status, reason.as_str()), (400, "INVALID_JSON"), "{body}");
        assert_eq!(told.as_deref(), field, "{body}");
    }
    // Nested without end, as a whole and where something is expected.
    for body in [
        "[".repeat(100_000),
        "{\"spec\":".repeat(100_000),
        format!("{{\"prompts\": {}", "[".repeat(100_000)),
        format!("{{\"spec\": {{\"labels\": {}", "{\"a\":".repeat(100_000)),
    ] {
        let json = http.clone().with("content-type", "application/json");
        let refused = json.send("POST", "/api/v1/jobs", body).await.problem();
        assert_eq!((refused.0, refused.1.as_str()), (400, "INVALID_JSON"), "{}", refused.3);
    }
    let other = http.clone().with("host", "evil.example").get("/").await.problem();
    assert_eq!((other.0, other.1.as_str()), (421, "HOST"));
}

/// If the rest was not read, the system would reset the connection, and the client would not see why.
#[tokio::test]
async fn whoever_sends_a_large_body_to_the_end_reads_why_it_is_refused() {
    const BYTES: usize = 20 << 20;
    let folder = tempfile::tempdir().expect("folder");
    let (farm, _) = open(folder.path());
    let address = farm.address.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(&address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        let head = format!(
            "POST /api/v1/inputs HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/plain\r\n\
             content-length: {BYTES}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("asks");
        for _ in 0..BYTES >> 20 {
            stream.write_all(&[0; 1 << 20]).expect("it is read");
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered, and closed");
        answer.to_lowercase()
    });
    let answer = answer.await.expect("ends");
    assert!(answer.starts_with("http/1.1 415"), "{answer}");
    assert!(answer.contains("connection: close") && answer.contains("media_type"), "{answer}");
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_before_it_is_there() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, _) = open(folder.path());
    for (path, media) in [("jobs", "application/json"), ("inputs", "image/png")] {
        let mut stream = TcpStream::connect(&farm.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let length = 100 << 20;
        stream.write_all(head(path, media, length).as_bytes()).expect("sends");
        let part = vec![b' '; 64 << 10];
        let mut sent = 0_usize;
        // The farm stops reading and closes, so the rest cannot be sent.
        while sent < length && stream.write_all(&part).is_ok() {
            sent += part.len();
        }
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut piece) {
            answer.extend_from_slice(&piece[..read]);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
        assert!(answer.contains("BODY_TOO_LARGE"), "{path}: {answer}");
        assert!(sent < length, "{path}: all of it was taken");
    }
}

/// The beginning of a request to the API, without its body.
fn head(path: &str, media: &str, length: usize) -> String {
    format!(
        "POST /api/v1/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_body_that_rests_or_trickles_ends_in_time_and_keeps_nobody_out() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, http) = open(folder.path());
    let begin = |path: &str, media: &str| {
        let mut slow = TcpStream::connect(&farm.address).expect("connects");
        slow.set_read_timeout(Some(Duration::from_secs(90))).expect("a limit");
        slow.write_all(head(path, media, 1000).as_bytes()).expect("sends");
        slow.write_all(b"{").expect("sends");
        slow
    };
    let began = Instant::now();
    let rests = begin("jobs", "application/json");
    let picture = begin("inputs", "image/png");
    let trickles = begin("jobs", "application/json");
    let drops = trickles.try_clone().expect("a second handle");
    // Far below the pause that ends it, and long enough to outlast every limit.
    std::thread::spawn(move || {
        let mut drops = drops;
        while began.elapsed() < Duration::from_secs(90) && drops.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    submit(&http, "a red circle", 1).await;
    for (mut slow, status, within, said) in [
        (rests, 408, 50, "the request was not sent to its end in time"),
        (picture, 408, 50, "send it again"),
        (trickles, 504, 80, "did not finish within 60.0 s"),
    ] {
        let mut answer = String::new();
        let _ = slow.read_to_string(&mut answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(said), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(within), "{answer}");
    }
}

#[tokio::test]
async fn http2_without_grpc_is_served_too_and_grpc_over_http1_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, http) = open(folder.path());
    let second = Http::over_http2(&farm.address);
    assert_eq!(second.get("/api/v1/farm").await.json()["version"], env!("CARGO_PKG_VERSION"));
    let grpc = http.clone().with("content-type", "application/grpc");
    let refused = grpc.send("POST", "/darkroom.v1.Farm/GetFarm", "").await;
    assert_eq!(refused.status, 426, "{refused:?}");
    // Without the type of gRPC it is a route that the farm does not have.
    let none = http.send("POST", "/darkroom.v1.Farm/GetFarm", "").await.problem();
    assert_eq!(none.0, 404);
}
