//! A server under attack: one client must not take it away from the others. The tests check counts
//! and refusals, never times.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use darkroom_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        EncodeRequest, EncodeResponse,
        encoder_client::EncoderClient,
        encoder_server::{Encoder, EncoderServer},
    },
};
use darkroom_runtime::{
    server::{self, Options},
    tls::Privacy,
};
use darkroom_test_servers::http2;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status,
    codec::CompressionEncoding,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

const MIB: usize = 1 << 20;
/// Most time that anything here may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Path of the only call.
const ENCODE: &str = "/darkroom.v1.Encoder/Encode";

/// A service whose calls last until they are released.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    /// Sizes of all requests that arrived.
    sizes: Arc<Mutex<Vec<usize>>>,
}

#[tonic::async_trait]
impl Encoder for Gate {
    async fn encode(
        &self,
        request: Request<EncodeRequest>,
    ) -> Result<Response<EncodeResponse>, Status> {
        let bytes: usize = request.into_inner().texts.iter().map(String::len).sum();
        self.sizes.lock().map_err(|_| Status::internal("poisoned"))?.push(bytes);
        self.inside.fetch_add(1, Ordering::SeqCst);
        let leaving = Leaving(Arc::clone(&self.inside));
        drop(self.open.acquire().await.map_err(|_| Status::internal("closed"))?);
        drop(leaving);
        Ok(Response::new(EncodeResponse {
            encoder_digest: bytes.to_string(),
            ..Default::default()
        }))
    }
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Server {
    address: SocketAddr,
    gate: Gate,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), server::Error>>,
}

impl Server {
    /// A server whose calls wait (`open` is 0) or not (`open` is large).
    async fn start(open: usize, change: impl FnOnce(&mut Options)) -> Self {
        let gate = Gate {
            open: Arc::new(Semaphore::new(open)),
            inside: Arc::default(),
            sizes: Arc::default(),
        };
        let service = EncoderServer::new(gate.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip);
        let listener = server::listen(&"127.0.0.1:0".parse().expect("address"), &Privacy::Loopback)
            .await
            .expect("listen");
        let address = listener.address();
        let mut options = Options::new(FILE_DESCRIPTOR_SET, &["darkroom.v1.Encoder"]);
        options.drain = Duration::from_millis(100);
        change(&mut options);
        let stop = CancellationToken::new();
        let (_, serving) = server::serve(listener, Routes::new(service), options, stop.clone())
            .await
            .expect("serve");
        Self { address, gate, stop, serving: tokio::spawn(serving) }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address))
            .expect("address")
            .connect()
            .await
            .expect("connect")
    }

    async fn client(&self) -> EncoderClient<Channel> {
        EncoderClient::new(self.channel().await)
    }

    async fn is_healthy(&self) {
        let mut client = HealthClient::new(self.channel().await);
        client.check(HealthCheckRequest::default()).await.expect("a new health check is answered");
    }

    /// Waits until this many calls are with the service.
    async fn inside(&self, wanted: usize) {
        eventually(|| self.gate.inside.load(Ordering::SeqCst) == wanted).await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.expect("joined").expect("ended well");
    }
}

async fn eventually(is_true: impl Fn() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it becomes true");
}

fn text(bytes: usize) -> EncodeRequest {
    EncodeRequest { texts: vec!["x".repeat(bytes)], ..Default::default() }
}

