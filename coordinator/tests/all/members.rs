//! Encoders and workers that join: what they are told, which keys they get, and who is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Farm, cascade, options, pool};
use darkroom_coordinator::Options;
use darkroom_core::{
    error::{Code, UserError},
    id::WorkerId,
};
use darkroom_farm_api::{Caller, CallerLayer, grpc, members};
use darkroom_proto::{status::from_status, v1};
use darkroom_queue::{
    signing::{Credentials, Holder, Key, MemberKeys, Signer},
    task::{EncodeBody, Outcome, PoolId, Subject, Task, TaskBody, TaskKey, TaskResult},
};
use http::{Request, header};
use tonic::{Status, body::Body, service::Routes};
use tower::ServiceExt as _;

fn request(kind: v1::MemberKind) -> v1::JoinRequest {
    v1::JoinRequest {
        worker_id: "gpu 7-0123".to_owned(),
        kind: kind.into(),
        ..v1::JoinRequest::default()
    }
}

async fn join(farm: &Farm, request: v1::JoinRequest) -> Result<v1::JoinResponse, UserError> {
    farm.handle.members().join(&Caller::open(), request).await
}

fn pools(answer: &v1::JoinResponse) -> Vec<PoolId> {
    let pool = |keys: &v1::PoolKeys| PoolId {
        stage: keys.stage.clone().try_into().expect("a stage"),
        digest: keys.digest.parse().expect("a digest"),
    };
    let mut pools: Vec<_> = answer.pools.iter().map(pool).collect();
    pools.sort();
    pools
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_told_all_that_it_needs_and_signs_with_what_it_got() {
    let farm = Farm::start().await;
    let answer = join(&farm, request(v1::MemberKind::Worker)).await.expect("joins");
    assert_eq!(answer.farm_id, farm.store.farm_id().await.expect("an id").to_string());
    assert!((answer.lease_seconds - 0.6).abs() < 1e-9, "{answer:?}");
    let told: Vec<_> = answer.cascades.iter().map(|one| (&*one.name, &*one.digest)).collect();
    let digest = cascade().digest().to_string();
    assert_eq!(told, [(&*cascade().spec.name, &*digest)]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let left = Duration::from_secs(answer.expires_at - now).as_secs_f64();
    assert!(answer.renew_seconds < left * 0.6, "{} of {left}", answer.renew_seconds);
    let mut every = ["base", "sr256", "sr1024"].map(pool);
    every.sort();
    assert_eq!(pools(&answer), every);

    // What it signs is believed by any coordinator that has the farm's secret.
    let secret = farm.store.secret().await.expect("the secret");
    let holder = Holder {
        worker: WorkerId(request(v1::MemberKind::Worker).worker_id),
        key: answer.key_id.clone(),
        expires: answer.expires_at,
    };
    let keys = answer.pools.iter().map(|keys| {
        let results = Key::from_bytes(&keys.results_key).expect("32 bytes");
        let tasks = Key::from_bytes(&keys.tasks_key).expect("32 bytes");
        let stage = keys.stage.clone().try_into().expect("a stage");
        let digest = keys.digest.parse().expect("a digest");
        (PoolId { stage, digest }, MemberKeys { results, tasks })
    });
    let signer = Signer::new(Credentials { holder: holder.clone(), pools: keys.collect() });
    let base = pool("base");
    let body = EncodeBody { text: "x".to_owned(), prefix: "tasks/x/".to_owned() };
    let mut task = Task {
        key: TaskKey { subject: Subject::Text(cascade().digest()), generation: 0, dispatch: 1 },
        compatibility: String::new(),
        suspect: false,
        body: TaskBody::Encode(body),
        traceparent: None,
        warrant: None,
        seal: None,
    };
    secret.seal(&base, &mut task);
    assert!(signer.accepts(&base, &task));
    let mut result = TaskResult {
        key: task.key,
        worker: holder.worker,
        place: "gpu".to_owned(),
        device_class: "c".to_owned(),
        alone: true,
        seconds: 1.0,
        batch: 1,
        outcome: Outcome::Interrupted { reason: "drained".to_owned() },
        warrant: task.warrant,
        signature: None,
    };
    signer.sign(&base, &mut result);
    assert_eq!(secret.check(&base, &result, now, Duration::ZERO), Ok(()));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_keys_for_its_kind_its_cascades_and_its_stages_alone() {
    let farm = Farm::start().await;
    let encoder = join(&farm, request(v1::MemberKind::Encoder)).await.expect("joins");
    assert_eq!(pools(&encoder), [pool("encode")]);
    let name = cascade().spec.name;
    for named in [name.clone(), cascade().digest().to_string()] {
        let asked = v1::JoinRequest {
            cascades: vec![named],
            stages: vec!["sr256".to_owned()],
            ..request(v1::MemberKind::Worker)
        };
        let answer = join(&farm, asked).await.expect("joins");
        assert_eq!(pools(&answer), [pool("sr256")]);
    }
    let wrong = |field: &str, change: fn(&mut v1::JoinRequest)| {
        let mut asked = request(v1::MemberKind::Worker);
        change(&mut asked);
        (field.to_owned(), asked)
    };
    for (field, asked) in [
        wrong("worker_id", |asked| asked.worker_id.clear()),
        wrong("worker_id", |asked| asked.worker_id = "x".repeat(301)),
        wrong("worker_id", |asked| asked.worker_id = "a\nb".to_owned()),
        wrong("kind", |asked| asked.kind = 0),
        wrong("kind", |asked| asked.kind = 7),
        wrong("cascade", |asked| asked.cascades = vec!["no such".to_owned()]),
        wrong("cascade", |asked| asked.cascades = vec![String::new()]),
        wrong("stages", |asked| asked.stages = vec!["encode".to_owned()]),
    ] {
        let error = join(&farm, asked.clone()).await.expect_err(&field);
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        assert_eq!(error.field.as_deref(), Some(field.as_str()), "{error}");
        assert!(error.message.len() < 300, "{error}");
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_with_real_models_takes_no_member_that_makes_things_up() {
    let farm = Farm::start().await;
    let fake = || v1::JoinRequest { makes_up: true, ..request(v1::MemberKind::Encoder) };
    let error = join(&farm, fake()).await.expect_err("it has real models");
    assert_eq!((error.code, error.reason.as_str()), (Code::FailedPrecondition, "MAKES_UP"));
    farm.shutdown().await;
    let farm = Farm::start_with(Options { makes_up: true, ..options() }).await;
    join(&farm, fake()).await.expect("a farm of tests");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_without_a_caller_is_refused() {
    let farm = Farm::start().await;
    let ask = async |routes: Routes| {
        let message = http_body_util::Full::from(&[0; 5][..]);
        let request = Request::post("/darkroom.v1.Members/Join")
            .header(header::CONTENT_TYPE, "application/grpc")
            .body(Body::new(message))
            .expect("a request");
        let response = routes.oneshot(request).await.expect("answered");
        Status::from_header_map(response.headers()).expect("a refusal")
    };
    let routes = Routes::new(members::service(farm.handle.members()));
    let nobody = ask(routes.clone()).await;
    assert_eq!(from_status(&nobody).reason, "NO_CALLER", "{nobody}");
    let open = ask(grpc::behind(CallerLayer::open(), routes)).await;
    assert_eq!(from_status(&open).field.as_deref(), Some("worker_id"), "{open}");
    farm.shutdown().await;
}
