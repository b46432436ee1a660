//! A whole farm under attack by one client without a key: it refuses, stays small, answers other
//! clients and keeps rendering.

use std::net::TcpStream;

use darkroom_proto::v1::{self, farm_client::FarmClient};
use darkroom_tests::farm::{Farm, Renderer};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

async fn channel(farm: &Farm) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", farm.address)).expect("address");
    endpoint.connect().await.expect("connect")
}

/// Sends bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}

async fn submit_raw(channel: Channel, message: Vec<u8>) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let path = "/darkroom.v1.Farm/SubmitJob".parse().expect("a path");
    grpc.unary(Request::new(message), path, Raw).await.expect_err("refused")
}

/// A field of bytes.
fn field(number: u8, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(number << 3) | 2];
    let mut length = inner.len();
    while length > 0x7f {
        bytes.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    bytes.push(length as u8);
    [&bytes, inner].concat()
}

/// A submit with only empty stages.
fn empty_stages(bytes: usize) -> Vec<u8> {
    field(1, &field(6, &field(2, &[]).repeat(bytes / 2)))
}

/// The farm's peak memory, in MiB.
fn peak(farm: &Farm) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", farm.pid())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

fn renders(farm: &Farm, text: &str) {
    let job = farm.command(["--json", "submit", text]).run().json();
    let id = job["job"]["id"].as_str().expect("a job").to_owned();
    assert_eq!(farm.command(["watch", &id]).run().code, Some(0));
}

async fn health(farm: &Farm) -> ServingStatus {
    let mut client = HealthClient::new(channel(farm).await);
    let answer =
        client.check(HealthCheckRequest::default()).await.expect("a new health check is answered");
    answer.into_inner().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_would_grow_are_refused_while_they_are_small() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let before = peak(&farm);
    let attacks: Vec<_> = (0..20)
        .map(|_| {
            let address = farm.address.clone();
            tokio::spawn(async move {
                let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("address");
                let channel = endpoint.connect().await.expect("connect");
                submit_raw(channel, empty_stages(4_000_000)).await
            })
        })
        .collect();
    let large = submit_raw(channel(&farm).await, empty_stages(60 << 20)).await;
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");
    for attack in attacks {
        let small = attack.await.expect("joined");
        assert_eq!(small.code(), Code::InvalidArgument, "{small:?}");
        let details = small.get_error_details();
        assert_eq!(
            details.bad_request().expect("a field").field_violations[0].field,
            "spec.settings.stages"
        );
    }
    let grown = peak(&farm) - before;
    assert!(grown < 400, "the farm grew by {grown} MiB");
    assert_eq!(health(&farm).await, ServingStatus::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_descriptors_for_the_farm_and_places_for_others() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the test itself needs many");
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start_under("ulimit -n 1024 && exec \"$@\"", folder.path(), Renderer::Fake);
    let idle: Vec<_> =
        (0..1100).map(|_| TcpStream::connect(&farm.address).expect("connect")).collect();
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", farm.pid())).expect("it lives").count();
    assert!(descriptors() < 900, "{} of 1,024 descriptors are taken", descriptors());
    assert_eq!(health(&farm).await, ServingStatus::Serving);
    renders(&farm, "a red circle");
    drop(idle);
}

/// Processor time that a farm has used, in hundredths of a second.
fn processor_time(farm: &Farm) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", farm.pid())).expect("it lives");
    let fields = stat.rsplit(") ").next().expect("fields").split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_without_descriptors_waits_for_some_and_serves_again() {
    use nix::sys::resource::{Resource, getrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let limit = |most: u64| {
        let set = std::process::Command::new("prlimit")
            .args(["--pid", &farm.pid().to_string(), &format!("--nofile={most}:")])
            .status();
        assert!(set.expect("prlimit runs").success());
    };
    // A limit below the number of open files, so it cannot open another.
    limit(8);
    let waiting: Vec<_> =
        (0..20).map(|_| TcpStream::connect(&farm.address).expect("connect")).collect();
    let failed = || farm.log().matches("connections cannot be accepted").count();
    darkroom_tests::eventually("it says so", || (failed() > 0).then_some(()));
    let before = processor_time(&farm);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let used = processor_time(&farm) - before;
    assert!(used < 40, "it retries without a pause: {used} of 200 hundredths of a second");
    assert_eq!(failed(), 1, "it is said once");
    drop(waiting);

    limit(hard);
    let serves = async {
        while health(&farm).await != ServingStatus::Serving {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), serves)
        .await
        .expect("it serves again");
    assert_eq!(farm.log().matches("connections are accepted again").count(), 1);
    renders(&farm, "a green square");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workers_of_a_farm_in_one_process_are_not_drained() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let mut client = FarmClient::new(channel(&farm).await);
    let workers =
        client.list_workers(v1::ListWorkersRequest {}).await.expect("told").into_inner().workers;
    assert_eq!(workers.len(), 2, "{workers:?}");
    let by_id = workers
        .iter()
        .map(|worker| v1::DrainWorkerRequest { worker: worker.id.clone(), ..Default::default() });
    let by_host = v1::DrainWorkerRequest { host: workers[0].host.clone(), ..Default::default() };
    for request in by_id.chain([by_host]) {
        let refused = client.drain_worker(request).await.expect_err("refused");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert!(refused.message().contains("stop the process instead"), "{refused:?}");
    }
    let unknown = v1::DrainWorkerRequest { worker: "nobody".to_owned(), ..Default::default() };
    assert_eq!(client.drain_worker(unknown).await.expect_err("refused").code(), Code::NotFound);
    assert_eq!(health(&farm).await, ServingStatus::Serving);
    renders(&farm, "a blue square");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_listens_on_a_name_and_on_every_address() {
    for listen in ["localhost:0", ":0", "[::]:0"] {
        if listen == "[::]:0" && std::net::TcpListener::bind(listen).is_err() {
            continue;
        }
        let folder = tempfile::tempdir().expect("folder");
        let plainly = [("DARKROOM_PLAINTEXT", "true")];
        let farm = Farm::start_at(folder.path(), Renderer::Fake, &plainly, listen);
        assert_eq!(health(&farm).await, ServingStatus::Serving, "{listen}");
        assert_eq!(farm.stop(), Some(0));
    }
}
