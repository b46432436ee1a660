//! The guards of the record on Postgres. Each is a clause of a statement or a rule of the state
//! machine.
//!
//! If a lock also protects the row, the scenario uses a writer that does not take the lock, such as
//! an administrator or a coordinator of another version. It changes a row while the store waits for
//! it. The store's write must then fit the changed row.

use std::{collections::HashMap, sync::Arc, time::Duration};

use darkroom_coordinator::store::{
    Error, Store,
    farm_changes::{ChangePosition, ChangeQuery},
    leftovers::Left,
    postgres::{Options, PostgresStore},
    records::{Discard, Fate, Release},
    removal::Candidate,
};
use darkroom_core::{
    digest::Digest, guard::Guard, id::JobId, image_state::ImageState, job_state::JobState,
};
use darkroom_guards::red;
use darkroom_queue::task::{Outcome, TaskKey};
use darkroom_suites::store::{self, Bench, Fresh, STAGES, done};
use darkroom_test_servers::postgres::Postgres;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// How many sessions of the record's own database wait for a lock. Tests of other databases may run
/// on the server.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";

/// A bench on its own database.
struct Record {
    bench: Bench,
    server: Arc<Postgres>,
    database: String,
}

impl Record {
    async fn fresh() -> Self {
        let server = Postgres::shared();
        let url = server.create_database();
        let options = Options { connections: 8, ..Options::default() };
        let store = PostgresStore::connect(&url, options.clone()).await.expect("opens");
        let other = PostgresStore::connect(&url, options).await.expect("opens");
        let bench =
            Bench::new(Fresh::two(Arc::new(store), Arc::new(other), Arc::clone(&server))).await;
        let database = url.rsplit_once('/').expect("a database").1.to_owned();
        Self { bench, server, database }
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    /// Runs `statement` in a separate transaction, then `call`, and commits the statement when the
    /// call waits for it.
    async fn meanwhile<T>(&self, statement: &str, call: impl Future<Output = T>) -> T {
        let url = self.server.url_of(&self.database);
        let mut hand = PgConnection::connect(&url).await.expect("connects");
        for sql in ["BEGIN", statement] {
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut hand).await.expect("runs");
        }
        let release = async {
            while self.sql(WAITING) == "0" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sqlx::raw_sql("COMMIT").execute(&mut hand).await.expect("commits");
        };
        let both = async { tokio::join!(call, release).0 };
        tokio::time::timeout(Duration::from_secs(30), both)
            .await
            .expect("the call waits for the row")
    }

    /// A job whose only image is dispatched at `base`.
    async fn handed_out(&self) -> (JobId, TaskKey) {
        let job = self.bench.submit(&["one"], 1).await;
        self.bench.encode(job).await;
        (job, self.bench.dispatch("base", job, 1).await[0].key)
    }

    async fn ended(&self) -> JobId {
        let job = self.bench.submit(&["one"], 1).await;
        self.bench.encode(job).await;
        for stage in STAGES {
            for task in self.bench.dispatch(stage, job, 9).await {
                assert_eq!(self.bench.commit(stage, task.key, done(stage)).await, Fate::Applied);
            }
        }
        job
    }

    async fn state(&self, job: JobId) -> JobState {
        self.bench.store.job(job).await.expect("there").state
    }
}

macro_rules! checks {
    ($($name:ident: $guard:ident, $reason:literal, $check:ident;)+) => {
        $(async fn $name() {
            red(Guard::$guard, $reason, || async {
                store::$check(&Record::fresh().await.bench).await;
            })
            .await;
        })+
    };
}

