//! Files and batches: whose they are, who takes a batch's next step, and how long they stay.

use std::{collections::BTreeMap, time::Duration};

use darkroom_coordinator::store::{
    Error,
    batches::{
        AddedFile, Batch, Creator, FileRecord, ForgottenFiles, MOST_OPEN, NewBatch, NewFile, Page,
        Purpose, Step, StoredFile, file_prefix, shown_batch, shown_file,
    },
    keys::TenantChange,
    removal::{Candidate, Kind},
};
use darkroom_core::{
    artifact::ArtifactRef,
    batch_state::BatchState,
    digest::Digest,
    error::{Code, UserError},
    job_state::JobState,
    quota::{QuotaChange, Quotas},
    retention::{Policy, Scope, Subject},
};
use uuid::Uuid;

use super::{bench::Bench, removal::ended};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: i64 = 24 * 3600 * 1000;

/// A file of this tenant and content, stored under its id.
fn new_file(tenant: &str, content: &str) -> NewFile {
    let id = Uuid::now_v7();
    let sha256 = Digest::of(content.as_bytes());
    let stored = ArtifactRef {
        key: format!("{}{sha256}.jsonl", file_prefix(id, 0)),
        sha256,
        size: content.len() as u64,
    };
    let (tenant, name) = (tenant.to_owned(), format!("{content}.jsonl"));
    NewFile { id, tenant, name, purpose: Purpose::Batch, stored, keep: None }
}

async fn add_file(bench: &Bench, new: &NewFile) -> StoredFile {
    match bench.store.add_file(new).await.expect("recorded") {
        AddedFile::Added(file) => file,
        other => panic!("{other:?}"),
    }
}

fn new_batch(input: Uuid) -> NewBatch {
    NewBatch {
        id: Uuid::now_v7(),
        endpoint: "/v1/images/generations".to_owned(),
        input,
        window: 1440 * MINUTE,
        metadata: BTreeMap::from([("who".to_owned(), "é\u{0}".to_owned())]),
        origin: "https://farm.example.com".to_owned(),
        keep_output: Some(90 * MINUTE),
    }
}

/// A batch of a new file.
async fn add_batch(bench: &Bench, tenant: &str) -> Batch {
    let file = add_file(bench, &new_file(tenant, "requests")).await;
    begin(bench, tenant, &new_batch(file.record.id)).await.expect("recorded").0
}

async fn begin(bench: &Bench, tenant: &str, new: &NewBatch) -> Result<(Batch, bool), Error> {
    bench.store.add_batch(Creator { tenant, key: Some("k1") }, new).await
}

async fn claim(bench: &Bench, runner: Uuid) -> Option<Uuid> {
    let claimed = bench.store.claim_batch(runner, MINUTE).await.expect("asks");
    claimed.map(|batch| batch.id)
}

fn step(id: Uuid, from: BatchState, to: BatchState) -> Step {
    let (progress, output, errors) = (format!("to {to}"), None, None);
    Step { id, from, to, progress, output, errors, again: Duration::ZERO }
}

/// Takes a batch, which must be the only one that is due, through these states.
async fn through(bench: &Bench, id: Uuid, states: &[BatchState]) {
    let runner = Uuid::now_v7();
    for pair in states.windows(2) {
        // A call that was refused may hold the row until its transaction is undone.
        let mut claimed = claim(bench, runner).await;
        for _ in 0..500 {
            if claimed.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            claimed = claim(bench, runner).await;
        }
        assert_eq!(claimed, Some(id));
        let step = step(id, pair[0], pair[1]);
        assert!(bench.store.advance_batch(runner, &step).await.expect("advances"), "{step:?}");
    }
}

const TO_THE_END: [BatchState; 4] =
    [BatchState::Validating, BatchState::InProgress, BatchState::Finalizing, BatchState::Completed];

/// The refusal of a call that must fail.
fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> UserError {
    answer.expect_err("it must be refused").to_user()
}

/// That what a call names is not there, by what the refusal calls it.
fn is_missing<T: std::fmt::Debug>(answer: Result<T, Error>, what: &str, id: Uuid) {
    let refused = refusal(answer);
    assert_eq!(refused.code, Code::NotFound, "{refused:?}");
    let shown = if what == "file" { shown_file(id) } else { shown_batch(id) };
    assert_eq!(refused.message, format!("there is no {what} {shown}"));
}

