//! The suite on the queue in memory, and what only that one does.

use std::{sync::Arc, time::Duration};

use darkroom_core::id::WorkerId;
use darkroom_queue::{
    Error, TaskQueue as _,
    memory::{MemoryQueue, Options},
};
use darkroom_suites::queue::{Harness, done, pool, task};

fn harness() -> Harness {
    let options = Options { pool_limit: 1000, takeover: Duration::from_secs(5) };
    Harness {
        queue: Arc::new(MemoryQueue::new(options.clone())),
        lease: Duration::from_secs(30),
        takeover: options.takeover,
        keep: Box::new(()),
    }
}

darkroom_suites::queue_suite!(#[tokio::test(start_paused = true)], harness());

#[tokio::test]
async fn a_full_pool_refuses_more_and_results_count() {
    let queue = MemoryQueue::new(Options { pool_limit: 2, ..Options::default() });
    let (base, worker) = (pool("base"), WorkerId("w".to_owned()));
    queue.add(&base, vec![task(0), task(1)]).await.unwrap();
    let refused = queue.add(&base, vec![task(2)]).await.unwrap_err();
    assert!(matches!(refused, Error::Full { limit: 2, .. }), "{refused:?}");
    let leases = queue.lease(&base, &worker, 1, Duration::ZERO).await.unwrap();
    let result = done(&leases[0]);
    queue.complete(&base, &worker, vec![(leases[0].id.clone(), result)]).await.unwrap();
    queue.add(&base, vec![task(2)]).await.expect_err("the result still counts as an entry");
    let results = queue.results(&base, "c", 10, Duration::ZERO).await.unwrap();
    queue.acknowledge(&base, &[results[0].id.clone()]).await.unwrap();
    queue.add(&base, vec![task(2)]).await.expect("room again");
}

#[tokio::test]
async fn a_flushed_queue_reports_leases_lost_and_never_reuses_their_ids() {
    let queue = MemoryQueue::default();
    let (base, worker) = (pool("base"), WorkerId("w".to_owned()));
    queue.add(&base, vec![task(0)]).await.unwrap();
    let old = queue.lease(&base, &worker, 1, Duration::ZERO).await.unwrap();
    queue.flush();
    queue.add(&base, vec![task(1)]).await.unwrap();
    let new = queue.lease(&base, &worker, 1, Duration::ZERO).await.unwrap();
    assert_ne!(old[0].id, new[0].id);
    let lost = queue.heartbeat(&base, &worker, &[old[0].id.clone()]).await.unwrap();
    assert_eq!(lost, vec![old[0].id.clone()]);
}
