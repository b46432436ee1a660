//! Watches and listings: nothing is missed or out of order, and all pages fit together.

use std::{collections::BTreeMap, time::Duration};

use crate::support::{self, Act, DEADLINE, Farm, prompts, spec};
use darkroom_coordinator::Options;
use darkroom_proto::v1;
use tokio_stream::StreamExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_reconnects_after_every_event_misses_nothing() {
    let mut farm = Farm::start().await;
    let job = farm.submit(spec(), prompts(30)).await;
    let workers = farm.work(|_| Act::Done);
    let mut images: BTreeMap<u64, v1::Image> = BTreeMap::new();
    let mut position = 0;
    loop {
        let request =
            v1::WatchJobRequest { id: job.id.clone(), after_version: position, images: true };
        let mut events = farm.client.watch_job(request).await.expect("watches").into_inner();
        let event = events.next().await.expect("an event").expect("fine");
        assert!(event.version >= position);
        for image in event.images {
            assert!(image.version > position, "only what changed since");
            let known = images.insert(image.index, image.clone());
            assert!(known.is_none_or(|known| known.version <= image.version));
        }
        position = event.version;
        if event.end {
            assert_eq!(event.job.expect("a job").images_done, 30);
            break;
        }
    }
    farm.until_ended(&job.id).await;
    let listed = farm.images(&job.id).await;
    assert_eq!(
        images.into_values().collect::<Vec<_>>(),
        listed,
        "the watcher knows the latest row of every image"
    );
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_sees_versions_grow_and_ends_with_the_manifest() {
    let mut farm = Farm::start().await;
    let job = farm.submit(spec(), prompts(700)).await;
    let request = v1::WatchJobRequest { id: job.id.clone(), after_version: 0, images: true };
    let mut events = farm.client.watch_job(request).await.expect("watches").into_inner();
    let workers = farm.work(|_| Act::Done);
    let (mut version, mut images, mut last) = (0, BTreeMap::new(), None);
    while let Some(event) = events.next().await {
        let event = event.expect("fine");
        assert!(event.version >= version, "{} after {version}", event.version);
        version = event.version;
        assert!(event.images.len() <= 500);
        for image in &event.images {
            images.insert(image.index, image.state());
        }
        last = Some(event);
    }
    let last = last.expect("events");
    assert!(last.end);
    let job = last.job.expect("a job");
    assert_eq!((job.manifest(), job.images_done), (v1::ManifestState::Written, 700));
    assert_eq!(images.len(), 700);
    assert!(images.values().all(|state| *state == v1::ImageState::Done));
    // A new watch from the end gets only the last event.
    let request = v1::WatchJobRequest { id: job.id.clone(), after_version: version, images: true };
    let mut events = farm.client.watch_job(request).await.expect("watches").into_inner();
    let event = events.next().await.expect("an event").expect("fine");
    assert!(event.end && event.images.is_empty());
    assert!(events.next().await.is_none());
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_everything_once_in_both_orders() {
    let mut farm = Farm::start().await;
    let job = farm.submit(spec(), prompts(57)).await;
    let workers = farm.work(|task| match task.key.subject {
        darkroom_queue::task::Subject::Image(image) if image.index % 10 == 3 => support::failed(),
        _ => Act::Done,
    });
    let job = farm.until_ended(&job.id).await;
    workers.stop().await;
    for (states, changed_since, expected) in [
        (vec![], 0, 57),
        (vec![v1::ImageState::Dead as i32], 0, 6),
        (vec![v1::ImageState::Dead as i32, v1::ImageState::Done as i32], 0, 57),
        (vec![], 1, 57),
        (vec![v1::ImageState::Done as i32], 1, 51),
    ] {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let request = v1::ListImagesRequest {
                job_id: job.id.clone(),
                page_size: 7,
                page_token: token,
                states: states.clone(),
                changed_since,
                ..Default::default()
            };
            let page = farm.client.list_images(request).await.expect("a page").into_inner();
            seen.extend(page.images);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen.len(), expected, "{states:?} {changed_since}");
        let order = |image: &v1::Image| {
            if changed_since == 0 { (0, image.index) } else { (image.version, image.index) }
        };
        assert!(seen.is_sorted_by(|a, b| order(a) < order(b)));
    }
    for number in 0..5 {
        let tenant = if number % 2 == 0 { "even" } else { "odd" };
        farm.submit(v1::JobSpec { tenant: tenant.to_owned(), ..spec() }, prompts(1)).await;
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListJobsRequest {
            page_size: 2,
            page_token: token,
            tenant: "even".to_owned(),
            ..Default::default()
        };
        let page = farm.client.list_jobs(request).await.expect("a page").into_inner();
        seen.extend(page.jobs);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 3);
    assert!(seen.is_sorted_by(|a, b| a.id > b.id), "newest first");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_repeats_the_job_at_its_version() {
    let options = Options { watch_repeat: Duration::from_millis(50), ..support::options() };
    let mut farm = Farm::start_with(options).await;
    let job = farm.submit(spec(), prompts(2)).await;
    let mut position = 0;
    for images in [false, true] {
        // From the beginning, and from a version. There are no workers, so nothing changes after
        // the first event.
        let request = v1::WatchJobRequest { id: job.id.clone(), after_version: position, images };
        let mut events = farm.client.watch_job(request).await.expect("watches").into_inner();
        if position == 0 {
            position = events.next().await.expect("an event").expect("fine").version;
        }
        for _ in 0..3 {
            let event = tokio::time::timeout(DEADLINE, events.next()).await.expect("in time");
            let event = event.expect("an event").expect("fine");
            if event.version > position {
                // Dispatching continued for a moment.
                position = event.version;
                continue;
            }
            assert_eq!((event.version, event.end, event.images.len()), (position, false, 0));
            assert_eq!(event.job.expect("the job").id, job.id);
        }
    }
    farm.shutdown().await;
}
