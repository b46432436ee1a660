//! Sends a running farm what none of our clients would send. It must survive, answer other clients,
//! stay small and idle, and report no internal error. Each input is bounded in time.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use darkroom_proto::v1::{self, farm_client::FarmClient, submit_job_chunk::Part};
use darkroom_test_servers::http2::{self, END_HEADERS, END_STREAM};
use darkroom_tests::{
    farm::{Farm, Renderer},
    processes::health,
};
use prost_types::Timestamp;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::health_check_response::ServingStatus;

const GET_FARM: &str = "/darkroom.v1.Farm/GetFarm";
const SUBMIT: &str = "/darkroom.v1.Farm/SubmitJob";
/// Longest time that this test reads an answer.
const LISTEN: Duration = Duration::from_secs(5);

fn port(farm: &Farm) -> u16 {
    farm.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// The farm's usage from /proc: peak memory in MiB, and processor time in hundredths of a second.
fn state(farm: &Farm) -> (u64, u64) {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{}/{name}", farm.pid())).expect("the farm lives")
    };
    let status = read("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10;
    let stat = read("stat");
    let fields = stat.rsplit(") ").next().expect("fields").split_whitespace().skip(11).take(2);
    (peak, fields.map(|ticks| ticks.parse::<u64>().expect("a number")).sum())
}

/// Sends bytes and reads at the same time, until the peer ends, refuses or stays silent.
fn send(farm: &Farm, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&farm.address).expect("connect");
    let mut writing = stream.try_clone().expect("a second handle");
    let bytes = bytes.to_vec();
    writing.set_write_timeout(Some(LISTEN)).expect("set");
    let writer = std::thread::spawn(move || writing.write_all(&bytes));
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    let (mut answer, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    let (begun, mut quiet) = (Instant::now(), 0);
    while begun.elapsed() < LISTEN && quiet < 3 {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                answer.extend_from_slice(&piece[..read]);
                quiet = 0;
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {
                quiet += u32::from(writer.is_finished());
            }
            Err(_) => break,
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = writer.join().expect("no panic");
    answer
}

/// Checks that the farm is as healthy after an input as before.
fn is_well(farm: &Farm, what: &str) {
    assert_eq!(
        health(port(farm), "darkroom.v1.Farm"),
        Some(ServingStatus::Serving),
        "after {what}"
    );
    let log = farm.log();
    for word in ["panicked", "call failed", " ERROR "] {
        assert!(!log.contains(word), "{word:?} after {what}: {log}");
    }
}

/// A call in raw frames, with these headers and this body.
fn call(fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers = http2::headers(1, 0, fields);
    [http2::PREFACE, &headers, &http2::frame(http2::DATA, END_STREAM, 1, body)].concat()
}

fn message(flag: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[flag], &length.to_be_bytes()[..], bytes].concat()
}

/// Whether a call was ended: by trailers or headers with the flag, a reset, or a goodbye.
fn ended(answer: &[u8]) -> bool {
    http2::frames(answer).iter().any(|(kind, flags, _)| {
        // What is not of gRPC's type is answered as HTTP, whose last frame may be of data.
        ([http2::HEADERS, http2::DATA].contains(kind) && flags & END_STREAM != 0)
            || [http2::RST_STREAM, http2::GOAWAY].contains(kind)
    })
}

#[test]
fn connections_of_nonsense_are_ended_and_cost_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let after = |frames: Vec<u8>| [http2::PREFACE, &frames].concat();
    let open = || http2::headers(1, 0, &http2::call(GET_FARM));
    let ping = http2::frame(http2::PING, 0, 0, &[7; 8]);
    let headers_without_end =
        http2::frame(http2::HEADERS, 0, 1, &http2::block(&http2::call(GET_FARM)));
    let settings = |id: u16, value: u32| {
        let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        http2::frame(http2::SETTINGS, 0, 0, &payload)
    };
    let window =
        |stream: u32, add: u32| http2::frame(http2::WINDOW_UPDATE, 0, stream, &add.to_be_bytes());
    let begun = |length: u32| [&length.to_be_bytes()[1..], &[0, 0, 0, 0, 0, 1]].concat();
    let http1 = |text: &str| text.replace('\n', "\r\n").into_bytes();
    let inputs: Vec<(&str, Vec<u8>)> = vec![
        ("zeros", vec![0; 64 << 10]),
        ("every byte", (0..=255).cycle().take(64 << 10).collect()),
        ("a greeting of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50)),
        ("SOCKS", b"\x05\x01\x00".to_vec()),
        ("the PROXY protocol", [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", http2::PREFACE].concat()),
        ("a preface in lower case", http2::PREFACE.to_ascii_lowercase()),
        ("HTTP/0.9", b"GET /\r\n".to_vec()),
        (
            "an upgrade to h2c",
            http1(
                "GET / HTTP/1.1\nHost: x\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n",
            ),
        ),
        (
            "a body of ten terabytes",
            http1("POST / HTTP/1.1\nHost: x\nContent-Length: 10995116277760\n\n"),
        ),
        (
            "a body of two lengths",
            http1("POST / HTTP/1.1\nHost: x\nContent-Length: 1\nContent-Length: 2\n\nab"),
        ),
        (
            "chunks without end",
            [
                http1("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n"),
                http1("1\nx\n").repeat(10_000),
            ]
            .concat(),
        ),
        ("200,000 pings", after(ping.repeat(200_000))),
        ("100,000 settings", after(http2::frame(http2::SETTINGS, 0, 0, &[]).repeat(100_000))),
        (
            "acknowledgements of settings that were not sent",
            after(http2::frame(http2::SETTINGS, 1, 0, &[]).repeat(10_000)),
        ),
        ("settings of five bytes", after(http2::frame(http2::SETTINGS, 0, 0, &[0; 5]))),
        ("frames of no bytes", after(settings(5, 0))),
        ("a window of 2^32-1", after(settings(4, u32::MAX))),
        ("a table of 4 GiB", after([settings(1, u32::MAX), open()].concat())),
        (
            "a window that overflows",
            after([open(), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)].concat()),
        ),
        ("a window that grows by nothing", after([open(), window(1, 0)].concat())),
        ("the connection's window overflows", after(window(0, 0x7fff_ffff).repeat(2))),
        (
            "100,000 empty frames of data",
            after([open(), http2::frame(http2::DATA, 0, 1, &[]).repeat(100_000)].concat()),
        ),
        ("data before headers", after(http2::frame(http2::DATA, 0, 1, &[0; 100]))),
        (
            "data after the end",
            after(
                [
                    http2::headers(1, END_STREAM, &http2::call(GET_FARM)),
                    http2::frame(http2::DATA, END_STREAM, 1, &[0; 5]),
                ]
                .concat(),
            ),
        ),
        ("headers on stream 0", after(http2::headers(0, 0, &http2::call(GET_FARM)))),
        ("headers on an even stream", after(http2::headers(2, 0, &http2::call(GET_FARM)))),
        (
            "streams that go backwards",
            after(
                [
                    http2::headers(9, 0, &http2::call(GET_FARM)),
                    http2::headers(3, 0, &http2::call(GET_FARM)),
                ]
                .concat(),
            ),
        ),
        (
            "headers that never end",
            after(
                [
                    headers_without_end.clone(),
                    http2::frame(http2::CONTINUATION, 0, 1, &[]).repeat(100_000),
                ]
                .concat(),
            ),
        ),
        ("headers with a ping between", after([headers_without_end, ping].concat())),
        (
            "a continuation of nothing",
            after(http2::frame(http2::CONTINUATION, END_HEADERS, 1, &[0x82])),
        ),
        ("a promise of a client", after(http2::frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]))),
        (
            "100,000 frames of an unknown kind",
            after(http2::frame(0xfa, 0xff, 77, &[1, 2, 3]).repeat(100_000)),
        ),
        ("100,000 priorities", after(http2::frame(2, 0, 101, &[0, 0, 0, 1, 200]).repeat(100_000))),
        ("a stream that depends on itself", after(http2::frame(2, 0, 101, &[0, 0, 0, 101, 200]))),
        ("a frame of 16 MiB", after(begun(0xff_ffff))),
        (
            "a reset of an unknown stream",
            after(http2::frame(http2::RST_STREAM, 0, 7, &[0, 0, 0, 8])),
        ),
        (
            "a goodbye and then a call",
            after([http2::frame(http2::GOAWAY, 0, 0, &[0; 8]), open()].concat()),
        ),
        ("headers of index 0", after(http2::headers_of(1, 0, &[0x80]))),
        (
            "headers of an unknown index",
            after(http2::headers_of(1, 0, &[0xff, 0xff, 0xff, 0xff, 0x0f])),
        ),
        (
            "a table's size of 4 GiB in the headers",
            after(http2::headers_of(1, 0, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 0x0f, 0x82])),
        ),
        (
            "a text that is longer than its headers",
            after(http2::headers_of(1, 0, &[0x00, 0x7f, 0xff, 0xff, 0x7f])),
        ),
        (
            "invalid Huffman codes",
            after(http2::headers_of(1, 0, &[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00])),
        ),
        (
            "padding longer than its frame",
            after([open(), http2::frame(http2::DATA, 8, 1, &[200, 0, 0])].concat()),
        ),
    ];
    let before = state(&farm).0;
    for (what, bytes) in &inputs {
        let _ = send(&farm, bytes);
        is_well(&farm, what);
    }
    let (peak, used) = state(&farm);
    assert!(peak - before < 100, "it grew by {} MiB", peak - before);
    std::thread::sleep(Duration::from_secs(1));
    let still = state(&farm).1 - used;
    assert!(still < 50, "it is still busy with them: {still} hundredths of a second in one");
}

