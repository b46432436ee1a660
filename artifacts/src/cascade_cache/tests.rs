use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use darkroom_core::cascade::Cascade;
use darkroom_test_servers::s3::{
    S3,
    faults::{Fault, Rule, Which},
};

use super::*;
use crate::{
    blob::CHUNK,
    test_stores::{Stores, on_s3, quick},
};

const WEIGHTS: &str = "base/unet/diffusion_pytorch_model.safetensors";
const CONFIG: &str = "base/unet/config.json";
/// Gives the number that a picture's edges must be multiples of, which `cascade.toml` does not.
const CONFIGURATION: &[u8] = br#"{"block_out_channels": [8, 16]}"#;

/// A cascade on disk whose weights have `size` bytes.
fn cascade(name: &str, size: usize) -> (tempfile::TempDir, CascadeBundle) {
    let toml = format!(
        r#"
        format = 1
        name = "{name}"
        description = "of a test"
        [encoder]
        folder = "text_encoder"
        tokenizer = "tokenizer"
        max_length = 20
        [[stages]]
        name = "base"
        folder = "base"
        size = 16
        sampler = "ddim"
        steps = 4
        guidance_scale = 3.1
        "#
    );
    let folder = tempfile::tempdir().unwrap();
    let weights: Vec<u8> = (0..size).map(|byte| (byte % 251) as u8).collect();
    for (path, bytes) in [
        (FILE_NAME, toml.as_bytes()),
        ("text_encoder/config.json", b"{}"),
        ("text_encoder/model.safetensors", name.as_bytes()),
        ("tokenizer/tokenizer.json", b"{}"),
        (CONFIG, CONFIGURATION),
        (WEIGHTS, &weights),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let bundle = CascadeBundle::load(folder.path()).unwrap();
    (folder, bundle)
}

fn cache(max_bytes: u64) -> (tempfile::TempDir, CascadeCache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = CascadeCache::new(&folder.path().join("cascades"), max_bytes).unwrap();
    (folder, cache)
}

async fn publish(store: &ArtifactStore, bundle: &CascadeBundle) -> Digest {
    cascade_store::publish(store, bundle).await.unwrap().digest
}

fn key_of(digest: Digest, bundle: &CascadeBundle, path: &str) -> String {
    format!(
        "cascades/{digest}/files/{}.{}",
        bundle.cascade().files[path],
        path.rsplit_once('.').unwrap().1
    )
}

#[tokio::test]
async fn what_is_fetched_is_what_was_published() {
    let stores = Stores::start();
    let (_source, bundle) = cascade("tiny", 3 * CHUNK / 2);
    for store in stores.all() {
        let (_folder, cache) = cache(u64::MAX);
        let published = cascade_store::publish(&store, &bundle).await.unwrap();
        assert_eq!((published.files, published.bytes), (6, published.uploaded_bytes));
        let again = cascade_store::publish(&store, &bundle).await.unwrap();
        assert_eq!(again, cascade_store::Published { uploaded_bytes: 0, ..published.clone() });
        let fetched = cache.fetch(&store, published.digest).await.unwrap();
        assert_eq!(fetched.cascade(), bundle.cascade());
        let loaded = CascadeBundle::load(fetched.root()).unwrap();
        assert_eq!(loaded.cascade(), bundle.cascade(), "the folder stands for itself");
        assert_eq!(
            std::fs::read(fetched.root().join(WEIGHTS)).unwrap(),
            std::fs::read(bundle.root().join(WEIGHTS)).unwrap()
        );
        assert!(cache.incoming().read_dir().unwrap().next().is_none());
    }
}

#[tokio::test]
async fn a_damaged_file_of_the_right_size_is_replaced_by_the_next_who_publishes() {
    let stores = Stores::start();
    let (_source, bundle) = cascade("tiny", 3 * CHUNK / 2);
    let store = ArtifactStore::local(&stores.folder().join("published")).unwrap();
    let digest = publish(&store, &bundle).await;
    for path in [WEIGHTS, CONFIG] {
        let file = stores.folder().join("published").join(key_of(digest, &bundle, path));
        let whole = std::fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&file, damaged).unwrap();
        let again = cascade_store::publish(&store, &bundle).await.unwrap();
        assert_eq!(again.uploaded_bytes, whole.len() as u64, "it alone is uploaded again");
        assert!(std::fs::read(&file).unwrap() == whole);
    }
    assert_eq!(cascade_store::publish(&store, &bundle).await.unwrap().uploaded_bytes, 0);
    assert_eq!(store.list(&format!("cascades/{digest}/seals/")).count().await, 1);
}

