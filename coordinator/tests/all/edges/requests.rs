//! Requests that none of our clients sends: bad values in every text that reaches SQL, and numbers
//! beyond 63 bits, on both backends. None may cause an internal error.

use std::sync::Arc;

use darkroom_coordinator::store::{
    postgres::{Options, PostgresStore},
    roles::Agreed as _,
};
use darkroom_proto::{status::from_status, v1};
use darkroom_test_servers::postgres::Postgres;
use tonic::{Code, Status};

use crate::support::{Farm, options, prompt, prompts, spec};

/// The values for the fields of a request.
fn texts() -> Vec<String> {
    let odd = [
        "\0",
        "a\0b",
        "\u{1}",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{85}",
        "\u{feff}",
        "' OR ''='",
        "%",
        "\\",
        "{",
        "i",
        "v",
        "v1",
        "v.",
        "-1",
        "i-1",
    ];
    let numbers = [
        "i18446744073709551615",
        "v18446744073709551615.18446744073709551615",
        "v9223372036854775808.0",
        "i9223372036854775808",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "99999999999999999999",
    ];
    let long = ["x", "\0", "\u{1f5bc}"].map(|one| one.repeat((1 << 20) / one.len()));
    odd.into_iter().chain(numbers).map(str::to_owned).chain(long).collect()
}

const NUMBERS: [u64; 4] = [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX];

/// A call, with a value for one of its texts or numbers.
struct Case {
    name: &'static str,
    /// The field that is named if a text with a control character is refused.
    refused: Option<&'static str>,
    answer: Result<(), Status>,
}

