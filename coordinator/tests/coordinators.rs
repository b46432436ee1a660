//! Several coordinators over one Postgres and one queue: one leads, all serve, and the next one follows.

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::store::postgres::{Options, PostgresStore};
use darkroom_proto::v1;
use darkroom_queue::memory::MemoryQueue;
use darkroom_test_servers::postgres::Postgres;
use support::{Act, Farm, prompts, spec};

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