/// One test for all, because where no server is shared each would start its own.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_guard_the_record_goes_wrong() {
    let _server = Postgres::shared();
    a_result_of_another_generation_commits().await;
    a_result_of_another_stage_commits().await;
    a_failure_of_another_dispatch_commits().await;
    a_cancelled_job_takes_results().await;
    a_sweep_takes_back_what_was_handed_out_again().await;
    a_worker_that_dies_charges_all_that_it_held().await;
    a_paused_job_is_dispatched().await;
    a_leader_of_another_term_dispatches().await;
    a_text_is_encoded_twice().await;
    a_request_id_with_other_content_gets_the_first_job().await;
    a_submit_that_still_arrives_is_swept().await;
    a_manifest_of_another_generation_is_recorded().await;
    a_finished_image_changes_again().await;
    a_failure_in_company_kills_an_innocent_image().await;
    an_interruption_is_charged().await;
    an_image_that_changed_meanwhile_is_overwritten().await;
    a_row_that_did_not_change_is_counted().await;
    a_command_overwrites_the_state_that_a_job_has_by_now().await;
    a_cancelled_job_ends_as_done().await;
    a_job_that_should_have_ended_waits_for_ever().await;
    a_submit_that_was_repeated_makes_two_jobs().await;
    an_accepted_job_grows().await;
    an_accepted_job_is_lost_with_the_servers_memory().await;
    two_lead_at_once().await;
    two_write_one_manifest().await;
    a_change_that_still_counts_is_forgotten().await;
    a_job_is_remembered_before_all_its_settings_have_come().await;
    a_command_of_before_a_retry_hits_what_the_retry_runs().await;
    a_job_ends_before_its_images_are_retried().await;
    a_picture_is_lost_once_more_after_it_was_rendered_again().await;
    attempts_of_an_image_pile_up().await;
    a_reader_of_all_jobs_skips_what_commits_late().await;
    what_a_row_names_is_removed().await;
    a_result_names_what_was_removed().await;
    a_removed_key_is_forgotten_while_it_may_still_be_stored().await;
    an_object_is_marked_while_a_result_begins_to_name_it().await;
    a_text_is_forgotten_while_a_submit_begins_to_need_it().await;
    what_a_retried_job_needs_is_removed().await;
    an_old_leader_removes().await;
    a_slow_runner_records_a_step_of_anothers_batch().await;
    a_step_overwrites_the_state_that_a_batch_has_by_now().await;
    two_runners_take_one_batch().await;
    a_file_that_a_batch_reads_is_deleted().await;
}

