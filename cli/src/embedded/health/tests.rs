use std::{net::SocketAddr, sync::Arc};

use darkroom_queue::{
    TaskQueue,
    memory::{self, MemoryQueue},
};
use darkroom_runtime::tls::Privacy;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use crate::embedded::cascades::{demo_cascade, load};

/// A server without services, and the watch of a farm whose worker breaks on request.
struct Watched {
    _folder: tempfile::TempDir,
    address: SocketAddr,
    breaks: tokio::sync::oneshot::Sender<()>,
    told: watch::Receiver<Option<UserError>>,
    watching: JoinHandle<()>,
    stop: CancellationToken,
}

async fn watched() -> Watched {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = ArtifactStore::local(&folder.path().join("artifacts")).expect("artifacts");
    let listener =
        server::listen(&SocketAddr::from(([127, 0, 0, 1], 0)).into(), &Privacy::Loopback)
            .await
            .expect("a port");
    let address = listener.reachable();
    let options =
        darkroom_coordinator::server_options(&["darkroom.v1.Farm", "darkroom.v1.Encoder"]);
    let stop = CancellationToken::new();
    let served = server::serve(listener, Routes::default(), options, stop.clone()).await;
    let (health, serving) = served.expect("serves");
    tokio::spawn(serving);
    let (breaks, broken) = tokio::sync::oneshot::channel();
    let lost = Lost(vec![
        Box::pin(std::future::pending()),
        Box::pin(async move {
            broken.await.expect("told");
            "the worker of this farm broke; see the log, and start the farm again"
        }),
    ]);
    let (tell, told) = watch::channel(None);
    let watching = tokio::spawn(watch_storage(
        (folder.path().to_owned(), artifacts, || None),
        health,
        tell,
        lost,
    ));
    Watched { _folder: folder, address, breaks, told, watching, stop }
}

async fn health(address: SocketAddr, service: &str) -> ServingStatus {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut client = HealthClient::new(endpoint.connect().await.expect("connects"));
    let ask = HealthCheckRequest { service: service.to_owned() };
    client.check(ask).await.expect("answered").into_inner().status()
}

#[tokio::test]
async fn a_part_that_broke_turns_health_for_good_and_ends_who_waits_for_the_farm() {
    let mut farm = watched().await;
    let services = ["", "darkroom.v1.Farm", "darkroom.v1.Encoder"];
    for service in services {
        assert_eq!(health(farm.address, service).await, ServingStatus::Serving, "{service:?}");
    }
    farm.breaks.send(()).expect("it is watched");
    let told = farm.told.wait_for(Option::is_some).await.expect("told").clone().expect("a failure");
    assert_eq!((told.code, told.reason.as_str()), (Code::Internal, "PART_BROKEN"));
    assert!(told.message.contains("the worker of this farm broke"), "{}", told.message);
    // Nothing can turn it back, although disk and storage work.
    farm.watching.await.expect("the watch is over");
    for service in services {
        assert_eq!(health(farm.address, service).await, ServingStatus::NotServing, "{service:?}");
    }
    farm.stop.cancel();
}

#[tokio::test]
async fn a_worker_that_drains_is_a_part_that_works_no_more() {
    let queue: Arc<dyn TaskQueue> = Arc::new(MemoryQueue::new(memory::Options::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = ArtifactStore::local(folder.path()).expect("artifacts");
    let bundles = load(vec![demo_cascade().expect("the demo")]).await.expect("loads");
    let stop = CancellationToken::new();
    let encoder = darkroom_encoder_service::start_fake(
        darkroom_encoder_service::Options::default(),
        Arc::clone(&queue),
        artifacts.clone(),
        &bundles,
        stop.clone(),
    );
    let worker = darkroom_worker::start_fake(
        darkroom_worker::Options::default(),
        darkroom_worker::FakeOptions::default(),
        queue,
        artifacts,
        &bundles,
        stop.clone(),
    );
    let (encoder, worker) = (encoder.await.expect("starts"), worker.await.expect("starts"));
    let mut lost = Lost::of(&encoder, &worker);
    let nothing = tokio::time::timeout(Duration::from_millis(100), lost.any()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    worker.shutdown();
    assert_eq!(lost.any().await, "the worker of this farm is draining");
    worker.join().await.expect("ends");
    encoder.shutdown();
    encoder.join().await.expect("ends");
}
