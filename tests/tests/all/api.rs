//! The API as any gRPC client sees it: health, reflection, and errors that name the field.

use darkroom_proto::v1::{self, farm_client::FarmClient};
use darkroom_tests::farm::{Farm, Renderer};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

async fn channel(farm: &Farm) -> Channel {
    Endpoint::from_shared(format!("http://{}", farm.address))
        .expect("address")
        .connect()
        .await
        .expect("connect")
}

fn submit(settings: v1::Settings) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        spec: Some(v1::JobSpec { settings: Some(settings), ..v1::JobSpec::default() }),
        prompts: vec![v1::Prompt { text: "a red circle".to_owned(), ..v1::Prompt::default() }],
    }
}

#[tokio::test]
async fn health_and_reflection_answer_for_every_service() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let mut health = HealthClient::new(channel(&farm).await);
    for service in ["", "darkroom.v1.Farm", "darkroom.v1.Encoder"] {
        let answer =
            health.check(HealthCheckRequest { service: service.to_owned() }).await.expect(service);
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service}");
    }

    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let mut reflection = ServerReflectionClient::new(channel(&farm).await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("darkroom.v1.Farm".to_owned())),
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(ask))
        .await
        .expect("call")
        .into_inner();
    let answer = answers.message().await.expect("answer").expect("one").message_response;
    assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
}

#[tokio::test]
async fn an_error_carries_the_field_the_reason_and_what_would_be_accepted() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let mut client = FarmClient::new(channel(&farm).await);
    let stage = |guidance_scale, steps| v1::Settings {
        stages: vec![v1::StageSettings {
            stage: "base".to_owned(),
            guidance_scale,
            steps,
            ..v1::StageSettings::default()
        }],
        ..v1::Settings::default()
    };
    for (settings, field) in [
        (stage(Some(f64::NAN), None), "spec.settings.stages[0].guidance_scale"),
        (stage(None, Some(10_001)), "spec.settings.stages[0].steps"),
        (v1::Settings { size: 65, ..v1::Settings::default() }, "spec.settings.size"),
    ] {
        let status = client.submit_job(submit(settings)).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("accepted"), "{status:?}");
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("BadRequest").field_violations;
        assert_eq!(violations[0].field, field);
        assert_eq!(details.error_info().expect("ErrorInfo").domain, "darkroom");
    }
}

#[tokio::test]
async fn a_watch_goes_on_from_the_version_last_seen() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let mut client = FarmClient::new(channel(&farm).await);
    let mut request = submit(v1::Settings { size: 64, ..v1::Settings::default() });
    request.prompts[0].images = 30;
    let job = client.submit_job(request).await.expect("accepted").into_inner().job.expect("a job");
    let mut seen = std::collections::BTreeSet::new();
    let mut version = 0;
    loop {
        // A new stream for every event; each continues where the previous one stopped.
        let request =
            v1::WatchJobRequest { id: job.id.clone(), after_version: version, images: true };
        let mut stream = client.watch_job(request).await.expect("watch").into_inner();
        let event = stream.message().await.expect("event").expect("one");
        assert!(event.version > version || event.end, "{} after {version}", event.version);
        version = event.version;
        let done = event.images.iter().filter(|image| image.state() == v1::ImageState::Done);
        seen.extend(done.map(|image| image.index));
        if event.end {
            break;
        }
    }
    assert_eq!(seen.len(), 30, "every image's end was reported");
}

#[tokio::test]
async fn the_encoder_answers_directly() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let mut client = v1::encoder_client::EncoderClient::new(channel(&farm).await);
    let request =
        v1::EncodeRequest { texts: vec!["a red circle".to_owned()], encoder_digest: String::new() };
    let answer = client.encode(request).await.expect("encoded").into_inner();
    let embedding = &answer.embeddings[0];
    assert_eq!(
        embedding.data.len() as u64,
        u64::from(embedding.tokens) * u64::from(embedding.width) * 4
    );
    let empty =
        client.encode(v1::EncodeRequest { texts: Vec::new(), encoder_digest: String::new() }).await;
    assert_eq!(empty.expect_err("no texts").code(), Code::InvalidArgument);
}