/// Makes each call, in turn.
async fn with_text(farm: &mut Farm, job: &str, text: &str) -> Vec<Case> {
    let (mut cases, farm) = (Vec::new(), &mut farm.client);
    let (id, text) = (job.to_owned(), text.to_owned());
    macro_rules! case {
        ($name:literal, $refused:expr, $call:expr) => {
            cases.push(Case { name: $name, refused: $refused, answer: $call.await.map(drop) });
        };
    }
    let all = || text.clone();
    case!(
        "list tenant",
        Some("tenant"),
        farm.list_jobs(v1::ListJobsRequest { tenant: all(), ..Default::default() })
    );
    case!(
        "list token",
        Some("page_token"),
        farm.list_jobs(v1::ListJobsRequest { page_token: all(), ..Default::default() })
    );
    case!(
        "list name",
        Some("name"),
        farm.list_jobs(v1::ListJobsRequest { name: all(), ..Default::default() })
    );
    case!(
        "list text",
        Some("text"),
        farm.list_jobs(v1::ListJobsRequest { text: all(), ..Default::default() })
    );
    case!(
        "list label",
        Some("labels"),
        farm.list_jobs(v1::ListJobsRequest {
            labels: [(all(), "x".to_owned())].into(),
            ..Default::default()
        })
    );
    case!(
        "images text",
        Some("text"),
        farm.list_images(v1::ListImagesRequest {
            job_id: id.clone(),
            text: all(),
            ..Default::default()
        })
    );
    case!(
        "failures",
        Some("job_id"),
        farm.summarize_failures(v1::SummarizeFailuresRequest { job_id: all() })
    );
    case!("get", Some("id"), farm.get_job(v1::GetJobRequest { id: all() }));
    case!(
        "watch",
        Some("id"),
        farm.watch_job(v1::WatchJobRequest { id: all(), ..Default::default() })
    );
    case!("cancel", Some("id"), farm.cancel_job(v1::CancelJobRequest { id: all() }));
    case!("pause", Some("id"), farm.pause_job(v1::PauseJobRequest { id: all() }));
    case!("resume", Some("id"), farm.resume_job(v1::ResumeJobRequest { id: all() }));
    case!(
        "retry",
        Some("id"),
        farm.retry_job(v1::RetryJobRequest { id: all(), ..Default::default() })
    );
    case!(
        "images",
        Some("job_id"),
        farm.list_images(v1::ListImagesRequest { job_id: all(), ..Default::default() })
    );
    case!(
        "images token",
        Some("page_token"),
        farm.list_images(v1::ListImagesRequest {
            job_id: id.clone(),
            page_token: all(),
            ..Default::default()
        })
    );
    case!(
        "changes token",
        Some("page_token"),
        farm.list_images(v1::ListImagesRequest {
            job_id: id.clone(),
            page_token: all(),
            changed_since: 1,
            ..Default::default()
        })
    );
    case!(
        "fetch",
        Some("job_id"),
        farm.fetch_image(v1::FetchImageRequest { job_id: all(), ..Default::default() })
    );
    case!(
        "fetch stage",
        Some("stage"),
        farm.fetch_image(v1::FetchImageRequest {
            job_id: id.clone(),
            stage: all(),
            ..Default::default()
        })
    );
    case!(
        "sheet stage",
        Some("stage"),
        farm.fetch_sheet(v1::FetchSheetRequest {
            job_id: id.clone(),
            count: 1,
            stage: all(),
            ..Default::default()
        })
    );
    case!("image", Some("job_id"), farm.get_image(v1::GetImageRequest { job_id: all(), index: 0 }));
    case!(
        "map",
        Some("job_id"),
        farm.get_image_map(v1::GetImageMapRequest { job_id: all(), ..Default::default() })
    );
    case!(
        "sheet",
        Some("job_id"),
        farm.fetch_sheet(v1::FetchSheetRequest { job_id: all(), count: 1, ..Default::default() })
    );
    case!(
        "sign",
        Some("job_id"),
        farm.sign_image(v1::SignImageRequest { job_id: all(), ..Default::default() })
    );
    case!(
        "manifest",
        Some("job_id"),
        farm.fetch_manifest(v1::FetchManifestRequest { job_id: all(), ..Default::default() })
    );
    case!(
        "drain worker",
        Some("worker"),
        farm.drain_worker(v1::DrainWorkerRequest { worker: all(), ..Default::default() })
    );
    case!(
        "drain host",
        Some("host"),
        farm.drain_worker(v1::DrainWorkerRequest { host: all(), ..Default::default() })
    );
    macro_rules! submit {
        ($name:literal, $refused:expr, $change:expr) => {{
            let mut request = v1::SubmitJobRequest { spec: Some(spec()), prompts: prompts(1) };
            let change: &dyn Fn(&mut v1::JobSpec, &mut v1::Prompt) = &$change;
            change(request.spec.as_mut().expect("a spec"), &mut request.prompts[0]);
            case!($name, $refused, farm.submit_job(request));
        }};
    }
    let stage = |change: &dyn Fn(&mut v1::StageSettings)| {
        let mut stage = v1::StageSettings { stage: "base".to_owned(), ..Default::default() };
        change(&mut stage);
        Some(v1::Settings { stages: vec![stage], ..Default::default() })
    };
    submit!("request id", Some("spec.client_request_id"), |spec, _| spec.client_request_id = all());
    submit!("name", Some("spec.name"), |spec, _| spec.name = all());
    submit!("tenant", Some("spec.tenant"), |spec, _| spec.tenant = all());
    submit!("cascade", Some("spec.cascade"), |spec, _| spec.cascade = all());
    submit!("stage", Some("spec.settings.stages[0].stage"), |spec, _| spec.settings =
        stage(&|stage| stage.stage = all()));
    submit!("sampler", Some("spec.settings.stages[0].sampler"), |spec, _| spec.settings =
        stage(&|stage| stage.sampler = Some(all())));
    submit!("spacing", Some("spec.settings.stages[0].spacing"), |spec, _| spec.settings =
        stage(&|stage| stage.spacing = Some(all())));
    submit!("preset", Some("spec.settings.stages[0].preset"), |spec, _| spec.settings =
        stage(&|stage| stage.preset = Some(all())));
    submit!("schedule", Some("spec.settings.stages[0].guidance_schedule"), |spec, _| spec
        .settings =
        stage(&|stage| stage.guidance_schedule = Some(all())));
    submit!("thresholding", Some("spec.settings.stages[0].thresholding"), |spec, _| spec
        .settings =
        stage(&|stage| stage.thresholding = Some(all())));
    submit!("text", Some("prompts[0].text"), |_, prompt| prompt.text = all());
    submit!("negative", Some("prompts[0].negative"), |_, prompt| prompt.negative = all());
    submit!("style", Some("prompts[0].style"), |_, prompt| prompt.style = all());
    submit!("image", Some("prompts[0].image"), |_, prompt| prompt.image = all());
    submit!("mask", Some("prompts[0].image"), |_, prompt| prompt.mask = all());
    cases
}

