//! Every method of the service, from the descriptor. A method without a rule fails.

use std::sync::Arc;

use darkroom_core::error::Code;
use darkroom_farm_api::{Answer, Caller, Calls, Scope};
use darkroom_proto::{calls::CALLS, v1};

use super::calling::{Town, beginning, of, operator, plain, submit, text, without};

/// What keeps a method from telling one tenant of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It names a job: another tenant's is not found, as one that does not exist.
    OfAJob,
    /// It names a webhook: the same. See `webhooks`.
    OfAWebhook,
    /// It lists: only what is the caller's tenant's. See `listings` and `webhooks`.
    Lists,
    /// It makes something for the caller's tenant. See `inputs`, `sharing` and `webhooks`.
    Makes,
    /// Only operators may call it.
    Operators,
    /// It tells everyone the same, and nothing of any tenant.
    Everyone,
}

fn rule(method: &str) -> Rule {
    match method {
        "GetJob" | "WatchJob" | "CancelJob" | "DeleteJob" | "PauseJob" | "ResumeJob"
        | "RetryJob" | "CancelImages" | "RetryImages" | "ListImages" | "SummarizeFailures"
        | "GetImage" | "GetImageMap" | "FetchImage" | "FetchSheet" | "SignImage"
        | "FetchManifest" => Rule::OfAJob,
        "DeleteWebhook" => Rule::OfAWebhook,
        "ListJobs" | "WatchFarm" | "ListUsage" | "DescribeQueue" | "ListWebhooks" => Rule::Lists,
        "SubmitJob" | "SubmitJobStream" | "UploadInput" | "ForecastJob" | "CreateWebhook" => {
            Rule::Makes
        }
        "ListWorkers" | "DrainWorker" | "FarmHistory" => Rule::Operators,
        "ListCascades" | "GetFarm" => Rule::Everyone,
        other => panic!("{other} has no rule: what does it tell one tenant of another?"),
    }
}

/// The methods with this rule.
fn methods(wanted: Rule) -> Vec<&'static str> {
    let names = CALLS.iter().filter_map(|call| call.path.strip_prefix("/darkroom.v1.Farm/"));
    let found: Vec<_> = names.filter(|name| rule(name) == wanted).collect();
    assert!(!found.is_empty(), "{wanted:?}");
    found
}

/// How a method about a job is called: as it should be, and with values that other checks refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Well,
    Differently,
    Badly,
}

const HOW: [How; 3] = [How::Well, How::Differently, How::Badly];

