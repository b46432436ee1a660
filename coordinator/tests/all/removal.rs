//! Deleting jobs, retention, and the cleaner: what nobody needs leaves storage, and nothing else
//! does.

use std::{collections::BTreeSet, time::Duration};

use darkroom_coordinator::store::removal::Kind;
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::Caller;
use darkroom_proto::{status::from_status, v1};
use futures::TryStreamExt as _;

use crate::support::{Act, Farm, prompts, spec};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The keys in storage below a prefix.
async fn stored(farm: &Farm, prefix: &str) -> BTreeSet<String> {
    farm.artifacts.list(prefix).map_ok(|one| one.key).try_collect().await.expect("lists")
}

async fn done(farm: &mut Farm) -> String {
    let job = farm.submit(spec(), prompts(2)).await.id;
    assert_eq!(farm.until_ended(&job).await.state(), v1::JobState::Done);
    job
}

async fn delete(farm: &mut Farm, id: &str, cancel: bool) -> Result<bool, UserError> {
    let request = v1::DeleteJobRequest { id: id.to_owned(), cancel };
    let answer = farm.client.delete_job(request).await;
    answer.map(|answer| answer.into_inner().deleted).map_err(|status| from_status(&status))
}

async fn get(farm: &mut Farm, id: &str) -> UserError {
    let request = v1::GetJobRequest { id: id.to_owned() };
    from_status(&farm.client.get_job(request).await.expect_err("it was deleted"))
}

async fn fetch(farm: &mut Farm, id: &str, index: u64) -> Result<(), UserError> {
    let request = v1::FetchImageRequest { job_id: id.to_owned(), index, ..Default::default() };
    farm.client.fetch_image(request).await.map(drop).map_err(|status| from_status(&status))
}

