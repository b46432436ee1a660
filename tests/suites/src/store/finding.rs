//! Finding jobs and images: the entries of a listing, their order, and where the next page
//! continues.

use std::collections::BTreeMap;

use darkroom_coordinator::store::{
    limits::{Limits, NewDeadline},
    records::{
        Example, FailureCount, Failures, ImageOrder, ImageQuery, ImageRecord, JobPosition,
        JobQuery, NewJob, NewPrompt,
    },
    roles::LOOKED_AT,
};
use darkroom_core::{
    digest::Digest, id::JobId, image_state::ImageState, job_filter::JobFilter, job_state::JobState,
    label::Naming, prompt_filter::PromptFilter,
};
use darkroom_queue::task::{Outcome, Subject};

use super::{
    bench::{Bench, STAGES},
    samples::{done, failed},
};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn all_jobs(limit: u32) -> JobQuery {
    JobQuery {
        tenant: None,
        states: Vec::new(),
        filter: JobFilter::default(),
        created_from_ms: None,
        created_to_ms: None,
        oldest_first: false,
        from: None,
        limit,
    }
}

/// The names of all jobs of a listing, page by page.
async fn names(bench: &Bench, query: &JobQuery) -> Vec<String> {
    let (mut names, mut query) = (Vec::new(), query.clone());
    loop {
        let page = bench.store.jobs(&query).await.expect("lists");
        assert!(page.jobs.len() <= query.limit as usize);
        names.extend(page.jobs.into_iter().map(|job| job.name));
        query.from = page.next;
        if query.from.is_none() {
            return names;
        }
    }
}

/// The names in a listing with a changed query, newest first. Checks that they are the same with
/// any page size, and in the other order.
async fn find(bench: &Bench, change: &dyn Fn(&mut JobQuery)) -> Vec<String> {
    let mut of_pages = Vec::new();
    for (limit, oldest_first) in [(1, false), (2, false), (9, false), (1, true), (9, true)] {
        let mut query = JobQuery { oldest_first, ..all_jobs(limit) };
        change(&mut query);
        let mut names = names(bench, &query).await;
        if oldest_first {
            names.reverse();
        }
        of_pages.push(names);
    }
    assert!(of_pages.iter().all(|names| *names == of_pages[0]), "{of_pages:?}");
    of_pages.swap_remove(0)
}

