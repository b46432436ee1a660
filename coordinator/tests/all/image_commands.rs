//! Commands to some images of a job over gRPC: their counts, changes, refusals, and the manifest
//! afterwards. Also lost pictures, and jobs without reuse.

use std::{path::Path, sync::Arc, time::Duration};

use crate::support::{self, Act, Farm, failed, index, options, prompt, prompts, spec};
use darkroom_artifacts::{ArtifactStore, manifest};
use darkroom_coordinator::Options;
use darkroom_proto::{
    status::from_status,
    v1::{self, ImageState as S, JobState},
};
use darkroom_queue::{TaskQueue as _, task::EntryState};
use tokio_util::sync::CancellationToken;

fn ranges(ranges: &[(u64, u64)]) -> v1::ImageFilter {
    let ranges = ranges.iter().map(|(first, last)| v1::IndexRange { first: *first, last: *last });
    v1::ImageFilter { ranges: ranges.collect(), ..v1::ImageFilter::default() }
}

fn in_states(states: &[S]) -> v1::ImageFilter {
    let states = states.iter().map(|state| (*state).into()).collect();
    v1::ImageFilter { states, ..v1::ImageFilter::default() }
}

fn cancel(job: &str, filter: v1::ImageFilter) -> v1::CancelImagesRequest {
    v1::CancelImagesRequest { job_id: job.to_owned(), filter: Some(filter), dry_run: false }
}

fn retry(job: &str, filter: v1::ImageFilter) -> v1::RetryImagesRequest {
    let job_id = job.to_owned();
    v1::RetryImagesRequest { job_id, filter: Some(filter), ..Default::default() }
}

fn lost(job: &str) -> v1::RetryImagesRequest {
    v1::RetryImagesRequest { job_id: job.to_owned(), lost: true, ..Default::default() }
}

impl Farm {
    async fn states(&mut self, job: &str) -> Vec<S> {
        self.images(job).await.iter().map(v1::Image::state).collect()
    }