checks! {
    a_result_of_another_generation_commits:
        CommitGeneration, "StaleGeneration", results_that_do_not_fit_are_discarded_by_reason;
    a_result_of_another_stage_commits:
        CommitStage, "OtherStage", results_that_do_not_fit_are_discarded_by_reason;
    a_failure_of_another_dispatch_commits:
        DispatchMatches, "StaleDispatch", results_that_do_not_fit_are_discarded_by_reason;
    a_cancelled_job_takes_results:
        JobLive, "JobNotLive", results_that_do_not_fit_are_discarded_by_reason;
    a_sweep_takes_back_what_was_handed_out_again:
        DispatchMatches, "right: 0", a_release_names_its_dispatch;
    a_worker_that_dies_charges_all_that_it_held:
        DeathAlone, "right: 0", a_dead_workers_task_becomes_suspect_and_dies_only_alone;
    a_paused_job_is_dispatched:
        ActiveOnly, "candidates", only_active_jobs_are_dispatched_and_only_in_this_term;
    a_leader_of_another_term_dispatches:
        TermChecked, "is_err", only_active_jobs_are_dispatched_and_only_in_this_term;
    a_text_is_encoded_twice:
        TextOnce, "is_empty", a_text_is_dispatched_once_for_all_jobs_and_images;
    a_request_id_with_other_content_gets_the_first_job:
        RequestIdContent, "Refused", a_repeated_request_returns_the_first_job_and_other_content_is_refused;
    a_submit_that_still_arrives_is_swept:
        IdleOnly, "right: 0", what_is_not_accepted_leaves_nothing;
    a_change_that_still_counts_is_forgotten:
        PruneStale, "each image with its last change", of_an_ended_job_only_changes_that_are_stale_are_forgotten;
    a_manifest_of_another_generation_is_recorded:
        ManifestGeneration, "manifest_written((job, 2)", a_manifest_belongs_to_its_generation;
    a_job_is_remembered_before_all_its_settings_have_come:
        PlanWhole, "settings 4 of a prompt", chunks_at_once_that_bring_the_same_settings_share_them;
    a_command_of_before_a_retry_hits_what_the_retry_runs:
        CommandGeneration, "right: [Ready, Ready, Ready, Ready, Ready, Ready]", a_jobs_own_command_goes_before_those_to_its_images;
    a_job_ends_before_its_images_are_retried:
        EndAfterCommands, "ended before its image was retried", a_job_waits_for_the_commands_to_its_images;
    a_picture_is_lost_once_more_after_it_was_rendered_again:
        LostGeneration, "its picture is there again", a_picture_that_was_rendered_again_is_not_lost_a_second_time;
    attempts_of_an_image_pile_up:
        AttemptsBounded, "more attempts than are kept", an_image_keeps_its_latest_twenty_attempts;
    what_a_row_names_is_removed:
        ReferencedStays, "what another job names is marked", what_another_job_names_stays_until_that_is_deleted_too;
    a_result_names_what_was_removed:
        LeavingRefused, "a row names what is removed", a_result_that_names_an_object_on_its_way_out_is_returned;
    a_removed_key_is_forgotten_while_it_may_still_be_stored:
        TombstoneStays, "forgotten too soon", an_object_is_deleted_twice_and_remembered_until_nobody_can_store_it;
    a_slow_runner_records_a_step_of_anothers_batch:
        BatchHolder, "it has it no more", a_runner_that_has_lost_its_batch_records_nothing;
    a_step_overwrites_the_state_that_a_batch_has_by_now:
        BatchExpected, "it was cancelled", a_step_after_a_cancel_records_nothing_and_gives_the_batch_back;
    two_runners_take_one_batch:
        BatchLease, "another has it", a_runner_that_has_lost_its_batch_records_nothing;
    a_file_that_a_batch_reads_is_deleted:
        FileRead, "it must be refused", a_file_stays_while_an_open_batch_reads_it;
}

/// A commit has looked whether its objects are on their way out, and waits for its job. An object
/// of it is marked meanwhile.
async fn an_object_is_marked_while_a_result_begins_to_name_it() {
    red(Guard::MarkAlone, "marked although a row names it", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let (job, key) = record.handed_out().await;
        let object = Candidate::output("tasks/base".to_owned());
        bench.store.suspect(bench.term, 0, &[object]).await.expect("takes it");
        let mut hand =
            PgConnection::connect(&record.server.url_of(&record.database)).await.expect("connects");
        for sql in ["BEGIN", "SELECT FROM job_progress FOR UPDATE"] {
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut hand).await.expect("runs");
        }
        let marking = async {
            while record.sql(WAITING) == "0" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let marked = bench.other.mark(bench.term, 0, 9).await.expect("answers");
            sqlx::raw_sql("COMMIT").execute(&mut hand).await.expect("commits");
            marked.map_or(0, |marked| marked.marked)
        };
        let (fate, marked) = tokio::join!(bench.commit("base", key, done("base")), marking);
        assert_eq!(fate, Fate::Applied);
        let named = bench.store.image(job, 0).await.expect("there").outputs.len();
        assert_eq!((named, marked), (1, 0), "marked although a row names it");
        let later = bench.store.mark(bench.term, 0, 9).await.expect("answers").expect("not busy");
        assert_eq!((later.marked, later.needed), (0, 1));
    })
    .await;
}

