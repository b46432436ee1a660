//! Whether work for one tenant is used for another: shared or sealed.

use std::collections::BTreeSet;

use darkroom_core::sharing::Sharing;
use darkroom_proto::v1;
use darkroom_queue::task::{Task, TaskBody};

use super::calling::{of, plain, submit};
use crate::support::{Act, Farm};

/// Where tasks store what they make, of texts or of images.
fn prefixes(ran: &[Task], of_texts: bool) -> BTreeSet<String> {
    let prefix = |task: &Task| match &task.body {
        TaskBody::Encode(body) => of_texts.then(|| body.prefix.clone()),
        TaskBody::Render(body) => (!of_texts).then(|| body.prefix.clone()),
    };
    ran.iter().filter_map(prefix).collect()
}

/// What a job's user sees of its texts before any of them can be encoded.
fn encoded(job: &v1::Job) -> (u64, u64) {
    let encode = job.stages.iter().find(|stage| stage.stage == "encode").expect("a stage");
    (encode.done, encode.total)
}

/// Submits the same job as one tenant after the other. Returns for each what it saw at first, and
/// the tasks that ran for it.
async fn one_after_the_other(farm: &mut Farm, tenants: [&str; 2]) -> [((u64, u64), Vec<Task>); 2] {
    let calls = farm.handle.calls();
    let mut told = Vec::new();
    for tenant in tenants {
        let job = submit(&calls, &of(tenant), plain("the same words")).await.expect("accepted");
        let workers = farm.work(|_| Act::Done);
        farm.until_ended(&job.id).await;
        told.push((encoded(&job), workers.stop().await));
    }
    told.try_into().expect("two")
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_shared_equal_work_is_the_same_for_all_tenants() {
    let mut farm = Farm::start().await;
    farm.store.set_sharing(Sharing::Shared).await.expect("decided");
    let [(first, by_a), (second, by_b)] = one_after_the_other(&mut farm, ["a", "b"]).await;
    assert_eq!((first, second), ((0, 2), (2, 2)), "its texts are encoded already");
    assert_eq!(prefixes(&by_b, true).len(), 0);
    assert_eq!(prefixes(&by_a, true).len(), 2);
    assert_eq!(prefixes(&by_a, false), prefixes(&by_b, false), "so an output is found");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_sealed_nothing_of_one_tenant_is_used_or_seen_by_another() {
    let mut farm = Farm::start().await;
    farm.store.set_sharing(Sharing::Sealed).await.expect("decided");
    let [(first, by_a), (second, by_b)] = one_after_the_other(&mut farm, ["a", "b"]).await;
    assert_eq!((first, second), ((0, 2), (0, 2)), "as if nobody had used the texts");
    for of_texts in [true, false] {
        let (of_a, of_b) = (prefixes(&by_a, of_texts), prefixes(&by_b, of_texts));
        assert!(!of_a.is_empty() && of_a.len() == of_b.len(), "{of_a:?} and {of_b:?}");
        assert!(of_a.is_disjoint(&of_b), "{of_a:?} and {of_b:?}");
    }
    // A tenant uses again what is its own.
    let [(again, ran), _] = one_after_the_other(&mut farm, ["a", "c"]).await;
    assert_eq!(again, (2, 2));
    assert_eq!(prefixes(&ran, true).len(), 0);
    assert_eq!(prefixes(&ran, false), prefixes(&by_a, false));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_with_one_tenant_is_shared_and_the_second_one_seals_it() {
    let mut farm = Farm::start().await;
    let [(_, by_a), (second, by_b)] = one_after_the_other(&mut farm, ["a", "b"]).await;
    assert_eq!(second, (0, 2), "nothing of a's is told");
    assert!(prefixes(&by_a, false).is_disjoint(&prefixes(&by_b, false)));
    assert_eq!(farm.store.sharing().await.expect("asks"), Some(Sharing::Sealed));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_how_it_was_submitted() {
    let mut farm = Farm::start().await;
    let calls = farm.handle.calls();
    let mut of_jobs = Vec::new();
    for decided in Sharing::ALL {
        farm.store.set_sharing(decided).await.expect("decided");
        of_jobs.push(submit(&calls, &of("a"), plain("words")).await.expect("accepted").id);
    }
    farm.store.set_sharing(Sharing::Shared).await.expect("decided");
    let workers = farm.work(|_| Act::Done);
    for job in &of_jobs {
        farm.until_ended(job).await;
    }
    let ran = workers.stop().await;
    assert_eq!(prefixes(&ran, true).len(), 4, "two texts, shared and sealed");
    let stages = crate::support::STAGES.len();
    assert_eq!(prefixes(&ran, false).len(), 2 * stages, "an image, shared and sealed");
    farm.shutdown().await;
}
