//! Finding jobs and images over gRPC: labels of jobs, searches, pages of listings, and how a job's
//! images failed.

use std::collections::BTreeMap;

use crate::support::{self, Act, Farm, prompt, prompts, spec};
use darkroom_artifacts::manifest;
use darkroom_proto::{status::from_status, v1};
use tonic::Code;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The names of the jobs of all pages.
async fn names(farm: &mut Farm, mut request: v1::ListJobsRequest) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let page = farm.client.list_jobs(request.clone()).await.expect("a page").into_inner();
        names.extend(page.jobs.into_iter().map(|job| job.spec.expect("a spec").name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return names;
        }
    }
}

/// The indexes of the images of all pages.
async fn indexes(farm: &mut Farm, mut request: v1::ListImagesRequest) -> Vec<u64> {
    let mut indexes = Vec::new();
    loop {
        let page = farm.client.list_images(request.clone()).await.expect("a page").into_inner();
        indexes.extend(page.images.into_iter().map(|image| image.index));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return indexes;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_labels_are_told_everywhere_and_are_part_of_what_a_repeat_compares() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let given = labels(&[("set", "a"), ("é", "\"quoted\"\n")]);
    let spec =
        v1::JobSpec { client_request_id: "once".to_owned(), labels: given.clone(), ..spec() };
    let request = |spec: &v1::JobSpec| v1::SubmitJobRequest {
        spec: Some(spec.clone()),
        prompts: vec![prompt("a cat")],
    };
    let job = farm.client.submit_job(request(&spec)).await.expect("accepted").into_inner();
    let job = job.job.expect("a job");
    assert_eq!(job.spec.as_ref().expect("a spec").labels, given);
    let again = farm.client.submit_job(request(&spec)).await.expect("the same").into_inner();
    assert!(again.existed);
    for other in [BTreeMap::new(), labels(&[("set", "b"), ("é", "\"quoted\"\n")])] {
        let other = v1::JobSpec { labels: other, ..spec.clone() };
        let refused = farm.client.submit_job(request(&other)).await.expect_err("other content");
        assert_eq!(refused.code(), Code::AlreadyExists);
    }
    farm.until_ended(&job.id).await;
    assert_eq!(farm.get(&job.id).await.spec.expect("a spec").labels, given);
    let text = farm.manifest_bytes(&job.id).await;
    assert_eq!(manifest::verify(text.as_slice(), |_| {}).expect("whole").0.labels, given);

    let many = (0..17).map(|number| (number.to_string(), String::new())).collect();
    let wrong = v1::JobSpec { labels: many, ..support::spec() };
    let refused = farm.client.submit_job(request(&wrong)).await.expect_err("too many");
    assert_eq!(from_status(&refused).field.as_deref(), Some("spec.labels"));
    for task in workers.stop().await {
        let sent = serde_json::to_string(&task).expect("JSON");
        assert!(!sent.contains("quoted"), "workers do not get it: {sent}");
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_found_and_a_token_continues_only_its_own_listing() {
    let mut farm = Farm::start().await;
    for (name, set, text) in [("one", "a", "a cat"), ("two", "b", "a dog"), ("three", "a", "a Cat")]
    {
        let spec = v1::JobSpec { name: name.to_owned(), labels: labels(&[("set", set)]), ..spec() };
        farm.submit(spec, vec![prompt(text)]).await;
    }
    let by_label =
        v1::ListJobsRequest { page_size: 1, labels: labels(&[("set", "a")]), ..Default::default() };
    assert_eq!(names(&mut farm, by_label.clone()).await, ["three", "one"]);
    let oldest = v1::ListJobsRequest { oldest_first: true, ..by_label.clone() };
    assert_eq!(names(&mut farm, oldest).await, ["one", "three"]);
    let by_text = v1::ListJobsRequest { text: "CAT".to_owned(), ..Default::default() };
    assert_eq!(names(&mut farm, by_text).await, ["three", "one"]);
    let by_name = v1::ListJobsRequest { name: "T".to_owned(), ..Default::default() };
    assert_eq!(names(&mut farm, by_name).await, ["three", "two"]);
    let future = Some(prost_types::Timestamp { seconds: 32_503_680_000, nanos: 0 });
    let later = v1::ListJobsRequest { created_from: future, ..Default::default() };
    assert!(names(&mut farm, later).await.is_empty());
    let earlier = v1::ListJobsRequest { created_to: future, ..Default::default() };
    assert_eq!(names(&mut farm, earlier).await.len(), 3);

    let page = farm.client.list_jobs(by_label.clone()).await.expect("a page").into_inner();
    let other = v1::ListJobsRequest {
        page_token: page.next_page_token,
        labels: labels(&[("set", "b")]),
        ..by_label
    };
    let refused = farm.client.list_jobs(other).await.expect_err("another listing's");
    assert_eq!(from_status(&refused).field.as_deref(), Some("page_token"));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_listed_from_an_index_and_found_by_label_and_text() {
    let mut farm = Farm::start().await;
    let labelled = |text: &str, set: &str| v1::Prompt {
        labels: labels(&[("set", set)]),
        images: 3,
        ..prompt(text)
    };
    let prompts = vec![labelled("a cat", "a"), labelled("a dog", "b"), labelled("two Cats", "b")];
    let job = farm.submit(spec(), prompts).await.id;
    let all = v1::ListImagesRequest { job_id: job, page_size: 2, ..Default::default() };
    let of = |change: &dyn Fn(&mut v1::ListImagesRequest)| {
        let mut request = all.clone();
        change(&mut request);
        request
    };
    assert_eq!(indexes(&mut farm, of(&|all| all.start_index = 7)).await, [7, 8]);
    assert!(indexes(&mut farm, of(&|all| all.start_index = 9)).await.is_empty());
    let set = |set: &str| labels(&[("set", set)]);
    assert_eq!(indexes(&mut farm, of(&|all| all.labels = set("a"))).await, [0, 1, 2]);
    assert_eq!(
        indexes(&mut farm, of(&|all| all.text = "CAT".to_owned())).await,
        [0, 1, 2, 6, 7, 8]
    );
    let both = of(&|all| {
        (all.labels, all.text, all.start_index) = (set("b"), "cat".to_owned(), 7);
        all.states = vec![v1::ImageState::Waiting.into(); 2];
    });
    assert_eq!(indexes(&mut farm, both).await, [7, 8]);
    let changed = of(&|all| (all.changed_since, all.text) = (1, "dog".to_owned()));
    assert!(indexes(&mut farm, changed).await.is_empty(), "nothing changed since the submit");
    let refused = of(&|all| (all.changed_since, all.start_index) = (1, 1));
    let refused = farm.client.list_images(refused).await.expect_err("two orders");
    assert_eq!(from_status(&refused).field.as_deref(), Some("start_index"));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_failures_are_summarized_by_code() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|task| match support::index(task) {
        Some(2 | 5) if task.key.generation == 1 => support::failed(),
        _ => Act::Done,
    });
    let job = farm.submit(spec(), prompts(7)).await.id;
    farm.until_ended(&job).await;
    let request = v1::SummarizeFailuresRequest { job_id: job.clone() };
    let summary = farm.client.summarize_failures(request.clone()).await.expect("a summary");
    let summary = summary.into_inner();
    assert!(!summary.more_codes);
    let [failure] = summary.failures.as_slice() else { panic!("one code: {summary:?}") };
    assert_eq!((failure.images_dead, failure.images_not_dead, failure.at_least), (2, 0, false));
    assert_eq!((failure.first_index, failure.last_index, failure.example_index), (2, 5, 2));
    let image = farm.images(&job).await.swap_remove(2);
    assert_eq!((&failure.code, &failure.example), (&image.error_code, &image.error));
    assert!(!failure.code.is_empty() && !failure.example.is_empty());

    let retry = v1::RetryJobRequest { id: job.clone(), ..Default::default() };
    farm.client.retry_job(retry).await.expect("retries");
    farm.until(&job, "done", |job| job.state() == v1::JobState::Done).await;
    let summary = farm.client.summarize_failures(request).await.expect("a summary").into_inner();
    assert_eq!(summary, v1::SummarizeFailuresResponse::default());
    workers.stop().await;
    farm.shutdown().await;
}
