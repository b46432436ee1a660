//! Every kind of stored object goes at its time, and nothing that somebody needs goes before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use darkroom_artifacts::{
    ArtifactStore,
    manifest::{self, ImageLine},
    open,
    picture::encode_rgb,
    verify,
};
use darkroom_coordinator::Options;
use darkroom_core::digest::Digest;
use darkroom_farm_api::{
    Caller,
    batches::{NewFile, Purpose},
};
use darkroom_proto::v1;
use darkroom_suites::store::rows::empty_at_the_end;
use darkroom_test_servers::s3::S3;
use futures::{StreamExt as _, TryStreamExt as _};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::support::{Act, Farm, database, options, prompt, prompts, spec};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The shortest time that a policy takes, about.
const SHORT: u64 = 13 * 3600;

/// A farm on a folder, whose files a test can make older.
async fn on_a_folder() -> (Farm, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = ArtifactStore::local(folder.path()).expect("a store");
    let record = std::sync::Arc::new(tempfile::tempdir().expect("a folder"));
    (Farm::start_over(options(), record, artifacts).await, folder)
}

async fn stored(farm: &Farm) -> BTreeSet<String> {
    farm.artifacts.list("").map_ok(|one| one.key).try_collect().await.expect("lists")
}

/// Stores an object that is so old.
async fn plant(farm: &Farm, folder: &TempDir, key: &str, age: Duration) {
    farm.artifacts.write_mark(key, "planted".into()).await.expect("stores");
    let file = File::options().write(true).open(folder.path().join(Path::new(key)));
    file.expect("a file").set_modified(SystemTime::now() - age).expect("made older");
}

async fn keep(farm: &Farm, subject: v1::RetentionSubject, outcome: v1::JobState, seconds: u64) {
    let request = v1::SetRetentionRequest {
        subject: subject.into(),
        outcome: outcome.into(),
        seconds,
        ..Default::default()
    };
    let admin = farm.handle.admin_calls();
    admin.set_retention(&Caller::open(), request).await.expect("sets it");
}

/// Nothing is kept for longer than the shortest time.
async fn keep_nothing(farm: &Farm) {
    for outcome in [v1::JobState::Done, v1::JobState::Failed, v1::JobState::Cancelled] {
        keep(farm, v1::RetentionSubject::Jobs, outcome, SHORT).await;
    }
    for subject in [
        v1::RetentionSubject::Embeddings,
        v1::RetentionSubject::Inputs,
        v1::RetentionSubject::Previews,
        v1::RetentionSubject::Files,
    ] {
        keep(farm, subject, v1::JobState::Unspecified, SHORT).await;
    }
}

/// Objects that no row names, by kind; with `remove` they leave.
async fn orphans(farm: &Farm, remove: bool) -> BTreeMap<String, u64> {
    let request = v1::CleanFarmRequest { orphans: true, remove, ..Default::default() };
    let answer = farm.handle.admin_calls().clean_farm(&Caller::open(), request).await;
    let orphans = answer.expect("cleans").orphans;
    orphans.into_iter().map(|of| (of.kind, of.objects)).collect()
}

fn png(colour: [u8; 3]) -> Vec<u8> {
    encode_rgb(32, 32, &colour.repeat(32 * 32), &[]).expect("a picture")
}

async fn upload(farm: &mut Farm, bytes: &[u8]) -> v1::UploadInputResponse {
    let chunk = v1::UploadInputChunk { data: bytes.to_vec() };
    farm.client.upload_input(tokio_stream::iter([chunk])).await.expect("stored").into_inner()
}

