//! Listings, watches and their tokens.

use std::{sync::Arc, time::Duration};

use darkroom_core::error::Code;
use darkroom_farm_api::{Caller, Calls, Outgoing};
use darkroom_proto::v1;
use futures::StreamExt as _;

use super::calling::{
    LABEL, NAME, REQUEST, TEXT, Town, beginning, of, operator, plain, submit, text,
};
use crate::support::{Act, DEADLINE, prompts};

fn of_tenant(tenant: &str) -> v1::ListJobsRequest {
    v1::ListJobsRequest { tenant: tenant.to_owned(), page_size: 1, ..Default::default() }
}

/// All pages of a listing of jobs; the ids, and the tokens on the way.
async fn pages(
    calls: &Arc<dyn Calls>,
    caller: &Caller,
    mut request: v1::ListJobsRequest,
) -> (Vec<String>, Vec<String>) {
    let (mut ids, mut tokens) = (Vec::new(), Vec::new());
    loop {
        let page = calls.list_jobs(caller, request.clone()).await.expect("a page");
        ids.extend(page.jobs.into_iter().map(|job| job.id));
        if page.next_page_token.is_empty() {
            return (ids, tokens);
        }
        tokens.push(page.next_page_token.clone());
        request.page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_jobs_has_ones_own_whatever_it_asks_for() {
    let town = Town::build().await;
    let (a, nobody) = (of("a"), of("newcomer"));
    let mut own = Vec::new();
    for text in ["one", "two", "three"] {
        own.insert(0, submit(&town.calls, &a, plain(text)).await.expect("accepted").id);
    }
    let filters = [
        of_tenant(""),
        v1::ListJobsRequest { oldest_first: true, ..of_tenant("") },
        v1::ListJobsRequest { name: NAME.to_owned(), ..of_tenant("") },
        v1::ListJobsRequest { text: TEXT.to_owned(), ..of_tenant("") },
        v1::ListJobsRequest {
            labels: [(LABEL.to_owned(), "yes".to_owned())].into(),
            ..of_tenant("")
        },
        v1::ListJobsRequest { states: (2..=6).collect(), ..of_tenant("") },
    ];
    for filter in filters {
        let what = format!("{filter:?}");
        let (mut ids, _) = pages(&town.calls, &a, filter.clone()).await;
        if filter.oldest_first {
            ids.reverse();
        }
        let matches = filter.name.is_empty() && filter.text.is_empty() && filter.labels.is_empty();
        assert_eq!(ids, if matches { own.clone() } else { Vec::new() }, "{what}");
        assert_eq!(pages(&town.calls, &nobody, filter.clone()).await.0, [""; 0], "{what}");
        let all = pages(&town.calls, &operator(), filter).await.0;
        assert!(town.jobs().iter().all(|job| all.iter().any(|id| id == job)), "{what}: {all:?}");
    }
    let of_b = pages(&town.calls, &operator(), of_tenant("b")).await.0;
    assert_eq!(of_b, [town.active.clone(), town.ended.clone()]);
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_in_a_filter_is_refused_whether_it_exists_or_not() {
    let town = Town::build().await;
    for caller in [of("a"), of("newcomer")] {
        for named in ["b", "no-such-tenant"] {
            let refused = [
                text(town.calls.list_jobs(&caller, of_tenant(named)).await),
                text(town.calls.list_usage(&caller, usage(named)).await),
                text(town.calls.watch_farm(&caller, watched(named, "")).await.map(|_| ())),
            ];
            for refused in refused {
                let refused = refused.expect_err(named);
                assert_eq!(
                    (refused.code, refused.reason.as_str(), refused.field.as_deref()),
                    (Code::PermissionDenied, "OTHER_TENANT", Some("tenant")),
                    "{refused}"
                );
                let own = caller.tenant().expect("it has one");
                assert!(refused.message.starts_with(&format!("tenant is {named:?}")), "{refused}");
                assert!(refused.message.contains(&format!("accepted: {own:?}")), "{refused}");
            }
        }
    }
    town.farm.shutdown().await;
}

fn usage(tenant: &str) -> v1::ListUsageRequest {
    v1::ListUsageRequest { tenant: tenant.to_owned(), page_size: 1, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_of_ones_own_tenant() {
    let mut town = Town::build().await;
    let tenants = async |caller: &Caller| {
        let request = v1::ListUsageRequest { page_size: 100, ..usage("") };
        let days = town.calls.list_usage(caller, request).await.expect("days").days;
        days.into_iter().map(|day| day.tenant).collect::<Vec<_>>()
    };
    assert_eq!(tenants(&of("b")).await, ["b"]);
    assert_eq!(tenants(&of("a")).await, [""; 0]);
    assert_eq!(tenants(&operator()).await, ["b"]);
    let workers = town.farm.work(|_| Act::Done);
    let job = submit(&town.calls, &of("a"), plain("mine")).await.expect("accepted");
    town.farm.until_ended(&job.id).await;
    workers.stop().await;
    let calls = Arc::clone(&town.calls);
    let page = calls.list_usage(&operator(), usage("")).await.expect("days");
    assert_eq!((page.days.len(), page.days[0].tenant.as_str()), (1, "a"));
    let next = |token: &str| v1::ListUsageRequest { page_token: token.to_owned(), ..usage("") };
    let token = page.next_page_token;
    assert!(!token.contains('.') && !token.contains("a."), "{token}");
    let rest = calls.list_usage(&operator(), next(&token)).await.expect("days");
    assert_eq!(rest.days[0].tenant, "b");
    let made_up = forged(&token);
    for caller in [of("a"), of("b")] {
        let refused = calls.list_usage(&caller, next(&token)).await.expect_err("an operator's");
        let unknown = calls.list_usage(&caller, next(&made_up)).await.expect_err("nobody's");
        assert_eq!(
            refused.message.replace(&token, "TOKEN"),
            unknown.message.replace(&made_up, "TOKEN")
        );
        let own = calls.list_usage(&caller, usage("")).await.expect("days");
        assert_eq!((own.days.len(), own.next_page_token.as_str()), (1, ""));
    }
    town.farm.shutdown().await;
}

/// A token of the same length that no farm has made.
fn forged(token: &str) -> String {
    token.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_belongs_to_its_tenant_and_its_filter_and_tells_no_count() {
    let town = Town::build().await;
    let a = of("a");
    for text in ["one", "two", "three"] {
        submit(&town.calls, &a, plain(text)).await.expect("accepted");
    }
    let (_, of_a) = pages(&town.calls, &a, of_tenant("")).await;
    let (_, of_b) = pages(&town.calls, &of("b"), of_tenant("")).await;
    let (_, of_all) = pages(&town.calls, &operator(), of_tenant("")).await;
    assert_eq!((of_a.len(), of_b.len(), of_all.len()), (2, 1, 4));
    let made_up = forged(&of_a[0]);
    let ask = async |caller: &Caller, token: &str| {
        let request = v1::ListJobsRequest { page_token: token.to_owned(), ..of_tenant("") };
        text(town.calls.list_jobs(caller, request).await)
    };
    let unknown = ask(&a, &made_up).await.expect_err("nobody's");
    assert_eq!(
        (unknown.code, unknown.field.as_deref()),
        (Code::InvalidArgument, Some("page_token"))
    );
    for token in of_b.iter().chain(&of_all) {
        let refused = ask(&a, token).await.expect_err("another listing's");
        assert_eq!(
            refused.message.replace(token, "TOKEN"),
            unknown.message.replace(&made_up, "TOKEN")
        );
    }
    ask(&a, &of_a[0]).await.expect("its own");
    // Equal positions have different tokens, so a token does not tell whether others submitted.
    let (_, again) = pages(&town.calls, &a, of_tenant("")).await;
    assert_ne!(of_a[0], again[0]);
    assert_eq!(of_a[0].len(), again[0].len());
    town.farm.shutdown().await;
}

fn watched(tenant: &str, cursor: &str) -> v1::WatchFarmRequest {
    v1::WatchFarmRequest { tenant: tenant.to_owned(), cursor: cursor.to_owned() }
}

async fn next(events: &mut Outgoing<v1::FarmEvent>) -> v1::FarmEvent {
    let event = tokio::time::timeout(DEADLINE, events.next()).await.expect("in time");
    event.expect("goes on").expect("an event")
}

/// Reads a watch until it has caught up.
async fn caught_up(events: &mut Outgoing<v1::FarmEvent>) -> Vec<v1::FarmEvent> {
    let mut told = vec![next(events).await];
    while !told.last().is_some_and(|event| event.caught_up) {
        told.push(next(events).await);
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_farm_shows_nothing_of_others_and_no_workers() {
    let mut town = Town::build().await;
    let a = of("a");
    let mut events = town.calls.watch_farm(&a, watched("", "")).await.expect("watches");
    let first = caught_up(&mut events).await;
    town.assert_says_nothing_of_b("the present state", &format!("{first:?}"));
    // Tenant b is busy, workers come and go, and nothing is told of it.
    let workers = town.farm.work(|_| Act::Done);
    let other = submit(&town.calls, &of("b"), plain("more")).await.expect("accepted");
    town.farm.until_ended(&other.id).await;
    town.farm.until_ended(&town.active.clone()).await;
    workers.stop().await;
    let quiet = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let own = submit(&town.calls, &a, plain("mine")).await.expect("accepted");
    let event = next(&mut events).await;
    assert_eq!(event.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&own.id]);
    for event in first.iter().chain([&event]) {
        assert!(event.workers.is_none(), "{event:?}");
        assert!(!event.cursor.contains('.'), "it is sealed: {}", event.cursor);
    }
    // From a cursor, it goes on with what is its own.
    let cursor = first.last().expect("events").cursor.clone();
    let mut resumed = town.calls.watch_farm(&a, watched("a", &cursor)).await.expect("watches");
    let told = caught_up(&mut resumed).await;
    assert!(!told[0].reset, "{told:?}");
    town.assert_says_nothing_of_b("a resumed watch", &format!("{told:?}"));
    assert!(told.iter().flat_map(|event| &event.jobs).all(|job| job.id == own.id), "{told:?}");
    // Another tenant's cursor stands for none.
    let mut b = town.calls.watch_farm(&of("b"), watched("", &cursor)).await.expect("watches");
    let begun = next(&mut b).await;
    assert!(begun.reset, "{begun:?}");
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_watch_shows_every_tenant_and_the_workers() {
    let town = Town::build().await;
    let workers = town.farm.work(|_| Act::Done);
    let mut events = town.calls.watch_farm(&operator(), watched("", "")).await.expect("watches");
    let told = caught_up(&mut events).await;
    assert!(told[0].workers.is_some(), "{told:?}");
    let own = submit(&town.calls, &of("a"), plain("a's")).await.expect("accepted");
    let mut ids = Vec::new();
    while !ids.contains(&own.id) {
        ids.extend(next(&mut events).await.jobs.into_iter().map(|job| job.id));
    }
    workers.stop().await;
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_told_in_sums_and_without_the_age_of_a_single_task() {
    let town = Town::build().await;
    let ask = async |caller: &Caller| {
        town.calls.describe_queue(caller, v1::DescribeQueueRequest {}).await.expect("told").pools
    };
    let many = v1::SubmitJobRequest { prompts: prompts(40), ..plain("") };
    submit(&town.calls, &of("b"), many).await.expect("accepted");
    let (all, sums) = (ask(&operator()).await, ask(&of("a")).await);
    let waits = |pool: &v1::QueuePool| pool.ready > 0;
    assert!(all.iter().any(|pool| waits(pool) && pool.oldest_seconds.is_some()), "{all:?}");
    assert!(sums.iter().any(waits), "how long the queue is: {sums:?}");
    assert!(sums.iter().all(|pool| pool.oldest_seconds.is_none()), "{sums:?}");
    town.assert_says_nothing_of_b("the queue", &format!("{sums:?}"));
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_of_another_tenant_is_unused() {
    let town = Town::build().await;
    let with_id = |text: &str| {
        let mut request = plain(text);
        request.spec.as_mut().expect("a spec").client_request_id = REQUEST.to_owned();
        request
    };
    let ask = |caller: Caller, text: &'static str| {
        let calls = Arc::clone(&town.calls);
        async move { calls.submit_job(&caller, with_id(text)).await }
    };
    let own = ask(of("a"), "mine").await.expect("unused");
    assert!(!own.existed);
    let again = ask(of("a"), "mine").await.expect("repeated");
    assert!(again.existed && again.job.expect("a job").id == own.job.expect("a job").id);
    let streamed = super::calling::streamed(with_id("another's"));
    let streamed = town.calls.submit_job_stream(&of("c"), streamed).await.expect("unused");
    assert!(!streamed.existed);
    let taken = ask(of("b"), "not what b has submitted").await.expect_err("taken");
    assert_eq!(taken.reason, "REQUEST_ID_TAKEN");
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_tenant_is_its_callers_and_another_tenants_is_refused() {
    let town = Town::build().await;
    let naming = |tenant: &str| {
        let mut request = plain("a job");
        request.spec.as_mut().expect("a spec").tenant = tenant.to_owned();
        request
    };
    for (caller, named, expected) in [
        (of("a"), "", "a"),
        (of("a"), "a", "a"),
        (operator(), "", "default"),
        (operator(), "b", "b"),
        (Caller::open(), "c", "c"),
    ] {
        let job = submit(&town.calls, &caller, naming(named)).await.expect("accepted");
        assert_eq!(job.spec.expect("a spec").tenant, expected, "{caller:?} names {named:?}");
    }
    for named in ["b", "no-such-tenant"] {
        let streamed = || super::calling::streamed(naming(named));
        let refusals = [
            text(submit(&town.calls, &of("a"), naming(named)).await),
            text(town.calls.submit_job_stream(&of("a"), streamed()).await),
            text(town.calls.forecast_job(&of("a"), streamed()).await),
        ];
        for refused in refusals {
            let refused = refused.expect_err(named);
            assert_eq!(
                (refused.code, refused.field.as_deref()),
                (Code::PermissionDenied, Some("spec.tenant")),
                "{refused}"
            );
        }
    }
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_told_what_became_of_its_images_and_not_which_worker_did_it() {
    let town = Town::build().await;
    let id = || town.ended.clone();
    let asked = async |caller: &Caller| {
        let request = v1::GetImageRequest { job_id: id(), index: 0 };
        town.calls.get_image(caller, request).await.expect("an image")
    };
    let for_operators = asked(&operator()).await;
    let mut names: Vec<_> = for_operators
        .attempts
        .iter()
        .flat_map(|attempt| [attempt.worker.clone(), attempt.place.clone()])
        .collect();
    names.extend(
        for_operators.image.iter().flat_map(|image| &image.stage_seconds).map(|s| s.worker.clone()),
    );
    // Of an attempt that went well the record does not keep the place.
    names.retain(|name| !name.is_empty());
    assert!(names.iter().any(|name| name.starts_with("host-")), "{names:?}");
    let owner = of("b");
    let own = asked(&owner).await;
    for (own, theirs) in own.attempts.iter().zip(&for_operators.attempts) {
        assert!(!own.device_class.is_empty() && own.ended_at.is_some(), "{own:?}");
        assert_eq!((own.outcome, own.seconds), (theirs.outcome, theirs.seconds));
    }
    let list = v1::ListImagesRequest { job_id: id(), ..Default::default() };
    let watch = v1::WatchJobRequest { id: id(), images: true, ..Default::default() };
    let manifest = v1::FetchManifestRequest { job_id: id(), offset: 0 };
    let mut lines = town.calls.fetch_manifest(&owner, manifest).await.expect("a manifest");
    let mut whole = Vec::new();
    while let Some(chunk) = lines.next().await {
        whole.extend(chunk.expect("a chunk").data);
    }
    let told = [
        text(Ok(own)).expect("told"),
        text(town.calls.list_images(&owner, list).await).expect("listed"),
        beginning(town.calls.watch_job(&owner, watch).await).await.expect("watched"),
        String::from_utf8(whole).expect("UTF-8"),
    ];
    for told in &told {
        assert!(told.contains("seconds"), "{told}");
        for name in &names {
            assert!(!told.contains(name.as_str()), "{name}: {told}");
        }
    }
    town.farm.shutdown().await;
}
