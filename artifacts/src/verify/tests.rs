use futures::stream;

use super::*;
use crate::{
    manifest::{EXTENSION, Writer},
    test_stores::{Stores, on_s3},
};

const IMAGES: u64 = 40;
/// These two have no picture.
const DEAD: u64 = 3;
const CANCELLED: u64 = 4;

fn picture(index: u64) -> Bytes {
    Bytes::from(format!("picture {index}").repeat(100))
}

/// Stores a job's pictures; returns its manifest.
async fn render(store: &ArtifactStore) -> Vec<u8> {
    let header = Header {
        format: 1,
        job: "0190".to_owned(),
        generation: 1,
        cascade: "demo".to_owned(),
        cascade_digest: Digest::of(b"c"),
        labels: std::collections::BTreeMap::new(),
        settings: serde_json::Value::Null,
    };
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    for index in 0..IMAGES {
        let state = match index {
            DEAD => ImageOutcome::Dead,
            CANCELLED => ImageOutcome::Cancelled,
            _ => ImageOutcome::Done,
        };
        let mut image = ImageLine {
            index,
            prompt: "a\nb".to_owned(),
            negative: String::new(),
            style: None,
            image: None,
            mask: None,
            custom_id: None,
            labels: [].into(),
            line: None,
            settings: None,
            seed: index,
            state,
            key: None,
            size: None,
            sha256: None,
            removed: None,
            device_class: String::new(),
            dispatches: 1,
            worker: String::new(),
            seconds: [].into(),
            error: None,
        };
        if state == ImageOutcome::Done {
            let stored =
                store.put_content(&format!("tasks/{index}/"), "png", picture(index)).await.unwrap();
            (image.key, image.size, image.sha256) =
                (Some(stored.key), Some(stored.size), Some(stored.sha256));
        }
        writer.image(image).unwrap();
    }
    writer.finish().unwrap().0
}

fn key_of(index: u64) -> String {
    format!("tasks/{index}/{}.png", Digest::of(&picture(index)))
}

async fn verified(store: &ArtifactStore, text: &[u8], depth: Depth) -> Report {
    // In pieces that may end anywhere.
    let chunks = stream::iter(text.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))));
    manifest(store, chunks, &Options { depth, ..Options::default() }, |_| {}).await.unwrap()
}

fn kinds(report: &Report) -> Vec<(Kind, Option<u64>)> {
    assert_eq!(report.problems.len() as u64, report.progress.problems);
    report.problems.iter().map(|problem| (problem.kind, problem.image)).collect()
}

#[tokio::test]
async fn a_job_that_is_whole_has_no_problems() {
    for store in Stores::start().all() {
        let text = render(&store).await;
        let stored =
            store.put_content("manifests/0190/1/", EXTENSION, text.clone().into()).await.unwrap();
        for depth in [Depth::Sizes, Depth::Hashes] {
            let mut last = Progress::default();
            let options = Options { depth, concurrency: 3, ..Options::default() };
            let report = job(&store, &stored.key, &options, |progress| {
                assert!(progress.pictures == last.pictures + 1 && progress.bytes >= last.bytes);
                last = *progress;
            })
            .await
            .unwrap();
            assert!(report.is_whole(), "{:?}", report.problems);
            assert_eq!((report.totals.images, report.totals.done), (IMAGES, IMAGES - 2));
            assert_eq!(report.progress, last);
            assert_eq!((last.pictures, last.bytes), (IMAGES - 2, report.totals.bytes));
            assert_eq!(
                (last.manifest_bytes, report.header.unwrap().job.as_str()),
                (stored.size, "0190")
            );
        }
        let error =
            job(&store, "manifests/none.jsonl", &Options::default(), |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::Missing { .. }));
    }
}

#[tokio::test]
async fn a_picture_of_an_impossible_size_is_a_problem_and_is_not_read() {
    let (s3, store) = on_s3();
    let text = String::from_utf8(render(&store).await).unwrap();
    let size = picture(0).len();
    let bigger = text.replacen(&format!("\"size\":{size}"), "\"size\":20000000000", 1);
    assert_ne!(bigger, text);
    // Where it was read, its file would be missed.
    std::fs::remove_file(s3.file(&key_of(0))).unwrap();
    for depth in [Depth::Sizes, Depth::Hashes] {
        let found = kinds(&verified(&store, bigger.as_bytes(), depth).await);
        assert!(found.iter().all(|(kind, _)| *kind == Kind::Manifest), "{found:?}");
        assert!(!found.is_empty());
    }
}