#[test]
fn calls_of_nonsense_are_refused_and_end() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let empty = message(0, 0, &[]);
    let with = |more: &[(&'static str, &'static str)]| [&http2::call(GET_FARM)[..], more].concat();
    let instead = |name: &str, value: &'static str| -> Vec<(&str, &str)> {
        let replaced =
            |(key, old): (&'static str, &'static str)| (key, if key == name { value } else { old });
        http2::call(GET_FARM).into_iter().map(replaced).collect()
    };
    let without = |name: &str| -> Vec<(&str, &str)> {
        http2::call(GET_FARM).into_iter().filter(|(key, _)| *key != name).collect()
    };
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("packs")
    };
    let packed = gzip(&[0x0a; 300]);
    let compressed =
        |name: &'static str| [&http2::call(SUBMIT)[..], &[("grpc-encoding", name)]].concat();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short");
    let half = &packed[..packed.len() / 2];
    let long: &'static str = "/darkroom.v1.Farm/".repeat(300).leak();
    type Call<'a> = (&'a str, Vec<(&'a str, &'a str)>, Vec<u8>);
    let inputs: Vec<Call<'_>> = vec![
        ("no message at all", http2::call(SUBMIT), Vec::new()),
        ("a prefix cut short", http2::call(SUBMIT), vec![0, 0, 0]),
        ("a message cut short", http2::call(SUBMIT), message(0, 100, &[0x0a; 50])),
        ("a message of 4 GiB", http2::call(SUBMIT), message(0, u32::MAX, &[0x0a; 50])),
        ("two messages", http2::call(SUBMIT), message(0, 0, &[]).repeat(2)),
        ("ten thousand messages", http2::call(SUBMIT), message(0, 0, &[]).repeat(10_000)),
        ("an invalid flag", http2::call(SUBMIT), message(7, 2, &[8, 1])),
        ("of an unnamed encoding", http2::call(SUBMIT), message(1, length(&packed), &packed)),
        ("of an unknown encoding", compressed("br"), message(1, length(&packed), &packed)),
        ("not compressed, but marked as gzip", compressed("gzip"), message(1, 4, &[1, 2, 3, 4])),
        ("half of a gzip body", compressed("gzip"), message(1, length(half), half)),
        ("not compressed, but marked as zstd", compressed("zstd"), message(1, 4, &[1, 2, 3, 4])),
        ("an empty zstd body", compressed("zstd"), message(1, 0, &[])),
        ("packed twice over", compressed("gzip, gzip"), message(1, length(&packed), &packed)),
        ("a time of 10^8 hours", with(&[("grpc-timeout", "99999999H")]), empty.clone()),
        ("an empty timeout", with(&[("grpc-timeout", "0n")]), empty.clone()),
        ("a time below nothing", with(&[("grpc-timeout", "-1S")]), empty.clone()),
        ("a timeout without a unit", with(&[("grpc-timeout", "10")]), empty.clone()),
        ("a timeout of an unknown unit", with(&[("grpc-timeout", "1\u{e9}")]), empty.clone()),
        ("twice a time", with(&[("grpc-timeout", "1S"), ("grpc-timeout", "2H")]), empty.clone()),
        ("a text for a type", instead("content-type", "text/plain"), empty.clone()),
        ("gRPC-web", instead("content-type", "application/grpc-web"), empty.clone()),
        ("JSON", instead("content-type", "application/grpc+json"), b"\0\0\0\0\x02{}".to_vec()),
        ("no type", without("content-type"), empty.clone()),
        ("GET", instead(":method", "GET"), empty.clone()),
        ("CONNECT", instead(":method", "CONNECT"), empty.clone()),
        ("no path", without(":path"), empty.clone()),
        ("no method", without(":method"), empty.clone()),
        ("two paths", with(&[(":path", "/")]), empty.clone()),
        ("a path of nothing", instead(":path", "/"), empty.clone()),
        ("an empty path", instead(":path", ""), empty.clone()),
        (
            "a path of an unknown service",
            instead(":path", "/darkroom.v9.Farm/GetFarm"),
            empty.clone(),
        ),
        ("a path of an unknown method", instead(":path", "/darkroom.v1.Farm/Nope"), empty.clone()),
        ("a path upwards", instead(":path", "/darkroom.v1.Farm/../../etc/passwd"), empty.clone()),
        ("a path with a NUL", instead(":path", "/darkroom.v1.Farm/Get\0Farm"), empty.clone()),
        ("a long path", instead(":path", long), empty.clone()),
        ("a name in capitals", with(&[("X-Large", "1")]), empty.clone()),
        ("a name of nothing", with(&[("", "1")]), empty.clone()),
        (
            "headers of HTTP/1",
            with(&[("connection", "close"), ("transfer-encoding", "chunked")]),
            empty.clone(),
        ),
        ("a body of another length", with(&[("content-length", "999999")]), empty.clone()),
        ("bytes that are not base64", with(&[("x-data-bin", "%%%")]), empty.clone()),
        (
            "an invalid trace",
            with(&[("traceparent", "00-zz-zz-zz"), ("tracestate", "=,=,=")]),
            empty.clone(),
        ),
        (
            "a trace with terminal's words",
            with(&[("traceparent", "\u{1b}[2J"), ("user-agent", "\u{1b}[31m")]),
            empty.clone(),
        ),
        ("a login", with(&[("authorization", "Basic c2VjcmV0")]), empty),
    ];
    for (what, fields, body) in &inputs {
        let answer = send(&farm, &call(fields, body));
        assert!(
            ended(&answer) || answer.is_empty(),
            "{what} has no end: {:?}",
            http2::frames(&answer)
        );
        is_well(&farm, what);
    }
    assert!(!farm.log().contains('\u{1b}') && !farm.log().contains("c2VjcmV0"), "{}", farm.log());
}