/// Submits a job that starts from a picture.
async fn start_from(farm: &mut Farm, picture: &str) -> Result<v1::Job, tonic::Status> {
    let mut settings = v1::Settings::default();
    settings.set_start(v1::Start::Picture);
    let request = v1::SubmitJobRequest {
        spec: Some(v1::JobSpec { settings: Some(settings), ..spec() }),
        prompts: vec![v1::Prompt { image: picture.to_owned(), ..prompt("a cat") }],
    };
    let submitted = farm.client.submit_job(request).await?.into_inner();
    Ok(submitted.job.expect("a job"))
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_jobs_are_gone_and_all_policies_over_only_what_is_no_job_s_is_left() {
    let (mut farm, folder) = on_a_folder().await;
    let workers = farm.work(|_| Act::Done);
    let cat = upload(&mut farm, &png([200, 20, 20])).await;
    upload(&mut farm, &png([20, 200, 20])).await;
    let job = start_from(&mut farm, &cat.sha256).await.expect("accepted").id;
    farm.until_ended(&job).await;
    let other = farm.submit(spec(), prompts(3)).await.id;
    farm.until_ended(&other).await;
    let new = NewFile {
        id: uuid::Uuid::now_v7(),
        name: "requests".to_owned(),
        purpose: Purpose::Batch,
        keep: None,
    };
    let requests = futures::stream::iter([Ok("requests".into())]).boxed();
    farm.handle.batches().add_file(&Caller::open(), new, requests).await.expect("stored");
    let image = farm.images(&other).await.remove(0);
    // What was looked at: one preview is old, and the smallest one stays as long as its output.
    for (edge, age) in [(64, 9 * DAY), (128, 9 * DAY), (256, Duration::ZERO)] {
        plant(&farm, &folder, &format!("previews/3/{}/{edge}/a.png", image.key), age).await;
    }
    plant(&farm, &folder, "sheets/2/a/b.png", Duration::ZERO).await;
    // What a crash, a restored record or an earlier version may have left.
    let (digest, nobody) = (Digest::of(b"nobody's"), uuid::Uuid::now_v7());
    let lost = [
        format!("tasks/{digest}/a.png"),
        format!("fake/tasks/{digest}/a.png"),
        format!("embeddings/{digest}/{digest}/a.safetensors"),
        format!("fake/embeddings/{digest}/{digest}/a.safetensors"),
        format!("previews/3/tasks/{digest}/a.png/64/b.png"),
        format!("inputs/{digest}.png"),
        format!("inputs/7/{digest}.png"),
        format!("manifests/{nobody}/1/a.jsonl"),
        format!("files/{nobody}/{digest}.jsonl"),
    ];
    for key in &lost {
        plant(&farm, &folder, key, 9 * DAY).await;
    }
    let old = [format!("previews/2/{digest}/64/b.png"), format!("sheets/1/{digest}/b.png")];
    for key in &old {
        plant(&farm, &folder, key, 9 * DAY).await;
    }
    // A write that was cut off. No listing shows it.
    let cut_off = format!("tasks/{digest}/a.png#1");
    let cut_off = folder.path().join(cut_off);
    std::fs::write(&cut_off, "half").expect("written");
    let file = File::options().write(true).open(&cut_off).expect("a file");
    file.set_modified(SystemTime::now() - 9 * DAY).expect("made older");
    let stays = ["cascades/a/cascade.toml", "elsewhere/a.png"];
    for key in stays {
        plant(&farm, &folder, key, 999 * DAY).await;
    }
    let before = stored(&farm).await;
    let found = orphans(&farm, false).await;
    let of_kinds = [("embedding", 2), ("input", 2), ("manifest", 1), ("output", 2), ("preview", 1)];
    let expected = of_kinds.into_iter().chain([("file", 1)]);
    assert_eq!(found, expected.map(|(kind, count)| (kind.to_owned(), count)).collect());
    assert_eq!(stored(&farm).await, before, "looking changes nothing");
    orphans(&farm, true).await;
    let mut left = before.clone();
    left.retain(|key| !lost.contains(key));
    left.insert("cleaner/epoch.json".to_owned());
    assert_eq!(stored(&farm).await, left, "the orphans, and nothing else");
    // The previews of an earlier layout and the old sheets go by their age.
    keep_nothing(&farm).await;
    farm.handle.clean(Duration::ZERO).await.expect("cleans");
    left.retain(|key| !old.contains(key) && !key.ends_with("/128/a.png"));
    assert_eq!(stored(&farm).await, left);
    assert!(!cut_off.exists(), "what a write left that was cut off");
    // The policies delete the jobs, and then what only these needed.
    for hours in [14, 15, 29, 43] {
        farm.handle.clean(hours * HOUR).await.expect("cleans");
    }
    let known: BTreeSet<String> =
        stays.into_iter().chain(["cleaner/epoch.json"]).map(str::to_owned).collect();
    assert_eq!(stored(&farm).await, known);
    for days in [3, 4, 5, 40] {
        farm.handle.clean(days * DAY).await.expect("cleans");
    }
    assert_eq!(stored(&farm).await, known);
    let leavings = farm.store.leavings().await.expect("counts");
    assert_eq!((leavings.candidates, leavings.marked, leavings.deleted), (0, 0, 0));
    let options = SqliteConnectOptions::new().filename(database(farm.folder.path()));
    let mut record = SqliteConnection::connect_with(&options).await.expect("opens");
    let tables = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'");
    let tables: Vec<String> = tables.fetch_all(&mut record).await.expect("lists");
    // Some are of other backends.
    let empty: Vec<_> =
        empty_at_the_end().filter(|name| tables.iter().any(|one| one == name)).collect();
    assert!(empty.len() > 10, "{empty:?}");
    for table in empty {
        let count = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        let count: i64 = count.fetch_one(&mut record).await.expect("counts");
        assert_eq!(count, 0, "{table}");
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nothing_uses_goes_and_comes_again_under_another_key() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let bytes = png([200, 20, 20]);
    let first = upload(&mut farm, &bytes).await;
    keep(&farm, v1::RetentionSubject::Inputs, v1::JobState::Unspecified, SHORT).await;
    assert_eq!(farm.handle.clean(12 * HOUR).await.expect("cleans").inputs, 0, "too soon");
    let due = v1::CleanFarmRequest { dry_run: true, ..Default::default() };
    let due = farm.handle.admin_calls().clean_farm(&Caller::open(), due).await.expect("says");
    let of_inputs = due.due.iter().find(|due| {
        due.policy.as_ref().is_some_and(|one| one.subject() == v1::RetentionSubject::Inputs)
    });
    assert_eq!(of_inputs.map(|due| due.count), Some(0), "{due:?}");
    assert_eq!(farm.handle.clean(14 * HOUR).await.expect("cleans").inputs, 1);
    farm.artifacts.size_of(&first.key).await.expect_err("it is deleted");
    let refused = start_from(&mut farm, &first.sha256).await.expect_err("it is gone");
    assert_eq!(darkroom_proto::status::from_status(&refused).reason, "UNKNOWN_INPUT");
    // While its end is remembered.
    let again = upload(&mut farm, &bytes).await;
    assert_eq!(again.sha256, first.sha256);
    assert_ne!(again.key, first.key);
    let job = start_from(&mut farm, &again.sha256).await.expect("accepted").id;
    assert_eq!(farm.until_ended(&job).await.state(), v1::JobState::Done);
    // The old key is deleted once more, the job keeps the new one, and others go by it.
    farm.handle.clean(39 * HOUR).await.expect("cleans");
    farm.artifacts.size_of(&again.key).await.expect("the job uses it");
    assert_eq!(upload(&mut farm, &bytes).await, again, "it is known");
    workers.stop().await;
    farm.shutdown().await;
}

/// A job's manifest.
async fn lines(farm: &mut Farm, job: &str) -> Vec<ImageLine> {
    let bytes = farm.manifest_bytes(job).await;
    let mut lines = Vec::new();
    let read = |line| lines.push(line);
    let (_, totals) = manifest::verify(bytes.as_slice(), read).expect("whole");
    assert_eq!(totals.removed, lines.iter().filter(|line| line.is_removed()).count() as u64);
    lines
}

async fn rerender(farm: &mut Farm, job: &str, range: Option<(u64, u64)>) -> v1::Job {
    let ranges = range.map(|(first, last)| v1::IndexRange { first, last });
    let filter = v1::ImageFilter { ranges: ranges.into_iter().collect(), ..Default::default() };
    let request = v1::RetryImagesRequest {
        job_id: job.to_owned(),
        lost: true,
        filter: Some(filter),
        ..Default::default()
    };
    farm.client.retry_images(request).await.expect("retries");
    farm.until_ended(job).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_says_which_pictures_were_removed_until_they_are_there_again() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), prompts(3)).await.id;
    farm.until_ended(&job).await;
    assert!(lines(&mut farm, &job).await.iter().all(|line| line.removed.is_none()));
    keep(&farm, v1::RetentionSubject::Pictures, v1::JobState::Done, SHORT).await;
    farm.handle.clean(14 * HOUR).await.expect("cleans");
    let removed = farm.get(&job).await.pictures_removed_at.expect("it says so");
    // One of them is rendered again; of the others the job says what it said.
    let record = rerender(&mut farm, &job, Some((1, 1))).await;
    assert_eq!(record.pictures_removed_at, Some(removed));
    assert!(record.pictures_removed_by.contains("pictures of done jobs"), "{record:?}");
    let told = lines(&mut farm, &job).await;
    let gone: Vec<bool> = told.iter().map(|line| line.removed.is_some()).collect();
    assert_eq!(gone, [true, false, true]);
    let said = told[0].removed.as_ref().expect("removed");
    assert!(said.by.contains("pictures of done jobs") && said.at.starts_with("20"), "{said:?}");
    let key = farm.artifacts.list(&format!("manifests/{job}/2/"));
    let key = key.map_ok(|one| one.key).try_next().await.expect("lists").expect("a manifest");
    let options = verify::Options::default();
    let report = verify::job(&farm.artifacts, &key, &options, |_| {}).await.expect("verifies");
    assert!(report.is_whole(), "{:?}", report.problems);
    assert_eq!((report.progress.pictures, report.totals.removed), (1, 2));
    let record = rerender(&mut farm, &job, None).await;
    assert!(record.pictures_removed_at.is_none() && record.pictures_removed_by.is_empty());
    assert!(lines(&mut farm, &job).await.iter().all(|line| line.removed.is_none()));
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_while_a_job_was_deleted_learns_of_it() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), prompts(1)).await.id;
    farm.until_ended(&job).await;
    let watch = async |farm: &mut Farm, cursor: String| -> (bool, Vec<String>, String) {
        let request = v1::WatchFarmRequest { cursor, ..Default::default() };
        let mut watch = farm.client.watch_farm(request).await.expect("watches").into_inner();
        let (mut reset, mut deleted) = (false, Vec::new());
        loop {
            let event = watch.message().await.expect("goes on").expect("an event");
            reset |= event.reset;
            deleted.extend(event.deleted_jobs);
            if event.caught_up {
                return (reset, deleted, event.cursor);
            }
        }
    };
    let (_, deleted, cursor) = watch(&mut farm, String::new()).await;
    assert_eq!(deleted, [""; 0]);
    let request = v1::DeleteJobRequest { id: job.clone(), cancel: false };
    farm.client.delete_job(request).await.expect("deletes");
    farm.handle.clean(HOUR).await.expect("cleans");
    let (reset, deleted, later) = watch(&mut farm, cursor.clone()).await;
    assert_eq!((reset, deleted), (false, vec![job]));
    let (reset, deleted, _) = watch(&mut farm, later.clone()).await;
    assert_eq!((reset, deleted), (false, Vec::new()), "it is told once");
    // A month later nothing is left of it, so whoever has not heard of it begins anew.
    farm.handle.clean(32 * DAY).await.expect("cleans");
    assert!(watch(&mut farm, cursor).await.0);
    assert!(!watch(&mut farm, later).await.0, "this one has heard of it");
    workers.stop().await;
    farm.shutdown().await;
}