#[tokio::test]
async fn what_is_published_is_read_once_and_then_known_by_its_mark() {
    let (s3, store) = on_s3();
    let (_source, bundle) = cascade("tiny", 100_000);
    let digest = publish(&store, &bundle).await;
    let publish_again = async || {
        let before = s3.faults().requests();
        cascade_store::publish(&store, &bundle).await.unwrap();
        s3.faults().requests() - before
    };
    let known = publish_again().await;
    for seal in
        store.list(&format!("cascades/{digest}/seals/")).try_collect::<Vec<_>>().await.unwrap()
    {
        store.delete(&seal.key).await.unwrap();
    }
    assert!(publish_again().await >= known + 6, "each file is read");
    assert_eq!(publish_again().await, known, "and then no more");

    // Thousands of other objects beside the files cause no further requests.
    let weights = s3.file(&key_of(digest, &bundle, WEIGHTS));
    let beside = weights.parent().unwrap();
    for number in 0..2500 {
        std::fs::write(beside.join(format!("{number}.json")), b"{}").unwrap();
    }
    assert_eq!(publish_again().await, known, "only its own files are looked up");
}

#[tokio::test]
async fn two_publish_and_two_fetch_at_once() {
    let (_s3, store) = on_s3();
    let (_source, bundle) = cascade("tiny", 100_000);
    let (one, other) = tokio::join!(
        cascade_store::publish(&store, &bundle),
        cascade_store::publish(&store, &bundle)
    );
    let digest = one.unwrap().digest;
    assert_eq!(digest, other.unwrap().digest);
    let records = store.list(&format!("cascades/{digest}/record/")).count().await;
    assert_eq!(records, 1);
    let (_folder, cache) = cache(u64::MAX);
    let (one, other) = tokio::join!(cache.fetch(&store, digest), cache.fetch(&store, digest));
    assert_eq!(one.unwrap().root(), other.unwrap().root());
}

#[tokio::test]
async fn a_cached_cascade_needs_no_store_and_a_damaged_file_only_itself() {
    let (mut s3, store) = on_s3();
    let (_source, bundle) = cascade("tiny", 100_000);
    let digest = publish(&store, &bundle).await;
    let (_folder, cache) = cache(u64::MAX);
    let root = cache.fetch(&store, digest).await.unwrap().root().to_owned();
    s3.stop();
    cache.fetch(&store, digest).await.expect("nothing is missing");
    for damage in ["", "{\"a\": 2}"] {
        std::fs::write(root.join(CONFIG), damage).unwrap();
        assert_eq!(cache.fetch(&store, digest).await.unwrap_err().code, Code::Unavailable);
        s3.restart();
        let before = s3.faults().requests();
        cache.fetch(&store, digest).await.unwrap();
        assert_eq!(s3.faults().requests() - before, 1, "one file is fetched again");
        assert_eq!(std::fs::read(root.join(CONFIG)).unwrap(), CONFIGURATION);
        s3.stop();
    }
    std::fs::write(root.join(RECORD), "{").unwrap();
    cache.fetch(&store, digest).await.expect_err("the record is gone too");
    s3.restart();
    cache.fetch(&store, digest).await.unwrap();
}

