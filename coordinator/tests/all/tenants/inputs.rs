//! Uploaded pictures: only the tenants that have sent one can name it.

use darkroom_artifacts::picture::encode_rgb;
use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};
use darkroom_farm_api::Caller;
use darkroom_proto::v1;

use super::calling::{Town, of, operator, plain, streamed, submit, text, uploaded};

fn png() -> Vec<u8> {
    encode_rgb(64, 64, &[9, 80, 200].repeat(64 * 64), &[]).expect("a picture")
}

/// A job that starts from the picture with this hash.
fn from(picture: &str) -> v1::SubmitJobRequest {
    let mut request = plain("from a picture");
    let mut settings = v1::Settings::default();
    settings.set_start(v1::Start::Picture);
    request.spec.as_mut().expect("a spec").settings = Some(settings);
    request.prompts[0].image = picture.to_owned();
    request
}

/// The refusals of every call that takes prompts.
async fn refusals(town: &Town, caller: &Caller, picture: &str) -> Vec<UserError> {
    let answers = [
        text(submit(&town.calls, caller, from(picture)).await),
        text(town.calls.submit_job_stream(caller, streamed(from(picture))).await),
        text(town.calls.forecast_job(caller, streamed(from(picture))).await),
    ];
    answers.into_iter().map(|answer| answer.expect_err("unknown")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_upload_looks_like_one_that_does_not_exist() {
    let town = Town::build().await;
    let sent = town.calls.upload_input(&of("b"), uploaded(&png())).await.expect("stored");
    let nobodys = Digest::of(b"nobody has sent it").to_string();
    let a = of("a");
    let missing = refusals(&town, &a, &nobodys).await;
    for (known, missing) in refusals(&town, &a, &sent.sha256).await.iter().zip(&missing) {
        assert_eq!((known.code, known.reason.as_str()), (Code::NotFound, "UNKNOWN_INPUT"));
        let message = known.message.replace(&sent.sha256, &nobodys);
        assert_eq!(UserError { message, ..known.clone() }, *missing);
    }
    submit(&town.calls, &of("b"), from(&sent.sha256)).await.expect("its own");
    let mut for_b = from(&sent.sha256);
    for_b.spec.as_mut().expect("a spec").tenant = "b".to_owned();
    submit(&town.calls, &operator(), for_b).await.expect("an operator may");
    submit(&town.calls, &operator(), from(&sent.sha256)).await.expect("an operator may");
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_another_has_sent_is_taken_as_if_nobody_had() {
    let town = Town::build().await;
    let first = town.calls.upload_input(&of("b"), uploaded(&png())).await.expect("stored");
    // What the farm knows of b's upload is not what decoding it gives.
    let known = town.farm.store.inputs(Some("b"), &[Digest::of(&png())]).await.expect("asks");
    let marked = darkroom_coordinator::store::records::Input {
        notes: vec!["is marked".to_owned()],
        ..known.into_iter().next().expect("known")
    };
    town.farm.store.add_input("b", &marked).await.expect("marked");
    let own = town.calls.upload_input(&of("a"), uploaded(&png())).await.expect("stored");
    assert_eq!(own, first, "decoded anew");
    let again = town.calls.upload_input(&of("b"), uploaded(&png())).await.expect("known");
    assert_eq!(again.notes, ["is marked"], "a's upload does not change b's");
    submit(&town.calls, &of("a"), from(&own.sha256)).await.expect("its own now");
    town.farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_without_a_tenant_is_the_default_tenants() {
    let town = Town::build().await;
    let sent = town.calls.upload_input(&operator(), uploaded(&png())).await.expect("stored");
    submit(&town.calls, &of("default"), from(&sent.sha256)).await.expect("its own");
    refusals(&town, &of("a"), &sent.sha256).await;
    let homeless = Caller::of(None, [darkroom_farm_api::Scope::Submit], None);
    let refused = town.calls.upload_input(&homeless, uploaded(&png())).await.expect_err("nobody's");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "NO_TENANT"));
    town.farm.shutdown().await;
}
