//! The suite that every store passes: what the trait promises, and a random walk after each step of which counters
//! equal rows.
//!
//! A backend runs it with [`store_conformance_tests!`](crate::store_conformance_tests), each check as a test of its
//! own on a fresh, empty store ([`Fresh`]).

mod agreed;
mod bench;
mod conduct;
mod forecast;
mod inputs;
mod labels;
mod limits;
mod walk;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use darkroom_core::{
    digest::Digest, fair_share::Pick, id::JobId, image_state::ImageState, job_state::JobState,
    retry::MOST_SPARED,
};
use darkroom_queue::task::{Outcome, TaskKey};
use uuid::Uuid;

use super::{
    Error,
    limits::NewDeadline,
    records::{Death, Dispatched, Fate, ImageOrder, ImageQuery, Onward, Release, Report, Term, Work},
};

pub use agreed::{
    a_wish_to_drain_is_remembered, of_an_ended_job_only_changes_that_are_stale_are_forgotten,
    the_first_one_says_how_long_a_lease_lasts,
};
use bench::failed;
pub use bench::{Bench, Fresh, STAGES, done};
pub use conduct::{
    a_worker_that_fails_at_what_others_do_is_blamed, an_image_that_fails_everywhere_blames_nobody,
    who_is_set_aside_is_so_for_a_time_and_longer_the_next_time,
};
pub use forecast::{
    how_fast_a_class_of_device_was_is_known_to_every_process,
    the_first_forecast_is_kept_and_what_the_job_took_beside_it,
};
pub use inputs::{
    a_picture_that_was_sent_is_known_by_its_hash, a_style_is_waited_for_and_handed_out_with_the_pictures,
    a_style_that_is_given_up_ends_its_images_and_no_others, a_style_that_is_lost_is_wanted_again,
};
pub use labels::{
    a_custom_id_is_taken_once_in_a_job, a_note_counts_the_images_of_all_chunks,
    a_note_names_its_first_image_its_line_and_how_many_others,
    of_two_chunks_at_once_with_the_same_custom_ids_one_is_refused,
    what_a_client_calls_its_prompts_is_told_in_every_listing,
};
pub use limits::{
    a_deadline_that_passed_is_replaced_or_dropped_by_a_retry,
    a_deadline_that_passes_ends_its_job_and_keeps_what_is_done,
    a_job_with_too_many_failures_ends_and_a_retry_runs_the_rest,
    a_limit_on_workers_is_told_with_what_is_in_flight, only_who_leads_ends_overdue_jobs,
};
pub use walk::{
    whatever_happens_counters_equal_rows_and_every_job_ends,
    whatever_two_do_at_once_counters_equal_rows_and_every_job_ends,
};