#[tokio::test]
async fn a_fetch_goes_on_where_an_earlier_one_ended() {
    let (s3, store) = on_s3();
    let (_source, bundle) = cascade("tiny", 5 * CHUNK / 2);
    let digest = publish(&store, &bundle).await;
    let weights = std::fs::read(bundle.root().join(WEIGHTS)).unwrap();
    let name = bundle.cascade().files[WEIGHTS].to_string();
    let record = cascade_store::find(&store, digest).await.unwrap();
    // A correct clock passes, and is counted.
    s3.faults().set([Rule::always(Fault::Skew(0)).on_key(&name)]);
    let requests_with = async |part: &[u8]| {
        let (_folder, cache) = cache(u64::MAX);
        // Prepared by hand: requests of an interrupted fetch may still be running when the next
        // ones are counted.
        let incoming = cache.incoming().join(digest.to_string());
        write_record(&incoming, &record).unwrap();
        let part_path = incoming.join(format!("{WEIGHTS}.part"));
        std::fs::create_dir_all(part_path.parent().unwrap()).unwrap();
        std::fs::write(part_path, part).unwrap();
        let before = s3.faults().struck();
        let fetched = cache.fetch(&store, digest).await.unwrap();
        assert!(std::fs::read(fetched.root().join(WEIGHTS)).unwrap() == weights);
        s3.faults().struck() - before
    };
    assert_eq!(requests_with(b"").await, 3);
    assert_eq!(requests_with(&weights[..2 * CHUNK]).await, 1, "two of three chunks are there");
    assert_eq!(requests_with(&weights).await, 0, "all is there but its name");
    assert_eq!(requests_with(&[1; CHUNK]).await, 2 + 3, "a wrong beginning is thrown away");
    assert_eq!(requests_with(&vec![1; weights.len() + 1]).await, 3, "and so is too much");
}

#[tokio::test]
async fn the_longest_unused_goes_and_one_in_use_never() {
    let store = ArtifactStore::in_memory();
    let mut digests = Vec::new();
    for name in ["one", "two", "three"] {
        let (_source, bundle) = cascade(name, 100_000);
        digests.push(publish(&store, &bundle).await);
    }
    // Room for two cascades with their records.
    let (_folder, cache) = cache(250_000);
    let is_there = |position: usize| cache.folder.join(digests[position].to_string()).is_dir();
    let age = |position: usize| {
        let lock =
            cache.try_lock(&format!("{}.use", digests[position]), Lock::Shared).unwrap().unwrap();
        lock.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(position as u64)).unwrap();
    };
    let one = cache.fetch(&store, digests[0]).await.unwrap();
    let two = cache.fetch(&store, digests[1]).await.unwrap();
    age(0);
    age(1);
    let error = cache.fetch(&store, digests[2]).await.unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted);
    assert!(
        error.message.contains("may hold 250000") && error.message.contains("three"),
        "{error}"
    );
    assert!(is_there(0) && is_there(1), "both are in use");
    let clone = one.clone();
    drop((one, two));
    cache.fetch(&store, digests[2]).await.unwrap();
    assert!(is_there(0) && !is_there(1) && is_there(2), "a clone keeps the oldest");
    drop(clone);
    age(0);
    age(2);
    cache.fetch(&store, digests[1]).await.unwrap();
    assert!(!is_there(0) && is_there(1) && is_there(2), "the oldest goes");
    assert!(cache.trash().read_dir().unwrap().next().is_none());
    let (_folder, small) = self::cache(50_000);
    let error = small.fetch(&store, digests[0]).await.unwrap_err();
    assert!(error.message.contains("may hold 50000"), "{error}");
}

#[tokio::test]
async fn an_unfinished_download_counts_whole_and_can_be_evicted() {
    let (s3, store) = on_s3();
    let (_a, one) = cascade("one", 100_000);
    let (_b, two) = cascade("two", 100_000);
    let (one, two) = (publish(&store, &one).await, publish(&store, &two).await);
    let (_folder, cache) = cache(150_000);
    s3.faults().set([Rule::always(Fault::Status(500)).on(Which::Reads).on_key("/files/")]);
    cache.fetch(&store, one).await.expect_err("nothing comes");
    s3.faults().clear();
    let entry = cache.incoming().join(one.to_string());
    assert!(entry.is_dir());
    cache.fetch(&store, two).await.unwrap();
    assert!(!entry.exists());
}

#[tokio::test]
async fn a_wrong_file_in_the_store_is_named() {
    let (s3, store) = on_s3();
    let (_source, bundle) = cascade("tiny", 100_000);
    let digest = publish(&store, &bundle).await;
    let key = key_of(digest, &bundle, WEIGHTS);
    let (_folder, cache) = cache(u64::MAX);
    let refused = async |part: &str| {
        let error = cache.fetch(&store, digest).await.unwrap_err();
        assert_eq!(error.code, Code::FailedPrecondition, "{error}");
        for part in [WEIGHTS, key.as_str(), part] {
            assert!(error.message.contains(part), "{error}");
        }
        assert!(!cache.folder.join(digest.to_string()).exists());
    };
    std::fs::write(s3.file(&key), vec![0; 100_000]).unwrap();
    refused("SHA-256").await;
    std::fs::write(s3.file(&key), "short").unwrap();
    refused("5 bytes").await;
    std::fs::remove_file(s3.file(&key)).unwrap();
    refused("missing").await;
    publish(&store, &bundle).await;
    cache.fetch(&store, digest).await.expect("published again");
}

