//! The audit has each change, with who made it, and nothing of what was rendered.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::support::{self, Act, Farm, prompt};
use darkroom_coordinator::store::{
    Store,
    keys::{AuditQuery, NewAudit},
    postgres::{Options, PostgresStore},
    sqlite::SqliteStore,
};
use darkroom_core::scope::Scope;
use darkroom_farm_api::{Caller, Calls, Incoming};
use darkroom_proto::v1;
use darkroom_test_servers::postgres::Postgres;
use futures::{StreamExt as _, stream};
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::timeout;

const KEY: &str = "0123456789ab";
const SECRET_PROMPT: &str = "a surprise for Ana";

fn caller() -> Caller {
    let scopes = [Scope::Operate, Scope::Admin];
    Caller::of(None, scopes, Some(KEY.to_owned())).at("192.0.2.7".parse().ok())
}

async fn rows(farm: &Farm) -> Vec<v1::AuditEntry> {
    let request = v1::ListAuditRequest::default();
    let listed = farm.handle.admin_calls().list_audit(&caller(), request).await.expect("listed");
    listed.entries
}

/// Actions and targets, oldest first.
async fn actions(farm: &Farm) -> Vec<(String, String)> {
    let rows = rows(farm).await;
    rows.into_iter().rev().map(|row| (row.action, row.target)).collect()
}

async fn submit(calls: &dyn Calls, request_id: &str) -> String {
    let spec = v1::JobSpec {
        tenant: "studio".to_owned(),
        client_request_id: request_id.to_owned(),
        ..support::spec()
    };
    // Two images, so that a job one of whose images is cancelled has not ended.
    let prompts = vec![prompt(SECRET_PROMPT), prompt("another")];
    let request = v1::SubmitJobRequest { spec: Some(spec), prompts };
    calls.submit_job(&caller(), request).await.expect("accepted").job.expect("a job").id
}

#[tokio::test]
async fn a_change_is_noted_though_its_client_has_left() {
    let farm = Farm::start().await;
    let calls = farm.handle.calls();
    let id = submit(calls.as_ref(), "left").await;
    let by = caller();
    let cancel = calls.cancel_job(&by, v1::CancelJobRequest { id: id.clone() });
    // Begun, and given up at once.
    tokio::time::timeout(Duration::ZERO, cancel).await.expect_err("it takes longer");
    let noted = ("job.cancel".to_owned(), id.clone());
    support::eventually("noted", async || actions(&farm).await.contains(&noted)).await;
    let job = calls.get_job(&by, v1::GetJobRequest { id }).await.expect("read");
    assert_eq!(job.state(), v1::JobState::Cancelled);
    farm.shutdown().await;
}

/// A submit in two chunks.
fn in_chunks(request: v1::SubmitJobRequest) -> Incoming<v1::SubmitJobChunk> {
    use v1::submit_job_chunk::Part;
    let prompts = Part::Prompts(v1::PromptChunk { prompts: request.prompts });
    let parts = request.spec.map(Part::Spec).into_iter().chain([prompts]);
    let chunks = parts.map(|part| Ok(v1::SubmitJobChunk { part: Some(part) }));
    stream::iter(chunks.collect::<Vec<_>>()).boxed()
}

#[tokio::test]
async fn of_submits_whose_clients_leave_at_any_time_those_that_were_recorded_are_noted() {
    let farm = Farm::start().await;
    let (calls, by) = (farm.handle.calls(), caller());
    let request = || {
        let spec = v1::JobSpec { tenant: "studio".to_owned(), ..support::spec() };
        v1::SubmitJobRequest { spec: Some(spec), prompts: vec![prompt(SECRET_PROMPT)] }
    };
    // Two answers say how long a submit takes here.
    let began = Instant::now();
    calls.submit_job(&by, request()).await.expect("accepted");
    calls.submit_job_stream(&by, in_chunks(request())).await.expect("accepted");
    let most = began.elapsed();
    for step in 0..40 {
        let left = most * step / 40;
        if step % 2 == 0 {
            drop(timeout(left, calls.submit_job(&by, request())).await);
        } else {
            drop(timeout(left, calls.submit_job_stream(&by, in_chunks(request()))).await);
        }
    }
    let jobs = async || -> BTreeSet<String> {
        let request = v1::ListJobsRequest { page_size: 1000, ..Default::default() };
        let listed = calls.list_jobs(&by, request).await.expect("listed");
        listed.jobs.into_iter().map(|job| job.id).collect()
    };
    let noted = async || -> BTreeSet<String> {
        actions(&farm).await.into_iter().map(|(_, target)| target).collect()
    };
    support::eventually("each recorded job is noted", async || jobs().await == noted().await).await;
    assert!(jobs().await.len() > 2, "some were recorded although their clients had left");
    farm.shutdown().await;
}