/// Objects that are no orphans yet, and more than two calls look at.
const STAY: usize = 1300;
/// Orphans among them.
const ORPHANS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn orphans_among_many_objects_that_stay_are_reached_by_asking_again_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = ArtifactStore::local(folder.path()).expect("a store");
    orphans_are_reached(artifacts, |key| folder.path().join(key)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_among_many_objects_that_stay_are_reached_by_asking_again_in_a_bucket() {
    let s3 = S3::start();
    let environment = s3.environment().into_iter().collect();
    let options = open::Options { environment, ..open::Options::default() };
    let artifacts = ArtifactStore::open(&s3.url_under("farm"), &options).expect("a store");
    orphans_are_reached(artifacts, |key| s3.file(&format!("farm/{key}"))).await;
}

async fn orphans_are_reached(artifacts: ArtifactStore, file: impl Fn(&str) -> PathBuf) {
    // Each call looks at one chunk.
    let options = Options { clean_call: Duration::ZERO, ..options() };
    let record = std::sync::Arc::new(tempfile::tempdir().expect("a folder"));
    let farm = Farm::start_over(options, record, artifacts).await;
    let mut lost = BTreeSet::new();
    for number in 0..STAY + ORPHANS {
        let digest = Digest::of(&number.to_le_bytes());
        let key = format!("tasks/{digest}/a.png");
        farm.artifacts.write_mark(&key, "planted".into()).await.expect("stores");
        if number < ORPHANS {
            let old = File::options().write(true).open(file(&key)).expect("a file");
            old.set_modified(SystemTime::now() - 9 * DAY).expect("made older");
            lost.insert(key);
        }
    }
    let admin = farm.handle.admin_calls();
    let request = v1::CleanFarmRequest { orphans: true, remove: true, ..Default::default() };
    let mut calls = 0;
    loop {
        let answer = admin.clean_farm(&Caller::open(), request).await.expect("cleans");
        calls += 1;
        if !answer.orphans_at_least {
            break;
        }
        assert!(calls < 20, "it does not go on");
    }
    assert!(calls >= STAY.div_ceil(500), "{calls} calls");
    farm.handle.clean(HOUR).await.expect("cleans");
    let left = stored(&farm).await;
    assert!(lost.is_disjoint(&left), "{:?}", lost.intersection(&left).next());
    assert_eq!(left.iter().filter(|key| key.starts_with("tasks/")).count(), STAY);
    farm.shutdown().await;
}
