//! Files and batches: what is accepted, whose they are, and what is noted of them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::Options;
use darkroom_core::{
    batch_state::BatchState,
    digest::Digest,
    error::{Code, UserError},
};
use darkroom_farm_api::{
    Answer, Batches, Caller, Incoming, Scope,
    batches::{
        Batch, FileRecord, MOST_FILE_BYTES, MOST_PROGRESS, NewBatch, NewFile, Page, Purpose, Step,
        shown_batch, shown_file,
    },
};
use darkroom_proto::v1;
use futures::{StreamExt as _, TryStreamExt as _};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{Farm, database, options};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A caller of a tenant.
fn of(tenant: &str) -> Caller {
    Caller::of(Some(tenant.to_owned()), [Scope::Submit], Some(format!("key of {tenant}")))
}

fn new_file(name: &str) -> NewFile {
    let (id, name) = (Uuid::now_v7(), name.to_owned());
    NewFile { id, name, purpose: Purpose::Batch, keep: None }
}

fn parts(parts: &[&'static [u8]]) -> Incoming<Bytes> {
    let parts: Vec<Answer<Bytes>> = parts.iter().map(|part| Ok(Bytes::from_static(part))).collect();
    futures::stream::iter(parts).boxed()
}

/// A stream whose end nobody may need.
fn never_read() -> Incoming<Bytes> {
    futures::stream::poll_fn(|_| panic!("nobody needs what comes")).boxed()
}

async fn add(farm: &Farm, caller: &Caller, content: &'static [u8]) -> FileRecord {
    let added = farm.handle.batches().add_file(caller, new_file("a file"), parts(&[content])).await;
    added.expect("stored")
}

fn new_batch(input: Uuid) -> NewBatch {
    NewBatch {
        id: Uuid::now_v7(),
        endpoint: "/v1/images/generations".to_owned(),
        input,
        window: DAY,
        metadata: BTreeMap::new(),
        origin: "https://farm.example.com".to_owned(),
        keep_output: None,
    }
}

async fn read(batches: &dyn Batches, caller: &Caller, id: Uuid, offset: u64) -> Vec<Bytes> {
    let (_, parts) = batches.read_file(caller, id, offset).await.expect("there");
    parts.try_collect().await.expect("whole")
}

/// The stored objects of files.
async fn stored(farm: &Farm) -> Vec<String> {
    farm.artifacts.list("files/").map_ok(|one| one.key).try_collect().await.expect("lists")
}

async fn record(farm: &Farm) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database(farm.folder.path()));
    SqliteConnection::connect_with(&options).await.expect("opens")
}

/// What the audit says, oldest first: action, target, tenant and key.
async fn noted(farm: &Farm) -> Vec<[String; 4]> {
    let request = v1::ListAuditRequest::default();
    let audit = farm.handle.admin_calls().list_audit(&Caller::open(), request).await;
    let entries = audit.expect("lists").entries.into_iter().rev();
    entries.map(|one| [one.action, one.target, one.tenant, one.key]).collect()
}