#[tokio::test]
async fn commands_that_change_nothing_are_not_noted() {
    let farm = Farm::start().await;
    let (calls, by) = (farm.handle.calls(), caller());
    let id = submit(calls.as_ref(), "again").await;
    let images = || v1::CancelImagesRequest {
        job_id: id.clone(),
        filter: Some(v1::ImageFilter {
            ranges: vec![v1::IndexRange { first: 0, last: 0 }],
            ..Default::default()
        }),
        ..Default::default()
    };
    for _ in 0..3 {
        calls.pause_job(&by, v1::PauseJobRequest { id: id.clone() }).await.expect("paused");
    }
    for _ in 0..3 {
        calls.resume_job(&by, v1::ResumeJobRequest { id: id.clone() }).await.expect("resumed");
    }
    for _ in 0..3 {
        calls.cancel_job(&by, v1::CancelJobRequest { id: id.clone() }).await.expect("cancelled");
    }
    let cancelled = async || {
        let job = calls.get_job(&by, v1::GetJobRequest { id: id.clone() }).await.expect("read");
        job.images_cancelled == job.images
    };
    support::eventually("its images follow", cancelled).await;
    for _ in 0..3 {
        calls.cancel_images(&by, images()).await.expect("none is left");
        let none = v1::ImageFilter {
            ranges: vec![v1::IndexRange { first: 0, last: 0 }],
            states: vec![v1::ImageState::Dead.into()],
            ..Default::default()
        };
        let retry =
            v1::RetryImagesRequest { job_id: id.clone(), filter: Some(none), ..Default::default() };
        calls.retry_images(&by, retry).await.expect("none is dead");
        let lost = v1::RetryImagesRequest { job_id: id.clone(), lost: true, ..Default::default() };
        calls.retry_images(&by, lost).await.expect("none is lost");
    }
    let expected = ["job.submit", "job.pause", "job.resume", "job.cancel"];
    assert_eq!(actions(&farm).await, expected.map(|action| (action.to_owned(), id.clone())));
    farm.shutdown().await;
}