/// Whether the server has closed the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("it is closed")
        {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_give_way_to_new_ones() {
    let server = Server::start(1, |options| options.connections = 20).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(server.address).await.expect("connect"));
    }
    for _ in 0..30 {
        server.is_healthy().await;
    }
    for stream in idle.iter_mut().take(80) {
        assert!(is_closed(stream).await);
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_and_one_that_does_nothing_are_closed() {
    let brief = |options: &mut Options| {
        options.handshake = Duration::from_millis(50);
        options.idle = Duration::from_millis(50);
    };
    let server = Server::start(1, brief).await;
    let mut silent = TcpStream::connect(server.address).await.expect("connect");
    assert!(is_closed(&mut silent).await);
    let mut half = TcpStream::connect(server.address).await.expect("connect");
    half.write_all(b"PRI * HTTP/2").await.expect("sent");
    assert!(is_closed(&mut half).await);
    let mut idle = TcpStream::connect(server.address).await.expect("connect");
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    assert!(is_closed(&mut idle).await);
    let mut slow = TcpStream::connect(server.address).await.expect("connect");
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a-farm-that-is-here\r\n").await.expect("sent");
    assert!(is_closed(&mut slow).await);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_told_what_the_port_is() {
    let server = Server::start(1, |_| {}).await;
    let address = server.address;
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("connect");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    });
    let answer = answer.await.expect("joined");
    assert!(answer.starts_with("HTTP/1.1 426 ") && answer.contains("needs HTTP/2"), "{answer}");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_so_many_calls_and_the_next_waits() {
    let server = Server::start(0, |options| options.streams = 10).await;
    let channel = server.channel().await;
    // After the first answer, the client knows how many calls it may have.
    let ask = HealthCheckRequest { service: String::new() };
    HealthClient::new(channel.clone()).check(ask).await.expect("healthy");
    let client = EncoderClient::new(channel);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.encode(text(1)).await.expect("answered") })
        })
        .collect();
    server.inside(10).await;
    server.is_healthy().await;
    assert_eq!(server.gate.inside.load(Ordering::SeqCst), 10);
    server.gate.open.add_permits(1000);
    for call in calls {
        call.await.expect("joined");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_limited_in_all_and_health_is_still_told() {
    let server = Server::start(0, |options| options.calls = 10).await;
    let mut calls = Vec::new();
    for _ in 0..10 {
        let mut client = server.client().await;
        calls.push(tokio::spawn(async move { client.encode(text(1)).await }));
    }
    server.inside(10).await;
    let refused = server.client().await.encode(text(1)).await.expect_err("no room");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    server.is_healthy().await;
    server.gate.open.add_permits(1);
    for call in calls {
        call.await.expect("joined").expect("answered");
    }
    server.client().await.encode(text(1)).await.expect("there is room again");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_stay_open_leave_room_for_those_that_end() {
    let server = Server::start(usize::MAX >> 4, |options| options.calls = 8).await;
    let ask = HealthCheckRequest { service: String::new() };
    let mut watches = Vec::new();
    for _ in 0..6 {
        let watch = HealthClient::new(server.channel().await).watch(ask.clone()).await;
        watches.push(watch.expect("room for three quarters").into_inner());
    }
    let refused =
        HealthClient::new(server.channel().await).watch(ask.clone()).await.expect_err("no more");
    assert_eq!(refused.code(), Code::Unavailable);
    server.client().await.encode(text(1)).await.expect("a call that ends has room");
    drop(watches.pop());
    let mut again = HealthClient::new(server.channel().await).watch(ask.clone()).await;
    for _ in 0..10_000 {
        if again.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
        again = HealthClient::new(server.channel().await).watch(ask.clone()).await;
    }
    again.expect("there is room after a watch ended");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_every_place_gives_way_to_who_has_none() {
    let server = Server::start(0, |options| options.calls = 8).await;
    let ask = HealthCheckRequest { service: String::new() };
    let greedy = server.channel().await;
    let mut watches = Vec::new();
    for _ in 0..6 {
        let watch = HealthClient::new(greedy.clone()).watch(ask.clone()).await;
        watches.push(watch.expect("room for three quarters").into_inner());
    }
    let kept = HealthClient::new(server.channel().await).watch(ask.clone()).await;
    let kept = kept.expect("another connection gives up a place");
    for watch in &mut watches {
        // The present state was sent at once; then the connection was closed.
        while let Ok(Some(_)) = watch.message().await {}
    }
    // The same with other calls that do not end.
    let slow = server.channel().await;
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let mut client = EncoderClient::new(slow.clone());
            tokio::spawn(async move { client.encode(text(1)).await })
        })
        .collect();
    server.inside(7).await;
    let mut client = server.client().await;
    let late = tokio::spawn(async move { client.encode(text(1)).await });
    server.inside(1).await;
    server.gate.open.add_permits(1);
    late.await.expect("joined").expect("another connection gives up a place");
    for call in calls {
        call.await.expect("joined").expect_err("its connection was closed, or there was no place");
    }
    drop(kept);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_taken_back_do_not_cut_the_connection_and_a_flood_of_them_does() {
    let server = Server::start(0, |_| {}).await;
    let client = server.client().await;
    // As a client does that ends with many watches: it cancels all of them at once.
    for _ in 0..5 {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.encode(text(1)).await })
            })
            .collect();
        server.inside(100).await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        server.inside(0).await;
    }
    server.gate.open.add_permits(1);
    client.clone().encode(text(1)).await.expect("the connection still works");

    // Opened and cancelled at once, without end.
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for number in (1_u32..40_000).step_by(2) {
        // HEADERS of POST / over http, and RST_STREAM.
        flood.extend_from_slice(&[0, 0, 3, 1, 4]);
        flood.extend_from_slice(&number.to_be_bytes());
        flood.extend_from_slice(&[0x83, 0x84, 0x86]);
        flood.extend_from_slice(&[0, 0, 4, 3, 0]);
        flood.extend_from_slice(&number.to_be_bytes());
        flood.extend_from_slice(&[0, 0, 0, 8]);
    }
    let (mut reads, mut writes) = stream.split();
    let mut answer = Vec::new();
    let (_, _) = tokio::join!(writes.write_all(&flood), reads.read_to_end(&mut answer));
    // GOAWAY with ENHANCE_YOUR_CALM.
    assert!(
        answer.windows(4).any(|code| code == [0, 0, 0, 11]),
        "the flood is stopped after {} bytes",
        answer.len()
    );
    server.is_healthy().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_share_one_budget_and_small_calls_go_on() {
    let change = |options: &mut Options| {
        // Half of the budget is for messages, each counted eightfold, and a quarter of that for a
        // connection.
        options.memory = 128 * MIB;
        options.memory_wait = Duration::from_millis(300);
    };
    let server = Server::start(0, change).await;
    let mut calls = Vec::new();
    for _ in 0..12 {
        let mut client = server.client().await;
        calls.push(tokio::spawn(async move { client.encode(text(MIB)).await }));
    }
    // Seven or eight of them fit into the budget, depending on their order. The others wait and are
    // then told to try again.
    let inside = || server.gate.inside.load(Ordering::SeqCst);
    let refused = || calls.iter().filter(|call| call.is_finished()).count();
    eventually(|| inside() + refused() == 12).await;
    let taken = inside();
    assert!((7..=8).contains(&taken), "{taken}");
    server.is_healthy().await;
    let mut small = server.client().await;
    let small = tokio::spawn(async move { small.encode(text(1)).await });
    server.inside(taken + 1).await;
    server.gate.open.add_permits(1000);
    let mut answered = 0;
    for call in calls {
        match call.await.expect("joined") {
            Ok(answer) => {
                assert_eq!(answer.into_inner().encoder_digest, MIB.to_string());
                answered += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                assert!(status.get_details_retry_info().is_some(), "{status:?}");
            }
        }
    }
    assert_eq!(answered, taken);
    small.await.expect("joined").expect("answered");
    server.client().await.encode(text(MIB)).await.expect("the memory is free again");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_cannot_take_the_whole_budget() {
    let change = |options: &mut Options| {
        options.memory = 128 * MIB;
        options.memory_wait = Duration::from_secs(600);
    };
    let server = Server::start(0, change).await;
    let greedy = server.client().await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let mut client = greedy.clone();
            tokio::spawn(async move { client.encode(text(MIB)).await })
        })
        .collect();
    eventually(|| server.gate.inside.load(Ordering::SeqCst) > 0).await;
    let mut other = server.client().await;
    let other = tokio::spawn(async move { other.encode(text(MIB + 1)).await });
    let inside = || server.gate.sizes.lock().expect("not poisoned").clone();
    eventually(|| inside().contains(&(MIB + 1))).await;
    assert!(inside().len() <= 3, "at most two of the greedy client: {:?}", inside());
    server.gate.open.add_permits(1000);
    for call in calls {
        call.await.expect("joined").expect("each has its turn");
    }
    other.await.expect("joined").expect("answered");
    server.end().await;
}

