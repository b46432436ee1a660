//! Answers when a change was committed, or may have been: an accepted change is never refused.

use std::{sync::Arc, time::Duration};

use darkroom_coordinator::{
    Options,
    store::postgres::{self, PostgresStore},
};
use darkroom_proto::{
    status::from_status,
    v1::{self, submit_job_chunk::Part},
};
use darkroom_test_servers::{
    postgres::Postgres,
    proxy::{Cut, Proxy},
};
use sqlx::{AssertSqlSafe, Connection as _};
use tonic::{Code, Status};

use crate::support::{Farm, database, options, prompts, spec};

const COMMIT: &[u8] = b"COMMIT";

/// A farm whose calls reach Postgres through a proxy, while its own work does not.
async fn farm(server: &Postgres) -> (Farm, Proxy) {
    let url = server.create_database();
    let proxy = Proxy::start(server.port());
    let proxied = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let options = postgres::Options {
        connections: 4,
        acquire: Duration::from_secs(2),
        settle: Duration::from_millis(700),
        ask_after: Duration::ZERO,
        ..postgres::Options::default()
    };
    let store = PostgresStore::connect(&url, options.clone()).await.expect("opens");
    let front = PostgresStore::connect(&proxied, options).await.expect("opens");
    (Farm::fronted(crate::support::options(), Arc::new(store), Arc::new(front)).await, proxy)
}

fn request(id: &str) -> v1::SubmitJobRequest {
    let spec = v1::JobSpec { client_request_id: id.to_owned(), ..spec() };
    v1::SubmitJobRequest { spec: Some(spec), prompts: prompts(2) }
}

async fn stream(farm: &mut Farm, id: &str) -> Result<v1::SubmitJobResponse, Status> {
    let spec = v1::JobSpec { client_request_id: id.to_owned(), ..spec() };
    let parts = [Part::Spec(spec), Part::Prompts(v1::PromptChunk { prompts: prompts(2) })];
    let chunks = parts.map(|part| v1::SubmitJobChunk { part: Some(part) });
    Ok(farm.client.submit_job_stream(tokio_stream::iter(chunks)).await?.into_inner())
}

async fn submit(farm: &mut Farm, id: &str) -> Result<v1::SubmitJobResponse, Status> {
    Ok(farm.client.submit_job(request(id)).await?.into_inner())
}

async fn jobs(farm: &mut Farm) -> Vec<v1::Job> {
    farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("lists").into_inner().jobs
}

/// A change of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Command {
    Pause,
    Resume,
    Cancel,
    Retry,
}

async fn command(farm: &mut Farm, id: &str, command: Command) -> Result<v1::Job, Status> {
    let id = id.to_owned();
    let answer = match command {
        Command::Pause => farm.client.pause_job(v1::PauseJobRequest { id }).await,
        Command::Resume => farm.client.resume_job(v1::ResumeJobRequest { id }).await,
        Command::Cancel => farm.client.cancel_job(v1::CancelJobRequest { id }).await,
        Command::Retry => {
            farm.client.retry_job(v1::RetryJobRequest { id, ..Default::default() }).await
        }
    };
    Ok(answer?.into_inner())
}