#[tokio::test]
async fn each_change_of_a_job_is_noted_once_with_who_made_it() {
    let farm = Farm::start().await;
    let calls = farm.handle.calls();
    let by = caller();
    let id = submit(calls.as_ref(), "once").await;
    assert_eq!(submit(calls.as_ref(), "once").await, id, "a repeated submit changes nothing");
    let job = || id.clone();
    calls.get_job(&by, v1::GetJobRequest { id: job() }).await.expect("read");
    calls.pause_job(&by, v1::PauseJobRequest { id: job() }).await.expect("paused");
    calls.resume_job(&by, v1::ResumeJobRequest { id: job() }).await.expect("resumed");
    let first = v1::CancelImagesRequest {
        job_id: job(),
        filter: Some(v1::ImageFilter {
            ranges: vec![v1::IndexRange { first: 0, last: 0 }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let tried = v1::CancelImagesRequest { dry_run: true, ..first.clone() };
    calls.cancel_images(&by, tried).await.expect("counted, and nothing is changed");
    calls.cancel_images(&by, first).await.expect("cancelled");
    calls.cancel_job(&by, v1::CancelJobRequest { id: job() }).await.expect("cancelled");
    let retry = v1::RetryJobRequest { id: job(), ..Default::default() };
    calls.retry_job(&by, retry).await.expect("retried");
    let none = v1::PauseJobRequest { id: uuid() };
    calls.pause_job(&by, none).await.expect_err("no such job");
    let expected =
        ["job.submit", "job.pause", "job.resume", "images.cancel", "job.cancel", "job.retry"];
    assert_eq!(actions(&farm).await, expected.map(|action| (action.to_owned(), job())));
    for row in rows(&farm).await {
        assert_eq!((row.key.as_str(), row.peer.as_str()), (KEY, "192.0.2.7"), "{row:?}");
        assert_eq!(row.tenant, "studio", "{row:?}");
        assert!(!format!("{row:?}").contains(SECRET_PROMPT), "{row:?}");
    }
    farm.shutdown().await;
}

fn uuid() -> String {
    "0190a000-0000-7000-8000-000000000000".to_owned()
}

#[tokio::test]
async fn drained_workers_keys_and_tenants_are_noted_too() {
    let farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let (calls, admin, by) = (farm.handle.calls(), farm.handle.admin_calls(), caller());
    let mut listed = Vec::new();
    support::eventually("a worker is there", async || {
        let workers = calls.list_workers(&by, v1::ListWorkersRequest {}).await.expect("listed");
        listed = workers.workers;
        !listed.is_empty()
    })
    .await;
    let worker = listed[0].id.clone();
    let drain = v1::DrainWorkerRequest { worker: worker.clone(), ..Default::default() };
    // What changes nothing is not noted.
    for _ in 0..2 {
        calls.drain_worker(&by, drain.clone()).await.expect("drained");
    }
    let asked = v1::CreateKeyRequest {
        tenant: "studio".to_owned(),
        scopes: vec![v1::Scope::Read.into()],
        ..Default::default()
    };
    let made = admin.create_key(&by, asked).await.expect("made");
    let old = made.key.expect("a key").id;
    let rotate = v1::RotateKeyRequest { id: old.clone(), ..Default::default() };
    let new = admin.rotate_key(&by, rotate).await.expect("rotated").key.expect("a key").id;
    for _ in 0..2 {
        admin.revoke_key(&by, v1::RevokeKeyRequest { id: old.clone() }).await.expect("revoked");
    }
    let tenant = v1::SetTenantRequest {
        name: "studio".to_owned(),
        sharing: v1::Sharing::Sealed.into(),
        quotas: Some(v1::Quotas { workers: Some(3), ..Default::default() }),
        clear: Vec::new(),
    };
    let policy = v1::SetRetentionRequest {
        tenant: "studio".to_owned(),
        subject: v1::RetentionSubject::Jobs.into(),
        outcome: v1::JobState::Done.into(),
        seconds: 86_400,
    };
    for _ in 0..2 {
        admin.set_tenant(&by, tenant.clone()).await.expect("set");
        admin.set_retention(&by, policy.clone()).await.expect("set");
    }
    let expected = [
        ("worker.drain", worker),
        ("key.create", old.clone()),
        ("key.rotate", old.clone()),
        ("key.create", new),
        ("key.revoke", old),
        ("tenant.set", "studio".to_owned()),
        ("retention.set", "jobs of done jobs of tenant \"studio\"".to_owned()),
    ];
    let expected = expected.map(|(action, target)| (action.to_owned(), target));
    assert_eq!(actions(&farm).await, expected);
    let secret = made.secret.rsplit('_').next().expect("a secret");
    let all = rows(&farm).await;
    assert!(!format!("{all:?}").contains(secret), "{all:?}");
    // By tenant, key and time, in pages.
    let of = |tenant: &str, key: &str, page_size| v1::ListAuditRequest {
        tenant: tenant.to_owned(),
        key: key.to_owned(),
        page_size,
        ..Default::default()
    };
    let list = async |request| admin.list_audit(&by, request).await.expect("listed");
    assert_eq!(list(of("studio", KEY, 0)).await.entries.len(), 6);
    assert_eq!(list(of("", "other", 0)).await.entries.len(), 0);
    let page = list(of("studio", "", 2)).await;
    let next = v1::ListAuditRequest { page_token: page.next_page_token, ..of("studio", "", 9) };
    assert_eq!((page.entries.len(), list(next).await.entries.len()), (2, 4));
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test]
async fn what_is_retried_deleted_kept_and_cleaned_is_noted_too() {
    let mut farm = Farm::start().await;
    let (calls, admin, by) = (farm.handle.calls(), farm.handle.admin_calls(), caller());
    let id = submit(calls.as_ref(), "deleted").await;
    calls.cancel_job(&by, v1::CancelJobRequest { id: id.clone() }).await.expect("cancelled");
    farm.until_ended(&id).await;
    let retry = |dry_run| v1::RetryImagesRequest {
        job_id: id.clone(),
        filter: Some(v1::ImageFilter {
            states: vec![v1::ImageState::Cancelled.into()],
            ..Default::default()
        }),
        dry_run,
        ..Default::default()
    };
    calls.retry_images(&by, retry(true)).await.expect("counted");
    assert_eq!(calls.retry_images(&by, retry(false)).await.expect("retried").images, 2);
    calls
        .delete_job(&by, v1::DeleteJobRequest { id: id.clone(), cancel: false })
        .await
        .expect_err("it runs");
    let delete = v1::DeleteJobRequest { id: id.clone(), cancel: true };
    assert!(calls.delete_job(&by, delete.clone()).await.expect("deleted").deleted);
    assert!(!calls.delete_job(&by, delete).await.expect("done before").deleted);
    let policy = |tenant: &str, seconds| v1::SetRetentionRequest {
        tenant: tenant.to_owned(),
        subject: v1::RetentionSubject::Pictures.into(),
        outcome: v1::JobState::Done.into(),
        seconds,
    };
    admin.set_retention(&by, policy("studio", 1)).await.expect_err("far too short");
    admin.set_retention(&by, policy("studio", 30 * 86_400)).await.expect("set");
    admin.set_retention(&by, policy("", 90 * 86_400)).await.expect("set");
    let clean = |dry_run| v1::CleanFarmRequest { dry_run, ..Default::default() };
    admin.clean_farm(&by, clean(true)).await.expect("looked");
    admin.clean_farm(&by, clean(false)).await.expect("cleaned");

    let all = rows(&farm).await;
    let told: Vec<_> = all.iter().rev().map(|row| (&*row.action, &*row.tenant)).collect();
    let expected = [
        ("job.submit", "studio"),
        ("job.cancel", "studio"),
        ("images.retry", "studio"),
        ("job.delete", "studio"),
        ("retention.set", "studio"),
        ("retention.set", ""),
        ("farm.clean", ""),
    ];
    assert_eq!(told, expected);
    assert!(all.iter().all(|row| row.key == KEY && row.peer == "192.0.2.7"), "{all:?}");
    let of_job = all.iter().filter(|row| row.target == id).count();
    assert_eq!(of_job, 4, "{all:?}");
    for row in all.iter().filter(|row| row.action == "retention.set") {
        assert!(row.target.contains("pictures") && row.target.contains("done"), "{row:?}");
        assert_eq!(row.target.contains("studio"), row.tenant == "studio", "{row:?}");
    }
    assert!(!format!("{all:?}").contains(SECRET_PROMPT), "{all:?}");
    farm.shutdown().await;
}

/// Statements that would hide what was done.
const HIDES: [&str; 2] = ["UPDATE audit SET key = 'nobody'", "DELETE FROM audit WHERE id > 0"];

async fn with_a_row(store: &dyn Store) {
    let note = NewAudit {
        key: Some(KEY.to_owned()),
        tenant: None,
        action: "key.create",
        target: "one".to_owned(),
        peer: None,
    };
    store.add_audit(&note).await.expect("adds");
}

async fn has_the_row(store: &dyn Store) {
    let all = AuditQuery { tenant: None, key: None, since_ms: 0, before: i64::MAX, limit: 10 };
    let rows = store.list_audit(&all).await.expect("lists");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].key.as_deref(), Some(KEY));
}

#[tokio::test]
async fn no_statement_changes_or_removes_a_row_of_the_audit() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = support::database(folder.path());
    let store = SqliteStore::open(&file).await.expect("opens");
    with_a_row(&store).await;
    let options = SqliteConnectOptions::new().filename(&file);
    let mut sqlite = SqliteConnection::connect_with(&options).await.expect("connects");
    for statement in HIDES {
        let refused = sqlx::query(statement).execute(&mut sqlite).await.expect_err(statement);
        assert!(refused.to_string().contains("only added"), "{refused}");
    }
    has_the_row(&store).await;

    let server = Postgres::shared();
    let url = server.create_database();
    let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    with_a_row(&store).await;
    let mut postgres = PgConnection::connect(&url).await.expect("connects");
    for statement in HIDES.into_iter().chain(["TRUNCATE audit"]) {
        let refused = sqlx::query(statement).execute(&mut postgres).await.expect_err(statement);
        assert!(refused.to_string().contains("only added"), "{refused}");
    }
    has_the_row(&store).await;
}
