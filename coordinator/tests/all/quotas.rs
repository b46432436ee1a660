//! Tenants' quotas over gRPC: what is refused and how, what waits and why, and that they change
//! while the farm runs.

use std::time::Duration;

use crate::{
    keys::{Port, bearer, key, key_of},
    support::{self, Act, Farm, eventually, prompt, prompts, spec},
};
use darkroom_artifacts::picture::encode_rgb;
use darkroom_coordinator::store::keys::Expiry;
use darkroom_core::{
    error::{Code, UserError},
    scope::Scope,
};
use darkroom_farm_api::Caller;
use darkroom_proto::{status::from_status, v1};
use darkroom_queue::task::{Task, TaskBody};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The tenant of jobs that name none.
const TENANT: &str = "default";

async fn change(farm: &Farm, tenant: &str, quotas: v1::Quotas) -> v1::Tenant {
    let request = v1::SetTenantRequest {
        name: tenant.to_owned(),
        quotas: Some(quotas),
        ..v1::SetTenantRequest::default()
    };
    farm.handle.admin_calls().set_tenant(&Caller::open(), request).await.expect("sets")
}

async fn clear(farm: &Farm, tenant: &str, names: &[&str]) {
    let request = v1::SetTenantRequest {
        name: tenant.to_owned(),
        clear: names.iter().map(|name| (*name).to_owned()).collect(),
        ..v1::SetTenantRequest::default()
    };
    farm.handle.admin_calls().set_tenant(&Caller::open(), request).await.expect("sets");
}

fn none() -> v1::Quotas {
    v1::Quotas::default()
}

fn of(tenant: &str) -> v1::JobSpec {
    v1::JobSpec { tenant: tenant.to_owned(), ..spec() }
}

/// The refusal by a quota, as a client reads it.
fn by_quota(status: &Status, reason: &str) -> UserError {
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    let error = from_status(status);
    assert_eq!((error.code, error.reason.as_str()), (Code::ResourceExhausted, reason), "{error}");
    error
}

async fn refused(farm: &mut Farm, images: usize, reason: &str) -> UserError {
    let request = v1::SubmitJobRequest { spec: Some(spec()), prompts: prompts(images) };
    let unary = farm.client.submit_job(request.clone()).await.expect_err("over the quota");
    let streamed = farm.client.submit_job_stream(streamed(request)).await;
    let streamed = by_quota(&streamed.expect_err("over the quota"), reason);
    let error = by_quota(&unary, reason);
    assert_eq!(streamed.message, error.message, "streamed or not");
    error
}

fn streamed(
    request: v1::SubmitJobRequest,
) -> impl tokio_stream::Stream<Item = v1::SubmitJobChunk> + Send + 'static {
    use v1::submit_job_chunk::Part;
    let parts = [
        request.spec.map(Part::Spec),
        Some(Part::Prompts(v1::PromptChunk { prompts: request.prompts })),
    ];
    tokio_stream::iter(parts.map(|part| v1::SubmitJobChunk { part }))
}

fn is_base(task: &Task) -> bool {
    matches!(&task.body, TaskBody::Render(body) if body.settings.stage.as_str() == "base")
}

