//! Storing, finding and reading.

mod lies;

use bytes::Bytes;
use darkroom_core::digest::Digest;
use darkroom_test_servers::s3::faults::{Fault, Rule, Which};
use futures::{StreamExt, TryStreamExt};
use object_store::{Attribute, PutMode, PutPayload};

use super::*;
use crate::{
    picture::MAX_FILE_BYTES,
    test_stores::{Stores, on_s3, quick},
};

#[tokio::test]
async fn content_comes_back_whole_and_in_parts() {
    let stores = Stores::start();
    for store in stores.all() {
        let artifact =
            store.put_content("t/1/", "bin", Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(artifact.key, format!("t/1/{}.bin", Digest::of(b"0123456789")));
        assert_eq!(store.get(&artifact).await.unwrap(), "0123456789");
        assert_eq!(store.get_range(&artifact, 3..6).await.unwrap(), "345");
        assert_eq!(store.get_range(&artifact, 8..600).await.unwrap(), "89");
        assert!(store.get_range(&artifact, 10..20).await.unwrap().is_empty());
        assert_eq!(store.size_of(&artifact.key).await.unwrap(), 10);
        let again =
            store.put_content("t/1/", "bin", Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(again, artifact);
        store.delete(&artifact.key).await.unwrap();
        store.delete(&artifact.key).await.expect("deleting twice is harmless");
        assert!(matches!(store.get(&artifact).await, Err(Error::Missing { .. })));
    }
}

#[tokio::test]
async fn wrong_bytes_are_corrupt_and_the_next_put_mends_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = ArtifactStore::local(folder.path()).unwrap();
    let bytes = Bytes::from_static(b"0123456789");
    let artifact = store.put_content("t/", "bin", bytes.clone()).await.unwrap();
    for damaged in ["01234", "0123456780"] {
        std::fs::write(folder.path().join(&artifact.key), damaged).unwrap();
        let error = store.get(&artifact).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }) && !error.retryable(), "{error}");
        assert_eq!(
            store.find_content("t/", "bin").await.unwrap(),
            None,
            "damaged ones are skipped"
        );
        store.put_content("t/", "bin", bytes.clone()).await.unwrap();
        assert_eq!(store.get(&artifact).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_earlier_run_is_found_by_prefix_and_extension() {
    let stores = Stores::start();
    for store in stores.all() {
        assert_eq!(store.find_content("t/1/", "png").await.unwrap(), None);
        store.put_content("t/1/", "bin", Bytes::from_static(b"other")).await.unwrap();
        store.put_content("t/12/", "png", Bytes::from_static(b"neighbour")).await.unwrap();
        assert_eq!(store.find_content("t/1/", "png").await.unwrap(), None);
        let artifact = store.put_content("t/1/", "png", Bytes::from_static(b"mine")).await.unwrap();
        let (found, bytes) = store.find_content("t/1/", "png").await.unwrap().expect("found");
        assert_eq!((found, bytes), (artifact, Bytes::from_static(b"mine")));
    }
}

#[tokio::test]
async fn files_of_every_size_are_stored_like_their_bytes() {
    let stores = Stores::start();
    let file = stores.folder().join("file");
    for size in [0, 10, CHUNK, 20 << 20] {
        let bytes: Vec<u8> = (0..size / 4).flat_map(|word| (word as u32).to_le_bytes()).collect();
        std::fs::write(&file, &bytes).unwrap();
        for store in stores.all() {
            let artifact = store.put_file("m/", "jsonl", &file).await.unwrap();
            assert_eq!(artifact.sha256, Digest::of(&bytes));
            assert_eq!(store.get(&artifact).await.unwrap(), bytes);
            assert_eq!(store.put_file("m/", "jsonl", &file).await.unwrap(), artifact);
            let from = bytes.len() as u64 / 3;
            let rest: Vec<Bytes> = store.read(&artifact, from).try_collect().await.unwrap();
            assert!(rest.concat() == bytes[from as usize..], "{} from {from}", store.name());
        }
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = ArtifactStore::local(&file.join("sub")).unwrap_err();
    assert!(error.to_string().contains("file/sub"), "{error}");
}

#[test]
fn a_full_disk_and_a_missing_permission_are_told_apart() {
    let of = |kind: std::io::ErrorKind| {
        let source = Box::new(std::io::Error::from(kind));
        Error::of_store("k", &object_store::Error::Generic { store: "LocalFileSystem", source })
    };
    assert!(matches!(of(std::io::ErrorKind::StorageFull), Error::NoSpace { .. }));
    assert!(matches!(of(std::io::ErrorKind::ReadOnlyFilesystem), Error::Permission { .. }));
    assert!(matches!(of(std::io::ErrorKind::ConnectionReset), Error::Unavailable { .. }));
    assert!(of(std::io::ErrorKind::StorageFull).retryable());
}

#[tokio::test]
async fn a_shrunken_artifact_is_corrupt_wherever_it_is_read() {
    let (s3, store) = on_s3();
    let artifact = store.put_content("t/", "bin", Bytes::from_static(b"0123456789")).await.unwrap();
    std::fs::write(s3.file(&artifact.key), "01234").unwrap();
    assert!(matches!(store.get(&artifact).await, Err(Error::Corrupt { .. })));
    for range in [0..3, 7..9] {
        let error = store.get_range(&artifact, range).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_fault_that_passes_is_not_noticed() {
    let (s3, store) = on_s3();
    let bytes = Bytes::from(vec![7; 100_000]);
    for fault in [Fault::Status(500), Fault::Status(503)] {
        s3.faults().set([Rule::next(fault, 2)]);
        let artifact =
            store.put_content(&format!("{fault:?}/"), "bin", bytes.clone()).await.unwrap();
        s3.faults().set([Rule::next(fault, 2)]);
        assert_eq!(store.get(&artifact).await.unwrap(), bytes);
    }
    let artifact = store.put_content("t/", "bin", bytes.clone()).await.unwrap();
    for fault in [Fault::CutBody, Fault::FlipByte] {
        let struck = s3.faults().struck();
        s3.faults().set([Rule::next(fault, 2).on(Which::Reads)]);
        assert_eq!(store.get(&artifact).await.unwrap(), bytes, "{fault:?}");
        assert_eq!(s3.faults().struck() - struck, 2);
    }
    s3.faults().set([Rule::next(Fault::CutBody, 1)]);
    assert_eq!(store.get_range(&artifact, 10..90_000).await.unwrap(), bytes.slice(10..90_000));
}

#[tokio::test]
async fn a_fault_that_stays_is_an_error_in_bounded_time_and_never_wrong_bytes() {
    let (s3, store) = on_s3();
    let bytes = Bytes::from(vec![7; 100_000]);
    let artifact = store.put_content("t/", "bin", bytes.clone()).await.unwrap();
    let start = Instant::now();
    s3.faults().set([Rule::always(Fault::Status(503))]);
    for error in [
        store.get(&artifact).await.unwrap_err(),
        store.put_content("u/", "bin", bytes.clone()).await.unwrap_err(),
        store.size_of(&artifact.key).await.unwrap_err(),
        store.list("t/").try_collect::<Vec<_>>().await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unavailable { .. }) && error.retryable(), "{error}");
    }
    s3.faults().set([Rule::always(Fault::CutBody)]);
    let error = store.get(&artifact).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    s3.faults().set([Rule::always(Fault::FlipByte).on(Which::Reads)]);
    let error = store.get(&artifact).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    s3.faults().set([Rule::always(Fault::Status(507))]);
    let error = store.put_content("u/", "bin", bytes.clone()).await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    s3.faults().set([Rule::read_only()]);
    assert_eq!(store.get(&artifact).await.unwrap(), bytes);
    let error = store.put_content("u/", "bin", bytes).await.unwrap_err();
    assert!(
        matches!(error, Error::Permission { .. }) && error.to_string().contains("AccessDenied"),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_store_that_never_answers_is_given_up() {
    let s3 = darkroom_test_servers::s3::S3::start();
    let options =
        crate::open::Options { silence: Duration::from_millis(200), retries: 1, ..quick(&s3) };
    let store = ArtifactStore::open(&s3.url(), &options).unwrap();
    let artifact = store.put_content("t/", "bin", Bytes::from_static(b"0123")).await.unwrap();
    s3.faults().set([Rule::always(Fault::Silence)]);
    let start = Instant::now();
    for error in [
        store.get(&artifact).await.unwrap_err(),
        store.put_content("u/", "bin", Bytes::from_static(b"0123")).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    s3.faults().set([Rule::next(Fault::Silence, 1)]);
    assert_eq!(store.get(&artifact).await.unwrap(), "0123");
    s3.faults().set([Rule::next(Fault::Silence, 1)]);
    store
        .put_content("u/", "bin", Bytes::from_static(b"0123"))
        .await
        .expect("a lost create is retried");
}

#[tokio::test]
async fn a_server_that_is_gone_comes_back() {
    let (mut s3, store) = on_s3();
    let artifact = store.put_content("t/", "bin", Bytes::from_static(b"0123")).await.unwrap();
    s3.stop();
    let error = store.get(&artifact).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    s3.restart();
    assert_eq!(store.get(&artifact).await.unwrap(), "0123");
}

#[tokio::test]
async fn a_bucket_that_is_gone_does_not_make_artifacts_missing() {
    let (s3, store) = on_s3();
    let artifact = store.put_content("t/", "bin", Bytes::from_static(b"0123")).await.unwrap();
    let elsewhere = s3.bucket_folder().with_extension("away");
    std::fs::rename(s3.bucket_folder(), &elsewhere).unwrap();
    let error = store.get(&artifact).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.retryable(), "{error}");
    std::fs::rename(&elsewhere, s3.bucket_folder()).unwrap();
    assert_eq!(store.get(&artifact).await.unwrap(), "0123");
}

#[tokio::test]
async fn of_two_writers_one_creates_and_both_succeed() {
    let stores = Stores::start();
    for store in stores.all() {
        let bytes = Bytes::from(vec![9; 1 << 16]);
        let (one, other) = tokio::join!(
            store.put_content("race/", "bin", bytes.clone()),
            store.put_content("race/", "bin", bytes.clone()),
        );
        assert_eq!(one.unwrap(), other.unwrap());
        assert_eq!(store.list("race/").count().await, 1, "{}", store.name());
        let path = path("race/create").unwrap();
        let create = |text: &'static str| {
            store.store().put_opts(
                &path,
                PutPayload::from_static(text.as_bytes()),
                PutMode::Create.into(),
            )
        };
        let (one, other) = tokio::join!(create("one"), create("other"));
        assert!(one.is_ok() != other.is_ok(), "{}", store.name());
        let lost = one.and(other).unwrap_err();
        assert!(matches!(lost, object_store::Error::AlreadyExists { .. }), "{lost}");
    }
}

#[tokio::test]
async fn without_conditional_creates_artifacts_are_still_whole() {
    let s3 = darkroom_test_servers::s3::S3::start();
    let url = format!("{}&conditional_put=disabled", s3.url());
    let store = ArtifactStore::open(&url, &quick(&s3)).unwrap();
    let bytes = Bytes::from_static(b"0123456789");
    let artifact = store.put_content("t/", "bin", bytes.clone()).await.unwrap();
    std::fs::write(s3.file(&artifact.key), "damaged").unwrap();
    store.put_content("t/", "bin", bytes.clone()).await.unwrap();
    assert_eq!(store.get(&artifact).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_signed_link_is_fetched_without_credentials_and_expires_with_its_signature() {
    let s3 = darkroom_test_servers::s3::S3::start();
    let store = ArtifactStore::open(&s3.url_under("farm/a"), &quick(&s3)).unwrap();
    let artifact = store.put_content("t/", "bin", Bytes::from_static(b"0123456789")).await.unwrap();
    let link =
        store.signed_url(&artifact, Duration::from_secs(60)).await.unwrap().expect("S3 signs");
    assert_eq!(http_get(&link), (200, "0123456789".to_owned()));
    let unsigned = link.split('?').next().unwrap();
    assert_eq!(http_get(unsigned).0, 403);
    let forged = link.replace(&artifact.key, "t/other.bin");
    assert_ne!(http_get(&forged).0, 200);
    for store in [ArtifactStore::in_memory(), ArtifactStore::local(&s3.bucket_folder()).unwrap()] {
        assert_eq!(store.signed_url(&artifact, Duration::from_secs(60)).await.unwrap(), None);
    }
}

/// A handwritten GET over plain HTTP, so that no client adds credentials.
fn http_get(url: &str) -> (u16, String) {
    use std::io::{Read as _, Write as _};
    let url = url::Url::parse(url).unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    write!(
        stream,
        "GET {}{query} HTTP/1.1\r\nhost: {}:{}\r\nconnection: close\r\n\r\n",
        url.path(),
        address.0,
        address.1
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn prefixes_keep_stores_apart() {
    let s3 = darkroom_test_servers::s3::S3::start();
    let open = |prefix: &str| ArtifactStore::open(&s3.url_under(prefix), &quick(&s3)).unwrap();
    let (a, ab, whole) = (open("farm/a"), open("farm/ab"), open(""));
    let artifact = a.put_content("t/", "bin", Bytes::from_static(b"0123")).await.unwrap();
    assert!(artifact.key.starts_with("t/"), "{}", artifact.key);
    assert!(s3.file(&format!("farm/a/{}", artifact.key)).is_file());
    let listed: Vec<_> = a.list("t/").try_collect().await.unwrap();
    assert_eq!(
        listed.iter().map(|listed| listed.key.as_str()).collect::<Vec<_>>(),
        [artifact.key.as_str()]
    );
    assert!(matches!(ab.get(&artifact).await, Err(Error::Missing { .. })));
    assert_eq!(ab.list("t/").count().await, 0);
    assert_eq!(whole.list("farm/").count().await, 1);
    assert!(a.find_content("t/", "bin").await.unwrap().is_some());
    a.delete(&artifact.key).await.unwrap();
    assert_eq!(whole.list("farm/").count().await, 0);
}

#[tokio::test]
async fn pictures_have_their_media_type_where_the_store_keeps_one() {
    let store = ArtifactStore::in_memory();
    for (extension, wanted) in [
        ("png", Some("image/png")),
        ("jpg", Some("image/jpeg")),
        ("webp", Some("image/webp")),
        ("safetensors", None),
    ] {
        let bytes = Bytes::from_static(b"0123456789");
        let artifact = store.put_content("t/", extension, bytes).await.unwrap();
        let found = store.store().get(&path(&artifact.key).unwrap()).await.unwrap();
        let told = found.attributes.get(&Attribute::ContentType).map(AsRef::<str>::as_ref);
        assert_eq!(told, wanted, "{extension}");
    }
    // Others take them all the same; a folder has no place for a type.
    let stores = Stores::start();
    for store in stores.all() {
        let bytes = Bytes::from_static(b"0123456789");
        let artifact = store.put_content("t/", "jpg", bytes.clone()).await.unwrap();
        assert_eq!(store.get(&artifact).await.unwrap(), bytes, "{}", store.name());
    }
}