async fn keys(farm: &mut Farm, id: &str) -> BTreeSet<String> {
    farm.images(id).await.into_iter().map(|image| image.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_job_leaves_nothing_and_what_another_one_names_stays() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let (one, other) = (done(&mut farm).await, done(&mut farm).await);
    let named = keys(&mut farm, &one).await;
    assert_eq!(named, keys(&mut farm, &other).await, "they share their pictures");
    let before = stored(&farm, "tasks/").await;
    assert!(delete(&mut farm, &one, false).await.expect("deletes"));
    assert!(!delete(&mut farm, &one, false).await.expect("repeating it is no error"));
    let gone = get(&mut farm, &one).await;
    assert_eq!((gone.code, gone.reason.as_str()), (Code::NotFound, "DELETED"));
    assert!(gone.message.starts_with(&format!("job {one} was deleted at 20")), "{gone}");
    farm.handle.clean(2 * MINUTE).await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, before);
    assert_eq!(stored(&farm, &format!("manifests/{one}/")).await.len(), 0);
    for index in 0..2 {
        fetch(&mut farm, &other, index).await.expect("its pictures stay");
    }
    assert!(delete(&mut farm, &other, false).await.expect("deletes"));
    farm.handle.clean(2 * MINUTE).await.expect("cleans");
    for kind in ["tasks/", "previews/", "manifests/"] {
        assert_eq!(stored(&farm, kind).await, BTreeSet::new());
    }
    // It stays known for a month.
    farm.handle.clean(29 * DAY).await.expect("cleans");
    assert_eq!(get(&mut farm, &other).await.reason, "DELETED");
    farm.handle.clean(31 * DAY).await.expect("cleans");
    assert_eq!(get(&mut farm, &other).await.reason, "NOT_FOUND");
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_is_rendered_again_under_another_prefix() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let first = done(&mut farm).await;
    let removed = keys(&mut farm, &first).await;
    delete(&mut farm, &first, false).await.expect("deletes");
    farm.handle.clean(2 * MINUTE).await.expect("cleans");
    let again = done(&mut farm).await;
    let new = keys(&mut farm, &again).await;
    assert!(new.is_disjoint(&removed), "{new:?} {removed:?}");
    // A slow worker stores one late. It is deleted once more, and the new ones are not.
    let late = removed.first().expect("a picture");
    farm.artifacts.write_mark(late, "late".into()).await.expect("stores");
    farm.handle.clean(HOUR).await.expect("cleans");
    assert!(stored(&farm, "tasks/").await.contains(late));
    farm.handle.clean(25 * HOUR).await.expect("cleans");
    let left = stored(&farm, "tasks/").await;
    assert!(!left.contains(late) && left.is_superset(&new), "{left:?}");
    for index in 0..2 {
        fetch(&mut farm, &again, index).await.expect("there");
    }
    // Days later the first prefix may be used again.
    farm.handle.clean(50 * HOUR).await.expect("cleans");
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_deleted_only_with_its_cancel() {
    let mut farm = Farm::start().await;
    let job = farm.submit(spec(), prompts(3)).await.id;
    let refused = delete(&mut farm, &job, false).await.expect_err("it has not ended");
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition, "JOB_NOT_ENDED")
    );
    let request = v1::WatchJobRequest { id: job.clone(), ..Default::default() };
    let mut watch = farm.client.watch_job(request).await.expect("watches").into_inner();
    watch.message().await.expect("an event").expect("an event");
    assert!(delete(&mut farm, &job, true).await.expect("deletes"));
    let ended = loop {
        match watch.message().await {
            Ok(event) => assert!(event.is_some(), "the watch must say why it ends"),
            Err(status) => break from_status(&status),
        }
    };
    assert_eq!(ended.reason, "DELETED");
    crate::support::eventually("its rows are removed", async || {
        farm.handle.clean(2 * MINUTE).await.expect("cleans").jobs > 0
    })
    .await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_that_stops_anywhere_goes_on_and_loses_nothing() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let kept = done(&mut farm).await;
    let before = stored(&farm, "tasks/").await;
    let mut jobs = Vec::new();
    for seed in 100..104 {
        let spec = v1::JobSpec { seed: Some(seed), ..Default::default() };
        let job = farm.submit(spec, prompts(40)).await.id;
        farm.until_ended(&job).await;
        jobs.push(job);
    }
    // One of them names what the kept job names.
    jobs.push(done(&mut farm).await);
    for job in &jobs {
        delete(&mut farm, job, false).await.expect("deletes");
    }
    // Dropped at one await after another, as a process that is killed.
    for step in 0..60_u32 {
        let cleaning = farm.handle.clean(2 * MINUTE);
        drop(tokio::time::timeout(Duration::from_micros(150) * step, cleaning).await);
    }
    farm.handle.clean(2 * MINUTE).await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, before, "all that is needed, and nothing else");
    assert_eq!(stored(&farm, "manifests/").await.len(), 1);
    let leavings = farm.store.leavings().await.expect("counts");
    assert_eq!((leavings.candidates, leavings.marked), (0, 0));
    farm.audit(&kept).await;
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_older_than_storage_removes_nothing_until_it_is_accepted() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm).await;
    let id = farm.store.farm_id().await.expect("an id");
    let ahead = format!(r#"{{"farm":"{id}","database":"","removals":7}}"#);
    farm.artifacts.write_mark("cleaner/epoch.json", ahead.into()).await.expect("stores");
    let before = stored(&farm, "tasks/").await;
    delete(&mut farm, &job, false).await.expect("deletes");
    let refused = farm.handle.clean(Duration::ZERO).await.expect_err("storage is ahead").to_user();
    assert_eq!(refused.reason, "RECORD_RESTORED");
    assert!(refused.message.contains("knows of 7 removals"), "{refused}");
    assert_eq!(stored(&farm, "tasks/").await, before);
    let request = v1::CleanFarmRequest { restored: true, ..Default::default() };
    let admin = farm.handle.admin_calls();
    admin.clean_farm(&Caller::open(), request).await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, BTreeSet::new());
    assert!(farm.store.removal_count().await.expect("counts") > 7);
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_removed_by_policy_and_rendered_again() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm).await;
    let pictures = keys(&mut farm, &job).await;
    let admin = farm.handle.admin_calls();
    let policy = |subject: v1::RetentionSubject, seconds| v1::SetRetentionRequest {
        subject: subject.into(),
        outcome: v1::JobState::Done.into(),
        seconds,
        ..Default::default()
    };
    let open = Caller::open();
    let short = admin.set_retention(&open, policy(v1::RetentionSubject::Pictures, 60)).await;
    assert_eq!(short.expect_err("too short").field.as_deref(), Some("seconds"));
    for subject in [v1::RetentionSubject::Pictures, v1::RetentionSubject::Intermediates] {
        admin.set_retention(&open, policy(subject, 13 * 3600)).await.expect("sets it");
    }
    let told = admin.get_retention(&open, v1::GetRetentionRequest::default()).await;
    let told = told.expect("lists").policies;
    let of_jobs = told.iter().filter(|policy| policy.outcome() == v1::JobState::Done);
    assert_eq!(of_jobs.count(), 2);
    farm.handle.clean(12 * HOUR).await.expect("cleans");
    fetch(&mut farm, &job, 0).await.expect("not yet");
    farm.handle.clean(14 * HOUR).await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, BTreeSet::new());
    let record = farm.get(&job).await;
    assert!(record.pictures_removed_at.is_some());
    assert!(record.pictures_removed_by.contains("pictures of done jobs"), "{record:?}");
    assert!(farm.images(&job).await.iter().all(|image| image.picture_removed_at.is_some()));
    let gone = fetch(&mut farm, &job, 0).await.expect_err("removed");
    assert_eq!(gone.reason, "PICTURE_REMOVED");
    assert!(
        gone.message.contains("pictures of done jobs") && gone.message.contains("--lost"),
        "{gone}"
    );
    let request = v1::RetryImagesRequest { job_id: job.clone(), lost: true, ..Default::default() };
    let retried = farm.client.retry_images(request).await.expect("retries").into_inner();
    assert_eq!(retried.images, 2);
    assert_eq!(farm.until_ended(&job).await.state(), v1::JobState::Done);
    assert!(keys(&mut farm, &job).await.is_disjoint(&pictures));
    let record = farm.get(&job).await;
    assert!(record.pictures_removed_at.is_none() && record.pictures_removed_by.is_empty());
    for index in 0..2 {
        fetch(&mut farm, &job, index).await.expect("there again");
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stored_object_has_a_kind_and_a_rule() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm).await;
    let again = done(&mut farm).await;
    let sheet = v1::FetchSheetRequest { job_id: again, count: 2, ..Default::default() };
    drop(farm.client.fetch_sheet(sheet).await);
    delete(&mut farm, &job, false).await.expect("deletes");
    farm.handle.clean(2 * MINUTE).await.expect("cleans");
    let all = stored(&farm, "").await;
    assert!(all.contains("cleaner/epoch.json"), "{all:?}");
    for key in &all {
        assert!(Kind::of(key).is_some(), "{key} has no kind: when is it removed?");
    }
    workers.stop().await;
    farm.shutdown().await;
}
