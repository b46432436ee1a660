//! The same mistake gets the same answer, whichever way it comes: over gRPC, over HTTP, and from the
//! command line.

use darkroom_core::error::UserError;
use darkroom_proto::{
    status::{from_status, http_code},
    v1::{self, farm_client::FarmClient},
};
use darkroom_tests::farm::Farm;
use serde_json::{Value, json};
use tonic::{Status, transport::Channel};

use super::open;

type Client = FarmClient<Channel>;

/// A mistake.
struct Case {
    name: &'static str,
    grpc: for<'a> fn(&'a mut Client) -> futures::future::BoxFuture<'a, Status>,
    /// Method, path behind `/api/v1`, and body.
    http: (&'static str, &'static str, Value),
    /// The command, where the command line can make this mistake.
    command: &'static [&'static str],
    /// What the command says in place of the fields' names.
    flags: &'static [(&'static str, &'static str)],
}

/// The error of a call that must fail.
macro_rules! fails {
    ($call:ident, $request:expr) => {
        |client: &mut Client| {
            Box::pin(async move { client.$call($request).await.map(|_| ()).expect_err("wrong") })
        }
    };
}

fn spec(spec: v1::JobSpec) -> v1::SubmitJobRequest {
    let prompt = v1::Prompt { text: "a".to_owned(), ..Default::default() };
    v1::SubmitJobRequest { spec: Some(spec), prompts: vec![prompt] }
}

fn sized(size: u32) -> v1::SubmitJobRequest {
    let settings = Some(v1::Settings { size, ..Default::default() });
    spec(v1::JobSpec { settings, ..Default::default() })
}

const NO_JOB: &str = "01a22d33-0000-7000-8000-000000000000";
const NO_JOB_PATH: &str = "/jobs/01a22d33-0000-7000-8000-000000000000";