fn page(limit: u32) -> Page {
    Page { after: None, limit, oldest_first: false }
}

/// Files are kept for this many days.
async fn keep(bench: &Bench, tenant: &str, days: Option<u64>) {
    let scope = Scope { tenant: tenant.to_owned(), subject: Subject::Files, outcome: None };
    let keep = days.map(|days| Duration::from_secs(days * 86_400));
    bench.store.set_retention(&Policy { scope, keep }).await.expect("sets it");
}

async fn now(bench: &Bench) -> i64 {
    bench.store.clock_ms().await.expect("a clock")
}

/// Removes what is kept no longer, two at a time.
async fn forget(bench: &Bench, now: i64) -> (u64, u64) {
    let (mut files, mut batches) = (0, 0);
    let is_due = bench.store.is_file_due(now).await.expect("asks");
    loop {
        let forgotten = bench.store.forget_files(bench.term, now, 2).await.expect("forgets");
        files += forgotten.files;
        batches += forgotten.batches;
        if !forgotten.more {
            assert_eq!(is_due, files + batches > 0, "{files} files and {batches} batches");
            return (files, batches);
        }
    }
}

/// Looks up all candidates. Returns the keys of files that may be deleted in storage.
async fn leaving(bench: &Bench, now: i64) -> Vec<String> {
    loop {
        let Some(batch) = bench.store.mark(bench.term, now, 2).await.expect("marks") else {
            continue;
        };
        if !batch.more {
            break;
        }
    }
    let leaving = bench.store.leaving(bench.term, now, 1000).await.expect("lists");
    let files = leaving.into_iter().filter(|one| one.kind == Kind::File);
    let mut keys: Vec<_> = files.map(|one| one.key).collect();
    keys.sort();
    keys
}