/// Refused because of its content, not because of an internal error.
fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    let status = answer.expect_err(what);
    let expected = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::OutOfRange,
        Code::ResourceExhausted,
    ];
    assert!(expected.contains(&status.code()), "{what}: {status:?}");
    assert!(!status.message().is_empty() && status.message().len() < 4000, "{what}: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_ends_of_every_range_are_refused_or_answered() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let mut client: FarmClient<Channel> =
        FarmClient::connect(format!("http://{}", farm.address)).await.expect("connects");
    let prompt = |text: &str| v1::Prompt { text: text.to_owned(), ..Default::default() };
    let request =
        v1::SubmitJobRequest { spec: Some(v1::JobSpec::default()), prompts: vec![prompt("a")] };
    let job = client
        .submit_job(request.clone())
        .await
        .expect("accepted")
        .into_inner()
        .job
        .expect("a job")
        .id;

    // Pages.
    let pages = |page_size: u32, page_token: &str| v1::ListImagesRequest {
        job_id: job.clone(),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    refused("a page of 2^32-1", client.list_images(pages(u32::MAX, "")).await);
    for token in
        ["v", "v1", "v1.", "v.1", "-1", "18446744073709551616", "v9.9.9", "0x10", "١٢", " 1", "1e3"]
    {
        refused(token, client.list_images(pages(10, token)).await);
    }
    client.list_images(pages(10, "18446744073709551615")).await.map_or_else(
        |status| assert_eq!(status.code(), Code::InvalidArgument, "{status:?}"),
        |page| assert!(page.into_inner().images.is_empty()),
    );
    let long = "9".repeat(1 << 20);
    refused("a token of a megabyte", client.list_images(pages(10, &long)).await);
    let unknown = v1::ListImagesRequest { states: vec![-1, 99, i32::MAX], ..pages(10, "") };
    refused("invalid states", client.list_images(unknown).await);

    // Pictures.
    for index in [1, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
        let fetch = v1::FetchImageRequest { job_id: job.clone(), index, ..Default::default() };
        refused("an unknown image", client.fetch_image(fetch).await);
    }
    for link_seconds in [86_401, u32::MAX] {
        let sign = v1::SignImageRequest { job_id: job.clone(), link_seconds, ..Default::default() };
        refused("a link for ever", client.sign_image(sign).await);
    }

    // Watches.
    for version in [u64::MAX, i64::MAX as u64 + 1] {
        let watch =
            v1::WatchJobRequest { id: job.clone(), after_version: version, ..Default::default() };
        match client.watch_job(watch).await {
            Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status:?}"),
            Ok(events) => drop(events),
        }
    }

    // Deadlines and numbers of a job.
    let times = [
        (i64::MAX, 0),
        (i64::MIN, 0),
        (253_402_300_800, 0),
        (4_000_000_000, -1),
        (4_000_000_000, i32::MAX),
    ];
    for (seconds, nanos) in times {
        let deadline = Some(Timestamp { seconds, nanos });
        let spec = v1::JobSpec { deadline, ..Default::default() };
        let submit = v1::SubmitJobRequest { spec: Some(spec), ..request.clone() };
        refused("an invalid time", client.submit_job(submit).await);
        let retry = v1::RetryJobRequest { id: job.clone(), deadline, ..Default::default() };
        refused("a retry until an invalid time", client.retry_job(retry).await);
    }
    let stage = |change: &dyn Fn(&mut v1::StageSettings)| {
        let mut stage = v1::StageSettings { stage: "base".to_owned(), ..Default::default() };
        change(&mut stage);
        let settings = Some(v1::Settings { stages: vec![stage], ..Default::default() });
        let spec = Some(v1::JobSpec { settings, ..Default::default() });
        v1::SubmitJobRequest { spec, ..request.clone() }
    };
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e308, 5e-324] {
        let guided = stage(&|stage| stage.guidance_scale = Some(number));
        refused("an invalid guidance scale", client.submit_job(guided).await);
    }
    refused("steps", client.submit_job(stage(&|stage| stage.steps = Some(u32::MAX))).await);
    refused("steps", client.submit_job(stage(&|stage| stage.steps = Some(0))).await);
    refused(
        "a cache",
        client.submit_job(stage(&|stage| stage.cache_interval = Some(u32::MAX))).await,
    );
    refused(
        "timesteps",
        client.submit_job(stage(&|stage| stage.timesteps = vec![u32::MAX; 1999])).await,
    );
    let copies = v1::Prompt { images: u32::MAX, ..prompt("a") };
    let many = v1::SubmitJobRequest { prompts: vec![copies; 1000], ..request.clone() };
    refused("four million million images", client.submit_job(many).await);

    // Streams in another order.
    let chunk = |part: Option<Part>| v1::SubmitJobChunk { part };
    let spec = || chunk(Some(Part::Spec(v1::JobSpec::default())));
    let prompts = || chunk(Some(Part::Prompts(v1::PromptChunk { prompts: vec![prompt("a")] })));
    let none = || chunk(Some(Part::Prompts(v1::PromptChunk::default())));
    for (what, chunks) in [
        ("nothing", vec![]),
        ("a part of nothing", vec![chunk(None)]),
        ("prompts alone", vec![prompts()]),
        ("a spec alone", vec![spec()]),
        ("a spec and no prompts", vec![spec(), none()]),
        ("two specs", vec![spec(), spec(), prompts()]),
        ("a spec afterwards", vec![prompts(), spec()]),
        ("an empty part in between", vec![spec(), prompts(), chunk(None)]),
    ] {
        refused(what, client.submit_job_stream(tokio_stream::iter(chunks.clone())).await);
        refused(what, client.forecast_job(tokio_stream::iter(chunks)).await);
    }
    let upload = |chunks: Vec<Vec<u8>>| {
        let chunks = chunks.into_iter().map(|data| v1::UploadInputChunk { data });
        tokio_stream::iter(chunks.collect::<Vec<_>>())
    };
    refused("an empty upload", client.upload_input(upload(vec![])).await);
    // A client that keeps sending after the refusal may find the connection closed before it reads
    // the refusal.
    let flood = client.upload_input(upload(vec![vec![]; 100_000])).await.expect_err("refused");
    let codes = [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted];
    let is_cut = flood.code() == Code::Unknown && flood.message() == "transport error";
    assert!(codes.contains(&flood.code()) || is_cut, "{flood:?}");
    refused("of zeros", client.upload_input(upload(vec![vec![0; 1000]])).await);

    // Ids.
    for id in
        ["", "x", "../..", "00000000-0000-0000-0000-000000000000", "\u{202e}", &"f".repeat(100_000)]
    {
        let cancel = v1::CancelJobRequest { id: id.to_owned() };
        refused("an unknown job id", client.cancel_job(cancel).await);
        let manifest = v1::FetchManifestRequest { job_id: id.to_owned(), offset: u64::MAX };
        refused("an unknown job id", client.fetch_manifest(manifest).await);
    }
    tokio::task::block_in_place(|| is_well(&farm, "requests"));
    let jobs =
        client.list_jobs(v1::ListJobsRequest::default()).await.expect("listed").into_inner().jobs;
    assert_eq!(jobs.len(), 1, "nothing of it became a job");
}
