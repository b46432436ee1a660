//! The guards of the record on SQLite: those of its own statements, and the rules that both
//! backends use.
//!
//! SQLite has one writer, and a writing transaction has the lock from its start. So nobody can
//! change a row between another transaction's read and write. The guards against that have their
//! scenarios on Postgres.

use std::sync::Arc;

use darkroom_coordinator::store::sqlite::SqliteStore;
use darkroom_core::{digest::Digest, guard::Guard, job_state::JobState};
use darkroom_guards::red;
use darkroom_suites::store::{self, Bench, Fresh, STAGES, done};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

/// A bench on its own file.
struct Record {
    bench: Bench,
    folder: Arc<TempDir>,
}

impl Record {
    async fn fresh() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let store = SqliteStore::open(&folder.path().join("farm.sqlite")).await.expect("opens");
        let bench = Bench::new(Fresh::one(Arc::new(store), Arc::clone(&folder))).await;
        Self { bench, folder }
    }

    /// Runs a statement, like an administrator by hand.
    async fn sql(&self, sql: &'static str) {
        let file = self.folder.path().join("farm.sqlite");
        let mut hand = SqliteConnection::connect(&format!("sqlite:{}", file.display()))
            .await
            .expect("connects");
        sqlx::raw_sql(sql).execute(&mut hand).await.expect("runs");
    }
}

macro_rules! checks {
    ($($name:ident: $guard:ident, $reason:literal, $check:ident;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                red(Guard::$guard, $reason, || async {
                    store::$check(&Record::fresh().await.bench).await;
                })
                .await;
            }
        )+
    };
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
    a_worker_that_dies_charges_all_that_it_held:
        DeathAlone, "right: 0", a_dead_workers_task_becomes_suspect_and_dies_only_alone;
    a_paused_job_is_dispatched:
        ActiveOnly, "candidates", only_active_jobs_are_dispatched_and_only_in_this_term;
    a_leader_of_another_term_dispatches:
        TermChecked, "is_err", only_active_jobs_are_dispatched_and_only_in_this_term;
    a_request_id_with_other_content_gets_the_first_job:
        RequestIdContent, "Refused", a_repeated_request_returns_the_first_job_and_other_content_is_refused;
    a_submit_that_still_arrives_is_swept:
        IdleOnly, "right: 0", what_is_not_accepted_leaves_nothing;
    a_manifest_of_another_generation_is_recorded:
        ManifestGeneration, "manifest_written((job, 2)", a_manifest_belongs_to_its_generation;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_job_grows() {
    red(Guard::ReceivingOnly, "grows after it was accepted", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let (job, prompts) = (bench.job(None), bench.prompts(&["one", "two"], 1));
        bench.store.begin(&job).await.expect("begins");
        bench.store.receive(job.id, &prompts[..1]).await.expect("receives");
        bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
        let late = bench.store.receive(job.id, &prompts[1..]).await;
        assert!(late.is_err(), "it grows after it was accepted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_should_have_ended_waits_for_ever() {
    red(Guard::OverlookedSwept, "stays unfinished", || async {
        let record = Record::fresh().await;
        let bench = &record.bench;
        let job = bench.submit(&["one"], 1).await;
        bench.encode(job).await;
        for stage in STAGES {
            for task in bench.dispatch(stage, job, 9).await {
                bench.commit(stage, task.key, done(stage)).await;
            }
        }
        record.sql("UPDATE jobs SET state = 'active', manifest = NULL, finished_ms = NULL").await;
        let found = bench.store.finish_overlooked().await.expect("sweeps");
        assert_eq!(found, [job], "it stays unfinished");
        assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Done);
    })
    .await;
}