async fn with_number(farm: &mut Farm, job: &str, number: u64) -> Vec<Case> {
    let (mut cases, farm) = (Vec::new(), &mut farm.client);
    let id = || job.to_owned();
    macro_rules! case {
        ($name:literal, $call:expr) => {
            cases.push(Case { name: $name, refused: None, answer: $call.await.map(drop) });
        };
    }
    case!(
        "changes",
        farm.list_images(v1::ListImagesRequest {
            job_id: id(),
            changed_since: number,
            ..Default::default()
        })
    );
    case!(
        "start index",
        farm.list_images(v1::ListImagesRequest {
            job_id: id(),
            start_index: number,
            ..Default::default()
        })
    );
    case!(
        "fetch index",
        farm.fetch_image(v1::FetchImageRequest {
            job_id: id(),
            index: number,
            ..Default::default()
        })
    );
    case!(
        "fetch offset",
        farm.fetch_image(v1::FetchImageRequest {
            job_id: id(),
            offset: number,
            ..Default::default()
        })
    );
    case!(
        "sign index",
        farm.sign_image(v1::SignImageRequest {
            job_id: id(),
            index: number,
            link_seconds: u32::MAX,
            ..Default::default()
        })
    );
    case!(
        "sign",
        farm.sign_image(v1::SignImageRequest {
            job_id: id(),
            index: number,
            link_seconds: 1,
            ..Default::default()
        })
    );
    case!("image", farm.get_image(v1::GetImageRequest { job_id: id(), index: number }));
    case!(
        "map",
        farm.get_image_map(v1::GetImageMapRequest {
            job_id: id(),
            first_index: number,
            since_version: 0,
        })
    );
    case!(
        "map since",
        farm.get_image_map(v1::GetImageMapRequest {
            job_id: id(),
            first_index: 0,
            since_version: number,
        })
    );
    case!(
        "sheet",
        farm.fetch_sheet(v1::FetchSheetRequest {
            job_id: id(),
            first_index: number,
            count: 1,
            ..Default::default()
        })
    );
    case!(
        "sheet of many",
        farm.fetch_sheet(v1::FetchSheetRequest {
            job_id: id(),
            count: u32::MAX,
            tile: u32::MAX,
            columns: u32::MAX,
            ..Default::default()
        })
    );
    case!(
        "manifest",
        farm.fetch_manifest(v1::FetchManifestRequest { job_id: id(), offset: number })
    );
    case!(
        "watch",
        farm.watch_job(v1::WatchJobRequest { id: id(), after_version: number, images: true })
    );
    case!(
        "page size",
        farm.list_jobs(v1::ListJobsRequest { page_size: u32::MAX, ..Default::default() })
    );
    case!(
        "states",
        farm.list_jobs(v1::ListJobsRequest {
            states: vec![i32::MIN, i32::MAX],
            ..Default::default()
        })
    );
    #[expect(clippy::cast_possible_wrap, reason = "any number will do")]
    let deadline = prost_types::Timestamp { seconds: number as i64, nanos: i32::MIN };
    case!(
        "deadline",
        farm.retry_job(v1::RetryJobRequest {
            id: id(),
            deadline: Some(deadline),
            ..Default::default()
        })
    );
    let submit = |change: &dyn Fn(&mut v1::JobSpec, &mut v1::Prompt)| {
        let mut request = v1::SubmitJobRequest { spec: Some(spec()), prompts: vec![prompt("one")] };
        change(request.spec.as_mut().expect("a spec"), &mut request.prompts[0]);
        request
    };
    case!("seed", farm.submit_job(submit(&|spec, _| spec.seed = Some(number))));
    case!("prompt seed", farm.submit_job(submit(&|_, prompt| prompt.seed = Some(number))));
    case!("failed", farm.submit_job(submit(&|spec, _| spec.max_failed_images = Some(number))));
    case!("workers", farm.submit_job(submit(&|spec, _| spec.max_workers = u32::MAX)));
    case!("images", farm.submit_job(submit(&|_, prompt| prompt.images = u32::MAX)));
    case!("submit deadline", farm.submit_job(submit(&|spec, _| spec.deadline = Some(deadline))));
    cases
}

async fn nothing_is_a_fault(mut farm: Farm) {
    let job = farm.submit(spec(), prompts(1)).await.id;
    for text in texts() {
        for case in with_text(&mut farm, &job, &text).await {
            let shown: String = text.chars().take(20).collect();
            let Err(status) = case.answer else {
                let bad = text.chars().any(|c| c.is_control()) || text.len() > 10_000;
                assert!(!bad, "{} takes {shown:?}", case.name);
                continue;
            };
            let what = format!("{} with {shown:?}: {status}", case.name);
            assert!([Code::InvalidArgument, Code::NotFound].contains(&status.code()), "{what}");
            let error = from_status(&status);
            assert_eq!(error.field.as_deref(), case.refused, "{what}");
            assert!(
                error.message.len() < 8000 && !error.message.contains(char::is_control),
                "{what}"
            );
        }
    }
    for number in NUMBERS {
        for case in with_number(&mut farm, &job, number).await {
            let Err(status) = case.answer else { continue };
            let expected = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition];
            assert!(expected.contains(&status.code()), "{} with {number}: {status}", case.name);
        }
    }
    farm.audit(&job).await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_and_numbers_are_refused_by_field_on_sqlite() {
    nothing_is_a_fault(Farm::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_and_numbers_are_refused_by_field_on_postgres() {
    let server = Postgres::shared();
    let store =
        PostgresStore::connect(&server.create_database(), Options::default()).await.expect("opens");
    assert!(store.farm_id().await.is_ok());
    let store = Arc::new(store);
    nothing_is_a_fault(Farm::fronted(options(), Arc::clone(&store) as _, store).await).await;
}