/// Runs every check as a test: `store_conformance_tests!(#[tokio::test], store_expression)`.
#[macro_export]
macro_rules! store_conformance_tests {
    ($(#[$attribute:meta])+, $store:expr) => {
        $crate::store_conformance_tests!(@ [$(#[$attribute])+], $store,
            a_submitted_job_is_read_back_as_it_was
            a_repeated_request_returns_the_first_job_and_other_content_is_refused
            chunks_are_invisible_until_they_are_accepted
            what_is_not_accepted_leaves_nothing
            a_text_is_dispatched_once_for_all_jobs_and_images
            a_job_whose_texts_are_all_handed_out_is_no_candidate
            what_is_handed_on_is_dispatched_within_its_leave_and_in_this_term
            only_active_jobs_are_dispatched_and_only_in_this_term
            a_view_says_of_dispatched_texts_what_the_job_does
            the_last_image_ends_its_job_in_the_same_transaction
            results_that_do_not_fit_are_discarded_by_reason
            two_results_of_one_image_in_a_bulk_count_once
            a_release_names_its_dispatch
            a_limit_of_deaths_ends_an_image_sooner
            deaths_with_a_host_count_from_the_eleventh_on
            a_texts_deaths_with_a_host_are_spared_too
            a_dead_workers_task_becomes_suspect_and_dies_only_alone
            a_lost_embedding_is_wanted_again_before_more_is_dispatched
            a_cancel_is_one_update_and_rows_follow_in_chunks
            a_retry_makes_a_new_generation_of_what_failed_only
            a_retried_job_does_not_end_while_rows_follow
            a_manifest_belongs_to_its_generation
            a_manifest_is_claimed_by_one_process
            a_flood_of_ended_jobs_does_not_hold_up_another_tenants_manifest
            a_job_keeps_a_hundred_notes_whatever_other_jobs_keep
            what_is_ahead_of_a_job_is_what_runs_and_what_is_more_urgent
            changes_after_a_version_are_complete
            whatever_happens_counters_equal_rows_and_every_job_ends
            one_report_committed_by_two_at_once_counts_once
            two_submits_of_one_request_at_once_make_one_job
            a_text_that_is_encoded_while_its_prompts_arrive_is_told_to_all_of_them
            whatever_two_do_at_once_counters_equal_rows_and_every_job_ends
            a_deadline_that_passes_ends_its_job_and_keeps_what_is_done
            a_deadline_that_passed_is_replaced_or_dropped_by_a_retry
            a_job_with_too_many_failures_ends_and_a_retry_runs_the_rest
            a_limit_on_workers_is_told_with_what_is_in_flight
            only_who_leads_ends_overdue_jobs
            a_worker_that_fails_at_what_others_do_is_blamed
            an_image_that_fails_everywhere_blames_nobody
            who_is_set_aside_is_so_for_a_time_and_longer_the_next_time
            the_first_one_says_how_long_a_lease_lasts
            a_wish_to_drain_is_remembered
            of_an_ended_job_only_changes_that_are_stale_are_forgotten
            the_first_forecast_is_kept_and_what_the_job_took_beside_it
            how_fast_a_class_of_device_was_is_known_to_every_process
            a_picture_that_was_sent_is_known_by_its_hash
            a_style_is_waited_for_and_handed_out_with_the_pictures
            a_style_that_is_lost_is_wanted_again
            a_style_that_is_given_up_ends_its_images_and_no_others
            what_a_client_calls_its_prompts_is_told_in_every_listing
            a_custom_id_is_taken_once_in_a_job
            of_two_chunks_at_once_with_the_same_custom_ids_one_is_refused
            a_note_names_its_first_image_its_line_and_how_many_others
            a_note_counts_the_images_of_all_chunks
        );
    };
    (@ $attributes:tt, $store:expr, $($check:ident)+) => {
        $( $crate::store_conformance_tests!(@@ $attributes, $store, $check); )+
    };
    (@@ [$(#[$attribute:meta])+], $store:expr, $check:ident) => {
        $(#[$attribute])+ async fn $check() {
            $crate::store::conformance::$check(&$crate::store::conformance::Bench::new($store).await).await;
        }
    };
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_submitted_job_is_read_back_as_it_was(bench: &Bench) {
    let id = bench.submit(&["one", "two"], 2).await;
    let job = bench.store.job(id).await.expect("there");
    assert_eq!((job.state, job.images, job.seed, job.priority), (JobState::Active, 4, u64::MAX, 1));
    assert_eq!((job.stages[0].total, job.stages.len()), (3, 3));
    assert_eq!(job.settings.stages.len(), 2);
    let image = bench.store.image(id, 2).await.expect("there");
    assert_eq!((image.prompt.as_str(), image.seed), ("two", 1), "seeds wrap");
    assert!(matches!(bench.store.image(id, 4).await, Err(Error::NotFound(_))));
    assert!(matches!(bench.store.job(JobId(Uuid::now_v7())).await, Err(Error::NotFound(_))));
    bench.audit(id).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_repeated_request_returns_the_first_job_and_other_content_is_refused(bench: &Bench) {
    let (first, second) = (bench.job(Some("r")), bench.job(Some("r")));
    let prompts = bench.prompts(&["one"], 1);
    let content = Digest::of(b"content");
    assert!(!bench.store.submit(&first, &prompts, content).await.expect("accepted").existed);
    let again = bench.store.submit(&second, &prompts, content).await.expect("accepted");
    assert_eq!((again.existed, again.job.id), (true, first.id));
    let other = bench.store.submit(&second, &prompts, Digest::of(b"other")).await;
    assert!(matches!(other, Err(Error::Refused(_))));
    assert_eq!(bench.store.find_submitted("t", "r").await.expect("finds"), Some((first.id, content)));
    let streamed = bench.job(Some("r"));
    bench.store.begin(&streamed).await.expect("begins");
    bench.store.receive(streamed.id, &prompts).await.expect("receives");
    let streamed = bench.store.accept(streamed.id, content).await.expect("accepted");
    assert_eq!((streamed.existed, streamed.job.id), (true, first.id));
    assert_eq!(bench.store.count(JobState::Receiving).await.expect("counts"), 0);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn chunks_are_invisible_until_they_are_accepted(bench: &Bench) {
    let job = bench.job(None);
    let prompts = bench.prompts(&["one", "two", "three"], 2);
    bench.store.begin(&job).await.expect("begins");
    for chunk in prompts.chunks(2) {
        bench.store.receive(job.id, chunk).await.expect("receives");
    }
    assert!(matches!(bench.store.job(job.id).await, Err(Error::NotFound(_))));
    assert!(bench.store.candidates(&bench.pool("encode")).await.expect("lists").is_empty());
    assert!(bench.dispatch("encode", job.id, 9).await.is_empty());
    bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
    let record = bench.store.job(job.id).await.expect("there");
    assert_eq!((record.images, record.stages[0].total), (6, 4));
    assert!(bench.store.accept(job.id, Digest::of(b"c")).await.is_err(), "only once");
    bench.audit(job.id).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_not_accepted_leaves_nothing(bench: &Bench) {
    let (left, swept) = (bench.job(Some("x")), bench.job(Some("x")));
    for job in [&left, &swept] {
        bench.store.begin(job).await.expect("begins");
        bench.store.receive(job.id, &bench.prompts(&["one"], 1)).await.expect("receives");
    }
    bench.store.abandon(left.id).await.expect("abandons");
    assert_eq!(bench.store.sweep_receiving(Duration::from_secs(3600)).await.expect("sweeps"), 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.store.sweep_receiving(Duration::from_millis(1)).await.expect("sweeps"), 1);
    let late = bench.store.receive(swept.id, &bench.prompts(&["two"], 1)).await;
    assert!(matches!(late, Err(Error::NotFound(_))));
    let accepted = bench.submit(&["one"], 1).await;
    bench.store.abandon(accepted).await.expect("does nothing");
    bench.store.job(accepted).await.expect("what was accepted stays");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_text_is_dispatched_once_for_all_jobs_and_images(bench: &Bench) {
    let (first, second) = (bench.submit(&["same"], 5).await, bench.submit(&["same", "same"], 5).await);
    let tasks = bench.dispatch("encode", first, 9).await;
    assert_eq!(tasks.len(), 2, "the text and the empty one");
    assert!(bench.dispatch("encode", second, 9).await.is_empty());
    for task in &tasks {
        assert_eq!(bench.commit("encode", task.key, done("text")).await, Fate::Applied);
        let again = bench.commit("encode", task.key, done("text")).await;
        assert_eq!(again, Fate::Discarded("already_encoded"), "one embedding is committed for ever");
    }
    bench.settle().await;
    for (job, images) in [(first, 5), (second, 10)] {
        let record = bench.store.job(job).await.expect("there");
        assert_eq!((record.stages[0].passed, record.stages[1].ready), (2, images));
        let others = format!("image 0 and {} others: ", images - 1);
        let notes = [format!("{others}a note"), format!("{others}negative prompt: a note")];
        assert_eq!(bench.store.notes(job, 9).await.expect("notes"), notes);
        bench.audit(job).await;
    }
    let later = bench.submit(&["same"], 1).await;
    let record = bench.store.job(later).await.expect("there");
    assert_eq!((record.stages[0].passed, record.stages[1].ready), (2, 1), "ready at once");
    let notes = ["image 0: a note", "image 0: negative prompt: a note"];
    assert_eq!(bench.store.notes(later, 9).await.expect("notes"), notes);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_whose_texts_are_all_handed_out_is_no_candidate(bench: &Bench) {
    let pool = bench.pool("encode");
    let job = bench.submit(&["one", "two"], 1).await;
    let tasks = bench.dispatch("encode", job, 9).await;
    assert_eq!(tasks.len(), 3);
    assert_eq!(bench.store.candidates(&pool).await.expect("lists"), [], "it would take others' room");
    bench.commit("encode", tasks[0].key, Outcome::Interrupted { reason: "r".to_owned() }).await;
    assert_eq!(bench.store.candidates(&pool).await.expect("lists").len(), 1, "one is wanted again");
    let version = bench.store.job(job).await.expect("there").version;
    bench.dispatch("base", job, 9).await;
    let after = bench.store.job(job).await.expect("there").version;
    assert_eq!(version, after, "where nothing moves there is no new version");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_handed_on_is_dispatched_within_its_leave_and_in_this_term(bench: &Bench) {
    let (job, paused) = (bench.submit(&["one"], 5).await, bench.submit(&["two"], 2).await);
    bench.encode(job).await;
    bench.encode(paused).await;
    let (tasks, held) = (bench.dispatch("base", job, 5).await, bench.dispatch("base", paused, 2).await);
    bench.store.pause(paused).await.expect("pauses");
    let report = |task: &Dispatched| Bench::report(task.key, done("base"), false);
    let reports: Vec<Report> = held.iter().chain(&tasks).map(report).collect();
    let late: Vec<Onward> =
        bench.leave(3).into_iter().map(|leave| Onward { term: Term(bench.term.0 + 1), ..leave }).collect();
    // A backend that hands nothing on may commit whatever the term is.
    let refused = bench.store.commit_onward(&bench.pool("base"), &reports[..1], &late).await;
    assert!(refused.is_err() || refused.is_ok_and(|(_, handed)| handed.is_empty()));
    let (committed, handed) =
        bench.store.commit_onward(&bench.pool("base"), &reports, &bench.leave(3)).await.expect("commits");
    assert_eq!(committed.fates.last(), Some(&Fate::Applied));
    assert!(handed.len() <= 3);
    let record = bench.store.job(job).await.expect("there");
    let sr256 = &record.stages[2];
    assert_eq!((sr256.dispatched, sr256.ready), (handed.len() as u64, 5 - handed.len() as u64));
    assert_eq!(bench.store.job(paused).await.expect("there").stages[2].dispatched, 0, "paused");
    let keys: Vec<_> = handed.iter().map(|(_, task)| task.key).collect();
    assert_eq!(bench.store.dispatched(&bench.pool("sr256")).await.expect("lists"), keys);
    for (pool, task) in &handed {
        assert_eq!(pool, &bench.pool("sr256"));
        let Work::Render(work) = &task.work else { panic!("renders") };
        assert_eq!((work.stage, work.text_embedding.key.as_str()), (1, "tasks/text"));
        assert_eq!(work.low_res.as_ref().expect("the stage before").key, "tasks/base");
        assert_eq!(bench.commit("sr256", task.key, done("sr256")).await, Fate::Applied);
    }
    bench.audit(job).await;
    bench.audit(paused).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn only_active_jobs_are_dispatched_and_only_in_this_term(bench: &Bench) {
    let job = bench.submit(&["one"], 3).await;
    bench.encode(job).await;
    bench.store.pause(job).await.expect("pauses");
    assert!(bench.store.candidates(&bench.pool("base")).await.expect("lists").is_empty());
    assert!(bench.dispatch("base", job, 9).await.is_empty());
    bench.store.resume(job).await.expect("resumes");
    let other = Term(bench.term.0 + 1);
    let pick = [Pick { job, count: 1 }];
    assert!(bench.store.dispatch(other, &bench.pool("base"), &pick).await.is_err());
    let tasks = bench.dispatch("base", job, 2).await;
    assert_eq!(tasks.len(), 2);
    let keys: Vec<_> = tasks.iter().map(|task| task.key).collect();
    assert_eq!(bench.store.dispatched(&bench.pool("base")).await.expect("lists"), keys);
    assert_eq!(bench.store.dispatched_count(&bench.pool("base")).await.expect("counts"), 2);
    let listed = bench.store.dispatched_of_job(job).await.expect("lists");
    assert_eq!(listed, keys.iter().map(|key| (bench.pool("base"), *key)).collect::<Vec<_>>());
    let candidates = bench.store.candidates(&bench.pool("base")).await.expect("lists");
    assert_eq!((candidates.len(), candidates[0].ready), (1, 1));
    let Work::Render(work) = &tasks[1].work else { panic!("renders") };
    assert_eq!((work.stage, work.seed, work.text_embedding.key.as_str()), (0, 0, "tasks/text"));
    assert!(work.negative_embedding.is_some() && work.low_res.is_none());
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_view_says_of_dispatched_texts_what_the_job_does(bench: &Bench) {
    let (first, between) = (bench.submit(&["one", "two"], 1).await, bench.submit(&["five", "six"], 1).await);
    let last = bench.submit(&["two", "three", "four"], 1).await;
    for (job, count) in [(first, 1), (last, 9), (between, 1), (first, 9)] {
        bench.dispatch("encode", job, count).await;
        for job in [first, between, last] {
            let (viewed, _) = bench.store.view(job, 1).await.expect("reads");
            assert_eq!(viewed.stages, bench.store.job(job).await.expect("reads").stages);
        }
    }
    let (viewed, _) = bench.store.view(between, 1).await.expect("reads");
    let encode = viewed.stages.first().expect("encode");
    assert_eq!(
        (encode.dispatched, encode.total),
        (2, 3),
        "the empty text and one of its own, not those around it"
    );
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_last_image_ends_its_job_in_the_same_transaction(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    for stage in STAGES {
        for task in bench.dispatch(stage, job, 9).await {
            assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Active);
            assert_eq!(bench.commit(stage, task.key, done(stage)).await, Fate::Applied);
        }
    }
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.done, record.manifest.clone()), (JobState::Done, 2, Some(None)));
    assert!(record.finished_ms.is_some_and(|finished| finished >= record.created_ms));
    let image = bench.store.image(job, 1).await.expect("there");
    let keys: Vec<_> = image.outputs.iter().map(|output| output.artifact.key.as_str()).collect();
    assert_eq!(keys, ["tasks/base", "tasks/sr256"]);
    assert_eq!(bench.store.finish_overlooked().await.expect("sweeps"), []);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn results_that_do_not_fit_are_discarded_by_reason(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let before = bench.store.job(job).await.expect("there").version;
    let generation = TaskKey { generation: key.generation + 1, ..key };
    let dispatch = TaskKey { dispatch: key.dispatch + 1, ..key };
    for (stage, key, outcome, reason) in [
        ("base", generation, done("x"), "stale_generation"),
        ("base", dispatch, failed(), "stale_dispatch"),
        ("sr256", key, done("x"), "other_stage"),
        ("encode", key, done("x"), "wrong_pool"),
    ] {
        assert_eq!(bench.commit(stage, key, outcome).await, Fate::Discarded(reason));
    }
    assert_eq!(bench.store.job(job).await.expect("there").version, before, "nothing changed");
    assert_eq!(bench.commit("base", dispatch, done("x")).await, Fate::Applied, "same stage, same bytes");
    assert_eq!(bench.commit("base", key, done("x")).await, Fate::Discarded("other_stage"));
    bench.store.cancel(job).await.expect("cancels");
    assert_eq!(bench.commit("sr256", key, done("x")).await, Fate::Discarded("job_not_live"));
    bench.settle().await;
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn two_results_of_one_image_in_a_bulk_count_once(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let report = Bench::report(key, done("base"), true);
    let committed =
        bench.store.commit(&bench.pool("base"), &[report.clone(), report]).await.expect("commits");
    assert_eq!(committed.fates, [Fate::Applied, Fate::Discarded("other_stage")]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_release_names_its_dispatch(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let pool = bench.pool("base");
    let stale = TaskKey { dispatch: key.dispatch - 1, ..key };
    let released = bench.store.release(bench.term, &pool, &[stale], &Release::Returned).await.expect("ok");
    assert_eq!(released.changed, 0);
    let released = bench.store.release(bench.term, &pool, &[key], &Release::Returned).await.expect("ok");
    assert_eq!(released.changed, 1);
    let again = bench.dispatch("base", job, 1).await;
    assert_eq!((again[0].key.dispatch, again[0].suspect), (key.dispatch + 1, false));
    assert_eq!(bench.store.image(job, 0).await.expect("there").progress.failures, 0);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_dead_workers_task_becomes_suspect_and_dies_only_alone(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let died = Release::WorkerDied(death(None));
    for deaths in 0..6 {
        let task = bench.dispatch("base", job, 1).await.remove(0);
        assert_eq!(task.suspect, deaths > 0);
        let pool = bench.pool("base");
        bench.store.release(bench.term, &pool, &[task.key], &died).await.expect("ok");
        assert_eq!(bench.store.image(job, 0).await.expect("there").progress.failures, deaths);
    }
    assert_eq!(bench.states(job).await, [ImageState::Dead]);
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Failed);
    bench.audit(job).await;
}

fn death(limit: Option<u32>) -> Death {
    Death { host: "h".to_owned(), live_hosts: 1, limit }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_limit_of_deaths_ends_an_image_sooner(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    for _ in 0..3 {
        let task = bench.dispatch("base", job, 1).await.remove(0);
        let died = Release::WorkerDied(death(Some(2)));
        bench.store.release(bench.term, &bench.pool("base"), &[task.key], &died).await.expect("ok");
    }
    // The first made it suspect, two more were counted.
    assert_eq!(bench.states(job).await, [ImageState::Dead]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn deaths_with_a_host_count_from_the_eleventh_on(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    let other = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let pool = bench.pool("base");
    let died = Release::HostDied(death(None));
    let run = async |job| {
        let task = bench.dispatch("base", job, 1).await.remove(0);
        bench.store.release(bench.term, &pool, &[task.key], &died).await.expect("ok");
        (task.suspect, bench.store.image(job, 0).await.expect("there").progress)
    };
    for _ in 0..MOST_SPARED {
        let (suspect, progress) = run(job).await;
        assert_eq!((suspect, progress.suspect, progress.failures), (false, false, 0));
    }
    assert_eq!(run(other).await.1.failures, 0, "each image for itself");
    let (_, progress) = run(job).await;
    assert_eq!((progress.suspect, progress.failures), (true, 0), "as a worker's death from now on");
    let (suspect, progress) = run(job).await;
    assert_eq!((suspect, progress.failures), (true, 1));
    bench.store.cancel(job).await.expect("cancels");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_texts_deaths_with_a_host_are_spared_too(bench: &Bench) {
    let job = bench.submit(&["a text of its own"], 1).await;
    let died = Release::HostDied(death(None));
    for deaths in 0..=MOST_SPARED {
        let task = bench.dispatch("encode", job, 1).await.remove(0);
        assert!(!task.suspect, "after {deaths} deaths");
        bench.store.release(bench.term, &bench.pool("encode"), &[task.key], &died).await.expect("ok");
    }
    assert!(bench.dispatch("encode", job, 1).await.remove(0).suspect);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_lost_embedding_is_wanted_again_before_more_is_dispatched(bench: &Bench) {
    let job = bench.submit(&["one"], 3).await;
    let other = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let lost = Outcome::InputMissing { key: "tasks/text".to_owned() };
    assert_eq!(bench.commit("base", key, lost).await, Fate::Applied);
    assert!(bench.dispatch("base", job, 9).await.is_empty(), "their embedding is gone");
    assert!(bench.dispatch("base", other, 9).await.is_empty());
    for job in [job, other] {
        bench.audit(job).await;
    }
    bench.store.cancel(job).await.expect("cancels");
    bench.encode(other).await;
    assert_eq!(bench.dispatch("base", other, 9).await.len(), 2, "the other job has it encoded again");
    for job in [job, other] {
        bench.audit(job).await;
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_cancel_is_one_update_and_rows_follow_in_chunks(bench: &Bench) {
    let job = bench.submit(&["one", "two"], 5).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 2).await[0].key;
    let cancelled = bench.store.cancel(job).await.expect("cancels");
    assert_eq!((cancelled.state, cancelled.cancelled, cancelled.manifest), (JobState::Cancelled, 0, None));
    assert_eq!(bench.commit("base", key, done("x")).await, Fate::Discarded("job_not_live"));
    let chunk = bench.store.follow(4).await.expect("follows");
    assert_eq!((chunk.changed, chunk.more), (4, true));
    bench.audit(job).await;
    bench.settle().await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.cancelled, record.manifest), (10, Some(None)));
    assert_eq!(bench.store.cancel(job).await.expect("again").version, record.version, "idempotent");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_retry_makes_a_new_generation_of_what_failed_only(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    for task in bench.dispatch("base", job, 2).await {
        bench.commit("base", task.key, done("base")).await;
    }
    let first = bench.dispatch("sr256", job, 1).await.remove(0).key;
    bench.commit("sr256", first, done("sr256")).await;
    while let Some(task) = bench.dispatch("sr256", job, 1).await.pop() {
        bench.commit("sr256", task.key, failed()).await;
    }
    assert_eq!(bench.states(job).await, [ImageState::Done, ImageState::Dead]);
    let retried = bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    assert_eq!((retried.state, retried.generation, retried.manifest), (JobState::Active, 2, None));
    bench.settle().await;
    assert_eq!(bench.states(job).await, [ImageState::Done, ImageState::Ready]);
    let task = bench.dispatch("sr256", job, 9).await.remove(0);
    assert_eq!(task.key.generation, 2);
    assert!(bench.store.retry(job, NewDeadline::Same).await.is_err(), "an active job is not retried");
    bench.commit("sr256", task.key, done("sr256")).await;
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Done);
    assert!(
        bench.store.retry(job, NewDeadline::Same).await.is_err() && bench.store.cancel(job).await.is_err()
    );
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_retried_job_does_not_end_while_rows_follow(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    assert_eq!(bench.store.follow(1).await.expect("follows").changed, 1);
    for stage in STAGES {
        for task in bench.dispatch(stage, job, 9).await {
            assert_eq!(bench.commit(stage, task.key, done(stage)).await, Fate::Applied);
        }
    }
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.done, record.cancelled), (JobState::Active, 1, 1));
    bench.settle().await;
    assert_eq!(bench.states(job).await, [ImageState::Done, ImageState::Ready]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_manifest_belongs_to_its_generation(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 1)]);
    let digest = Digest::of(b"m");
    assert!(!bench.store.manifest_written(job, 2, "k", digest).await.expect("asks"));
    assert!(bench.store.manifest_written(job, 1, "k", digest).await.expect("writes"));
    assert!(!bench.store.manifest_written(job, 1, "k", digest).await.expect("only once"));
    let record = bench.store.job(job).await.expect("there");
    assert_eq!(record.manifest, Some(Some(("k".to_owned(), digest))));
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    assert_eq!(bench.store.job(job).await.expect("there").manifest, None);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_manifest_is_claimed_by_one_process(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 1)]);
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 1)], "its own claim");
    if !Arc::ptr_eq(&bench.store, &bench.other) {
        assert_eq!(bench.other.pending_manifests(9).await.expect("lists"), [], "another process's claim");
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_flood_of_ended_jobs_does_not_hold_up_another_tenants_manifest(bench: &Bench) {
    let prompts = bench.prompts(&["one"], 1);
    let mut jobs = Vec::new();
    for tenant in ["flood", "flood", "flood", "flood", "flood", "z", "a"] {
        let mut job = bench.job(None);
        tenant.clone_into(&mut job.tenant);
        bench.store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
        bench.store.cancel(job.id).await.expect("cancels");
        jobs.push((job.id, 1));
    }
    bench.settle().await;
    let mut first = bench.store.pending_manifests(4).await.expect("lists");
    first.sort_unstable();
    let mut expected = [jobs[0], jobs[1], jobs[5], jobs[6]];
    expected.sort_unstable();
    assert_eq!(first, expected, "each tenant's oldest, then the next");
    for (job, generation) in first {
        bench.store.manifest_written(job, generation, "k", Digest::of(b"m")).await.expect("writes");
    }
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists").len(), 3);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_keeps_a_hundred_notes_whatever_other_jobs_keep(bench: &Bench) {
    let notes = |text: &str, count: usize| -> Vec<String> {
        (0..count).map(|note| format!("{text} {note:03}")).collect()
    };
    let (few, many) = (bench.submit(&["few"], 1).await, bench.submit(&["many"], 1).await);
    let mut reports = Vec::new();
    for job in [few, many] {
        for task in bench.dispatch("encode", job, 9).await {
            let Work::Encode { text } = &task.work else { panic!("stage encode") };
            let of = match text.prepared.as_str() {
                "few" => notes("few", 80),
                "many" => notes("many", 150),
                _ => Vec::new(),
            };
            let Outcome::Done { artifact, .. } = done("text") else { panic!("done") };
            reports.push(Bench::report(task.key, Outcome::Done { artifact, notes: of }, true));
        }
    }
    let committed = bench.store.commit(&bench.pool("encode"), &reports).await.expect("commits");
    assert!(committed.fates.iter().all(|fate| *fate == Fate::Applied));
    let about = |notes: Vec<String>| notes.iter().map(|note| format!("image 0: {note}")).collect::<Vec<_>>();
    assert_eq!(bench.store.notes(few, 999).await.expect("lists"), about(notes("few", 80)));
    assert_eq!(bench.store.notes(many, 999).await.expect("lists").len(), 100);
    let (_, around) = bench.store.view(few, 20).await.expect("reads");
    assert_eq!(around.notes, bench.store.notes(few, 20).await.expect("lists"), "as many as asked for");
    assert_eq!(around.notes.len(), 20);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_ahead_of_a_job_is_what_runs_and_what_is_more_urgent(bench: &Bench) {
    let mut urgent = bench.job(None);
    urgent.priority = 2;
    let prompts = bench.prompts(&["one", "two"], 2);
    bench.store.submit(&urgent, &prompts, Digest::of(b"content")).await.expect("accepted");
    let (same, mine) = (bench.submit(&["one"], 5).await, bench.submit(&["two"], 1).await);
    bench.encode(urgent.id).await;
    let base = bench.pool("base");
    assert_eq!(bench.store.ahead(mine, &base).await.expect("counts"), 4, "all that is more urgent");
    assert_eq!(bench.store.ahead(urgent.id, &base).await.expect("counts"), 0);
    assert_eq!(bench.dispatch("base", same, 3).await.len(), 3);
    assert_eq!(bench.store.ahead(mine, &base).await.expect("counts"), 7, "and what runs");
    assert_eq!(bench.store.ahead(urgent.id, &base).await.expect("counts"), 3);
    bench.store.pause(urgent.id).await.expect("pauses");
    assert_eq!(bench.store.ahead(mine, &base).await.expect("counts"), 3, "a paused job does not go on");
    assert_eq!(bench.store.active_jobs(1).await.expect("counts"), 2);
    assert_eq!(bench.store.active_jobs(2).await.expect("counts"), 0);
    for job in [mine, urgent.id] {
        let (record, around) = bench.store.view(job, 9).await.expect("reads");
        assert_eq!(around, bench.store.around(job, record.priority, 9).await.expect("reads"));
        assert_eq!((record.id, around.rivals), (job, if job == mine { 2 } else { 0 }));
        let alone = bench.store.job(job).await.expect("reads");
        assert_eq!((record.version, &record.stages), (alone.version, &alone.stages));
    }
    assert!(bench.store.view(JobId(uuid::Uuid::from_u128(7)), 9).await.is_err(), "nobody's job");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn changes_after_a_version_are_complete(bench: &Bench) {
    let job = bench.submit(&["one", "two", "three"], 3).await;
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    let mut position = (0, None);
    bench.encode(job).await;
    for round in 0..30_u64 {
        for task in bench.dispatch(STAGES[(round % 2) as usize], job, 2).await {
            bench.commit(STAGES[(round % 2) as usize], task.key, done("x")).await;
        }
        let changes = bench.store.changes(job, position, 2).await.expect("reads");
        for image in &changes.images {
            assert!((image.version, Some(image.id.index)) > position);
            position = (image.version, Some(image.id.index));
            known.insert(image.id.index, image.version);
        }
    }
    loop {
        let changes = bench.store.changes(job, position, 2).await.expect("reads");
        for image in &changes.images {
            position = (image.version, Some(image.id.index));
            known.insert(image.id.index, image.version);
        }
        if !changes.more {
            break;
        }
    }
    let query = ImageQuery { job, states: Vec::new(), order: ImageOrder::Index(None), limit: 100 };
    let page = bench.store.images(&query).await.expect("lists");
    let rows: BTreeMap<_, _> = page.images.iter().map(|image| (image.id.index, image.version)).collect();
    assert_eq!(known, rows);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn one_report_committed_by_two_at_once_counts_once(bench: &Bench) {
    let job = bench.submit(&["one", "two"], 8).await;
    let encode = bench.pool("encode");
    let done_all = |tasks: Vec<Dispatched>, name: &str| -> Vec<Report> {
        tasks.iter().map(|task| Bench::report(task.key, done(name), false)).collect()
    };
    let reports = done_all(bench.dispatch("encode", job, 9).await, "text");
    let (one, two) =
        tokio::join!(bench.store.commit(&encode, &reports), bench.other.commit(&encode, &reports));
    let changed = one.expect("commits").changed + two.expect("commits").changed;
    assert_eq!(changed, 3, "each text once");
    bench.settle().await;
    for stage in STAGES {
        let pool = bench.pool(stage);
        let mut reports = done_all(bench.dispatch(stage, job, 99).await, stage);
        let mut reversed = reports.clone();
        reversed.reverse();
        reports.truncate(12);
        let (one, two) =
            tokio::join!(bench.store.commit(&pool, &reports), bench.other.commit(&pool, &reversed));
        let (one, two) = (one.expect("commits"), two.expect("commits"));
        assert_eq!(one.changed + two.changed, 16, "each image once");
        let last = u64::from(stage == STAGES[1]);
        assert_eq!((one.finished.len() + two.finished.len()) as u64, last, "one of them ends the job");
        bench.audit(job).await;
    }
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Done);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn two_submits_of_one_request_at_once_make_one_job(bench: &Bench) {
    for round in 0..5 {
        let request = format!("r{round}");
        let (first, second) = (bench.job(Some(&request)), bench.job(Some(&request)));
        let streamed = bench.job(Some(&request));
        let prompts = bench.prompts(&["one", "two"], 2);
        let content = Digest::of(b"content");
        bench.store.begin(&streamed).await.expect("begins");
        bench.store.receive(streamed.id, &prompts).await.expect("receives");
        let (one, two, three) = tokio::join!(
            bench.store.submit(&first, &prompts, content),
            bench.other.submit(&second, &prompts, content),
            bench.other.accept(streamed.id, content),
        );
        let submitted = [one.expect("accepted"), two.expect("accepted"), three.expect("accepted")];
        assert_eq!(submitted.iter().filter(|one| !one.existed).count(), 1, "one of them made it");
        assert!(submitted.iter().all(|one| one.job.id == submitted[0].job.id));
        bench.audit(submitted[0].job.id).await;
    }
    assert_eq!(bench.store.count(JobState::Active).await.expect("counts"), 5);
    assert_eq!(bench.store.count(JobState::Receiving).await.expect("counts"), 0);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_text_that_is_encoded_while_its_prompts_arrive_is_told_to_all_of_them(bench: &Bench) {
    for round in 0..10 {
        let text = format!("text {round}");
        let texts = [text.as_str(); 3];
        let first = bench.submit(&texts[..1], 1).await;
        let reports: Vec<_> = bench
            .dispatch("encode", first, 9)
            .await
            .iter()
            .map(|task| Bench::report(task.key, done("text"), false))
            .collect();
        let (streamed, prompts) = (bench.job(None), bench.prompts(&texts, 2));
        bench.store.begin(&streamed).await.expect("begins");
        let encode = bench.pool("encode");
        let receive = async {
            for prompt in prompts.chunks(1) {
                bench.store.receive(streamed.id, prompt).await.expect("receives");
            }
        };
        let commit = async {
            bench.other.commit(&encode, &reports).await.expect("commits");
            bench.other.spread(100).await.expect("spreads");
        };
        tokio::join!(receive, commit);
        bench.store.accept(streamed.id, Digest::of(b"c")).await.expect("accepted");
        bench.settle().await;
        let job = bench.store.job(streamed.id).await.expect("there");
        assert_eq!((job.stages[0].passed, job.stages[1].ready), (2, 6), "round {round}");
        bench.audit(streamed.id).await;
    }
}