fn refused<T: std::fmt::Debug>(answer: Answer<T>, reason: &str) -> UserError {
    let refused = answer.expect_err(reason);
    assert_eq!(refused.reason, reason, "{refused:?}");
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_stored_once_and_read_from_any_place_in_short_parts() {
    let farm = Farm::start().await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let sent: Vec<Answer<Bytes>> =
        content.chunks(100_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    let new = NewFile { keep: Some(HOUR), ..new_file("requests.jsonl") };
    let file = batches.add_file(&caller, new.clone(), futures::stream::iter(sent).boxed()).await;
    let file = file.expect("stored");
    assert_eq!((file.id, file.bytes, file.tenant.as_str()), (new.id, 3_000_000, "a"));
    assert_eq!((file.name.as_str(), file.purpose), ("requests.jsonl", Purpose::Batch));
    let sha256 = Digest::of(&content).to_string();
    assert_eq!((&file.sha256, file.expires_ms), (&sha256, Some(file.created_ms + 3_600_000)));
    assert_eq!(stored(&farm).await, [format!("files/{}/{sha256}.jsonl", file.id)]);
    for offset in [0, 1, 65_536, 2_999_999, 3_000_000] {
        let parts = read(batches.as_ref(), &caller, file.id, offset as u64).await;
        assert!(parts.iter().all(|part| (1..=64 << 10).contains(&part.len())));
        assert_eq!(parts.concat(), content[offset..], "from {offset}");
    }
    let beyond = batches.read_file(&caller, file.id, 3_000_001).await.map(drop);
    let beyond = refused(beyond, "INVALID_FIELD");
    assert_eq!(beyond.message, "offset is 3000001; accepted: 0 to 3000000");
    // Whoever stores it again, as after a crash, finds it, and nothing is read.
    let again = batches.add_file(&caller, new.clone(), never_read()).await.expect("it is there");
    assert_eq!(again, file);
    let others = batches.add_file(&of("b"), new, never_read()).await;
    assert_eq!(
        refused(others, "NOT_FOUND").message,
        format!("there is no file {}", shown_file(file.id))
    );
    let empty = add(&farm, &caller, b"").await;
    assert_eq!(empty.bytes, 0);
    assert_eq!(read(batches.as_ref(), &caller, empty.id, 0).await, Vec::<Bytes>::new());
    let id = |file: &FileRecord| shown_file(file.id);
    let of_a = |action: &str, target| [action, target, "a", "key of a"].map(str::to_owned);
    let (first, second) = (id(&file), id(&empty));
    let creates = [of_a("file.create", &first), of_a("file.create", &second)];
    assert_eq!(noted(&farm).await, creates, "each once");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_refused_and_leaves_nothing() {
    let farm = Farm::start().await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    for name in ["a\nb", "a\u{0}", "a\u{85}b", &"é".repeat(201)] {
        let refused =
            refused(batches.add_file(&caller, new_file(name), never_read()).await, "INVALID_FIELD");
        assert_eq!(refused.field.as_deref(), Some("name"), "{refused}");
        assert!(refused.message.contains("accepted: at most 200 characters"), "{refused}");
        assert!(!refused.message.chars().any(char::is_control), "{refused:?}");
    }
    let named = batches.add_file(&caller, new_file(&"é".repeat(200)), parts(&[b"x"])).await;
    let named = named.expect("as long as it may be");
    // One byte too many, in parts that are all the same memory.
    let part = Bytes::from(vec![7; 1 << 20]);
    let many = |bytes: u64| {
        let whole = (0..bytes >> 20).map(|_| 1 << 20);
        let parts = whole.chain([bytes % (1 << 20)]).filter(|part| *part > 0);
        let part = part.clone();
        let parts: Vec<_> = parts.map(|size| Ok(part.slice(..size as usize))).collect();
        futures::stream::iter(parts).boxed()
    };
    let long = batches.add_file(&caller, new_file("long"), many(MOST_FILE_BYTES + 1)).await;
    let long = refused(long, "INVALID_FIELD");
    let says = "the file has more than 209715200 bytes; accepted: at most that many";
    assert_eq!((long.field.as_deref(), long.message.as_str()), (Some("file"), says));
    let exact = batches.add_file(&caller, new_file("long"), many(MOST_FILE_BYTES)).await;
    assert_eq!(exact.expect("as long as it may be").bytes, MOST_FILE_BYTES);
    let result = NewFile { purpose: Purpose::BatchOutput, ..new_file("results") };
    let result = batches.add_file(&caller, result, many(MOST_FILE_BYTES + 1)).await;
    assert_eq!(result.expect("results may be longer").bytes, MOST_FILE_BYTES + 1);
    // A client that breaks off.
    let broken = UserError::new(Code::Unavailable, "BROKEN", "it broke");
    let breaks = futures::stream::iter([Ok(Bytes::from_static(b"half")), Err(broken)]).boxed();
    refused(batches.add_file(&caller, new_file("half"), breaks).await, "BROKEN");
    let keep = NewFile { keep: Some(Duration::MAX), ..new_file("for ever") };
    let keep = refused(batches.add_file(&caller, keep, never_read()).await, "INVALID_FIELD");
    assert_eq!(keep.field.as_deref(), Some("keep"));
    let nobodys = Caller::of(None, [Scope::Submit], Some("k".to_owned()));
    refused(batches.add_file(&nobodys, new_file("nobody's"), never_read()).await, "NO_TENANT");
    assert_eq!(stored(&farm).await.len(), 3);
    let page = Page { after: Some(named.id), limit: 9, oldest_first: true };
    let files = batches.files(&caller, &page, None).await.expect("lists");
    assert_eq!(files.len(), 2, "{files:?}");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_may_come_as_slowly_as_they_are_read() {
    let idle = Duration::from_millis(50);
    let farm = Farm::start_with(Options { upload_idle: idle, ..options() }).await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let ticks = tokio::time::interval(4 * idle);
    let ticks = tokio_stream::wrappers::IntervalStream::new(ticks).take(3);
    let slow = ticks.map(|_| Ok(Bytes::from_static(b"x"))).boxed();
    let results = NewFile { purpose: Purpose::BatchOutput, ..new_file("results") };
    let stored = batches.add_file(&caller, results, slow).await.expect("stored");
    assert_eq!(stored.bytes, 3);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_trickles_is_given_up() {
    let idle = Duration::from_millis(200);
    let farm = Farm::start_with(Options { upload_idle: idle, ..options() }).await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let ticks = tokio::time::interval(Duration::from_millis(10));
    let ticks = tokio_stream::wrappers::IntervalStream::new(ticks);
    let trickles = ticks.map(|_| Ok(Bytes::from_static(b"x"))).boxed();
    let slow =
        refused(batches.add_file(&caller, new_file("slow"), trickles).await, "UPLOAD_STALLED");
    assert_eq!(slow.code, Code::DeadlineExceeded);
    assert_eq!(stored(&farm).await, [""; 0]);
    assert_eq!(noted(&farm).await, Vec::<[String; 4]>::new());
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_files_come_slowly_leaves_turns_to_others() {
    let idle = Duration::from_secs(2);
    let farm = Farm::start_with(Options { upload_idle: idle, ..options() }).await;
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let batches = farm.handle.batches();
            tokio::spawn(async move {
                let never = futures::stream::pending().boxed();
                batches.add_file(&of("slow"), new_file("slow"), never).await
            })
        })
        .collect();
    // Four of them have their turns, and the others wait for one.
    let batches = farm.handle.batches();
    let mut refused_in_a_row = 0;
    while refused_in_a_row < 3 {
        let own = of("slow");
        let one_more = batches.add_file(&own, new_file("one more"), parts(&[b"{}"]));
        let waits = tokio::time::timeout(idle / 10, one_more).await.is_err();
        refused_in_a_row = if waits { refused_in_a_row + 1 } else { 0 };
    }
    let quick = tokio::time::timeout(idle / 2, add(&farm, &of("quick"), b"{}")).await;
    quick.expect("it waits for nobody");
    for slow in slow {
        let error = slow.await.expect("ends").expect_err("nothing came");
        assert!(["UPLOAD_STALLED", "FILES_BUSY"].contains(&error.reason.as_str()), "{error:?}");
    }
    add(&farm, &of("slow"), b"{}").await;
    farm.shutdown().await;
}

/// To the farm it looks as if the file were complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_client_leaves_is_not_stored() {
    let farm = Farm::start().await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let (send, part) = tokio::sync::mpsc::channel(1);
    let coming = tokio_stream::wrappers::ReceiverStream::new(part).boxed();
    let leaves = batches.add_file(&caller, new_file("left"), coming);
    // Its call is dropped when its first part has been taken.
    tokio::select! {
        answer = leaves => panic!("{answer:?}"),
        () = async {
            for _ in 0..2 {
                send.send(Ok(Bytes::from_static(b"a part"))).await.expect("taken");
            }
        } => {}
    }
    drop(send);
    let artifacts = farm.artifacts.clone();
    // What goes on is waited for.
    farm.shutdown().await;
    let left: Vec<_> = artifacts.list("files/").try_collect().await.expect("lists");
    assert_eq!(left, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_another_tenant_is_as_if_it_were_not_there() {
    let farm = Farm::start().await;
    let batches = farm.handle.batches();
    let (a, b) = (of("a"), of("b"));
    let operator = Caller::of(Some("c".to_owned()), [Scope::Operate], None);
    let file = add(&farm, &a, b"of a").await;
    let of_b = add(&farm, &b, b"of b").await;
    let batch = batches.add_batch(&a, new_batch(file.id)).await.expect("recorded");
    assert_eq!((batch.tenant.as_str(), batch.key.as_deref()), ("a", Some("key of a")));
    let page = Page { after: None, limit: 9, oldest_first: true };
    for (id, is_there) in [(file.id, true), (Uuid::now_v7(), false)] {
        let expected = format!("there is no file {}", shown_file(id));
        let missing =
            |answer: Answer<()>| assert_eq!(refused(answer, "NOT_FOUND").message, expected);
        missing(batches.file(&b, id).await.map(drop));
        missing(batches.read_file(&b, id, 0).await.map(drop));
        missing(batches.delete_file(&b, id).await);
        missing(batches.add_batch(&b, new_batch(id)).await.map(drop));
        let after = Page { after: Some(id), ..page };
        missing(batches.files(&b, &after, None).await.map(drop));
        assert_eq!(batches.file(&a, id).await.is_ok(), is_there);
        assert_eq!(batches.file(&operator, id).await.is_ok(), is_there);
    }
    for id in [batch.id, Uuid::now_v7()] {
        let expected = format!("there is no batch {}", shown_batch(id));
        let missing =
            |answer: Answer<()>| assert_eq!(refused(answer, "NOT_FOUND").message, expected);
        missing(batches.batch(&b, id).await.map(drop));
        missing(batches.cancel_batch(&b, id).await.map(drop));
        missing(batches.batches(&b, &Page { after: Some(id), ..page }).await.map(drop));
    }
    let repeated = NewBatch { id: batch.id, ..new_batch(of_b.id) };
    refused(batches.add_batch(&b, repeated).await, "NOT_FOUND");
    let files = async |caller: &Caller| batches.files(caller, &page, None).await.expect("lists");
    assert_eq!(files(&a).await, std::slice::from_ref(&file));
    assert_eq!(files(&b).await, std::slice::from_ref(&of_b));
    assert_eq!(files(&operator).await, [file.clone(), of_b.clone()]);
    let list = async |caller: &Caller| batches.batches(caller, &page).await.expect("lists");
    assert_eq!(
        (list(&a).await.len(), list(&b).await.len(), list(&operator).await.len()),
        (1, 0, 1)
    );
    let cancelled = batches.cancel_batch(&operator, batch.id).await.expect("cancels");
    assert_eq!(cancelled.state, BatchState::Cancelling);
    batches.cancel_batch(&a, batch.id).await.expect("it stays so");
    refused(batches.delete_file(&a, file.id).await, "FILE_IN_USE");
    batches.delete_file(&operator, of_b.id).await.expect("deletes");
    let expected = [
        ["file.create", &shown_file(file.id), "a", "key of a"],
        ["file.create", &shown_file(of_b.id), "b", "key of b"],
        ["batch.create", &shown_batch(batch.id), "a", "key of a"],
        ["batch.cancel", &shown_batch(batch.id), "a", ""],
        ["file.delete", &shown_file(of_b.id), "b", ""],
    ];
    assert_eq!(noted(&farm).await, expected.map(|entry| entry.map(str::to_owned)));
    // On an open farm there is one tenant.
    let open = add(&farm, &Caller::open(), b"open").await;
    assert_eq!(open.tenant, "default");
    let batch = batches.add_batch(&Caller::open(), new_batch(open.id)).await.expect("recorded");
    assert_eq!((batch.tenant.as_str(), batch.key), ("default", None));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_checked_and_taken_step_by_step() {
    let farm = Farm::start().await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let file = add(&farm, &caller, b"requests").await;
    let good = new_batch(file.id);
    let big = BTreeMap::from([("key".to_owned(), "x".repeat(64 << 10))]);
    for (field, new) in [
        ("endpoint", NewBatch { endpoint: "a\u{0}b".to_owned(), ..good.clone() }),
        ("origin", NewBatch { origin: "x".repeat(3000), ..good.clone() }),
        ("metadata", NewBatch { metadata: big, ..good.clone() }),
        ("window", NewBatch { window: Duration::MAX, ..good.clone() }),
        ("keep_output", NewBatch { keep_output: Some(Duration::MAX), ..good.clone() }),
    ] {
        let refused = refused(batches.add_batch(&caller, new).await, "INVALID_FIELD");
        assert_eq!(refused.field.as_deref(), Some(field), "{refused}");
    }
    let batch = batches.add_batch(&caller, good.clone()).await.expect("recorded");
    assert_eq!(batches.add_batch(&caller, good).await.expect("it is there"), batch);
    let runner = Uuid::now_v7();
    let claimed = batches.claim_batch(runner, HOUR).await.expect("asks").expect("due");
    assert_eq!(claimed, batch);
    assert_eq!(batches.claim_batch(Uuid::now_v7(), HOUR).await.expect("asks"), None);
    assert!(batches.renew_batch(runner, batch.id, HOUR).await.expect("renews"));
    let step = |progress: usize| Step {
        id: batch.id,
        from: BatchState::Validating,
        to: BatchState::InProgress,
        progress: "x".repeat(progress),
        output: None,
        errors: None,
        again: HOUR,
    };
    let long = batches.advance_batch(runner, &step(MOST_PROGRESS + 1)).await;
    assert_eq!(refused(long, "INVALID_FIELD").field.as_deref(), Some("progress"));
    let skips = Step { to: BatchState::Completed, ..step(1) };
    refused(batches.advance_batch(runner, &skips).await, "BATCH_STEP");
    assert!(batches.advance_batch(runner, &step(MOST_PROGRESS)).await.expect("advances"));
    let read: Batch = batches.batch(&caller, batch.id).await.expect("there");
    assert_eq!((read.state, read.progress.len()), (BatchState::InProgress, MOST_PROGRESS));
    let created = noted(&farm).await;
    assert_eq!(created.iter().filter(|entry| entry[0] == "batch.create").count(), 1);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_too_many_files_stores_no_more_but_results() {
    let farm = Farm::start().await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let mut record = record(&farm).await;
    let rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 9999)
                INSERT INTO files (id, tenant, name, purpose, size, sha256, key, created_ms)
                SELECT printf('00000000-0000-0000-0000-%012d', n), 'a', '', 'batch', 1, 'x', n, 1 FROM n";
    sqlx::query(rows).execute(&mut record).await.expect("added");
    let last = add(&farm, &caller, b"the last").await;
    let many = refused(
        batches.add_file(&caller, new_file("x"), parts(&[b"one too many"])).await,
        "TOO_MANY_FILES",
    );
    let says = "tenant \"a\" has 10000 files; accepted: at most 10000, so delete some first";
    assert_eq!((many.code, many.message.as_str()), (Code::ResourceExhausted, says));
    let result = NewFile { purpose: Purpose::BatchOutput, ..new_file("results") };
    let result = batches.add_file(&caller, result, parts(&[b"results"])).await;
    let result = result.expect("a batch can end");
    add(&farm, &of("b"), b"another tenant's").await;
    for id in [last.id, result.id] {
        batches.delete_file(&caller, id).await.expect("deletes");
    }
    add(&farm, &caller, b"there is room").await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_refuses_a_file_before_it_is_read() {
    let farm = Farm::start().await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let quotas = v1::Quotas { stored_bytes: Some(10), ..Default::default() };
    let request =
        v1::SetTenantRequest { name: "a".to_owned(), quotas: Some(quotas), ..Default::default() };
    farm.handle.admin_calls().set_tenant(&Caller::open(), request).await.expect("sets");
    let large = batches.add_file(&caller, new_file("large"), parts(&[b"eleven long"])).await;
    let large = refused(large, "QUOTA_STORED_BYTES");
    assert!(large.message.contains("0 bytes are stored, and this adds 11"), "{large}");
    assert_eq!(stored(&farm).await, [""; 0], "it was not stored in vain");
    add(&farm, &caller, b"ten bytes!").await;
    refused(batches.add_file(&caller, new_file("x"), never_read()).await, "QUOTA_STORED_BYTES");
    let result = NewFile { purpose: Purpose::BatchOutput, ..new_file("results") };
    batches.add_file(&caller, result, parts(&[b"results"])).await.expect("a batch can end");
    assert_eq!(farm.store.standing("a").await.expect("reads").1.stored_bytes, 17);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_no_file_and_no_batch() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let artifacts = ArtifactStore::local(folder.path()).expect("a store");
    let full = Options { disk_floor: Some(u64::MAX), ..options() };
    let farm = Farm::start_over(full, Arc::clone(&folder), artifacts).await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    refused(batches.add_file(&caller, new_file("x"), never_read()).await, "DISK_FULL");
    refused(batches.add_batch(&caller, new_batch(Uuid::now_v7())).await, "DISK_FULL");
    farm.shutdown().await;
}

/// A farm on a folder, whose files a test can make older.
async fn on_a_folder() -> (Farm, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let artifacts = ArtifactStore::local(folder.path()).expect("a store");
    let record = Arc::new(tempfile::tempdir().expect("a folder"));
    (Farm::start_over(options(), record, artifacts).await, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cleaner_removes_files_at_their_time_and_ended_batches_with_them() {
    let (farm, folder) = on_a_folder().await;
    let (batches, caller) = (farm.handle.batches(), of("a"));
    let short = NewFile { keep: Some(HOUR), ..new_file("short") };
    let short = batches.add_file(&caller, short, parts(&[b"short"])).await.expect("stored");
    let (open, ended) = (add(&farm, &caller, b"open").await, add(&farm, &caller, b"ended").await);
    let gone = add(&farm, &caller, b"gone").await;
    batches.delete_file(&caller, gone.id).await.expect("deletes");
    let open = batches.add_batch(&caller, new_batch(open.id)).await.expect("recorded");
    let runner = Uuid::now_v7();
    let step = |batch: &Batch, to| Step {
        id: batch.id,
        from: batch.state,
        to,
        progress: String::new(),
        output: None,
        errors: None,
        again: DAY,
    };
    let taken = batches.claim_batch(runner, HOUR).await.expect("asks").expect("due");
    let waits = step(&taken, BatchState::InProgress);
    assert!(batches.advance_batch(runner, &waits).await.expect("advances"));
    let ended = batches.add_batch(&caller, new_batch(ended.id)).await.expect("recorded");
    let taken = batches.claim_batch(runner, HOUR).await.expect("asks").expect("due");
    assert_eq!(taken.id, ended.id);
    let fails = step(&taken, BatchState::Failed);
    assert!(batches.advance_batch(runner, &fails).await.expect("advances"));
    // Stored, and its row was lost in a crash.
    let sha256 = Digest::of(b"lost");
    let lost = format!("files/{}/{sha256}.jsonl", Uuid::now_v7());
    farm.artifacts.write_mark(&lost, "lost".into()).await.expect("stores");
    let file = std::fs::File::options().write(true).open(folder.path().join(&lost));
    file.expect("a file").set_modified(SystemTime::now() - 9 * DAY).expect("made older");
    let clean = async |ahead| farm.handle.clean(ahead).await.expect("cleans");
    let cleaned = clean(Duration::ZERO).await;
    assert_eq!((cleaned.files, cleaned.batches), (0, 0));
    assert_eq!(stored(&farm).await.len(), 4, "the deleted one is gone, and the lost one is not");
    // Its id comes again while its end is remembered.
    let again = NewFile { id: gone.id, ..new_file("again") };
    let again =
        batches.add_file(&caller, again, parts(&[b"gone"])).await.expect("stored elsewhere");
    assert_eq!((again.id, &again.sha256), (gone.id, &gone.sha256));
    assert_eq!(read(batches.as_ref(), &caller, again.id, 0).await.concat(), b"gone");
    batches.delete_file(&caller, again.id).await.expect("deletes");
    clean(Duration::ZERO).await;
    let admin = farm.handle.admin_calls();
    let request = v1::CleanFarmRequest { orphans: true, remove: true, ..Default::default() };
    let answer = admin.clean_farm(&Caller::open(), request).await.expect("cleans");
    let found: Vec<_> = answer.orphans.iter().map(|of| (of.kind.as_str(), of.objects)).collect();
    assert_eq!(found, [("file", 1)]);
    assert!(!stored(&farm).await.contains(&lost));
    let cleaned = clean(2 * HOUR).await;
    assert_eq!((cleaned.files, cleaned.batches), (1, 0));
    refused(batches.file(&caller, short.id).await, "NOT_FOUND");
    // What the policy would remove is told.
    let mut record = record(&farm).await;
    let older = format!("UPDATE files SET created_ms = created_ms - {}", (31 * DAY).as_millis());
    sqlx::query(AssertSqlSafe(older)).execute(&mut record).await.expect("made older");
    let request = v1::CleanFarmRequest { dry_run: true, ..Default::default() };
    let answer = admin.clean_farm(&Caller::open(), request).await.expect("says");
    let of_files = answer.due.iter().find(|due| {
        due.policy.as_ref().is_some_and(|one| one.subject() == v1::RetentionSubject::Files)
    });
    let of_files = of_files.expect("told");
    assert_eq!((of_files.count, of_files.bytes), (1, 5), "one is read by a batch");
    let cleaned = clean(31 * DAY).await;
    assert_eq!((cleaned.files, cleaned.batches), (1, 1));
    refused(batches.batch(&caller, ended.id).await, "NOT_FOUND");
    batches.batch(&caller, open.id).await.expect("it is open");
    assert_eq!(stored(&farm).await.len(), 1, "it is read");
    farm.shutdown().await;
}