fn cases() -> Vec<Case> {
    let prompts = json!([{"text": "a"}]);
    vec![
        Case {
            name: "a job that is none",
            grpc: fails!(get_job, v1::GetJobRequest { id: NO_JOB.into() }),
            http: ("GET", NO_JOB_PATH, Value::Null),
            command: &["status", NO_JOB],
            flags: &[],
        },
        Case {
            name: "an id that is none",
            grpc: fails!(get_job, v1::GetJobRequest { id: "J".into() }),
            http: ("GET", "/jobs/J", Value::Null),
            command: &["status", "J"],
            flags: &[("id is", "job is")],
        },
        Case {
            name: "a size that the cascade does not have",
            grpc: fails!(submit_job, sized(65)),
            http: (
                "POST",
                "/jobs",
                json!({"spec": {"settings": {"size": 65}}, "prompts": prompts}),
            ),
            command: &["submit", "a", "--size", "65"],
            flags: &[],
        },
        Case {
            name: "a cascade that the farm does not have",
            grpc: fails!(
                submit_job,
                spec(v1::JobSpec { cascade: "imagen".into(), ..Default::default() })
            ),
            http: ("POST", "/jobs", json!({"spec": {"cascade": "imagen"}, "prompts": prompts})),
            command: &["submit", "a", "--cascade", "imagen"],
            flags: &[("spec.cascade", "cascade")],
        },
        Case {
            name: "no spec",
            grpc: fails!(submit_job, v1::SubmitJobRequest::default()),
            http: ("POST", "/jobs", json!({})),
            command: &[],
            flags: &[],
        },
        Case {
            name: "no prompts",
            grpc: fails!(submit_job, v1::SubmitJobRequest { prompts: vec![], ..sized(64) }),
            http: ("POST", "/jobs", json!({"spec": {"settings": {"size": 64}}})),
            command: &[],
            flags: &[],
        },
        Case {
            name: "a prompt without a text",
            grpc: fails!(
                submit_job,
                v1::SubmitJobRequest { prompts: vec![v1::Prompt::default()], ..sized(64) }
            ),
            http: ("POST", "/jobs", json!({"spec": {"settings": {"size": 64}}, "prompts": [{}]})),
            command: &["submit", ""],
            flags: &[("prompts[0].text", "prompt")],
        },
        Case {
            name: "too many images",
            grpc: fails!(
                submit_job,
                spec(v1::JobSpec { images_per_prompt: 10_001, ..Default::default() })
            ),
            http: (
                "POST",
                "/jobs",
                json!({"spec": {"images_per_prompt": 10_001}, "prompts": prompts}),
            ),
            command: &["submit", "a", "--images", "10001"],
            flags: &[("spec.images_per_prompt", "images")],
        },
        Case {
            name: "a page of too many jobs",
            grpc: fails!(list_jobs, v1::ListJobsRequest { page_size: 1_001, ..Default::default() }),
            http: ("GET", "/jobs?page_size=1001", Value::Null),
            command: &[],
            flags: &[],
        },
        Case {
            name: "a page token that is none",
            grpc: fails!(
                list_jobs,
                v1::ListJobsRequest { page_token: "x".into(), ..Default::default() }
            ),
            http: ("GET", "/jobs?page_token=x", Value::Null),
            command: &[],
            flags: &[],
        },
        Case {
            name: "an empty filter",
            grpc: fails!(
                cancel_images,
                v1::CancelImagesRequest { job_id: NO_JOB.into(), ..Default::default() }
            ),
            http: (
                "POST",
                "/jobs/01a22d33-0000-7000-8000-000000000000/image-cancellations",
                json!({}),
            ),
            command: &[],
            flags: &[],
        },
        Case {
            name: "an edge that pictures are not scaled to",
            grpc: fails!(
                fetch_image,
                v1::FetchImageRequest { job_id: NO_JOB.into(), max_edge: 7, ..Default::default() }
            ),
            http: (
                "GET",
                "/jobs/01a22d33-0000-7000-8000-000000000000/images/0/picture?max_edge=7",
                Value::Null,
            ),
            command: &["get", NO_JOB, "--max-edge", "7"],
            flags: &[("max_edge", "max-edge")],
        },
        Case {
            name: "a worker that is none",
            grpc: fails!(
                drain_worker,
                v1::DrainWorkerRequest { worker: "w".into(), ..Default::default() }
            ),
            http: ("POST", "/drains", json!({"worker": "w"})),
            command: &["drain", "w"],
            flags: &[],
        },
        Case {
            name: "a job to pause that is none",
            grpc: fails!(pause_job, v1::PauseJobRequest { id: NO_JOB.into() }),
            http: ("PUT", "/jobs/01a22d33-0000-7000-8000-000000000000/pause", json!({})),
            command: &["pause", NO_JOB],
            flags: &[],
        },
        Case {
            name: "a job to delete that is none",
            grpc: fails!(
                delete_job,
                v1::DeleteJobRequest { id: NO_JOB.into(), ..Default::default() }
            ),
            http: ("DELETE", NO_JOB_PATH, Value::Null),
            command: &["rm", NO_JOB],
            flags: &[],
        },
        Case {
            name: "an image of a job that is none",
            grpc: fails!(get_image, v1::GetImageRequest { job_id: NO_JOB.into(), index: 3 }),
            http: ("GET", "/jobs/01a22d33-0000-7000-8000-000000000000/images/3", Value::Null),
            command: &[],
            flags: &[],
        },
        Case {
            name: "a link to a picture of a job that is none",
            grpc: fails!(
                sign_image,
                v1::SignImageRequest { job_id: NO_JOB.into(), ..Default::default() }
            ),
            http: ("POST", "/jobs/01a22d33-0000-7000-8000-000000000000/images/0/links", json!({})),
            command: &[],
            flags: &[],
        },
        Case {
            name: "images to retry of a job that is none",
            grpc: fails!(
                retry_images,
                v1::RetryImagesRequest { job_id: NO_JOB.into(), ..Default::default() }
            ),
            http: ("POST", "/jobs/01a22d33-0000-7000-8000-000000000000/image-retries", json!({})),
            command: &[],
            flags: &[],
        },
        Case {
            name: "a label without a key",
            grpc: fails!(
                submit_job,
                spec(v1::JobSpec {
                    labels: [(" ".to_owned(), "x".to_owned())].into(),
                    ..Default::default()
                })
            ),
            http: ("POST", "/jobs", json!({"spec": {"labels": {" ": "x"}}, "prompts": prompts})),
            command: &[],
            flags: &[],
        },
        Case {
            name: "a webhook to loopback",
            grpc: fails!(
                create_webhook,
                v1::CreateWebhookRequest {
                    url: "http://127.0.0.1:1/".into(),
                    ..Default::default()
                }
            ),
            http: ("POST", "/webhooks", json!({"url": "http://127.0.0.1:1/"})),
            command: &["webhook", "add", "http://127.0.0.1:1/"],
            flags: &[],
        },
        Case {
            name: "neither a worker nor a host",
            grpc: fails!(drain_worker, v1::DrainWorkerRequest::default()),
            http: ("POST", "/drains", json!({})),
            command: &[],
            flags: &[],
        },
        Case {
            name: "a day that is none",
            grpc: fails!(
                list_usage,
                v1::ListUsageRequest { from_day: "2026-02-30".into(), ..Default::default() }
            ),
            http: ("GET", "/usage?from_day=2026-02-30", Value::Null),
            command: &["usage", "--since", "2026-02-30"],
            flags: &[("from_day", "since")],
        },
        Case {
            name: "a history that ends before it begins",
            grpc: fails!(
                farm_history,
                v1::FarmHistoryRequest {
                    from: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
                    to: Some(prost_types::Timestamp { seconds: 1_780_000_000, nanos: 0 }),
                    ..Default::default()
                }
            ),
            http: ("GET", "/history?from=1790000000&to=1780000000", Value::Null),
            command: &[
                "history",
                "--since",
                "2026-09-21T14:13:20Z",
                "--until",
                "2026-05-28T20:26:40Z",
            ],
            flags: &[("from is", "since is"), ("to is", "until is")],
        },
        Case {
            name: "the manifest of a job that is none",
            grpc: fails!(
                fetch_manifest,
                v1::FetchManifestRequest { job_id: NO_JOB.into(), offset: 0 }
            ),
            http: ("GET", "/jobs/01a22d33-0000-7000-8000-000000000000/manifest", Value::Null),
            command: &["verify", NO_JOB],
            flags: &[],
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_told_in_the_same_words_over_grpc_over_http_and_by_the_command() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, http) = open(folder.path());
    let mut client =
        FarmClient::connect(format!("http://{}", farm.address)).await.expect("connects");
    for case in cases() {
        let name = case.name;
        let expected = from_status(&(case.grpc)(&mut client).await);
        let (method, path, body) = case.http;
        let path = format!("/api/v1{path}");
        let answer = match body {
            Value::Null => http.send(method, &path, "").await,
            body => {
                let json = http.clone().with("content-type", "application/json");
                json.send(method, &path, body.to_string()).await
            }
        };
        let (status, reason, field, detail) = answer.problem();
        assert_eq!(detail, expected.message, "{name}");
        assert_eq!((reason, field), (expected.reason.clone(), expected.field.clone()), "{name}");
        assert_eq!(status, http_code(expected.code).as_u16(), "{name}");
        if !case.command.is_empty() {
            by_command(&farm, (name, case.command, case.flags), &expected);
        }
    }
}

/// The command line says the same, by the names of its flags.
fn by_command(
    farm: &Farm,
    (name, command, flags): (&str, &[&str], &[(&str, &str)]),
    expected: &UserError,
) {
    let ended = farm.command(["--json"]).args(command.iter().copied()).run();
    assert_eq!(ended.code, Some(i32::from(expected.code.exit_code())), "{name}: {ended:?}");
    let told: Value = serde_json::from_str(ended.stderr.trim()).expect("a document");
    assert_eq!(told["error"]["code"], expected.code.name(), "{name}");
    let said = told["error"]["message"].as_str().expect("a sentence");
    let by_flags = flags.iter().fold(expected.message.clone(), |message, (field, flag)| {
        assert!(message.contains(field), "{name}: {message}");
        message.replacen(field, flag, 1)
    });
    assert_eq!(said, by_flags, "{name}");
}