/// Sends the first `there` bytes of a message of `length` on a separate connection, and nothing
/// more. Returns the answer.
async fn begun(server: &Server, length: usize, there: usize) -> Status {
    let stream = TcpStream::connect(server.address).await.expect("connect");
    let executor = hyper_util::rt::TokioExecutor::new();
    let greeting =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await;
    let (mut sender, connection) = greeting.expect("handshake");
    tokio::spawn(connection);
    let mut begun = vec![0];
    begun.extend_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
    begun.resize(there, b'x');
    let frame = http_body::Frame::data(bytes::Bytes::from(begun));
    let first = tokio_stream::once(Ok::<_, std::convert::Infallible>(frame));
    let body = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
    let request = http::Request::post(format!("http://{}{ENCODE}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http_body_util::StreamBody::new(body))
        .expect("request");
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request))
        .await
        .expect("cut")
        .expect("answer");
    Status::from_header_map(answer.headers()).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_stalls_is_cut() {
    let server = Server::start(1, |options| options.stall = Duration::from_millis(50)).await;
    let status = begun(&server, MIB, 1024).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    server.end().await;
}

/// Stalled requests hold all the memory. A complete request soon gets some of it, and the stalled
/// ones are told to try again.
async fn requests_that_stand_still_give_way(gathers: bool) {
    let change = |options: &mut Options| {
        // Half of the budget is for messages, and a quarter of that for a connection.
        options.memory = 16 * MIB;
        options.stall = Duration::from_secs(600);
        options.memory_wait = Duration::from_secs(20);
        options.lag = Duration::from_millis(100);
        if gathers {
            options.gathers.push(ENCODE.to_owned());
        }
    };
    let server = Server::start(1000, change).await;
    let server = &server;
    let attacks = async {
        let stalled = (0..8).map(|_| begun(server, 2 * MIB, MIB + MIB / 2));
        futures::future::join_all(stalled).await
    };
    let whole = async {
        // Until there is no more room: five of them hold 7.5 MiB.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..8 {
            server.client().await.encode(text(MIB / 3)).await.expect("the stalled ones give way");
        }
        server.client().await.encode(text(4 * MIB - 100)).await.expect("a large one too");
        server.is_healthy().await;
    };
    tokio::pin!(attacks, whole);
    tokio::select! {
        () = &mut whole => {}
        _ = &mut attacks => whole.await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_stand_still_give_way_to_those_that_wait_for_memory() {
    requests_that_stand_still_give_way(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_stand_still_give_way_to_those_that_wait_for_memory() {
    requests_that_stand_still_give_way(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_way_is_told_to_come_again() {
    let change = |options: &mut Options| {
        options.memory = 4 * MIB;
        options.stall = Duration::from_secs(600);
        options.memory_wait = Duration::from_secs(20);
        options.lag = Duration::from_millis(50);
        options.gathers.push(ENCODE.to_owned());
    };
    let server = Server::start(1000, change).await;
    let mut client = server.client().await;
    let stalled = begun(&server, 3 * MIB, MIB + MIB / 2);
    let whole = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.encode(text(MIB)).await.expect("it has its turn");
    };
    let (status, ()) = tokio::join!(stalled, whole);
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("too slowly") && status.get_details_retry_info().is_some());
    server.end().await;
}

/// Whether the received bytes show that a call was refused or the connection is over: headers, a
/// reset, a GOAWAY.
fn refuses(answer: &[u8]) -> bool {
    let ends = [http2::HEADERS, http2::RST_STREAM, http2::GOAWAY];
    http2::frames(answer).iter().any(|(kind, ..)| ends.contains(kind))
}

/// Sends bytes on a separate connection, and waits until they are refused.
async fn refused(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let (mut reads, mut writes) = stream.split();
    let answered = async {
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while !refuses(&answer) {
            match reads.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
            }
        }
    };
    let (_, answered) =
        tokio::join!(writes.write_all(bytes), tokio::time::timeout(PATIENCE, answered));
    answered.expect("refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_8_kib_are_refused_however_they_come() {
    let server = Server::start(1000, |_| {}).await;
    let with = |bytes: usize| {
        let mut request = Request::new(text(1));
        request.metadata_mut().insert("x-long", "x".repeat(bytes).parse().expect("a value"));
        request
    };
    server.client().await.encode(with(7_000)).await.expect("some are accepted");
    // hyper's client obeys the server's limits, so it refuses by itself.
    server.client().await.encode(with(9_000)).await.expect_err("too long");

    let long = "x".repeat(9_000);
    let many: Vec<(String, String)> =
        (0..400).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let many: Vec<(&str, &str)> =
        many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let endless = "z".repeat(400_000);
    for fields in [&[("x-long", long.as_str())][..], &many, &[("x-endless", endless.as_str())]] {
        let headers = http2::headers(1, 0, &[&http2::call(ENCODE)[..], fields].concat());
        // A complete, empty message: with normal headers it would be answered.
        let body = http2::frame(http2::DATA, http2::END_STREAM, 1, &[0; 5]);
        refused(&server, &[http2::PREFACE, &headers, &body].concat()).await;
    }
    assert_eq!(
        server.gate.sizes.lock().expect("not poisoned").len(),
        1,
        "none of them reached the service"
    );
    server.is_healthy().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_header_that_is_said_again_and_again_takes_no_memory() {
    let server = Server::start(1000, |_| {}).await;
    // A value of 4,000 bytes that is put into the header table once and then used 60,000 times by
    // one byte each: 240 MB of headers in 64 kB.
    let mut block = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    block.extend(std::iter::repeat_n(b'y', 4_000));
    block.extend(std::iter::repeat_n(0xbe, 60_000));
    let before = peak();
    refused(&server, &[http2::PREFACE, &http2::headers_of(1, 0, &block)].concat()).await;
    let grown = peak() - before;
    assert!(grown < 60, "it grew by {grown} MiB");
    assert!(server.gate.sizes.lock().expect("not poisoned").is_empty());
    server.is_healthy().await;
    server.end().await;
}

/// Highest memory use of this process so far, MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn long_headers_of_a_browser_are_refused() {
    let server = Server::start(1, |_| {}).await;
    for lines in [format!("X: {}\r\n", "x".repeat(100_000)), "X: y\r\n".repeat(200)] {
        let mut stream = TcpStream::connect(server.address).await.expect("connect");
        let (mut reads, mut writes) = stream.split();
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, reads.read_to_end(&mut answer));
        let (_, read) = tokio::join!(writes.write_all(request.as_bytes()), read);
        // Unread bytes may cause a reset that loses the answer.
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            read.is_ok() && (answer.is_empty() || answer.starts_with("HTTP/1.1 4")),
            "{answer}"
        );
        assert!(!answer.contains(" 426 "), "{answer}");
    }
    server.is_healthy().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_message_is_refused_compressed_or_not() {
    let server = Server::start(1000, |_| {}).await;
    let refused = server.client().await.encode(text(4 * MIB)).await.expect_err("too large");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert!(refused.message().contains("SubmitJobStream"), "{refused:?}");
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        // A hundred megabytes that compress to a few kilobytes.
        let mut client =
            server.client().await.send_compressed(encoding).accept_compressed(encoding);
        client.encode(text(MIB)).await.expect("one that is not too large");
        let refused = client.encode(text(100 * MIB)).await.expect_err("a bomb");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    }
    server.is_healthy().await;
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_counted_before_they_are_decoded() {
    let server = Server::start(1000, |_| {}).await;
    let request = EncodeRequest { texts: vec![String::new(); 2 * MIB - 100], ..Default::default() };
    let refused = server.client().await.encode(request).await.expect_err("too many");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    let violations = &details.bad_request().expect("a field").field_violations;
    assert_eq!(violations[0].field, "texts");
    assert!(refused.message().contains("at most 1000"), "{refused:?}");
    server.end().await;
}
