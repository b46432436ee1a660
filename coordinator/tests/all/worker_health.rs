//! Bad workers and poison images, over gRPC: a worker that fails on images that others complete
//! gets no tasks for some time.

use crate::support::{self, Act, Farm, eventually, failed, prompts, spec};
use darkroom_proto::v1;
use darkroom_queue::task::{Task, TaskBody};

fn is_base(task: &Task) -> bool {
    matches!(&task.body, TaskBody::Render(body) if body.settings.stage.as_str() == "base")
}

async fn of_host(farm: &Farm, host: &str) -> v1::Worker {
    let listed = farm
        .client
        .clone()
        .list_workers(v1::ListWorkersRequest {})
        .await
        .expect("listed")
        .into_inner();
    listed.workers.into_iter().find(|worker| worker.host == host).expect("a worker of that host")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_fails_at_what_others_do_is_set_aside_until_it_is_the_last() {
    let mut farm = Farm::start().await;
    // The first image fails everywhere, so it blames no worker.
    let poison = |task: &Task| is_base(task) && support::index(task) == Some(0);
    let good = farm.work_on(&["encode", "base", "sr256", "sr1024"], "good", move |task| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        if poison(task) { failed() } else { Act::Done }
    });
    let bad = farm.work_on(&["base"], "bad", |_| failed());
    let job = farm.submit(spec(), prompts(60)).await;
    eventually("the bad worker is set aside", async || {
        of_host(&farm, "bad").await.state == "set aside"
    })
    .await;
    let worker = of_host(&farm, "bad").await;
    assert!(
        worker.aside_reason.ends_with("images that other workers then completed"),
        "{}",
        worker.aside_reason
    );
    assert!(worker.aside_until.is_some());
    assert_eq!(of_host(&farm, "good").await.state, "working", "never the last one");
    let job = farm.until_ended(&job.id).await;
    // The number of failures before depends on which worker was faster. Three images that the other
    // worker completed are enough.
    assert!(job.images_done >= 3, "{job:#?}");
    assert_eq!(job.images_done + job.images_dead, 60);
    let before = bad.ran().len();
    let job = farm.submit(spec(), prompts(30)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images_done, job.images_dead), (29, 1));
    assert_eq!(bad.ran().len(), before, "it gets nothing");
    assert_eq!(of_host(&farm, "good").await.state, "working", "poison sets nobody aside");

    good.stop().await;
    eventually("the last one of its pool works", async || {
        of_host(&farm, "bad").await.state == "working"
    })
    .await;
    bad.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_asked_for_by_id_prefix_or_host() {
    let mut farm = Farm::start().await;
    let (one, two) = (
        farm.work_on(&["base"], "one", |_| Act::Done),
        farm.work_on(&["base"], "two", |_| Act::Done),
    );
    eventually("both are there", async || {
        let listed =
            farm.client.clone().list_workers(v1::ListWorkersRequest {}).await.expect("listed");
        listed.into_inner().workers.len() == 2
    })
    .await;
    let id = of_host(&farm, "one").await.id;
    let ask = |worker: &str, host: &str| v1::DrainWorkerRequest {
        worker: worker.to_owned(),
        host: host.to_owned(),
    };
    let unknown = farm.client.drain_worker(ask("three", "")).await.expect_err("nobody");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    assert!(unknown.message().contains(&id), "it names the present workers: {}", unknown.message());
    for _ in 0..2 {
        let asked =
            farm.client.drain_worker(ask(&id[..12], "")).await.expect("asked").into_inner().workers;
        assert_eq!(
            (asked.len(), asked[0].id.as_str(), asked[0].state.as_str()),
            (1, id.as_str(), "draining")
        );
    }
    assert_eq!(of_host(&farm, "one").await.state, "draining");
    assert_eq!(of_host(&farm, "two").await.state, "working");
    farm.client.drain_worker(ask("", "two")).await.expect("asked");
    assert_eq!(of_host(&farm, "two").await.state, "draining");
    one.stop().await;
    two.stop().await;
    farm.shutdown().await;
}
