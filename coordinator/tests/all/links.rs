//! Links to pictures: given if object storage can sign them, for no longer than it allows, and
//! refused otherwise.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::support::{self, Act, Farm, eventually, prompts, spec};
use darkroom_artifacts::{ArtifactStore, open};
use darkroom_proto::{status::from_status, v1};
use darkroom_test_servers::{http_get, s3::S3};
use tonic::Code;

async fn farm(artifacts: ArtifactStore) -> Farm {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    Farm::start_over(support::options(), folder, artifacts).await
}

fn on_s3(s3: &S3) -> ArtifactStore {
    let environment = s3.environment().into_iter().collect();
    let options = open::Options { environment, ..open::Options::default() };
    ArtifactStore::open(&s3.url_under("pictures"), &options).expect("a store")
}

/// A finished job of three images.
async fn rendered(farm: &mut Farm) -> v1::Job {
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), prompts(3)).await;
    let job = farm.until_ended(&job.id).await;
    workers.stop().await;
    job
}

async fn sign(
    farm: &mut Farm,
    job: &v1::Job,
    index: u64,
    link_seconds: u32,
) -> Result<v1::SignImageResponse, tonic::Status> {
    let request =
        v1::SignImageRequest { job_id: job.id.clone(), index, link_seconds, ..Default::default() };
    farm.client.sign_image(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_downloaded_by_its_link_without_credentials_until_it_expires() {
    let s3 = S3::start();
    let mut farm = farm(on_s3(&s3)).await;
    let job = rendered(&mut farm).await;
    for image in farm.images(&job.id).await {
        let link = sign(&mut farm, &job, image.index, 60).await.expect("signed");
        let (status, bytes) = http_get(&link.url);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        let stored =
            std::fs::read(s3.file(&format!("pictures/{}", image.key))).expect("the picture's file");
        assert!(bytes == stored, "image {} arrives as it is stored", image.index);
        assert_eq!((link.sha256, link.size_bytes), (image.sha256, bytes.len() as u64));
        let unsigned = link.url.split('?').next().expect("a path");
        assert_eq!(http_get(unsigned).0, 403, "it is the signature that opens it");
    }
    let short = sign(&mut farm, &job, 0, 1).await.expect("signed");
    eventually("it expires", async || http_get(&short.url).0 == 403).await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lives_an_hour_or_as_asked_and_never_beyond_seven_days() {
    let s3 = S3::start();
    let mut farm = farm(on_s3(&s3)).await;
    let job = rendered(&mut farm).await;
    for (asked, seconds) in [(0, 3600), (1, 1), (86_400, 86_400)] {
        let life = Duration::from_secs(seconds);
        let before = SystemTime::now() + life - Duration::from_secs(1);
        let link = sign(&mut farm, &job, 0, asked).await.expect("signed");
        let after = SystemTime::now() + life;
        let told = SystemTime::try_from(link.expires_at.expect("told")).expect("a time");
        assert!(before <= told && told <= after, "{asked}: {told:?}");
        assert!(link.url.contains(&format!("X-Amz-Expires={seconds}&")), "{}", link.url);
    }
    let status = sign(&mut farm, &job, 0, 86_401).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    let error = from_status(&status);
    assert_eq!(error.field.as_deref(), Some("link_seconds"));
    assert!(error.message.contains("86401; accepted: 1 to 86400"), "{error}");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_storage_has_no_links_or_the_image_is_not_done_it_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut farm = farm(ArtifactStore::local(folder.path()).expect("a store")).await;
    let waiting = farm.submit(spec(), prompts(1)).await;
    let status = sign(&mut farm, &waiting, 0, 60).await.expect_err("refused");
    assert_eq!(
        (status.code(), from_status(&status).reason.as_str()),
        (Code::FailedPrecondition, "IMAGE_NOT_DONE")
    );

    let job = rendered(&mut farm).await;
    let status = sign(&mut farm, &job, 0, 60).await.expect_err("refused");
    let error = from_status(&status);
    assert_eq!(
        (status.code(), error.reason.as_str()),
        (Code::FailedPrecondition, "STORAGE_HAS_NO_LINKS")
    );
    assert!(
        error.message.contains("a folder") && error.message.contains("darkroom get"),
        "{error}"
    );
    assert!(!error.message.contains(folder.path().to_str().expect("text")), "{error}");
    let missing = sign(&mut farm, &job, 3, 60).await.expect_err("refused");
    assert_eq!(missing.code(), Code::NotFound);
    farm.shutdown().await;
}