async fn a_text_is_forgotten_while_a_submit_begins_to_need_it() {
    red(Guard::MarkAlone, "a job lacks its text", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let job = record.ended().await;
        assert!(bench.store.delete_job(job, "key k", false).await.expect("deletes"));
        while bench.store.clear_deleted(bench.term, i64::MAX / 2, 9).await.expect("clears").more {}
        // A submit of the same text stops before it is through.
        let mut hand =
            PgConnection::connect(&record.server.url_of(&record.database)).await.expect("connects");
        for sql in ["BEGIN", "LOCK TABLE images IN SHARE MODE"] {
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut hand).await.expect("runs");
        }
        let forgetting = async {
            while record.sql(WAITING) == "0" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let now = i64::MAX / 2;
            let mut forgotten = bench.other.forget_texts(bench.term, (now, now), 9);
            // Without the guard it waits for a row of the submit, which waits for the hand.
            let early = tokio::time::timeout(Duration::from_secs(2), &mut forgotten).await;
            sqlx::raw_sql("COMMIT").execute(&mut hand).await.expect("commits");
            match early {
                Ok(answer) => answer.expect("answers"),
                Err(_) => forgotten.await.expect("answers"),
            }
        };
        let (_, forgotten) = tokio::join!(bench.submit(&["one"], 1), forgetting);
        let lacking = record.sql(
            "SELECT count(*) FROM job_texts AS t
             WHERE NOT EXISTS (SELECT FROM embeddings AS e WHERE e.id = t.embedding)",
        );
        assert_eq!(lacking.trim(), "0", "a job lacks its text");
        assert_eq!(forgotten, None);
    })
    .await;
}

async fn what_a_retried_job_needs_is_removed() {
    red(Guard::RetryKeeps, "is removed from a job that was retried", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let job = record.ended().await;
        // A retry is under way that was begun by hand: it has the job's lock.
        let retry = "SELECT FROM job_progress FOR UPDATE; UPDATE jobs SET state = 'active'";
        let left = (job, Left::Intermediates);
        let take = bench.store.take(bench.term, left, &[(0, 0)], "a test");
        let taken = record.meanwhile(retry, take).await.expect("answers");
        assert_eq!(taken, 0, "what it needs is removed from a job that was retried");
    })
    .await;
}

async fn an_old_leader_removes() {
    red(Guard::TermChecked, "an old leader removes", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let object = Candidate::output("tasks/a".to_owned());
        bench.store.suspect(bench.term, 0, &[object]).await.expect("takes it");
        record.sql("UPDATE leadership SET term = term + 1, holder = 'another'");
        let marked = bench.store.mark(bench.term, 0, 9).await;
        assert!(matches!(marked, Err(Error::NotLeading(_))), "an old leader removes: {marked:?}");
        let leaving = bench.store.leaving(bench.term, 0, 9).await;
        assert!(matches!(leaving, Err(Error::NotLeading(_))), "an old leader removes: {leaving:?}");
    })
    .await;
}

async fn a_finished_image_changes_again() {
    red(Guard::TerminalStays, "a finished image fails", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let job = bench.submit(&["one", "two"], 1).await;
        bench.encode(job).await;
        let mut last = None;
        for stage in STAGES {
            last = bench.dispatch(stage, job, 1).await.pop();
            let key = last.as_ref().expect("a task").key;
            assert_eq!(bench.commit(stage, key, done(stage)).await, Fate::Applied);
        }
        // The job continues with its other image. The first image's result comes a second time.
        let again = bench.commit("sr256", last.expect("a task").key, done("other bytes")).await;
        assert_eq!(
            again,
            Fate::Discarded(Discard::ImageTerminal),
            "a finished image fails or is replaced"
        );
    })
    .await;
}

async fn a_failure_in_company_kills_an_innocent_image() {
    red(Guard::AloneCounts, "charged for its neighbour", || async {
        let record = Record::fresh().await;
        let (job, key) = record.handed_out().await;
        let failed = Outcome::Failed { code: "code".into(), message: "message".to_owned() };
        let report = Bench::report(key, failed, false);
        record.bench.store.commit(&record.bench.pool("base"), &[report]).await.expect("commits");
        let image = record.bench.store.image(job, 0).await.expect("there");
        assert_eq!(image.progress.failures, 0, "charged for its neighbour");
    })
    .await;
}