async fn stored_bytes(bench: &Bench, tenant: &str) -> u64 {
    assert_eq!(bench.store.audit_usage().await.expect("audits"), Vec::<String>::new());
    bench.store.standing(tenant).await.expect("reads").1.stored_bytes
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_file_is_its_tenants_and_its_id_stands_for_it_alone(bench: &Bench) {
    let new = NewFile { keep: Some(MINUTE), ..new_file("t", "one") };
    let before = now(bench).await;
    let added = add_file(bench, &new).await;
    let FileRecord { created_ms, expires_ms, .. } = added.record;
    assert!((before..=now(bench).await).contains(&created_ms), "{created_ms}");
    assert_eq!(expires_ms, Some(created_ms + 60_000));
    let expected = FileRecord {
        id: new.id,
        tenant: "t".to_owned(),
        name: "one.jsonl".to_owned(),
        purpose: Purpose::Batch,
        bytes: 3,
        sha256: Digest::of(b"one").to_string(),
        created_ms,
        expires_ms,
    };
    assert_eq!((&added.record, &added.stored), (&expected, &new.stored));
    for tenant in [None, Some("t")] {
        assert_eq!(bench.other.file(new.id, tenant).await.expect("there"), added);
    }
    is_missing(bench.store.file(new.id, Some("u")).await, "file", new.id);
    let nobodys = Uuid::now_v7();
    is_missing(bench.store.file(nobodys, Some("u")).await, "file", nobodys);
    // Whoever writes it again finds it as it is. What came is no file's, so it leaves storage.
    let again = NewFile { id: new.id, ..new_file("t", "two") };
    let other_key =
        ArtifactRef { key: again.stored.key.replace("files/", "files/x"), ..again.stored };
    let again = NewFile { stored: other_key, ..again };
    for repeated in [&new, &again] {
        let repeated = bench.other.add_file(repeated).await.expect("answers");
        assert_eq!(repeated, AddedFile::Existed(added.clone()));
    }
    assert_eq!(leaving(bench, now(bench).await).await, [again.stored.key]);
    let others = NewFile { tenant: "u".to_owned(), ..new.clone() };
    is_missing(bench.store.add_file(&others).await, "file", new.id);
    assert_eq!((stored_bytes(bench, "t").await, stored_bytes(bench, "u").await), (3, 0));
    is_missing(bench.store.delete_file(new.id, Some("u")).await, "file", new.id);
    assert_eq!(bench.store.delete_file(new.id, Some("t")).await.expect("deletes"), added);
    is_missing(bench.store.delete_file(new.id, None).await, "file", new.id);
    assert_eq!(stored_bytes(bench, "t").await, 0);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_bytes_of_a_deleted_file_leave_and_come_again_under_another_key(bench: &Bench) {
    let new = new_file("t", "one");
    let key = &new.stored.key;
    // Stored, and not recorded yet, as after a crash in between.
    let listed = Candidate::listed(key).expect("a file's");
    assert_eq!(listed, Candidate::file(key.clone(), new.id));
    let found = bench.store.orphans(std::slice::from_ref(&listed)).await.expect("looks");
    assert_eq!(found, [key.as_str()]);
    add_file(bench, &new).await;
    assert_eq!(bench.store.orphans(&[listed]).await.expect("looks"), [""; 0]);
    bench.store.suspect(bench.term, 0, &[Candidate::file(key.clone(), new.id)]).await.expect("ok");
    assert_eq!(leaving(bench, now(bench).await).await, [""; 0], "a row names it");
    bench.store.delete_file(new.id, None).await.expect("deletes");
    // Before anybody has looked it up, it can be named again.
    assert_eq!(bench.store.file_mark(new.id).await.expect("asks"), 0);
    add_file(bench, &new).await;
    assert_eq!(leaving(bench, now(bench).await).await, [""; 0], "a row names it again");
    bench.store.delete_file(new.id, None).await.expect("deletes");
    assert_eq!(leaving(bench, now(bench).await).await, [key.as_str()]);
    assert_eq!(bench.store.add_file(&new).await.expect("answers"), AddedFile::Leaving);
    is_missing(bench.store.file(new.id, None).await, "file", new.id);
    let mark = bench.store.file_mark(new.id).await.expect("asks");
    let prefix = file_prefix(new.id, mark);
    assert_ne!(prefix, file_prefix(new.id, 0));
    let stored =
        ArtifactRef { key: format!("{prefix}{}.jsonl", new.stored.sha256), ..new.stored.clone() };
    let elsewhere = NewFile { stored, ..new.clone() };
    assert_eq!(add_file(bench, &elsewhere).await.stored, elsewhere.stored);
    assert_eq!(leaving(bench, now(bench).await).await, [key.as_str()], "not the new one");
    assert_eq!(stored_bytes(bench, "t").await, 3);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn files_and_batches_are_listed_in_pages_from_either_end(bench: &Bench) {
    let (mut files, mut batches) = (Vec::new(), Vec::new());
    for number in 0..7 {
        let tenant = if number % 3 == 0 { "u" } else { "t" };
        let purpose = if number % 2 == 0 { Purpose::Batch } else { Purpose::BatchOutput };
        let new = NewFile { purpose, ..new_file(tenant, "a file") };
        files.push(add_file(bench, &new).await);
        batches.push(begin(bench, tenant, &new_batch(new.id)).await.expect("recorded").0);
    }
    for (tenant, purpose) in [
        (None, None),
        (Some("t"), None),
        (Some("u"), Some(Purpose::Batch)),
        (None, Some(Purpose::BatchOutput)),
        (Some("v"), None),
    ] {
        for oldest_first in [false, true] {
            let is_it = |file: &&StoredFile| {
                tenant.is_none_or(|tenant| file.record.tenant == tenant)
                    && purpose.is_none_or(|purpose| file.record.purpose == purpose)
            };
            let mut expected: Vec<_> = files.iter().filter(is_it).cloned().collect();
            expected.sort_by_key(|file| (file.record.created_ms, file.record.id));
            let is_it = |batch: &&Batch| tenant.is_none_or(|tenant| batch.tenant == tenant);
            let mut expected_batches: Vec<_> = batches.iter().filter(is_it).cloned().collect();
            expected_batches.sort_by_key(|batch| (batch.since_ms[&batch.state], batch.id));
            if !oldest_first {
                expected.reverse();
                expected_batches.reverse();
            }
            let (mut listed, mut page) = (Vec::new(), Page { oldest_first, ..page(2) });
            loop {
                let found = bench.store.list_files(tenant, &page, purpose).await.expect("lists");
                assert!(found.len() <= 2);
                let Some(last) = found.last() else { break };
                page.after = Some(last.record.id);
                listed.extend(found);
            }
            assert_eq!(listed, expected, "{tenant:?} {purpose:?} {oldest_first}");
            let (mut listed, mut page) = (Vec::new(), Page { oldest_first, ..self::page(2) });
            loop {
                let found = bench.store.list_batches(tenant, &page).await.expect("lists");
                let Some(last) = found.last() else { break };
                page.after = Some(last.id);
                listed.extend(found);
            }
            assert_eq!(listed, expected_batches, "{tenant:?} {oldest_first}");
        }
    }
    // What is another tenant's is no place in a list.
    let of_u = Page { after: Some(files[0].record.id), ..page(2) };
    is_missing(bench.store.list_files(Some("t"), &of_u, None).await, "file", files[0].record.id);
    let of_u = Page { after: Some(batches[0].id), ..page(2) };
    is_missing(bench.store.list_batches(Some("t"), &of_u).await, "batch", batches[0].id);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_batch_goes_its_way_step_by_step(bench: &Bench) {
    let input = add_file(bench, &new_file("t", "requests")).await.record.id;
    let new = new_batch(input);
    let (batch, added) = begin(bench, "t", &new).await.expect("recorded");
    assert!(added);
    let began = batch.since_ms[&BatchState::Validating];
    let expected = Batch {
        id: new.id,
        tenant: "t".to_owned(),
        key: Some("k1".to_owned()),
        endpoint: new.endpoint.clone(),
        input,
        window: new.window,
        metadata: new.metadata.clone(),
        origin: new.origin.clone(),
        keep_output: new.keep_output,
        state: BatchState::Validating,
        since_ms: BTreeMap::from([(BatchState::Validating, began)]),
        expires_ms: began + DAY,
        progress: String::new(),
        output: None,
        errors: None,
    };
    assert_eq!(batch, expected);
    assert_eq!(bench.other.batch(new.id, Some("t")).await.expect("there"), expected);
    is_missing(bench.store.batch(new.id, Some("u")).await, "batch", new.id);
    // A repeat finds it, and another tenant's does not.
    assert_eq!(begin(bench, "t", &new).await.expect("answers"), (expected.clone(), false));
    is_missing(begin(bench, "u", &new).await, "batch", new.id);
    let elsewhere = new_batch(input);
    is_missing(begin(bench, "u", &elsewhere).await, "file", input);
    is_missing(bench.store.batch(elsewhere.id, None).await, "batch", elsewhere.id);
    let runner = Uuid::now_v7();
    assert_eq!(claim(bench, runner).await, Some(new.id));
    let skips = step(new.id, BatchState::Validating, BatchState::Completed);
    let refused = refusal(bench.store.advance_batch(runner, &skips).await);
    assert_eq!(refused.reason, "BATCH_STEP");
    let (output, errors) = (Some(Uuid::now_v7()), Some(Uuid::now_v7()));
    let first = Step {
        errors,
        progress: "notes".to_owned(),
        ..step(new.id, BatchState::Validating, BatchState::Validating)
    };
    assert!(bench.store.advance_batch(runner, &first).await.expect("advances"));
    let read = bench.other.batch(new.id, None).await.expect("there");
    let noted = Batch { progress: "notes".to_owned(), errors, ..expected };
    assert_eq!(read, noted, "it stays in its state since then");
    through(bench, new.id, &TO_THE_END[..3]).await;
    assert_eq!(claim(bench, runner).await, Some(new.id));
    let last = Step { output, ..step(new.id, BatchState::Finalizing, BatchState::Completed) };
    assert!(bench.store.advance_batch(runner, &last).await.expect("advances"));
    let ended = bench.store.batch(new.id, None).await.expect("there");
    assert_eq!((ended.output, ended.errors, ended.state), (output, errors, BatchState::Completed));
    assert_eq!(ended.since_ms.keys().copied().collect::<Vec<_>>(), TO_THE_END);
    assert!(
        ended.since_ms.values().is_sorted() && ended.since_ms[&BatchState::Validating] == began
    );
    assert_eq!(claim(bench, runner).await, None, "it has ended");
    let stays = step(new.id, BatchState::Completed, BatchState::Completed);
    assert!(!bench.store.advance_batch(runner, &stays).await.expect("answers"), "nobody has it");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_two_runners_one_takes_a_batch_and_the_oldest_due_first(bench: &Bench) {
    let second = bench.second();
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let mut batches = Vec::new();
    for _ in 0..6 {
        batches.push(add_batch(bench, "t").await.id);
        let (mine, theirs) = tokio::join!(claim(bench, one), claim(&second, other));
        let taken: Vec<Uuid> = mine.into_iter().chain(theirs).collect();
        assert_eq!(taken, batches[batches.len() - 1..], "exactly one has it");
        let runner = if mine.is_some() { one } else { other };
        // It waits.
        let step = Step {
            again: 60 * MINUTE,
            ..step(taken[0], BatchState::Validating, BatchState::InProgress)
        };
        assert!(bench.store.advance_batch(runner, &step).await.expect("advances"));
        assert_eq!((claim(bench, one).await, claim(&second, other).await), (None, None));
    }
    // They are due in another order than they were begun.
    for id in [batches[3], batches[0], batches[5]] {
        let (cancelled, _) = bench.store.cancel_batch(id, None).await.expect("cancels");
        let since = cancelled.since_ms[&BatchState::Cancelling];
        while now(bench).await <= since {
            tokio::task::yield_now().await;
        }
    }
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.extend(claim(bench, one).await);
    }
    assert_eq!(taken, [batches[3], batches[0], batches[5]]);
    assert_eq!(claim(&second, other).await, None);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_runner_that_has_lost_its_batch_records_nothing(bench: &Bench) {
    let batch = add_batch(bench, "t").await.id;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let claimed = bench.store.claim_batch(one, Duration::ZERO).await.expect("asks");
    assert_eq!(claimed.map(|claimed| claimed.id), Some(batch));
    assert_eq!(claim(bench, other).await, Some(batch), "the lease is over");
    assert_eq!(claim(bench, one).await, None, "another has it");
    let step = step(batch, BatchState::Validating, BatchState::InProgress);
    assert!(!bench.store.advance_batch(one, &step).await.expect("answers"), "it has it no more");
    let read = bench.store.batch(batch, None).await.expect("there");
    assert_eq!((read.state, read.progress.as_str()), (BatchState::Validating, ""));
    assert!(bench.store.advance_batch(other, &step).await.expect("advances"));
    assert!(!bench.store.advance_batch(other, &step).await.expect("answers"), "it gave it back");
    // One that renews its lease keeps it.
    bench.store.claim_batch(one, Duration::ZERO).await.expect("asks").expect("due");
    assert!(!bench.store.renew_batch(other, batch, MINUTE).await.expect("asks"), "it is one's");
    assert!(bench.store.renew_batch(one, batch, MINUTE).await.expect("renews"));
    assert_eq!(claim(bench, other).await, None);
    assert!(bench.store.renew_batch(one, batch, Duration::ZERO).await.expect("renews"));
    assert_eq!(claim(bench, other).await, Some(batch));
    assert!(!bench.store.renew_batch(one, batch, MINUTE).await.expect("asks"), "it has lost it");
    let stays = super::batches::step(batch, BatchState::InProgress, BatchState::InProgress);
    assert!(bench.store.advance_batch(other, &stays).await.expect("advances"));
    assert!(!bench.store.renew_batch(other, batch, MINUTE).await.expect("asks"), "given back");
    // Nobody has taken it since, so what a slow one has done counts.
    bench.store.claim_batch(one, Duration::ZERO).await.expect("asks").expect("due");
    let next = super::batches::step(batch, BatchState::InProgress, BatchState::Finalizing);
    assert!(bench.store.advance_batch(one, &next).await.expect("advances"));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_step_after_a_cancel_records_nothing_and_gives_the_batch_back(bench: &Bench) {
    let batch = add_batch(bench, "t").await.id;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(claim(bench, one).await, Some(batch));
    is_missing(bench.store.cancel_batch(batch, Some("u")).await, "batch", batch);
    let (cancelled, changed) = bench.other.cancel_batch(batch, Some("t")).await.expect("cancels");
    assert!(changed && cancelled.state == BatchState::Cancelling);
    assert_eq!(bench.store.batch(batch, None).await.expect("there"), cancelled);
    let (again, changed) = bench.other.cancel_batch(batch, None).await.expect("answers");
    assert_eq!((again, changed), (cancelled.clone(), false));
    // Two never work on it.
    assert_eq!(claim(bench, other).await, None, "its runner has it");
    let late =
        Step { again: 60 * MINUTE, ..step(batch, BatchState::Validating, BatchState::InProgress) };
    assert!(!bench.store.advance_batch(one, &late).await.expect("answers"), "it was cancelled");
    assert_eq!(bench.store.batch(batch, None).await.expect("there"), cancelled);
    assert_eq!(claim(bench, other).await, Some(batch), "given back, and due at once");
    let last = step(batch, BatchState::Cancelling, BatchState::Cancelled);
    assert!(bench.store.advance_batch(other, &last).await.expect("advances"));
    let (ended, changed) = bench.store.cancel_batch(batch, None).await.expect("answers");
    assert_eq!((ended.state, changed), (BatchState::Cancelled, false));
    // One that has ended otherwise, or whose results are being written, is not cancelled.
    let batch = add_batch(bench, "t").await.id;
    through(bench, batch, &TO_THE_END[..3]).await;
    for state in [BatchState::Finalizing, BatchState::Completed] {
        let refused = refusal(bench.store.cancel_batch(batch, None).await);
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::FailedPrecondition, "BATCH_NOT_OPEN")
        );
        let accepted = "accepted: a batch that is validating or in_progress";
        assert_eq!(refused.message, format!("batch {} is {state}; {accepted}", shown_batch(batch)));
        if state == BatchState::Finalizing {
            through(bench, batch, &TO_THE_END[2..]).await;
        }
    }
    let nobodys = Uuid::now_v7();
    is_missing(bench.store.cancel_batch(nobodys, None).await, "batch", nobodys);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_file_stays_while_an_open_batch_reads_it(bench: &Bench) {
    let batch = add_batch(bench, "t").await;
    let refused = refusal(bench.store.delete_file(batch.input, Some("t")).await);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "FILE_IN_USE"));
    assert!(refused.message.contains(&shown_batch(batch.id)), "{refused}");
    // Its own time is over, and that of the policy is too.
    let short = NewFile { keep: Some(MINUTE), ..new_file("t", "short") };
    add_file(bench, &short).await;
    let reading = begin(bench, "t", &new_batch(short.id)).await.expect("recorded").0;
    let late = now(bench).await + 40 * DAY;
    assert_eq!(forget(bench, late).await, (0, 0));
    bench.store.cancel_batch(reading.id, None).await.expect("cancels");
    assert_eq!(forget(bench, late).await, (0, 0), "it has not ended");
    let runner = Uuid::now_v7();
    while let Some(claimed) = bench.store.claim_batch(runner, MINUTE).await.expect("asks") {
        let again = if claimed.id == reading.id { Duration::ZERO } else { 60 * MINUTE };
        let to = match claimed.state {
            BatchState::Cancelling => BatchState::Cancelled,
            state => state,
        };
        let step = Step { again, ..step(claimed.id, claimed.state, to) };
        assert!(bench.store.advance_batch(runner, &step).await.expect("advances"));
    }
    assert_eq!(forget(bench, late).await, (1, 1), "the other one is open");
    assert_eq!(leaving(bench, late).await, [short.stored.key]);
    bench.store.file(batch.input, None).await.expect("it is read");
    // Of a batch that begins and the end of its file at once, one wins.
    let second = bench.second();
    for round in 0..8 {
        let file = add_file(bench, &new_file("t", &format!("round {round}"))).await.record.id;
        let new = new_batch(file);
        let begin = begin(&second, "t", &new);
        let remove = async {
            if round % 4 < 2 {
                bench.store.delete_file(file, None).await.is_ok()
            } else {
                let late = now(bench).await + 40 * DAY;
                bench.store.forget_files(bench.term, late, 100).await.expect("forgets").files > 0
            }
        };
        // Both orders come up.
        let (begun, removed) = if round % 2 == 0 {
            tokio::join!(begin, remove)
        } else {
            let (removed, begun) = tokio::join!(remove, begin);
            (begun, removed)
        };
        assert_eq!(begun.is_err(), removed, "{round}: {begun:?}");
        assert_eq!(bench.store.file(file, None).await.is_err(), removed, "{round}");
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn files_and_ended_batches_stay_for_their_own_time_or_that_of_the_policy(bench: &Bench) {
    // A new record has a policy.
    let policies = bench.store.retention().await.expect("lists");
    let of_files: Vec<_> =
        policies.iter().filter(|one| one.scope.subject == Subject::Files).collect();
    assert_eq!(of_files.len(), 1, "{policies:?}");
    assert_eq!(of_files[0].keep, Some(Duration::from_secs(30 * 86_400)));
    let (plain, others) = (new_file("t", "plain"), new_file("u", "others"));
    let short = NewFile { keep: Some(60 * MINUTE), ..new_file("t", "short") };
    let long = NewFile { keep: Some(60 * 1440 * MINUTE), ..new_file("t", "longer") };
    for new in [&plain, &others, &short, &long] {
        add_file(bench, new).await;
    }
    let mut batches = Vec::new();
    for input in [plain.id, long.id] {
        let new = new_batch(input);
        begin(bench, "t", &new).await.expect("recorded");
        through(bench, new.id, &TO_THE_END).await;
        batches.push(new.id);
    }
    keep(bench, "u", Some(90)).await;
    let start = now(bench).await;
    assert_eq!(forget(bench, start).await, (0, 0));
    assert_eq!(forget(bench, start + DAY).await, (1, 0), "its own time is over");
    assert_eq!(leaving(bench, start + DAY).await, [short.stored.key]);
    assert_eq!(forget(bench, start + 29 * DAY).await, (0, 0), "too soon");
    let due = bench.store.due(start + 31 * DAY).await.expect("adds up");
    let due: Vec<_> =
        due.iter().map(|due| (due.policy.scope.tenant.as_str(), due.count, due.bytes)).collect();
    assert_eq!(due, [("", 1, 5), ("u", 0, 0)]);
    assert_eq!(forget(bench, start + 31 * DAY).await, (1, 1), "the file, and its batch with it");
    is_missing(bench.store.batch(batches[0], None).await, "batch", batches[0]);
    bench.store.batch(batches[1], None).await.expect("its file is there");
    assert_eq!(bench.store.file(long.id, None).await.expect("its own time").stored, long.stored);
    let due = bench.store.due(start + 61 * DAY).await.expect("adds up");
    assert_eq!((due[0].count, due[0].bytes), (1, 6), "{due:?}");
    assert_eq!(forget(bench, start + 61 * DAY).await, (1, 1));
    keep(bench, "u", None).await;
    assert_eq!(forget(bench, start + 999 * DAY).await, (0, 0), "u keeps everything");
    keep(bench, "u", Some(90)).await;
    let forgotten = bench.store.forget_files(bench.term, start + 99 * DAY, 9).await;
    assert_eq!(forgotten.expect("forgets"), ForgottenFiles { files: 1, batches: 0, more: false });
    assert_eq!((stored_bytes(bench, "t").await, stored_bytes(bench, "u").await), (0, 0));
    // Only the leader removes.
    let term = darkroom_coordinator::store::records::Term(bench.term.0 + 1);
    let refused = bench.store.forget_files(term, start, 9).await.expect_err("another term");
    assert!(matches!(refused, Error::NotLeading(_)), "{refused}");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_policy_on_jobs_spares_those_of_an_open_batch(bench: &Bench) {
    let (kept, other) =
        (ended(bench, "one", 1, "tasks/a/p").await, ended(bench, "two", 1, "b").await);
    let batch = add_batch(bench, "t").await.id;
    let runner = Uuid::now_v7();
    assert_eq!(claim(bench, runner).await, Some(batch));
    let names =
        |from, to| Step { progress: format!("{{\"job\":\"{kept}\"}}"), ..step(batch, from, to) };
    let begins = names(BatchState::Validating, BatchState::InProgress);
    assert!(bench.store.advance_batch(runner, &begins).await.expect("advances"));
    let scope =
        Scope { tenant: String::new(), subject: Subject::Jobs, outcome: Some(JobState::Done) };
    let policy = Policy { scope, keep: Some(MINUTE) };
    bench.store.set_retention(&policy).await.expect("sets it");
    let now = bench.store.clock_ms().await.expect("a clock") + 2 * DAY;
    let expire = async || bench.store.expire_jobs(bench.term, now, 9).await.expect("deletes");
    let due = async || {
        let all = bench.store.due(now).await.expect("counts");
        all.iter().find(|due| due.policy == policy).map(|due| due.count)
    };
    assert_eq!(due().await, Some(1));
    assert_eq!(expire().await, [other], "what the batch does not name goes");
    assert_eq!(expire().await, []);
    assert_eq!(due().await, Some(0));
    for (from, to) in [
        (BatchState::InProgress, BatchState::Finalizing),
        (BatchState::Finalizing, BatchState::Completed),
    ] {
        assert_eq!(claim(bench, runner).await, Some(batch));
        assert!(bench.store.advance_batch(runner, &names(from, to)).await.expect("advances"));
    }
    assert_eq!(expire().await, [kept], "its results are written");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_file_over_the_quota_leaves_nothing_but_results_are_stored(bench: &Bench) {
    let quotas = Quotas { stored_bytes: Some(10), ..Quotas::default() };
    let change = TenantChange {
        quotas: QuotaChange { set: quotas, ..QuotaChange::default() },
        ..TenantChange::default()
    };
    bench.store.set_tenant("t", &change).await.expect("sets");
    let six = new_file("t", "sixsix");
    add_file(bench, &six).await;
    let five = new_file("t", "five5");
    let refused = refusal(bench.store.add_file(&five).await);
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::ResourceExhausted, "QUOTA_STORED_BYTES")
    );
    is_missing(bench.store.file(five.id, None).await, "file", five.id);
    assert_eq!(stored_bytes(bench, "t").await, 6);
    // Of two that fit alone, one is stored.
    let second = bench.second();
    let (one, other) = (new_file("t", "four"), new_file("t", "4444"));
    let (one, other) = tokio::join!(bench.store.add_file(&one), second.store.add_file(&other));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let result = NewFile { purpose: Purpose::BatchOutput, ..new_file("t", "results") };
    add_file(bench, &result).await;
    assert_eq!(stored_bytes(bench, "t").await, 17);
    add_file(bench, &new_file("u", "another tenant's file")).await;
    bench.store.delete_file(six.id, None).await.expect("deletes");
    assert_eq!(stored_bytes(bench, "t").await, 11);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_tenant_has_so_many_open_batches_and_no_more(bench: &Bench) {
    let input = add_file(bench, &new_file("t", "requests")).await.record.id;
    for _ in 1..MOST_OPEN {
        begin(bench, "t", &new_batch(input)).await.expect("recorded");
    }
    let second = bench.second();
    let (one, other) = (new_batch(input), new_batch(input));
    let (first, last) = tokio::join!(begin(bench, "t", &one), begin(&second, "t", &other));
    assert!(first.is_ok() != last.is_ok(), "{first:?} {last:?}");
    let refused = refusal(if first.is_ok() { last } else { first });
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::ResourceExhausted, "TOO_MANY_BATCHES")
    );
    let says = "tenant \"t\" has 100 batches that have not ended; accepted: at most 100, so wait \
                for the end of one, or cancel one";
    assert_eq!(refused.message, says);
    add_batch(bench, "u").await;
    // A repeat of one that was recorded is none more.
    let known = bench.store.list_batches(Some("t"), &page(1)).await.expect("lists").remove(0);
    let again = NewBatch { id: known.id, ..new_batch(input) };
    assert!(!begin(bench, "t", &again).await.expect("it is there").1);
    let runner = Uuid::now_v7();
    let taken = claim(bench, runner).await.expect("due");
    let ends = step(taken, BatchState::Validating, BatchState::Failed);
    assert!(bench.store.advance_batch(runner, &ends).await.expect("advances"));
    begin(bench, "t", &new_batch(input)).await.expect("one has ended");
    refusal(begin(bench, "t", &new_batch(input)).await);
}