#[tokio::test]
async fn every_damage_to_a_picture_is_found() {
    let (s3, store) = on_s3();
    let text = render(&store).await;
    std::fs::remove_file(s3.file(&key_of(0))).unwrap();
    std::fs::write(s3.file(&key_of(1)), "truncated").unwrap();
    let mut bytes = picture(2).to_vec();
    bytes[7] ^= 1;
    std::fs::write(s3.file(&key_of(2)), bytes).unwrap();

    let mut found = kinds(&verified(&store, &text, Depth::Sizes).await);
    found.sort_by_key(|(_, image)| *image);
    assert_eq!(
        found,
        [(Kind::Missing, Some(0)), (Kind::Damaged, Some(1))],
        "sizes do not show the third"
    );
    let report = verified(&store, &text, Depth::Hashes).await;
    let mut found = kinds(&report);
    found.sort_by_key(|(_, image)| *image);
    assert_eq!(
        found,
        [(Kind::Missing, Some(0)), (Kind::Damaged, Some(1)), (Kind::Damaged, Some(2))]
    );
    assert_eq!(report.progress.pictures, IMAGES - 2);
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.to_string().starts_with("image 2: artifact tasks/2/"))
    );

    let options = Options { max_problems: 1, ..Options::default() };
    let chunks = stream::iter([Ok(Bytes::from(text))]);
    let report = manifest(&store, chunks, &options, |_| {}).await.unwrap();
    assert_eq!((report.problems.len(), report.progress.problems), (1, 2));
}

#[tokio::test]
async fn every_damage_to_the_manifest_is_found() {
    let store = ArtifactStore::in_memory();
    let whole = String::from_utf8(render(&store).await).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let without = |skip: usize| joined(&[&lines[..skip], &lines[skip + 1..]].concat());
    let last = lines.len() - 1;
    for (damaged, part) in [
        (without(5), "image 4 is missing before image 5"),
        (joined(&[&lines[..=5], &lines[5..]].concat()), "image 4 is listed twice"),
        (without(0), "the header is missing"),
        (without(last), "without the totals"),
        // Without the last image, only hash and totals differ.
        (without(last - 1), "do not have the hash"),
        (whole.replace("\"state\":\"dead\"", "\"state\":\"cancelled\""), "do not have the hash"),
        (whole.replace("\"dead\":1,", "\"dead\":2,"), "totals are not those"),
        (whole.replace("\"seed\":7,", "\"seed\":seven,"), "line 9"),
        (whole[..whole.len() - 1].to_owned(), "without the totals"),
        (whole.clone() + "{}\n", "follows the totals"),
        (String::new(), "without the totals"),
    ] {
        assert_ne!(damaged, whole);
        let report = verified(&store, damaged.as_bytes(), Depth::Sizes).await;
        assert!(
            report.problems.iter().any(|problem| problem.message.contains(part)),
            "{part}: {report:?}"
        );
        assert!(report.problems.iter().all(|problem| problem.kind == Kind::Manifest));
    }
    let unrecorded = whole.replacen(&format!("\"sha256\":\"{}\",", Digest::of(&picture(0))), "", 1);
    let report = verified(&store, unrecorded.as_bytes(), Depth::Sizes).await;
    assert!(kinds(&report).contains(&(Kind::Unrecorded, Some(0))), "{report:?}");
}

#[tokio::test]
async fn a_manifest_that_is_not_the_one_of_its_key_is_found() {
    let (s3, store) = on_s3();
    let text = render(&store).await;
    let stored = store.put_content("manifests/0190/1/", EXTENSION, text.into()).await.unwrap();
    let empty = Writer::new(Vec::new(), &verified_header(&store, &stored.key).await)
        .unwrap()
        .finish()
        .unwrap()
        .0;
    std::fs::write(s3.file(&stored.key), empty).unwrap();
    let report = job(&store, &stored.key, &Options::default(), |_| {}).await.unwrap();
    assert!(
        report.problems[0].message.contains("SHA-256"),
        "intact, but another manifest: {report:?}"
    );
    s3.faults().set([darkroom_test_servers::s3::faults::Rule::always(
        darkroom_test_servers::s3::faults::Fault::Status(503),
    )]);
    let error = job(&store, &stored.key, &Options::default(), |_| {}).await.unwrap_err();
    assert!(error.retryable(), "a failing store proves nothing about the job");
}

async fn verified_header(store: &ArtifactStore, key: &str) -> Header {
    job(store, key, &Options::default(), |_| {}).await.unwrap().header.unwrap()
}