async fn an_interruption_is_charged() {
    red(Guard::InterruptionIsFree, "an interruption cost a failure", || async {
        let record = Record::fresh().await;
        let (job, key) = record.handed_out().await;
        let interrupted = Outcome::Interrupted { reason: "drained".to_owned() };
        assert_eq!(record.bench.commit("base", key, interrupted).await, Fate::Applied);
        let image = record.bench.store.image(job, 0).await.expect("there");
        assert_eq!(image.progress.failures, 0, "an interruption cost a failure");
    })
    .await;
}

async fn an_image_that_changed_meanwhile_is_overwritten() {
    red(Guard::ImageExpected, "was overwritten", || async {
        let record = Record::fresh().await;
        let job = record.bench.submit(&["one"], 2).await;
        record.bench.encode(job).await;
        let hand = "UPDATE images SET state = 'cancelled' WHERE idx = 0";
        record.meanwhile(hand, record.bench.dispatch("base", job, 2)).await;
        let states = record.bench.states(job).await;
        assert_eq!(states, [ImageState::Cancelled, ImageState::Dispatched], "was overwritten");
    })
    .await;
}

async fn a_row_that_did_not_change_is_counted() {
    red(Guard::CountersFromRows, "counted", || async {
        let record = Record::fresh().await;
        let job = record.bench.submit(&["one"], 2).await;
        record.bench.encode(job).await;
        let hand = "UPDATE images SET state = 'cancelled' WHERE idx = 0";
        record.meanwhile(hand, record.bench.dispatch("base", job, 2)).await;
        let dispatched = record.bench.store.job(job).await.expect("there").stages[1].dispatched;
        assert_eq!(dispatched, 1, "one row became dispatched; counted were others");
    })
    .await;
}

async fn a_command_overwrites_the_state_that_a_job_has_by_now() {
    red(Guard::JobExpected, "a job that was done", || async {
        let record = Record::fresh().await;
        let hand = "UPDATE jobs SET state = 'done'";
        for command in ["cancel", "pause"] {
            let job = record.bench.submit(&["one"], 1).await;
            let store = &record.bench.store;
            let commanded = async {
                if command == "cancel" { store.cancel(job).await } else { store.pause(job).await }
            };
            record.meanwhile(hand, commanded).await.expect("answers");
            assert_eq!(record.state(job).await, JobState::Done, "{command} of a job that was done");
        }
    })
    .await;
}

async fn a_cancelled_job_ends_as_done() {
    red(Guard::EndExpected, "was cancelled", || async {
        let record = Record::fresh().await;
        let (job, key) = record.handed_out().await;
        record.bench.commit("base", key, done("base")).await;
        let last = record.bench.dispatch("sr256", job, 1).await[0].key;
        let hand = "UPDATE jobs SET state = 'cancelled'";
        record.meanwhile(hand, record.bench.commit("sr256", last, done("sr256"))).await;
        assert_eq!(record.state(job).await, JobState::Cancelled, "it was cancelled");
    })
    .await;
}

async fn a_job_that_should_have_ended_waits_for_ever() {
    red(Guard::OverlookedSwept, "stays unfinished", || async {
        let record = Record::fresh().await;
        let job = record.ended().await;
        record.sql("UPDATE jobs SET state = 'active', manifest = NULL, finished_at = NULL");
        let found = record.bench.store.finish_overlooked().await.expect("sweeps");
        assert_eq!(found, [job], "it stays unfinished");
        assert_eq!(record.state(job).await, JobState::Done);
    })
    .await;
}

async fn a_submit_that_was_repeated_makes_two_jobs() {
    red(Guard::RequestIdOnce, "a second job", || async {
        let record = Record::fresh().await;
        // The schema checks this too; either check is enough.
        record.sql("DROP INDEX jobs_by_request");
        let bench = &record.bench;
        let (prompts, content) = (bench.prompts(&["one"], 1), Digest::of(b"content"));
        bench.store.submit(&bench.job(Some("r")), &prompts, content).await.expect("accepted");
        let again =
            bench.other.submit(&bench.job(Some("r")), &prompts, content).await.expect("accepted");
        assert!(again.existed, "a second job");
    })
    .await;
}