#[test]
fn a_full_disk_is_said_in_one_sentence() {
    let (_folder, cache) = cache(u64::MAX);
    let full = std::fs::write("/dev/full", "x").expect_err("full");
    let error = cache.failed(&full, Some(WEIGHTS));
    assert_eq!(error.code, Code::ResourceExhausted);
    assert!(error.message.contains("is full") && error.message.contains(WEIGHTS), "{error}");
}

#[tokio::test]
async fn links_in_a_cache_are_not_written_through() {
    let store = ArtifactStore::in_memory();
    let (_source, bundle) = cascade("tiny", 100_000);
    let digest = publish(&store, &bundle).await;
    let (outside, cache) = cache(u64::MAX);
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "kept").unwrap();
    let incoming = cache.incoming().join(digest.to_string());
    let folder = incoming.join("base/unet");
    std::fs::create_dir_all(&folder).unwrap();
    for link in [
        cache.locks().join(format!("{digest}.use")),
        folder.join("diffusion_pytorch_model.safetensors.part"),
        incoming.join(format!("{RECORD}.part")),
    ] {
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let fetched = cache.fetch(&store, digest).await;
        // The record's draft has another name by now, so there is no link in its way.
        let is_in_the_way = !link.ends_with(format!("{RECORD}.part"));
        assert_eq!(fetched.is_err(), is_in_the_way, "{link:?}: {fetched:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"kept", "{link:?}");
        std::fs::remove_file(&link).ok();
    }
}

#[tokio::test]
async fn a_record_of_files_of_every_size_there_is_does_not_overflow() {
    let store = ArtifactStore::in_memory();
    let (_source, bundle) = cascade("tiny", 10);
    let digest = publish(&store, &bundle).await;
    let record = cascade_store::find(&store, digest).await.unwrap();
    let mut wrong = serde_json::to_value(&record).unwrap();
    for file in wrong["files"].as_array_mut().unwrap() {
        file["size"] = serde_json::json!(u64::MAX);
    }
    let wrong: Record = serde_json::from_value(wrong).unwrap();
    assert_eq!(wrong.bytes(), u64::MAX);
    let (_folder, cache) = cache(u64::MAX - 1);
    let refused = room::make(&cache, digest, &wrong).unwrap_err();
    assert_eq!(refused.reason, "CASCADE_CACHE_FULL");
}

#[tokio::test]
async fn what_was_never_published_and_what_is_no_record_is_refused() {
    let store = ArtifactStore::in_memory();
    let (source, bundle) = cascade("tiny", 10);
    let digest = bundle.cascade().digest();
    let (_folder, cache) = cache(u64::MAX);
    let error = cache.fetch(&store, digest).await.unwrap_err();
    assert_eq!(error.reason, "CASCADE_NOT_PUBLISHED");
    let prefix = format!("cascades/{digest}/record/");
    publish(&store, &bundle).await;
    let record = cascade_store::find(&store, digest).await.unwrap();
    let text = serde_json::to_string(&record).unwrap();
    for wrong in [
        text.replace("\"path\":\"base/unet/config.json\"", "\"path\":\"../../evil.json\""),
        text.replace("\"path\":\"cascade.toml\"", "\"path\":\"/etc/passwd\""),
        text.replace("\"format\":1,\"cascade\"", "\"format\":2,\"cascade\""),
        text.replace("\"steps\":4", "\"steps\":5"),
        text.replace(&bundle.cascade().files[WEIGHTS].to_string(), &Digest::of(b"").to_string()),
        text[..text.len() / 2].to_owned(),
    ] {
        assert_ne!(wrong, text);
        let reason = Record::parse(wrong.as_bytes(), digest).unwrap_err();
        let other = ArtifactStore::in_memory();
        other.put_content(&prefix, "json", wrong.into()).await.unwrap();
        let error = cache.fetch(&other, digest).await.unwrap_err();
        assert_eq!(error.reason, "CASCADE_NOT_PUBLISHED", "{reason}");
    }
    // The digest does not cover a path outside the cascade's folders.
    let mut evil = record.clone();
    let sha256 = Digest::of(b"evil");
    evil.cascade.files.insert("../../evil.json".to_owned(), sha256);
    evil.files.push(RecordFile { path: "../../evil.json".to_owned(), size: 4, sha256 });
    assert_eq!(evil.cascade.digest(), digest);
    Record::parse(&serde_json::to_vec(&evil).unwrap(), digest).unwrap_err();

    std::fs::write(source.path().join(WEIGHTS), "another").unwrap();
    let error = cascade_store::publish(&ArtifactStore::in_memory(), &bundle).await.unwrap_err();
    assert_eq!(error.reason, "CASCADE_CHANGED", "{error}");
}

