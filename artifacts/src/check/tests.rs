use darkroom_test_servers::{
    process::free_port,
    s3::{
        S3,
        faults::{Fault, Rule, Which},
    },
};

use super::*;
use crate::{
    open::Options,
    test_stores::{Stores, on_s3, quick},
};

async fn refused(store: &ArtifactStore) -> (String, String) {
    let error = store.check().await.expect_err("refused");
    assert_eq!(error.field.as_deref(), Some(FIELD));
    (error.reason, error.message)
}

#[tokio::test]
async fn a_store_that_works_passes_and_keeps_no_probe() {
    let stores = Stores::start();
    for store in stores.all() {
        store.check().await.unwrap();
        let left: Vec<_> = futures::TryStreamExt::try_collect(store.list("probes/")).await.unwrap();
        assert_eq!(left, [], "{}", store.name());
    }
}

#[tokio::test]
async fn where_versions_are_kept_nothing_piles_up_and_faults_are_still_noticed() {
    let (s3, store) = on_s3();
    s3.faults().keep_versions();
    let fresh = || ArtifactStore::open(&s3.url(), &quick(&s3)).unwrap();
    for _ in 0..3 {
        store.check().await.unwrap();
        fresh().check().await.unwrap();
    }
    assert_eq!(s3.faults().versions(), 1, "one probe, however often it is checked and by how many");
    for (rule, says) in [
        (Rule::read_only(), "ARTIFACTS_READ_ONLY"),
        (Rule::always(Fault::Status(403)).on(Which::Reads), "ARTIFACTS_UNREADABLE"),
        (Rule::always(Fault::Status(507)).on(Which::Writes), "ARTIFACTS_NO_SPACE"),
        (Rule::always(Fault::FlipByte).on(Which::Reads), "ARTIFACTS_UNFAITHFUL"),
    ] {
        s3.faults().set([rule]);
        assert_eq!(refused(&store).await.0, says);
    }
    s3.faults().clear();
    assert_eq!(s3.faults().versions(), 1);
    // A rule of the bucket removed it: it is written again.
    std::fs::remove_file(s3.file("probes/kept")).unwrap();
    store.check().await.unwrap();
    store.check().await.unwrap();
    assert_eq!(s3.faults().versions(), 2);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_named() {
    let s3 = S3::start();
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let url = format!("s3://darkroom?endpoint={endpoint}&allow_http=true");
    let store = ArtifactStore::open(&url, &quick(&s3)).unwrap();
    let (reason, message) = refused(&store).await;
    assert_eq!(reason, "ARTIFACTS_UNREACHABLE");
    assert!(message.contains(&endpoint) && message.contains("refused"), "{message}");
    s3.faults().set([Rule::always(Fault::Status(503))]);
    let store = ArtifactStore::open(&s3.url(), &quick(&s3)).unwrap();
    let (reason, message) = refused(&store).await;
    assert_eq!(reason, "ARTIFACTS_UNREACHABLE");
    assert!(message.contains("SlowDown"), "{message}");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let s3 = S3::start();
    let url = s3.url().replace("s3://darkroom", "s3://nowhere");
    let (reason, message) = refused(&ArtifactStore::open(&url, &quick(&s3)).unwrap()).await;
    assert_eq!(reason, "ARTIFACTS_NO_BUCKET", "{message}");
    assert!(message.contains("no bucket \"nowhere\""), "{message}");
}

#[tokio::test]
async fn wrong_credentials_are_told_from_a_wrong_secret_and_never_repeated() {
    let s3 = S3::start();
    for (key, secret, part) in
        [("nobody", "hush", "NotSignedUp"), ("test-access-key", "hush", "SignatureDoesNotMatch")]
    {
        let environment = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
        let environment =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = Options { environment: environment.collect(), ..quick(&s3) };
        let (reason, message) = refused(&ArtifactStore::open(&s3.url(), &options).unwrap()).await;
        assert_eq!(reason, "ARTIFACTS_CREDENTIALS", "{message}");
        assert!(message.contains(part) && !message.contains("hush"), "{message}");
    }
}

#[tokio::test]
async fn what_the_credentials_may_not_do_is_said() {
    let (s3, store) = on_s3();
    s3.faults().set([Rule::read_only()]);
    let (reason, message) = refused(&store).await;
    assert_eq!(reason, "ARTIFACTS_READ_ONLY");
    assert!(
        message.contains("may not be written to") && message.contains("AccessDenied"),
        "{message}"
    );
    s3.faults().set([Rule::always(Fault::Status(403)).on(Which::Reads)]);
    assert_eq!(refused(&store).await.0, "ARTIFACTS_UNREADABLE");
    s3.faults().set([Rule::always(Fault::Status(507))]);
    assert_eq!(refused(&store).await.0, "ARTIFACTS_NO_SPACE");
}

#[tokio::test]
async fn clocks_that_differ_are_told_by_how_much() {
    let (s3, store) = on_s3();
    for (seconds, part) in [
        (3600, "60 minutes behind the store's"),
        (-7 * 3600, "7 hours ahead of the store's"),
        (600, "minutes behind the store's"),
    ] {
        s3.faults().set([Rule::always(Fault::Skew(seconds))]);
        let (reason, message) = refused(&store).await;
        assert_eq!(reason, "ARTIFACTS_CLOCK", "{message}");
        let near = part.replace("60", "59").replace("7 hours", "6 hours");
        assert!(message.contains(part) || message.contains(&near), "{message}");
    }
    s3.faults().set([Rule::always(Fault::Skew(-60))]);
    store.check().await.expect("a minute is no problem");
    // Where nothing is signed, a wrong clock is no obstacle.
    let folder = tempfile::tempdir().unwrap();
    let local = ArtifactStore::local(folder.path()).unwrap();
    for hours in [-7, 7] {
        let written = Utc::now() + TimeDelta::hours(hours);
        check_clock(local.backend(), written).expect("it is only warned of");
        check_clock(store.backend(), written).expect_err("requests are signed");
    }
    // Otherwise what is being written could be older than a week.
    check_clock(local.backend(), Utc::now() - TimeDelta::days(2)).expect_err("two days");
}

#[tokio::test]
async fn a_store_without_conditional_creates_is_noticed() {
    let (s3, store) = on_s3();
    for fault in [Fault::ForgetCondition, Fault::Status(501)] {
        s3.faults().set([Rule::always(fault).on(Which::Writes)]);
        let (reason, message) = refused(&store).await;
        assert_eq!(reason, "ARTIFACTS_NO_CONDITIONAL_CREATE");
        assert!(message.contains("conditional_put=disabled"), "{message}");
    }
    s3.faults().set([Rule::always(Fault::ForgetCondition)]);
    let url = format!("{}&conditional_put=disabled", s3.url());
    ArtifactStore::open(&url, &quick(&s3)).unwrap().check().await.expect("as the user wants it");
}