/// A call of a method about a job.
async fn ask_of_job(
    calls: &Arc<dyn Calls>,
    caller: &Caller,
    method: &str,
    job: &str,
    how: How,
) -> Answer<String> {
    let (id, job_id) = (job.to_owned(), job.to_owned());
    let otherwise = how == How::Differently;
    let badly = how == How::Badly;
    let index = if badly { 1 << 40 } else { u64::from(otherwise) };
    let stage = match how {
        How::Well => String::new(),
        How::Differently => "base".to_owned(),
        How::Badly => "no-such-stage".to_owned(),
    };
    let max_edge = if otherwise { 32 } else { 0 };
    let filter = Some(v1::ImageFilter {
        states: Vec::new(),
        ranges: vec![v1::IndexRange { first: 0, last: index }],
        ..Default::default()
    });
    match method {
        "GetJob" => text(calls.get_job(caller, v1::GetJobRequest { id }).await),
        "WatchJob" => {
            let after_version = if badly { u64::MAX } else { 0 };
            let request = v1::WatchJobRequest { id, after_version, images: otherwise };
            beginning(calls.watch_job(caller, request).await).await
        }
        "CancelJob" => text(calls.cancel_job(caller, v1::CancelJobRequest { id }).await),
        "DeleteJob" => {
            let request = v1::DeleteJobRequest { id, cancel: otherwise };
            text(calls.delete_job(caller, request).await)
        }
        "PauseJob" => text(calls.pause_job(caller, v1::PauseJobRequest { id }).await),
        "ResumeJob" => text(calls.resume_job(caller, v1::ResumeJobRequest { id }).await),
        "RetryJob" => {
            let request = v1::RetryJobRequest { id, no_deadline: otherwise, ..Default::default() };
            text(calls.retry_job(caller, request).await)
        }
        "CancelImages" => {
            let request = v1::CancelImagesRequest { job_id, filter, dry_run: otherwise };
            text(calls.cancel_images(caller, request).await)
        }
        "RetryImages" => {
            let (lost, filter) = (otherwise, filter.filter(|_| !otherwise));
            let request = v1::RetryImagesRequest { job_id, filter, lost, ..Default::default() };
            text(calls.retry_images(caller, request).await)
        }
        "ListImages" => {
            let page_token = if otherwise { "i0".to_owned() } else { String::new() };
            let request = v1::ListImagesRequest { job_id, page_token, ..Default::default() };
            text(calls.list_images(caller, request).await)
        }
        "SummarizeFailures" => {
            text(calls.summarize_failures(caller, v1::SummarizeFailuresRequest { job_id }).await)
        }
        "GetImage" => text(calls.get_image(caller, v1::GetImageRequest { job_id, index }).await),
        "GetImageMap" => {
            let request = v1::GetImageMapRequest {
                job_id,
                first_index: index,
                since_version: u64::from(otherwise),
            };
            text(calls.get_image_map(caller, request).await)
        }
        "FetchImage" => {
            let request =
                v1::FetchImageRequest { job_id, index, stage, max_edge, ..Default::default() };
            beginning(calls.fetch_image(caller, request).await).await
        }
        "FetchSheet" => {
            let request = v1::FetchSheetRequest {
                job_id,
                first_index: index,
                count: 2,
                stage,
                ..Default::default()
            };
            beginning(calls.fetch_sheet(caller, request).await).await
        }
        "SignImage" => {
            let request =
                v1::SignImageRequest { job_id, index, stage, max_edge, ..Default::default() };
            text(calls.sign_image(caller, request).await)
        }
        "FetchManifest" => {
            let offset = if badly { u64::MAX } else { 0 };
            let request = v1::FetchManifestRequest { job_id, offset };
            beginning(calls.fetch_manifest(caller, request).await).await
        }
        other => panic!("{other} is not called here, but its rule is that it names a job"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_job_looks_like_one_that_does_not_exist_in_every_method() {
    let town = Town::build().await;
    let nobodys = uuid::Uuid::now_v7().to_string();
    let version = async |id: &str| {
        let request = v1::GetJobRequest { id: id.to_owned() };
        town.calls.get_job(&operator(), request).await.expect("a job").version
    };
    let before = (version(&town.ended).await, version(&town.active).await);
    // One tenant has jobs of its own, one has none, and one caller has no tenant.
    submit(&town.calls, &of("a"), plain("a's own")).await.expect("accepted");
    let homeless = Caller::of(None, [Scope::Submit], Some("key-of-nobody".to_owned()));
    for method in methods(Rule::OfAJob) {
        for (caller, code) in [
            (of("a"), Code::NotFound),
            (of("newcomer"), Code::NotFound),
            (homeless.clone(), Code::PermissionDenied),
        ] {
            for how in HOW {
                let ask = async |id: &str| ask_of_job(&town.calls, &caller, method, id, how).await;
                let what = format!("{method} called {how:?} by {caller:?}");
                let missing = ask(&nobodys).await.expect_err(&what);
                if how == How::Well {
                    assert_eq!(missing.code, code, "{what}: {missing}");
                }
                for job in town.jobs() {
                    let refused = ask(job).await.expect_err(&what);
                    assert_eq!(without(job, &refused), without(&nobodys, &missing), "{what}");
                }
            }
        }
    }
    assert_eq!((version(&town.ended).await, version(&town.active).await), before, "no change");
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_tenant_and_an_operator_reach_a_job_in_every_method() {
    for caller in [of("b"), operator(), Caller::open()] {
        let town = Town::build().await;
        let mut methods = methods(Rule::OfAJob);
        // A job that is deleted is found by no other method.
        methods.sort_by_key(|method| *method == "DeleteJob");
        for method in methods {
            for job in town.jobs() {
                let answer = ask_of_job(&town.calls, &caller, method, job, How::Well).await;
                let reason = answer.err().map(|error| error.reason);
                // Other refusals say what the job is like, so it was reached.
                let barred = ["NOT_FOUND", "OTHER_TENANT", "NO_TENANT", "SCOPE"];
                assert!(
                    reason.as_deref().is_none_or(|reason| !barred.contains(&reason)),
                    "{method} of {caller:?}: {reason:?}"
                );
            }
        }
        town.farm.shutdown().await;
    }
}

/// A call of a method for operators, with any request.
async fn ask_as_operator(calls: &Arc<dyn Calls>, caller: &Caller, method: &str) -> Answer<String> {
    match method {
        "ListWorkers" => text(calls.list_workers(caller, v1::ListWorkersRequest {}).await),
        "DrainWorker" => {
            let request = v1::DrainWorkerRequest { worker: "w".to_owned(), ..Default::default() };
            text(calls.drain_worker(caller, request).await)
        }
        "FarmHistory" => text(calls.farm_history(caller, v1::FarmHistoryRequest::default()).await),
        other => panic!("{other} is not called here, but its rule is that operators call it"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_operators_is_refused_to_everyone_else() {
    let town = Town::build().await;
    for method in methods(Rule::Operators) {
        for scope in [Scope::Read, Scope::Submit, Scope::Admin, Scope::Member] {
            let caller = Caller::of(Some("a".to_owned()), [scope], Some("k7".to_owned()));
            let refused = ask_as_operator(&town.calls, &caller, method).await.expect_err(method);
            assert_eq!(
                (refused.code, refused.reason.as_str()),
                (Code::PermissionDenied, "SCOPE"),
                "{method}"
            );
            assert!(refused.message.contains("operate") && refused.message.contains("k7"));
        }
        let answer = ask_as_operator(&town.calls, &operator(), method).await;
        let reason = answer.err().map(|error| error.reason);
        assert!(
            [None, Some("UNKNOWN_WORKER")].contains(&reason.as_deref()),
            "{method}: {reason:?}"
        );
    }
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everyone_is_told_says_nothing_of_a_tenant_or_of_how_to_join() {
    let town = Town::build().await;
    let id = town.farm.store.farm_id().await.expect("an id").to_string();
    for method in methods(Rule::Everyone) {
        let ask = async |caller: &Caller| match method {
            "ListCascades" => {
                text(town.calls.list_cascades(caller, v1::ListCascadesRequest {}).await)
            }
            "GetFarm" => text(town.calls.get_farm(caller, v1::GetFarmRequest {}).await),
            other => panic!("{other} is not called here, but its rule is that all may call it"),
        };
        let told = ask(&of("a")).await.expect(method);
        town.assert_says_nothing_of_b(method, &told);
        assert!(!told.contains(&id), "{method}: {told}");
        assert!(told.contains(&crate::support::cascade().digest().to_string()), "{told}");
        assert_eq!(told, ask(&of("b")).await.expect(method), "{method}");
    }
    let asked = |scope| {
        let caller = Caller::of(None, [scope], None);
        let calls = Arc::clone(&town.calls);
        async move { calls.get_farm(&caller, v1::GetFarmRequest {}).await.expect("told") }
    };
    assert_eq!(asked(Scope::Operate).await.farm_id, id);
    let joining = asked(Scope::Member).await;
    assert_eq!(joining.farm_id, id, "members join with it");
    assert!(joining.lease_seconds > 0.0);
    assert_eq!(asked(Scope::Admin).await.farm_id, "");
    town.farm.shutdown().await;
}

#[test]
fn every_method_has_a_rule() {
    let all: usize =
        [Rule::OfAJob, Rule::OfAWebhook, Rule::Lists, Rule::Makes, Rule::Operators, Rule::Everyone]
            .map(|rule| methods(rule).len())
            .iter()
            .sum();
    assert_eq!(
        all,
        CALLS.iter().filter(|call| call.path.starts_with("/darkroom.v1.Farm/")).count()
    );
}