    /// The images' states in a job's manifest.
    async fn manifest(&mut self, job: &str) -> (manifest::Totals, u32) {
        let bytes = self.manifest_bytes(job).await;
        let (header, totals) = manifest::verify(bytes.as_slice(), drop).expect("whole");
        (totals, header.generation)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_images_are_not_rendered_and_the_rest_is() {
    let mut farm = Farm::start().await;
    let job = farm.submit(spec(), prompts(6)).await.id;
    let some = ranges(&[(4, 5), (1, 1)]);
    let counted = v1::CancelImagesRequest { dry_run: true, ..cancel(&job, some.clone()) };
    let counted = farm.client.cancel_images(counted).await.expect("counts").into_inner();
    assert_eq!(counted.images, 3);
    assert_eq!(farm.states(&job).await, [S::Waiting; 6], "a dry run changes nothing");
    let answer = farm.client.cancel_images(cancel(&job, some.clone())).await.expect("cancels");
    assert_eq!(answer.into_inner().images, 3);
    farm.until(&job, "followed", |job| job.images_cancelled == 3).await;
    let again = farm.client.cancel_images(cancel(&job, some)).await.expect("again").into_inner();
    assert_eq!(again.images, 0, "idempotent");
    let workers = farm.work(|_| Act::Done);
    let ended = farm.until_ended(&job).await;
    assert_eq!((ended.state(), ended.images_done), (JobState::Done, 3));
    let (totals, generation) = farm.manifest(&job).await;
    assert_eq!((totals.done, totals.cancelled, generation), (3, 3, 1));
    let ran = workers.stop().await;
    assert!(ran.iter().filter_map(index).all(|index| [0, 2, 3].contains(&index)));
    let late = farm.client.cancel_images(cancel(&job, ranges(&[(0, 5)]))).await.expect("answers");
    assert_eq!(late.into_inner().images, 0, "an ended job has nothing to cancel");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_image_that_is_cancelled_leaves_the_queue_and_ends_its_job() {
    // Without a sweep.
    let sweep = Duration::from_secs(3600);
    let mut farm = Farm::start_with(Options { sweep, ..options() }).await;
    let until = CancellationToken::new();
    let held = until.clone();
    let workers = farm.work(move |task| match index(task) {
        Some(_) => Act::Hold(held.clone()),
        None => Act::Done,
    });
    let job = farm.submit(spec(), prompts(1)).await.id;
    let (queue, pool) = (Arc::clone(&farm.queue), support::pool("base"));
    support::eventually("it runs", async || {
        let entries = queue.entries(&pool).await.expect("lists");
        entries.iter().any(|entry| matches!(entry.state, EntryState::Leased(_)))
    })
    .await;
    let all = in_states(&[S::Waiting, S::Ready, S::Dispatched]);
    farm.client.cancel_images(cancel(&job, all)).await.expect("cancels");
    let ended = farm.until_ended(&job).await;
    assert_eq!((ended.state(), ended.images_cancelled), (JobState::Cancelled, 1));
    support::eventually("the task is taken from its worker", async || {
        queue.entries(&pool).await.expect("lists").is_empty()
    })
    .await;
    until.cancel();
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_an_ended_job_run_again_and_its_manifest_is_written_again() {
    let mut farm = Farm::start().await;
    let broken = CancellationToken::new();
    let mended = broken.clone();
    let workers = farm.work(move |task| match index(task) {
        Some(1 | 2) if !mended.is_cancelled() => failed(),
        _ => Act::Done,
    });
    let job = farm.submit(spec(), prompts(4)).await.id;
    let ended = farm.until_ended(&job).await;
    assert_eq!((ended.state(), ended.images_dead), (JobState::Failed, 2));
    broken.cancel();
    let of_code = |code: &str| v1::ImageFilter {
        error_codes: vec![code.to_owned()],
        ..ranges(&[(0, 1), (3, 3)])
    };
    let none = farm.client.retry_images(retry(&job, of_code("panic"))).await.expect("answers");
    let none = none.into_inner();
    assert_eq!((none.images, none.job.expect("a job").state()), (0, JobState::Failed));
    let some = retry(&job, ranges(&[(0, 1), (3, 3)]));
    let counted = v1::RetryImagesRequest { dry_run: true, ..some };
    let counted = farm.client.retry_images(counted).await.expect("counts").into_inner();
    assert_eq!((counted.images, counted.skipped_intact), (1, 2));
    let answer = farm.client.retry_images(retry(&job, of_code("non_finite"))).await;
    let answer = answer.expect("retries").into_inner();
    assert_eq!(answer.images, 1);
    let reopened = answer.job.expect("a job");
    assert_eq!((reopened.state(), reopened.generation), (JobState::Active, 2));
    farm.until(&job, "another manifest", |job| job.generation == 2 && job.images_done == 3).await;
    let ended = farm.until_ended(&job).await;
    assert_eq!((ended.state(), ended.images_dead), (JobState::Failed, 1));
    let (totals, generation) = farm.manifest(&job).await;
    assert_eq!((totals.done, totals.dead, generation), (3, 1, 2));
    farm.client.retry_images(retry(&job, in_states(&[S::Dead]))).await.expect("retries");
    farm.until(&job, "all", |job| job.images_done == 4).await;
    assert_eq!(farm.until_ended(&job).await.state(), JobState::Done);
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_mean_nothing_are_refused_by_field() {
    let mut farm = Farm::start().await;
    let job = farm.submit(spec(), prompts(2)).await.id;
    let many =
        v1::ImageFilter { ranges: vec![v1::IndexRange::default(); 1001], ..Default::default() };
    let long = v1::ImageFilter { text: "é".repeat(4097), ..Default::default() };
    for (filter, field) in [
        (v1::ImageFilter::default(), "filter"),
        (v1::ImageFilter { text: " ".to_owned(), ..Default::default() }, "filter"),
        (ranges(&[(0, 2)]), "filter.ranges"),
        (ranges(&[(1, 0)]), "filter.ranges[0]"),
        (in_states(&[S::Ready, S::Done]), "filter.states"),
        (in_states(&[S::Unspecified]), "filter.states"),
        (many, "filter.ranges"),
        (long, "filter.text"),
    ] {
        let status = farm.client.cancel_images(cancel(&job, filter)).await.expect_err(field);
        let error = from_status(&status);
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
        assert!(error.message.starts_with("filter"), "{error}");
    }
    let absent = v1::CancelImagesRequest { job_id: job.clone(), ..Default::default() };
    let status = farm.client.cancel_images(absent).await.expect_err("no filter");
    assert_eq!(from_status(&status).field.as_deref(), Some("filter"));
    let with_states = v1::RetryImagesRequest { lost: true, ..retry(&job, in_states(&[S::Dead])) };
    let token = v1::RetryImagesRequest { page_token: "7".to_owned(), ..lost(&job) };
    let without_lost = v1::RetryImagesRequest {
        page_token: "i7".to_owned(),
        ..retry(&job, in_states(&[S::Dead]))
    };
    for (request, field) in
        [(with_states, "filter.states"), (token, "page_token"), (without_lost, "page_token")]
    {
        let status = farm.client.retry_images(request).await.expect_err(field);
        assert_eq!(from_status(&status).field.as_deref(), Some(field));
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_that_are_lost_or_damaged_are_rendered_again_and_no_others() {
    let storage = tempfile::tempdir().expect("a folder");
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let artifacts = ArtifactStore::local(storage.path()).expect("a folder");
    let mut farm = Farm::start_over(options(), folder, artifacts).await;
    let workers = farm.work(|_| Act::Done);
    let labels = [("set".to_owned(), "a".to_owned())];
    let mut prompts = prompts(4);
    prompts[3].labels = labels.clone().into();
    let job = farm.submit(spec(), prompts).await.id;
    farm.until_ended(&job).await;
    let before = farm.images(&job).await;
    let file = |image: &v1::Image| Path::new(storage.path()).join(&image.key);
    std::fs::remove_file(file(&before[1])).expect("removes");
    let size = std::fs::read(file(&before[3])).expect("reads").len();
    std::fs::write(file(&before[3]), vec![7; size]).expect("damages");

    let counted = v1::RetryImagesRequest { dry_run: true, ..lost(&job) };
    let counted = farm.client.retry_images(counted).await.expect("counts").into_inner();
    assert_eq!((counted.images, counted.skipped_intact, counted.checked), (2, 2, 4));
    assert_eq!((counted.next_page_token.as_str(), farm.get(&job).await.generation), ("", 1));
    let labelled = v1::ImageFilter { labels: labels.into(), ..Default::default() };
    let labelled = v1::RetryImagesRequest { filter: Some(labelled), ..lost(&job) };
    let answer = farm.client.retry_images(labelled).await.expect("retries").into_inner();
    assert_eq!((answer.images, answer.checked), (1, 1));
    farm.until(&job, "rendered", |job| job.generation == 2 && job.images_done == 4).await;
    farm.until_ended(&job).await;
    let answer = farm.client.retry_images(lost(&job)).await.expect("retries").into_inner();
    assert_eq!((answer.images, answer.skipped_intact), (1, 3));
    farm.until(&job, "rendered", |job| job.generation == 3 && job.images_done == 4).await;
    let ended = farm.until_ended(&job).await;
    assert_eq!(ended.state(), JobState::Done);
    assert_eq!(farm.manifest(&job).await.1, 3, "the manifest is written again");
    let after = farm.images(&job).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.key, &before.sha256), (&after.key, &after.sha256));
        let again = [1, 3].contains(&after.index);
        assert_eq!(after.generation, if again { 2 } else { 1 }, "image {}", after.index);
    }
    let whole = farm.client.retry_images(lost(&job)).await.expect("answers").into_inner();
    assert_eq!((whole.images, whole.skipped_intact), (0, 4));
    let ran = workers.stop().await;
    let runs = |of: u64| ran.iter().filter(|task| index(task) == Some(of)).count();
    assert_eq!((runs(0), runs(1), runs(3)), (3, 4, 4), "only the last stage ran again");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_reuse_has_keys_of_its_own_for_each_image() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let same = || v1::Prompt { seed: Some(7), ..prompt("a cat") };
    let mut keys = Vec::new();
    for no_reuse in [false, true, true] {
        let spec = v1::JobSpec { no_reuse, ..spec() };
        let job = farm.submit(spec, vec![same(), same()]).await;
        assert_eq!(job.spec.expect("a spec").no_reuse, no_reuse);
        farm.until_ended(&job.id).await;
        keys.extend(farm.images(&job.id).await.into_iter().map(|image| image.key));
    }
    let folder = |key: &String| key.rsplit_once('/').expect("a folder").0.to_owned();
    let folders: Vec<_> = keys.iter().map(folder).collect();
    assert_eq!(folders[0], folders[1], "equal tasks of other jobs share what they store");
    let own: std::collections::BTreeSet<_> = folders.iter().collect();
    assert_eq!(own.len(), 5, "{folders:?}");
    for key in &keys {
        farm.artifacts.size_of(key).await.expect("nothing was replaced or removed");
    }
    let texts = workers.stop().await.iter().filter(|task| index(task).is_none()).count();
    assert_eq!(texts, 2, "the text and the empty one are encoded once");
    farm.shutdown().await;
}