const COMMANDS: [(Command, v1::JobState); 4] = [
    (Command::Pause, v1::JobState::Paused),
    (Command::Resume, v1::JobState::Active),
    (Command::Cancel, v1::JobState::Cancelled),
    (Command::Retry, v1::JobState::Active),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found_out() {
    let server = Postgres::shared();
    let (mut farm, proxy) = farm(&server).await;
    proxy.cut_once(COMMIT, Cut::Answer);
    let job = submit(&mut farm, "").await.expect("accepted").job.expect("a job");
    assert_eq!(jobs(&mut farm).await.len(), 1);
    for (change, state) in COMMANDS {
        proxy.cut_once(COMMIT, Cut::Answer);
        let changed = command(&mut farm, &job.id, change)
            .await
            .unwrap_or_else(|error| panic!("{change:?}: {error}"));
        assert_eq!(changed.state(), state, "{change:?}");
    }
    // The first two commits of a stream are before the job is accepted.
    let streamed = stream(&mut farm, "streamed").await.expect("accepted");
    proxy.cut_once(COMMIT, Cut::Request);
    assert_eq!(stream(&mut farm, "").await.expect_err("cut").code(), Code::Unavailable);
    assert!(!streamed.existed);
    assert_eq!(jobs(&mut farm).await.len(), 2);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_refused_and_nothing_is_changed() {
    let server = Postgres::shared();
    let (mut farm, proxy) = farm(&server).await;
    proxy.cut_once(COMMIT, Cut::Request);
    let refused = submit(&mut farm, "").await.expect_err("not accepted");
    let error = from_status(&refused);
    assert_eq!(
        (refused.code(), error.reason.as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE"),
        "{refused}"
    );
    assert!(jobs(&mut farm).await.is_empty());
    let job = submit(&mut farm, "").await.expect("accepted").job.expect("a job");
    for (change, _) in &COMMANDS[..3] {
        if *change == Command::Resume {
            command(&mut farm, &job.id, Command::Pause).await.expect("paused");
        }
        let before = farm.get(&job.id).await.state();
        proxy.cut_once(COMMIT, Cut::Request);
        let refused = command(&mut farm, &job.id, *change).await.expect_err("not done");
        assert_eq!(refused.code(), Code::Unavailable, "{change:?}");
        assert_eq!(farm.get(&job.id).await.state(), before, "{change:?}");
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_found_out_is_told_as_unknown_with_what_to_do() {
    let server = Postgres::shared();
    let (mut farm, proxy) = farm(&server).await;
    proxy.cut_once(COMMIT, Cut::AnswerAndAll);
    let unknown = submit(&mut farm, "mine").await.expect_err("unknown");
    let error = from_status(&unknown);
    assert_eq!(
        (unknown.code(), error.reason.as_str()),
        (Code::Unavailable, "OUTCOME_UNKNOWN"),
        "{unknown}"
    );
    assert!(
        error.message.contains("submit it again with the same client_request_id (\"mine\")"),
        "{error}"
    );
    proxy.heal();
    let repeated = submit(&mut farm, "mine").await.expect("accepted");
    assert!(repeated.existed, "it had been");
    // Without a request id, the error names the job's id.
    proxy.cut_once(COMMIT, Cut::AnswerAndAll);
    let unknown = submit(&mut farm, "").await.expect_err("unknown");
    let error = from_status(&unknown);
    assert_eq!(
        (unknown.code(), error.reason.as_str()),
        (Code::Unknown, "OUTCOME_UNKNOWN"),
        "{unknown}"
    );
    proxy.heal();
    let id = error
        .message
        .split("it is job ")
        .nth(1)
        .and_then(|rest| rest.split(':').next())
        .expect("a job");
    assert_eq!(farm.get(id).await.images, 2);
    assert_eq!(jobs(&mut farm).await.len(), 2);
    let id = id.to_owned();
    for (change, state) in COMMANDS {
        proxy.cut_once(COMMIT, Cut::AnswerAndAll);
        let unknown = command(&mut farm, &id, change).await.expect_err("unknown");
        proxy.heal();
        let error = from_status(&unknown);
        assert_eq!(error.reason, "OUTCOME_UNKNOWN", "{change:?}: {unknown}");
        let (code, advice) = match change {
            Command::Retry => (Code::Unknown, "`darkroom status"),
            _ => (Code::Unavailable, "repeat it"),
        };
        assert!(unknown.code() == code && error.message.contains(advice), "{change:?}: {unknown}");
        assert_eq!(farm.get(&id).await.state(), state, "{change:?}");
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_after_the_commit_does_not_refuse_it() {
    let mut farm = Farm::start().await;
    let url = format!("sqlite:{}", database(farm.folder.path()).to_str().expect("UTF-8"));
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("connects");
    // The notes are read only for the answer.
    let spoil = "CREATE TRIGGER spoil AFTER INSERT ON jobs BEGIN
                     INSERT INTO text_notes (job, embedding, role, ord, first_index, images, note)
                     VALUES (NEW.seq, -1, 0, 0, 0, 0, x'ff');
                 END";
    sqlx::raw_sql(spoil).execute(&mut connection).await.expect("spoils every job's notes");
    let job = submit(&mut farm, "").await.expect("accepted").job.expect("a job");
    assert_eq!(job.images, 2);
    let streamed = stream(&mut farm, "one").await.expect("accepted");
    assert!(!streamed.existed);
    assert!(stream(&mut farm, "one").await.expect("accepted").existed);
    for (change, state) in COMMANDS {
        let changed = command(&mut farm, &job.id, change)
            .await
            .unwrap_or_else(|error| panic!("{change:?}: {error}"));
        assert_eq!(changed.state(), state, "{change:?}");
    }
    assert_eq!(jobs(&mut farm).await.len(), 2);
    connection.close().await.expect("closes");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_out_of_time_does_not_claim_that_nothing_was_changed() {
    let limit = Duration::from_millis(300);
    let mut farm = Farm::start_with(Options { call: limit, submit: limit, ..options() }).await;
    let job = submit(&mut farm, "").await.expect("accepted").job.expect("a job");
    let url = format!("sqlite:{}", database(farm.folder.path()).to_str().expect("UTF-8"));
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("connects");
    sqlx::raw_sql(AssertSqlSafe("BEGIN IMMEDIATE")).execute(&mut connection).await.expect("locks");
    for (late, said) in [
        (submit(&mut farm, "mine").await.map(drop), "client_request_id (\"mine\")"),
        (submit(&mut farm, "").await.map(drop), "darkroom status"),
        (command(&mut farm, &job.id, Command::Cancel).await.map(drop), "repeat it"),
        (command(&mut farm, &job.id, Command::Retry).await.map(drop), "darkroom status"),
    ] {
        let error = from_status(&late.expect_err("locked"));
        assert_eq!(error.reason, "OUTCOME_UNKNOWN", "{error}");
        assert!(
            error.message.contains(said) && !error.message.contains("nothing was changed"),
            "{error}"
        );
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.expect("unlocks");
    connection.close().await.expect("closes");
    farm.shutdown().await;
}