async fn an_accepted_job_grows() {
    red(Guard::ReceivingOnly, "grows after it was accepted", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let (job, prompts) = (bench.job(None), bench.prompts(&["one", "two"], 1));
        bench.store.begin(&job).await.expect("begins");
        bench.store.receive(job.id, &prompts[..1]).await.expect("receives");
        bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
        let late = bench.other.receive(job.id, &prompts[1..]).await;
        assert!(late.is_err(), "it grows after it was accepted");
    })
    .await;
}

async fn an_accepted_job_is_lost_with_the_servers_memory() {
    red(Guard::AcceptDurable, "an accepted job is gone", || async {
        // Nothing is written before it is awaited.
        let settings = ["wal_writer_delay=10s", "wal_writer_flush_after=1GB"];
        let mut server = Postgres::start_with(&settings);
        let store = PostgresStore::connect(&server.url(), Options::default()).await.expect("opens");
        let store: Arc<dyn Store> = Arc::new(store);
        let bench = Bench::new(Fresh::one(Arc::clone(&store), ())).await;
        // The server may write once by itself meanwhile, but it does not write after each commit.
        let mut jobs = Vec::new();
        for _ in 0..20 {
            jobs.push(bench.submit(&["one"], 1).await);
        }
        server.kill();
        server.restart();
        for job in jobs {
            let mut found = store.job(job).await;
            while matches!(&found, Err(error) if error.retryable()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                found = store.job(job).await;
            }
            assert!(found.is_ok(), "an accepted job is gone");
        }
    })
    .await;
}

async fn two_lead_at_once() {
    red(Guard::LeadExpires, "two lead", || async {
        let record = Record::fresh().await;
        assert_eq!(record.bench.other.lead("another").await.expect("asks"), None, "two lead");
        let pool = record.bench.pool("base");
        let mine =
            record.bench.store.release(record.bench.term, &pool, &[], &Release::Returned).await;
        mine.expect("the first one leads");
    })
    .await;
}

async fn two_write_one_manifest() {
    red(Guard::ManifestClaim, "a second one writes it too", || async {
        let record = Record::fresh().await;
        let job = record.ended().await;
        let mine = record.bench.store.pending_manifests(9).await.expect("claims");
        assert_eq!(mine, [(job, 1)]);
        let others = record.bench.other.pending_manifests(9).await.expect("claims");
        assert_eq!(others, [], "a second one writes it too");
    })
    .await;
}

async fn a_reader_of_all_jobs_skips_what_commits_late() {
    red(Guard::ChangesSettled, "was skipped", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let (slow, quick) = (bench.submit(&["one"], 1).await, bench.submit(&["two"], 1).await);
        let slow = bench.store.job(slow).await.expect("there");
        let url = record.server.url_of(&record.database);
        let mut hand = PgConnection::connect(&url).await.expect("connects");
        let change = format!(
            "BEGIN; UPDATE job_progress SET version = version + 1 WHERE job = {}",
            slow.seq
        );
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut hand).await.expect("changes");
        // A transaction that begins later commits first, and a reader reads up to it.
        bench.store.pause(quick).await.expect("is not held up");
        let read = bench.store.change_bounds().await.expect("asks");
        sqlx::raw_sql("COMMIT").execute(&mut hand).await.expect("commits");
        let next = bench.store.change_bounds().await.expect("asks").next;
        let from = ChangePosition::before(read.settled);
        let query = ChangeQuery { tenant: None, from, next, limit: 100, known: &HashMap::new() };
        let told = bench.store.changed_jobs(query).await.expect("reads").jobs;
        let is_told = told.iter().any(|one| one.job.id == slow.id);
        assert!(is_told, "the change that took its time was skipped");
    })
    .await;
}
