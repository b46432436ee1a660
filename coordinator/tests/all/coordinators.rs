//! Several coordinators on one Postgres and one queue: one leads, all serve, and another takes
//! over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{Act, Farm, prompts, spec};
use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::store::postgres::{Options, PostgresStore};
use darkroom_proto::v1;
use darkroom_queue::memory::MemoryQueue;
use darkroom_test_servers::postgres::Postgres;

async fn store(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::connect(url, Options::default()).await.expect("opens"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_coordinator_accepts_another_dispatches_and_the_next_one_leads_when_it_ends() {
    let server = Postgres::shared();
    let url = server.create_database();
    let (queue, artifacts) = (Arc::new(MemoryQueue::default()), ArtifactStore::in_memory());
    let leader = Farm::join(store(&url).await, &queue, &artifacts).await;
    let mut follower = Farm::join(store(&url).await, &queue, &artifacts).await;
    let workers = leader.work(|_| Act::Done);

    let job = follower.submit(spec(), prompts(20)).await;
    let job = follower.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 20));
    assert_eq!(follower.handle.counters().dispatched.get(), 0, "only the leader dispatches");
    assert!(leader.handle.counters().dispatched.get() >= 60);

    leader.handle.shutdown().await;
    let ended = Instant::now();
    let job = follower.submit(spec(), prompts(20)).await;
    let job = follower.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 20));
    assert!(ended.elapsed() < Duration::from_secs(6), "it led after {:?}", ended.elapsed());
    assert!(follower.handle.counters().dispatched.get() >= 60);
    workers.stop().await;
    leader.shutdown().await;
    follower.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_coordinator_says_the_same_of_a_jobs_rate_position_and_end() {
    let server = Postgres::shared();
    let url = server.create_database();
    let (queue, artifacts) = (Arc::new(MemoryQueue::default()), ArtifactStore::in_memory());
    let mut leader = Farm::join(store(&url).await, &queue, &artifacts).await;
    let mut follower = Farm::join(store(&url).await, &queue, &artifacts).await;
    let why = "no worker serves stage encode of cascade tiny";
    let job = follower.submit(spec(), prompts(400)).await;
    assert_eq!(job.waiting_for, why);
    leader.until(&job.id, "the leader says so too", |job| job.waiting_for == why).await;

    let slow = |_: &_| {
        std::thread::sleep(Duration::from_millis(4));
        Act::Done
    };
    let workers = leader.work(slow);
    let halfway = |job: &v1::Job| job.images_done >= 40 && job.eta.is_some();
    let one = leader.until(&job.id, "under way", halfway).await;
    let two = follower.until(&job.id, "under way", halfway).await;
    for (one, two) in one.stages.iter().zip(&two.stages).skip(1) {
        let (one, two) = (one.images_per_second, two.images_per_second);
        assert!(
            one > 0.0 && two > 0.0 && one / two < 2.0 && two / one < 2.0,
            "{one} and {two} images a second"
        );
    }
    let seconds = |job: &v1::Job| job.eta.as_ref().map_or(0, |eta| eta.seconds);
    let (one, two) = (seconds(&one), seconds(&two));
    assert!(one > 0 && two > 0 && (one - two).abs() <= one / 2, "{one} s and {two} s left");
    let behind = follower.submit(spec(), prompts(1)).await;
    for farm in [&mut leader, &mut follower] {
        let shown = farm.get(&behind.id).await;
        assert!(
            shown.waiting_for.is_empty() || shown.waiting_for.starts_with("waiting behind "),
            "{shown:?}"
        );
        assert_eq!(shown.tasks_ahead == 0, shown.waiting_for.is_empty(), "{shown:?}");
    }
    workers.stop().await;
    leader.shutdown().await;
    follower.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_should_have_ended_and_did_not_is_found() {
    let server = Postgres::shared();
    let url = server.create_database();
    let name = url.rsplit_once('/').expect("a database").1;
    let mut farm =
        Farm::join(store(&url).await, &Arc::default(), &ArtifactStore::in_memory()).await;
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), prompts(3)).await;
    farm.until_ended(&job.id).await;
    assert_eq!(farm.handle.counters().jobs_overlooked.get(), 0);
    let planted = "UPDATE jobs SET state = 'active', finished_at = NULL, manifest = NULL, manifest_key = NULL";
    server.sql(name, planted);
    let job = farm.until(&job.id, "found", |job| job.state() == v1::JobState::Done).await;
    farm.until_ended(&job.id).await;
    assert_eq!(farm.handle.counters().jobs_overlooked.get(), 1);
    // It is in the record, so any coordinator reports it, even after a restart.
    let mut other =
        Farm::join(store(&url).await, &Arc::default(), &ArtifactStore::in_memory()).await;
    for farm in [&mut farm, &mut other] {
        let told =
            farm.client.get_farm(v1::GetFarmRequest {}).await.expect("answered").into_inner();
        assert_eq!(told.jobs_overlooked, 1);
    }
    other.shutdown().await;
    workers.stop().await;
    farm.shutdown().await;
}