async fn submit(bench: &Bench, job: NewJob, texts: &[&str]) -> JobId {
    let prompts = bench.prompts(texts, 1);
    bench.store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
    job.id
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_is_found_by_what_it_is_called_and_by_its_state(bench: &Bench) {
    let new = |name: &str, tenant: &str, of: &[(&str, &str)]| NewJob {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        labels: labels(of),
        ..bench.job(None)
    };
    let first = [("set", "a"), ("note", "\"é\"\n")];
    let one = submit(bench, new("Été one", "t", &first), &["a cat", "a dog"]).await;
    let two = submit(bench, new("two", "u", &[("set", "a")]), &["a CAT"]).await;
    submit(bench, new("été three", "t", &[("set", "b")]), &["a cow"]).await;
    submit(bench, new("four", "t", &[]), &["a pig"]).await;
    bench.store.pause(two).await.expect("pauses");
    assert_eq!(bench.store.job(one).await.expect("there").labels, labels(&first));
    bench.store.begin(&new("not yet", "t", &[("set", "a")])).await.expect("begins");

    let filter = |of: &[(&str, &str)], name: &str, text: &str| {
        JobFilter::new(labels(of), name, text).expect("a filter")
    };
    assert_eq!(find(bench, &|_| {}).await, ["four", "été three", "two", "Été one"]);
    assert_eq!(
        find(bench, &|query| query.filter = filter(&[("set", "a")], "", "")).await,
        ["two", "Été one"]
    );
    assert_eq!(find(bench, &|query| query.filter = filter(&first, "", "")).await, ["Été one"]);
    assert_eq!(
        find(bench, &|query| query.filter = filter(&[], "ÉTÉ", "")).await,
        ["été three", "Été one"]
    );
    assert_eq!(
        find(bench, &|query| query.filter = filter(&[], "", "cat")).await,
        ["two", "Été one"]
    );
    assert_eq!(find(bench, &|query| query.filter = filter(&[], "", "FOUR")).await, ["four"]);
    assert_eq!(
        find(bench, &|query| query.filter = filter(&[("set", "a")], "é", "dog")).await,
        ["Été one"]
    );
    assert!(find(bench, &|query| query.filter = filter(&[], "", "horse")).await.is_empty());
    assert_eq!(find(bench, &|query| query.tenant = Some("t".to_owned())).await.len(), 3);
    assert_eq!(find(bench, &|query| query.states = vec![JobState::Paused]).await, ["two"]);
    let live = [JobState::Paused, JobState::Active, JobState::Active];
    assert_eq!(find(bench, &|query| query.states = live.to_vec()).await.len(), 4);
    let of_tenant = |query: &mut JobQuery| {
        query.states = live.to_vec();
        query.tenant = Some("u".to_owned());
    };
    assert_eq!(find(bench, &of_tenant).await, ["two"]);
    assert!(find(bench, &|query| query.states = vec![JobState::Done]).await.is_empty());
    let created = bench.store.job(two).await.expect("there").created_ms;
    assert!(
        find(bench, &|query| query.created_from_ms = Some(created))
            .await
            .contains(&"two".to_owned())
    );
    assert!(
        !find(bench, &|query| query.created_to_ms = Some(created))
            .await
            .contains(&"two".to_owned())
    );
    assert!(find(bench, &|query| query.created_from_ms = Some(i64::MAX)).await.is_empty());
}

/// This many prompts with one image each; only the last one has the label and the word.
async fn long_job(bench: &Bench, prompts: u64) -> JobId {
    let job = bench.job(None);
    bench.store.begin(&job).await.expect("begins");
    let template = bench.prompts(&["a cat"], 1).remove(0);
    let prompt = |position: u64| NewPrompt {
        position,
        first_index: position,
        naming: if position + 1 == prompts {
            let custom_id = Some("Needle".to_owned());
            Naming { custom_id, labels: labels(&[("here", "yes")]), line: None }
        } else {
            Naming::default()
        },
        ..template.clone()
    };
    for first in (0..prompts).step_by(5000) {
        let chunk: Vec<_> = (first..prompts.min(first + 5000)).map(prompt).collect();
        bench.store.receive(job.id, &chunk).await.expect("receives");
    }
    bench.store.accept(job.id, Digest::of(b"content")).await.expect("accepted");
    job.id
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_search_stops_after_so_many_rows_and_goes_on_where_it_stopped(bench: &Bench) {
    let most = u64::from(LOOKED_AT);
    let job = long_job(bench, most + 300).await;
    let seq = bench.store.job(job).await.expect("there").seq;

    let filter = JobFilter::new(BTreeMap::new(), "", "needle").expect("a filter");
    let query = JobQuery { filter, ..all_jobs(5) };
    let page = bench.store.jobs(&query).await.expect("lists");
    assert!(page.jobs.is_empty(), "not found yet");
    // The job itself counts too.
    assert_eq!(page.next, Some(JobPosition::Within(seq, most - 1)));
    let rest =
        bench.store.jobs(&JobQuery { from: page.next, ..query.clone() }).await.expect("lists");
    assert_eq!(rest.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [job]);
    assert_eq!(rest.next, None);
    let oldest = JobQuery { oldest_first: true, from: page.next, ..query };
    let rest = bench.store.jobs(&oldest).await.expect("lists");
    assert_eq!((rest.jobs.len(), rest.next), (1, None), "also in the other order");

    let by_label = PromptFilter::new(labels(&[("here", "yes")]), "").expect("a filter");
    let by_text = PromptFilter::new(BTreeMap::new(), "NEEDLE").expect("a filter");
    for filter in [by_label, by_text] {
        for states in [vec![], vec![ImageState::Waiting]] {
            for order in [ImageOrder::Index(None), ImageOrder::Version(0, None)] {
                let query = ImageQuery {
                    states: states.clone(),
                    filter: filter.clone(),
                    ..ImageQuery::all(job, order, 3)
                };
                let page = bench.store.images(&query).await.expect("lists");
                assert!(page.images.is_empty(), "not found yet");
                let next = page.next.expect("there is more");
                let last = match next {
                    ImageOrder::Index(last) | ImageOrder::Version(_, last) => last,
                };
                assert_eq!(last, Some(most - 1), "{order:?}");
                let page =
                    bench.store.images(&ImageQuery { order: next, ..query }).await.expect("lists");
                let found: Vec<_> = page.images.iter().map(|image| image.id.index).collect();
                assert_eq!((found, page.next), (vec![most + 299], None));
            }
        }
    }
}

/// The images of all pages of a listing.
async fn images(bench: &Bench, query: &ImageQuery) -> Vec<u64> {
    let (mut indexes, mut query) = (Vec::new(), query.clone());
    loop {
        let page = bench.store.images(&query).await.expect("lists");
        assert!(page.images.len() <= query.limit as usize);
        indexes.extend(page.images.iter().map(|image| image.id.index));
        match page.next {
            Some(next) => query.order = next,
            None => return indexes,
        }
    }
}

/// A job of 700 images in all states except waiting: three blocks, each with many states.
async fn mixed_job(bench: &Bench) -> JobId {
    let mut prompts = bench.prompts(&["a cat", "a dog", "a cow", "two Cats", "a pig"], 140);
    for (place, prompt) in prompts.iter_mut().enumerate() {
        prompt.naming.labels =
            labels(&[("even", if place % 2 == 0 { "yes" } else { "no" }), ("é", "\"\n")]);
    }
    prompts[4].naming.custom_id = Some("CAT-4".to_owned());
    let job = bench.submit_prompts(&prompts, Limits::default()).await;
    bench.encode(job).await;
    for round in 0..6 {
        let tasks = bench.dispatch(STAGES[0], job, 600).await;
        let mut reports = Vec::new();
        for task in tasks {
            let index = match task.key.subject {
                Subject::Image(id) => id.index,
                Subject::Text(_) => unreachable!("images have no texts here"),
            };
            let outcome = if index % 37 == 5 { failed() } else { done("base") };
            if index % 11 != 3 {
                reports.push(Bench::report(task.key, outcome, true));
            }
        }
        bench.store.commit(&bench.pool(STAGES[0]), &reports).await.expect("commits");
        if round == 0 {
            let tasks = bench.dispatch(STAGES[1], job, 200).await;
            let reports: Vec<_> = tasks
                .iter()
                .step_by(2)
                .map(|task| Bench::report(task.key, done("sr256"), true))
                .collect();
            bench.store.commit(&bench.pool(STAGES[1]), &reports).await.expect("commits");
        }
    }
    bench.audit(job).await;
    job
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn images_are_found_by_place_state_change_label_and_text_together(bench: &Bench) {
    use ImageState as S;
    let job = mixed_job(bench).await;
    let all = bench.store.images(&ImageQuery::all(job, ImageOrder::Index(None), 1000)).await;
    let all = all.expect("lists").images;
    let counts = [S::Ready, S::Dispatched, S::Done, S::Dead]
        .map(|state| all.iter().filter(|image| image.progress.state == state).count());
    assert!(counts.iter().all(|count| *count > 10), "every state occurs: {counts:?}");
    let filters = [
        PromptFilter::default(),
        PromptFilter::new(labels(&[("even", "yes"), ("é", "\"\n")]), "").expect("a filter"),
        PromptFilter::new(BTreeMap::new(), "cAt").expect("a filter"),
        PromptFilter::new(labels(&[("even", "no")]), "cat").expect("a filter"),
        PromptFilter::new(BTreeMap::new(), "horse").expect("a filter"),
    ];
    let sets = [
        vec![],
        vec![S::Dead],
        vec![S::Done],
        vec![S::Ready, S::Dead],
        vec![S::Waiting],
        vec![S::Cancelled, S::Dispatched, S::Done, S::Dead],
    ];
    let middle = all[350].version;
    let orders = [
        ImageOrder::Index(None),
        ImageOrder::Index(Some(99)),
        ImageOrder::Index(Some(699)),
        ImageOrder::Version(0, None),
        ImageOrder::Version(middle, None),
        ImageOrder::Version(middle, Some(350)),
    ];
    for filter in &filters {
        for states in &sets {
            for order in orders {
                let expected = expected(&all, filter, states, order);
                for limit in [7, 256, 1000] {
                    let query = ImageQuery {
                        states: states.clone(),
                        filter: filter.clone(),
                        ..ImageQuery::all(job, order, limit)
                    };
                    assert_eq!(images(bench, &query).await, expected, "{query:?}");
                }
            }
        }
    }
}

fn expected(
    all: &[ImageRecord],
    filter: &PromptFilter,
    states: &[ImageState],
    order: ImageOrder,
) -> Vec<u64> {
    let is_meant = |image: &&ImageRecord| {
        let (version, index) = (image.version, image.id.index);
        let follows = match order {
            ImageOrder::Index(after) => after.is_none_or(|after| index > after),
            ImageOrder::Version(after, None) => version > after,
            ImageOrder::Version(after, Some(last)) => (version, index) > (after, last),
        };
        let (id, labels) = (image.naming.custom_id.as_deref(), &image.naming.labels);
        follows
            && (states.is_empty() || states.contains(&image.progress.state))
            && filter.accepts(&image.prompt, id, labels)
    };
    let mut found: Vec<_> =
        all.iter().filter(is_meant).map(|image| (image.version, image.id.index)).collect();
    if matches!(order, ImageOrder::Version(..)) {
        found.sort_unstable();
    }
    found.into_iter().map(|(_, index)| index).collect()
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn failures_are_counted_by_code(bench: &Bench) {
    let job = bench.submit(&["a", "b"], 30).await;
    assert_eq!(bench.store.failures(job).await.expect("counts"), Failures::default());
    bench.encode(job).await;
    let fail = async |index: u64, code: &str| {
        let tasks = bench.dispatch(STAGES[0], job, 60).await;
        let reports: Vec<_> = tasks
            .iter()
            .map(|task| {
                let outcome = match task.key.subject {
                    Subject::Image(id) if id.index == index => {
                        let message = format!("{code} of image {index}");
                        Outcome::Failed { code: code.into(), message }
                    }
                    _ => Outcome::Interrupted { reason: "not meant".to_owned() },
                };
                Bench::report(task.key, outcome, true)
            })
            .collect();
        bench.store.commit(&bench.pool(STAGES[0]), &reports).await.expect("commits");
    };
    fail(40, "memory").await;
    for index in [7, 50, 9] {
        while bench.states(job).await[usize::try_from(index).expect("small")] != ImageState::Dead {
            fail(index, "memory").await;
        }
    }
    fail(3, "disk").await;
    let count = |code: &str, (dead, not_dead), (first, last), example: u64| FailureCount {
        code: code.into(),
        dead,
        not_dead,
        at_least: false,
        first,
        last,
        example: Example { index: example, message: format!("{code} of image {example}") },
    };
    let failures = bench.store.failures(job).await.expect("counts");
    let expected = [count("memory", (3, 1), (7, 50), 7), count("disk", (0, 1), (3, 3), 3)];
    assert_eq!((failures.counts.as_slice(), failures.more), (expected.as_slice(), false));
    // An image that succeeds does not count as failed any more.
    for task in bench.dispatch(STAGES[0], job, 60).await {
        bench.commit(STAGES[0], task.key, done("base")).await;
    }
    let failures = bench.store.failures(job).await.expect("counts");
    assert_eq!(failures.counts, [count("memory", (3, 0), (7, 50), 7)]);
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    assert_eq!(bench.store.failures(job).await.expect("counts"), Failures::default());
}