fn png() -> Vec<u8> {
    encode_rgb(64, 64, &[9, 80, 200].repeat(64 * 64), &[]).expect("a picture")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_over_a_quota_is_told_the_quota_the_usage_and_when_it_frees_up() {
    let mut farm = Farm::start().await;
    change(&farm, TENANT, v1::Quotas { images_waiting: Some(5), ..none() }).await;
    let first = v1::JobSpec { client_request_id: "r".to_owned(), ..spec() };
    let job = farm.submit(first.clone(), prompts(4)).await;
    let error = refused(&mut farm, 2, "QUOTA_IMAGES_WAITING").await;
    assert_eq!(
        error.message,
        "quota images_waiting of tenant \"default\" is 5, 4 images wait, and this adds 2; it frees up \
         as images are done or cancelled, so try again in 30 s"
    );
    assert_eq!(error.retry_after, Some(Duration::from_secs(30)));
    let never = refused(&mut farm, 6, "QUOTA_IMAGES_WAITING").await;
    assert_eq!(never.retry_after, None, "{never}");
    let again = v1::SubmitJobRequest { spec: Some(first), prompts: prompts(4) };
    let again = farm.client.submit_job(again).await.expect("accepted before").into_inner();
    assert!(again.existed && again.job.is_some_and(|again| again.id == job.id));
    assert_eq!(farm.store.count(darkroom_core::job_state::JobState::Active).await.expect("one"), 1);

    // As images end, others may come.
    let workers = farm.work(|_| Act::Done);
    farm.until_ended(&job.id).await;
    let job = farm.submit(spec(), prompts(5)).await;
    farm.until_ended(&job.id).await;

    change(&farm, TENANT, v1::Quotas { images_per_day: Some(10), ..none() }).await;
    let error = refused(&mut farm, 2, "QUOTA_IMAGES_PER_DAY").await;
    assert!(error.message.contains("is 10, 9 images were submitted today (UTC)"), "{error}");
    let wait = error.retry_after.expect("until midnight");
    assert!(wait <= Duration::from_secs(86_401), "{wait:?}");
    clear(&farm, TENANT, &["images_waiting", "images_per_day"]).await;
    let job = farm.submit(spec(), prompts(30)).await;
    farm.until_ended(&job.id).await;

    let request = v1::GetTenantRequest { name: TENANT.to_owned() };
    let told = farm.handle.admin_calls().get_tenant(&Caller::open(), request).await.expect("told");
    let used = told.usage.expect("usage");
    assert_eq!((used.images_waiting, used.images_today), (0, 39));
    assert!(used.stored_bytes > 0 && used.device_seconds_today > 0.0, "{used:?}");
    change(&farm, TENANT, v1::Quotas { stored_bytes: Some(used.stored_bytes), ..none() }).await;
    let error = refused(&mut farm, 1, "QUOTA_STORED_BYTES").await;
    assert_eq!(error.retry_after, Some(Duration::from_secs(3600)));
    let upload = || {
        let chunks = png().chunks(1000).map(<[u8]>::to_vec).collect::<Vec<_>>();
        tokio_stream::iter(chunks.into_iter().map(|data| v1::UploadInputChunk { data }))
    };
    let error = farm.client.upload_input(upload()).await.expect_err("no room");
    by_quota(&error, "QUOTA_STORED_BYTES");
    let room = v1::Quotas { stored_bytes: Some(used.stored_bytes + 1), ..none() };
    change(&farm, TENANT, room).await;
    let error = by_quota(
        &farm.client.upload_input(upload()).await.expect_err("too large"),
        "QUOTA_STORED_BYTES",
    );
    assert!(error.message.contains("and this adds "), "{error}");
    clear(&farm, TENANT, &["stored_bytes"]).await;
    let stored = farm.client.upload_input(upload()).await.expect("stores").into_inner();
    let room = used.stored_bytes + stored.size_bytes;
    change(&farm, TENANT, v1::Quotas { stored_bytes: Some(room), ..none() }).await;
    let again = farm.client.upload_input(upload()).await.expect("it is stored already");
    assert_eq!(again.into_inner(), stored);
    assert_eq!(farm.store.audit_usage().await.expect("audits"), Vec::<String>::new());
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_over_a_quota_is_refused_before_it_changes_anything() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|task| if is_base(task) { support::failed() } else { Act::Done });
    let job = farm.submit(spec(), prompts(4)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!(job.images_dead, 4);
    change(&farm, TENANT, v1::Quotas { images_waiting: Some(3), ..none() }).await;
    let retry = v1::RetryJobRequest { id: job.id.clone(), ..v1::RetryJobRequest::default() };
    let error = farm.client.retry_job(retry.clone()).await.expect_err("four of three");
    let error = by_quota(&error, "QUOTA_IMAGES_WAITING");
    assert!(error.message.contains("is 3, 0 images wait, and this adds 4"), "{error}");
    let filter =
        v1::ImageFilter { states: vec![v1::ImageState::Dead.into()], ..Default::default() };
    let some = v1::RetryImagesRequest {
        job_id: job.id.clone(),
        filter: Some(filter),
        ..Default::default()
    };
    let error = farm.client.retry_images(some).await.expect_err("four of three");
    by_quota(&error, "QUOTA_IMAGES_WAITING");
    assert_eq!(farm.get(&job.id).await.generation, 1);
    change(&farm, TENANT, v1::Quotas { images_waiting: Some(4), ..none() }).await;
    farm.client.retry_job(retry).await.expect("it fits");
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images_dead, job.generation), (4, 2));
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_a_tenants_rate_are_refused_and_those_of_no_other() {
    let farm = Farm::start().await;
    let port = Port::open(&farm.handle, farm.handle.kept_door()).await;
    let busy = key_of(farm.store.as_ref(), "busy", &[Scope::Read]).await;
    let quiet = key_of(farm.store.as_ref(), "quiet", &[Scope::Read]).await;
    let operator = key(farm.store.as_ref(), &[Scope::Operate], Expiry::Never).await;
    let member = key(farm.store.as_ref(), &[Scope::Member], Expiry::Never).await;
    let calls = async |key, count: usize| {
        let mut farm = port.farm(key);
        for call in 0..count {
            if let Err(status) = farm.get_farm(v1::GetFarmRequest {}).await {
                return (call, Some(status));
            }
        }
        (count, None)
    };
    assert_eq!(calls(&busy, 50).await.0, 50, "no quota");
    // A call in so many minutes comes back, so no time that the test takes adds any.
    let few = v1::Quotas { requests_per_second: Some(0.003), burst: Some(5), ..none() };
    change(&farm, "busy", few).await;
    let (answered, refusal) = calls(&busy, 6).await;
    assert_eq!(answered, 5, "the burst");
    let error = by_quota(&refusal.expect("a refusal"), "QUOTA_REQUESTS_PER_SECOND");
    assert!(
        error.message.contains("of tenant \"busy\" is 0.003 a second with a burst of 5"),
        "{error}"
    );
    let wait = error.retry_after.expect("a time");
    assert!(wait > Duration::from_secs(100) && wait < Duration::from_secs(334), "{wait:?}");
    for other in [&quiet, &operator] {
        assert_eq!(calls(other, 30).await.0, 30, "it is not busy");
    }
    assert_eq!(port.refused("/grpc.health.v1.Health/Check", None).await, None, "never counts");
    for _ in 0..10 {
        assert!(port.lets_in("/darkroom.v1.Members/Join", &member).await, "never counts");
        let refused = port.refused("/darkroom.v1.Members/Join", Some(&bearer(&member))).await;
        assert!(refused.is_none_or(|error| error.code != Code::ResourceExhausted));
    }
    clear(&farm, "busy", &["requests_per_second", "burst"]).await;
    assert_eq!(calls(&busy, 30).await.0, 30, "the quota is gone");
    // A stream counts once, however long it lasts.
    let two = v1::Quotas { requests_per_second: Some(0.003), burst: Some(2), ..none() };
    change(&farm, "quiet", two).await;
    let mut client = port.farm(&quiet);
    let watch = client.watch_farm(v1::WatchFarmRequest::default()).await.expect("the first");
    let mut watch = watch.into_inner();
    watch.message().await.expect("goes on").expect("an event");
    assert_eq!(calls(&quiet, 2).await.0, 1, "the second, and no third");
    // Longer than a caller of an open stream is looked up again.
    let silence = tokio::time::timeout(Duration::from_secs(4), async {
        while watch.message().await.expect("it stays open").is_some() {}
    });
    assert!(silence.await.is_err(), "it stays open");
    drop(watch);
    port.close().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_while_its_tenants_device_time_is_used_up_and_says_so() {
    let mut farm = Farm::start().await;
    // The first four images of a job are done at once, the others when they may.
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| match support::index(task) {
            Some(index) if index >= 4 => Act::Hold(go.clone()),
            _ => Act::Done,
        }
    });
    // Each result takes a millisecond.
    change(&farm, "a", v1::Quotas { device_seconds_per_day: Some(0.001), ..none() }).await;
    let first = farm.submit(of("a"), prompts(40)).await;
    let held =
        farm.until(&first.id, "held back", |job| job.waiting_for.starts_with("quota ")).await;
    let why = &held.waiting_for;
    assert!(why.starts_with("quota device_seconds_per_day of tenant \"a\": "), "{why}");
    assert!(why.ends_with("T00:00:00Z"), "{why}");
    go.cancel();
    let other = farm.submit(of("b"), prompts(10)).await;
    farm.until_ended(&other.id).await;
    let held = farm.get(&first.id).await;
    assert!(held.images_done < 40 && held.waiting_for.starts_with("quota "), "{held:?}");
    // Its texts are everyone's, so a new job has them encoded and waits with its images.
    let second = farm.submit(of("a"), vec![prompt("another")]).await;
    let held = farm.until(&second.id, "waits", |job| job.waiting_for.starts_with("quota "));
    assert_eq!(held.await.stages[0].done, 2, "the text and the empty negative one");
    change(&farm, "a", v1::Quotas { device_seconds_per_day: Some(1e6), ..none() }).await;
    for job in [&first, &second] {
        let job = farm.until_ended(&job.id).await;
        assert_eq!((job.images_done, job.waiting_for.as_str()), (job.images, ""));
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_device_time_runs_out_only_what_workers_hold_is_finished() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| if is_base(task) { Act::Hold(go.clone()) } else { Act::Done }
    });
    let jobs = [farm.submit(of("a"), prompts(3)).await, farm.submit(of("a"), prompts(30)).await];
    let in_line = async |farm: &Farm| {
        let mut counts = Vec::new();
        for job in &jobs {
            let record = farm.store.job(job.id.parse().expect("an id")).await.expect("there");
            counts.push(record.stages[1].dispatched);
        }
        counts.into_iter().sum::<u64>()
    };
    eventually("two batches", async || in_line(&farm).await == 8).await;
    change(&farm, "a", v1::Quotas { device_seconds_per_day: Some(0.0), ..none() }).await;
    // The worker may have taken its batch before four images were there.
    eventually("the batch that runs", async || {
        let left = in_line(&farm).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (1..=4).contains(&left) && in_line(&farm).await == left
    })
    .await;
    let runs = in_line(&farm).await;
    go.cancel();
    eventually("finished", async || in_line(&farm).await == 0).await;
    let mut done = 0;
    for job in &jobs {
        let job = farm.get(&job.id).await;
        assert!(job.waiting_for.starts_with("quota device_seconds_per_day"), "{job:?}");
        done += job.stages[1].done;
    }
    assert_eq!(done, runs, "nothing else was dispatched");
    clear(&farm, "a", &["device_seconds_per_day"]).await;
    for job in &jobs {
        let ended = farm.until_ended(&job.id).await;
        assert_eq!(ended.images_done, ended.images);
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_jobs_together_have_no_more_in_flight_than_its_workers_take() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    let work = |host: &str| {
        let go = go.clone();
        farm.work_on(&["encode", "base", "sr256", "sr1024"], host, move |task| {
            if is_base(task) { Act::Hold(go.clone()) } else { Act::Done }
        })
    };
    let workers = [work("a"), work("b"), work("c"), work("d")];
    eventually("all are there", async || {
        darkroom_queue::TaskQueue::workers(&*farm.queue, Duration::from_secs(5))
            .await
            .expect("lists")
            .len()
            == 4
    })
    .await;
    change(&farm, "a", v1::Quotas { workers: Some(2), ..none() }).await;
    let jobs = [farm.submit(of("a"), prompts(30)).await, farm.submit(of("a"), prompts(30)).await];
    let mut held = Vec::new();
    for job in &jobs {
        let says = |job: &v1::Job| job.waiting_for.starts_with("quota workers");
        held.push(farm.until(&job.id, "held up", says).await);
    }
    assert_eq!(
        held[0].waiting_for,
        "quota workers of tenant \"a\": its 2 workers are in use in stage base; it goes on as they get \
         free"
    );
    let other = farm.submit(of("b"), prompts(40)).await;
    let other = farm.until(&other.id, "dispatched", |job| job.stages[1].dispatched == 24).await;
    assert_eq!(other.waiting_for, "", "the other tenant takes the rest of the line");
    let mut in_flight = 0;
    for job in &jobs {
        in_flight += farm.get(&job.id).await.stages[1].dispatched;
    }
    assert_eq!(in_flight, 8, "two batches of four, of both jobs");
    go.cancel();
    for job in jobs.iter().chain([&other]) {
        farm.until_ended(&job.id).await;
    }
    for workers in workers {
        workers.stop().await;
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_in_the_record_divides_the_line() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    change(&farm, "a", v1::Quotas { weight: Some(3.0), ..none() }).await;
    let jobs = [farm.submit(of("a"), prompts(90)).await, farm.submit(of("b"), prompts(90)).await];
    let encoder = farm.work_on(&["encode"], "e", |_| Act::Done);
    for job in &jobs {
        farm.until(&job.id, "encoded", |job| job.stages[0].done == job.stages[0].total).await;
    }
    eventually("ready", async || {
        let waiting = farm.store.candidates(&support::pool("base")).await.expect("lists");
        waiting.iter().map(|job| job.ready).sum::<u64>() == 180
    })
    .await;
    let workers: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|host| {
            let go = go.clone();
            farm.work_on(&["base", "sr256", "sr1024"], host, move |_| Act::Hold(go.clone()))
        })
        .collect();
    let mut in_line = [0, 0];
    eventually("the line is full", async || {
        for (count, job) in in_line.iter_mut().zip(&jobs) {
            let record = farm.store.job(job.id.parse().expect("an id")).await.expect("there");
            *count = record.stages[1].dispatched;
        }
        in_line[0] + in_line[1] == 32
    })
    .await;
    assert!((20..=28).contains(&in_line[0]), "three to one: {in_line:?}");
    go.cancel();
    for job in &jobs {
        farm.until_ended(&job.id).await;
    }
    for workers in workers.into_iter().chain([encoder]) {
        workers.stop().await;
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forecast_warns_of_the_quotas_that_a_job_would_meet() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let forecast = async |farm: &mut Farm, images| {
        let request = v1::SubmitJobRequest { spec: Some(spec()), prompts: prompts(images) };
        farm.client.forecast_job(streamed(request)).await.expect("a forecast").into_inner()
    };
    eventually("known", async || {
        forecast(&mut farm, 4).await.forecast.is_some_and(|all| all.device_seconds.is_some())
    })
    .await;
    assert_eq!(forecast(&mut farm, 4).await.notes, Vec::<String>::new());
    let quotas = v1::Quotas {
        images_waiting: Some(3),
        images_per_day: Some(3),
        device_seconds_per_day: Some(2.0),
        stored_bytes: Some(0),
        ..none()
    };
    change(&farm, TENANT, quotas).await;
    let notes = forecast(&mut farm, 4).await.notes;
    let begins = [
        "the job would be refused now: quota stored_bytes of tenant \"default\" is 0",
        "the job would be refused now: quota images_waiting of tenant \"default\" is 3",
        "the job would be refused now: quota images_per_day of tenant \"default\" is 3",
        "the job needs ",
    ];
    assert_eq!(notes.len(), begins.len(), "{notes:#?}");
    for (note, begin) in notes.iter().zip(begins) {
        assert!(note.starts_with(begin), "{note}");
    }
    change(&farm, TENANT, v1::Quotas { device_seconds_per_day: Some(0.0), ..none() }).await;
    let notes = forecast(&mut farm, 1).await.notes;
    assert!(notes.iter().any(|note| note.starts_with("the job would wait until ")), "{notes:#?}");
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_below_the_usage_is_set_and_its_answer_says_what_it_means() {
    let mut farm = Farm::start().await;
    let job = farm.submit(spec(), prompts(4)).await;
    let set = v1::Quotas { images_waiting: Some(3), images_per_day: Some(1), ..none() };
    let told = change(&farm, TENANT, set).await;
    assert_eq!(told.quotas, Some(set));
    assert_eq!(told.usage.map(|usage| usage.images_waiting), Some(4));
    assert_eq!(told.notes.len(), 2, "{:#?}", told.notes);
    assert_eq!(
        told.notes[0],
        "images_waiting is 3, and 4 images wait: they run on, and new submits and retries are refused \
         until fewer wait"
    );
    let workers = farm.work(|_| Act::Done);
    assert_eq!(farm.until_ended(&job.id).await.images_done, 4, "it ran on");
    let admin = farm.handle.admin_calls();
    for (quotas, clear, field) in [
        (Some(v1::Quotas { weight: Some(0.0), ..none() }), vec![], "quotas.weight"),
        (Some(v1::Quotas { burst: Some(0), ..none() }), vec![], "quotas.burst"),
        (None, vec!["images".to_owned()], "clear"),
        (Some(set), vec!["images_waiting".to_owned()], "quotas.images_waiting"),
    ] {
        let name = TENANT.to_owned();
        let request = v1::SetTenantRequest { name, quotas, clear, ..Default::default() };
        let error = admin.set_tenant(&Caller::open(), request).await.expect_err(field);
        assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some(field)));
        assert!(error.message.contains("accepted: "), "{error}");
    }
    // A tenant sees its own quotas, and what it uses of them.
    let calls = farm.handle.calls();
    let own = Caller::of(Some(TENANT.to_owned()), [Scope::Read], None);
    let asked = v1::ListUsageRequest::default();
    let usage = calls.list_usage(&own, asked.clone()).await.expect("told");
    assert_eq!(usage.quotas, Some(set));
    assert_eq!(usage.usage.map(|usage| (usage.images_waiting, usage.images_today)), Some((0, 4)));
    let all = calls.list_usage(&Caller::open(), asked).await.expect("told");
    assert_eq!((all.quotas, all.usage), (None, None), "of many tenants there are none");
    let listed = admin.list_tenants(&Caller::open(), v1::ListTenantsRequest::default()).await;
    assert_eq!(listed.expect("lists").tenants[0].quotas, Some(set));
    workers.stop().await;
    farm.shutdown().await;
}
