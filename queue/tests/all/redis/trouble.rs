//! A worker's loop on a server that goes away: the loop reports it, and works again by itself.

use std::{sync::Arc, time::Duration};

use darkroom_queue::{
    TaskQueue,
    stage_loop::{
        self, Handle, Options, Serve,
        noop::{NoopModel, NoopStage},
    },
};
use darkroom_suites::queue::pool;
use darkroom_test_servers::redis::Redis;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::support::{PATIENCE, add, queue_on, worker};

async fn working_on(redis: &Redis) -> Handle {
    let serve = vec![Serve { pool: pool("base"), batch_cap: 4 }];
    let options = Options {
        announce_every: Duration::from_millis(100),
        heartbeat: Duration::from_millis(100),
        ..Options::new(worker("w"), "host", serve)
    };
    let queue: Arc<dyn TaskQueue> = queue_on(redis).await;
    let (stage, drain) = (Arc::new(NoopStage), CancellationToken::new());
    let started = stage_loop::start(options, queue, stage, || Ok(NoopModel::default()), drain);
    started.await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_or_hangs_is_told_until_it_answers() {
    let mut redis = Redis::start();
    let working = working_on(&redis).await;
    let mut trouble = working.trouble();
    for round in 0..2 {
        let hangs = round == 1;
        assert_eq!(*trouble.borrow_and_update(), None);
        if hangs {
            redis.pause()
        } else {
            redis.kill()
        }
        let told = timeout(PATIENCE, trouble.wait_for(Option::is_some)).await.expect("in time");
        let told = told.expect("it lives").clone().unwrap_or_default();
        assert!(told.starts_with("the queue cannot be reached: "), "{told}");
        if hangs {
            redis.resume()
        } else {
            redis.restart()
        }
        let ended = timeout(PATIENCE, trouble.wait_for(Option::is_none)).await;
        assert!(ended.expect("in time").is_ok());

        let (queue, pool) = (queue_on(&redis).await, pool("base"));
        add(&queue, &pool, 0..4).await;
        let mut done = 0;
        while done < 4 {
            let results = queue.results(&pool, "c", 10, PATIENCE).await.expect("results");
            assert!(!results.is_empty(), "work goes on by itself");
            done += results.len();
        }
    }
    working.shutdown();
    working.join().await.expect("it drains");
}