#[tokio::test]
async fn a_fakes_cascade_needs_no_files_and_gives_way_to_a_real_one() {
    let store = ArtifactStore::in_memory();
    let (_source, bundle) = cascade("tiny", 10);
    let fake = CascadeBundle::without_files(Cascade { ..bundle.cascade().clone() });
    let digest = publish(&store, &fake).await;
    let (_folder, cache) = cache(1);
    let fetched = cache.fetch(&store, digest).await.unwrap();
    assert!(!fetched.has_files() && fetched.cascade() == fake.cascade());
    assert_eq!(publish(&store, &bundle).await, digest);
    let (_folder, cache) = self::cache(u64::MAX);
    assert!(cache.fetch(&store, digest).await.unwrap().has_files());
}

const CHILD: &str = "DARKROOM_TEST_CACHE";

/// Fetches in a separate process. Folder, URL and digest come from the environment. It prints a
/// line when it is done, and keeps running.
#[tokio::test]
async fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let cache = CascadeCache::new(Path::new(&folder), 150_000).unwrap();
    let url = std::env::var("DARKROOM_TEST_URL").unwrap();
    let store = ArtifactStore::open(&url, &crate::open::Options::from_env()).unwrap();
    let digest = std::env::var("DARKROOM_TEST_DIGEST").unwrap().parse().unwrap();
    println!("\nbegins");
    let _bundle = cache.fetch(&store, digest).await.unwrap();
    println!("\nholds it");
    std::future::pending().await
}

fn spawn_child(s3: &S3, cache: &CascadeCache, digest: Digest) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cascade_cache::tests::child", "--nocapture"])
        .env(CHILD, &cache.folder)
        .env("DARKROOM_TEST_URL", s3.url())
        .env("DARKROOM_TEST_DIGEST", digest.to_string())
        .envs(s3.environment())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for(child: &mut Child, line: &str) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|found| found.unwrap() == line), "the child ended before it {line}");
}

#[tokio::test]
async fn a_killed_process_leaves_neither_locks_nor_wrong_files() {
    let (s3, store) = on_s3();
    let (_a, one) = cascade("one", 100_000);
    let (_b, two) = cascade("two", 100_000);
    let (one, two) = (publish(&store, &one).await, publish(&store, &two).await);
    let (_folder, cache) = cache(150_000);
    // Killed during the fetch.
    s3.faults().set([Rule::always(Fault::Silence).on_key(".safetensors")]);
    let mut child = spawn_child(&s3, &cache, one);
    wait_for(&mut child, "begins");
    let incoming = cache.incoming().join(one.to_string());
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !incoming.join(CONFIG).exists() {
        assert!(std::time::Instant::now() < deadline, "the child fetches nothing");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    s3.faults().clear();
    // Killed while it holds a cascade, which nobody could evict until then.
    let mut child = spawn_child(&s3, &cache, one);
    wait_for(&mut child, "holds it");
    let error = cache.fetch(&store, two).await.unwrap_err();
    assert_eq!(error.reason, "CASCADE_CACHE_FULL");
    child.kill().unwrap();
    child.wait().unwrap();
    cache.fetch(&store, two).await.expect("the lock died with its process");
    let store = ArtifactStore::open(&s3.url(), &quick(&s3)).unwrap();
    cache.fetch(&store, one).await.unwrap();
}
