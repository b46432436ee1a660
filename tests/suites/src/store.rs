//! The suite for all stores: it checks the traits' promises, and does a random walk, with counters
//! compared to rows after each step.
//!
//! A backend runs it with [`store_suite!`](crate::store_suite). Each check is a separate test on a
//! new, empty store ([`Fresh`]).

mod agreed;
mod attempts;
mod batches;
mod bench;
mod dispatching;
mod farm_changes;
mod finding;
mod following;
mod forecast;
mod guarded;
mod history;
mod image_commands;
mod image_maps;
mod inputs;
mod keys;
mod labels;
mod leftovers;
mod limits;
mod manifests;
mod outcomes;
mod overrides;
mod queries;
mod quotas;
mod releases;
mod removal;
pub mod rows;
pub mod samples;
mod stopped;
mod submits;
mod uploads;
mod walk;
mod webhooks;
mod worker_health;

pub use bench::{Age, Bench, Fresh, STAGES};
pub use samples::done;
pub use {
    agreed::*, attempts::*, batches::*, dispatching::*, farm_changes::*, finding::*, following::*,
    forecast::*, guarded::*, history::*, image_commands::*, image_maps::*, inputs::*, keys::*,
    labels::*, leftovers::*, limits::*, manifests::*, outcomes::*, overrides::*, queries::*,
    quotas::*, releases::*, removal::*, stopped::*, submits::*, uploads::*, walk::*, webhooks::*,
    worker_health::*,
};

/// Runs every check as a test: `store_suite!(#[tokio::test], store_expression)`.
#[macro_export]
macro_rules! store_suite {
    ($(#[$attribute:meta])+, $store:expr) => {
        $crate::store_suite!(@ [$(#[$attribute])+], $store,
            a_submitted_job_is_read_back_as_it_was
            a_repeated_request_returns_the_first_job_and_other_content_is_refused
            chunks_are_invisible_until_they_are_accepted
            what_is_not_accepted_leaves_nothing
            a_text_is_dispatched_once_for_all_jobs_and_images
            a_job_whose_texts_are_all_handed_out_is_no_candidate
            what_is_handed_on_is_dispatched_within_its_credit_and_in_this_term
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
            an_ended_job_leaves_all_but_its_pictures_and_what_unfinished_jobs_name
            what_is_taken_is_a_candidate_and_jobs_at_work_keep_what_they_have
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
            a_webhook_is_its_tenants_and_a_tenant_has_a_limited_number
            the_end_of_a_job_is_told_once_with_its_manifest
            the_end_of_a_job_that_is_deleted_at_once_is_told
            an_event_belongs_to_one_process_until_its_lease_ends
            an_event_that_was_not_delivered_is_due_again_after_its_pause
            a_webhook_that_fails_often_is_suspended_until_a_trial_succeeds
            a_busy_webhook_or_tenant_leaves_places_to_others
            processes_that_race_stay_within_the_limits_of_webhooks
            of_too_many_events_the_oldest_are_given_up
            events_are_forgotten_and_those_of_an_ended_webhook_go_with_it
            a_key_is_found_by_its_id_with_what_it_allows
            a_key_that_ends_in_the_past_is_refused
            keys_are_listed_oldest_first_in_pages_and_without_ended_ones
            a_revoked_key_stays_revoked_since_then
            a_rotated_key_works_beside_the_new_one_for_a_time
            the_use_of_a_key_is_recorded_once_a_minute
            a_certificate_stands_for_one_live_key
            of_first_keys_that_are_added_at_once_one_is_the_first
            a_tenant_keeps_its_setting_until_it_is_changed
            the_audit_is_listed_newest_first_and_by_tenant_key_and_time
            a_farm_has_one_secret_and_one_kind_of_pictures
            a_command_to_drain_is_remembered
            of_an_ended_job_only_changes_that_are_stale_are_forgotten
            the_first_forecast_is_kept_and_what_the_job_took_beside_it
            how_fast_a_class_of_device_was_is_known_to_every_process
            model_seconds_count_once_for_the_job_and_its_tenant
            tenants_days_are_listed_in_pages
            texts_that_were_encoded_before_count_as_reused
            device_time_adds_up_when_old_days_and_deleted_jobs_are_gone
            a_pools_past_is_told_by_steps_and_gaps_stay_gaps
            what_waits_in_a_pool_is_told_with_its_age
            a_reader_of_all_jobs_misses_no_change_of_any_process
            a_tenant_reads_its_own_changes_in_whole_pages
            jobs_that_have_not_ended_are_listed_newest_first
            a_picture_that_was_sent_is_known_by_its_hash
            a_picture_is_known_to_the_tenants_that_sent_it_and_to_no_other
            a_job_is_its_tenants_and_nobody_elses
            a_second_tenant_seals_the_farm_unless_an_operator_has_decided
            of_two_first_tenants_at_once_at_most_one_shares
            the_first_token_secret_is_the_farms
            a_sealed_job_names_its_tenant_in_each_of_its_tasks
            a_style_is_waited_for_and_handed_out_with_the_pictures
            a_style_that_is_lost_is_wanted_again
            a_style_that_is_given_up_ends_its_images_and_no_others
            what_a_client_calls_its_prompts_is_told_in_every_listing
            a_custom_id_is_taken_once_in_a_job
            of_two_chunks_at_once_with_the_same_custom_ids_one_is_refused
            a_note_names_its_first_image_its_line_and_how_many_others
            a_note_counts_the_images_of_all_chunks
            a_note_on_pictures_counts_all_of_which_the_same_is_said
            attempts_say_who_did_what_and_outlive_a_retry
            deaths_and_returns_are_attempts_too
            of_an_output_that_is_lost_its_attempt_stays
            an_image_keeps_its_latest_twenty_attempts
            what_is_discarded_is_no_attempt
            a_map_tells_of_every_image_in_runs_and_of_changes_since_a_version
            a_map_that_changes_much_is_told_whole
            whatever_happens_a_map_and_its_changes_are_the_images
            a_cancel_of_images_is_followed_in_chunks_and_changes_no_others
            a_cancel_of_images_tells_which_tasks_it_withdraws
            a_command_names_images_by_code_label_and_text
            a_command_that_finds_nothing_lets_its_job_end_again
            a_job_whose_last_open_images_are_cancelled_ends
            a_job_without_reuse_says_so_in_each_of_its_tasks
            a_jobs_own_command_goes_before_those_to_its_images
            a_lost_picture_runs_its_last_stage_again
            a_retried_image_waits_for_a_text_that_was_given_up
            commands_that_are_not_followed_yet_are_limited
            failures_end_no_job_while_images_follow_their_retry
            images_of_an_ended_job_run_again_in_a_new_generation
            images_with_settings_of_their_own_pass_their_own_stages
            a_prompt_may_pass_more_stages_than_its_job
            chunks_at_once_that_bring_the_same_settings_share_them
            what_is_lost_of_an_image_with_settings_of_its_own_is_made_again
            what_waits_is_told_with_the_settings_of_its_prompts
            what_ended_before_a_stage_is_not_left_of_it
            a_job_waits_for_the_commands_to_its_images
            a_picture_that_was_rendered_again_is_not_lost_a_second_time
            a_job_is_found_by_what_it_is_called_and_by_its_state
            a_search_stops_after_so_many_rows_and_goes_on_where_it_stopped
            images_are_found_by_place_state_change_label_and_text_together
            failures_are_counted_by_code
            a_tenant_keeps_its_quotas_until_they_are_changed
            a_submit_over_a_quota_leaves_nothing_and_a_repeat_is_never_over
            of_submits_at_once_only_those_are_accepted_that_fit
            a_streamed_submit_is_refused_with_the_chunk_that_is_too_many
            what_was_submitted_today_counts_whatever_becomes_of_it
            a_retry_that_makes_too_many_images_wait_changes_nothing
            what_is_stored_counts_in_full_for_every_job_and_refuses_at_its_limit
            device_time_and_workers_are_told_of_those_who_have_a_quota
            sums_that_the_leader_adds_up_stay_what_they_are
            coordinators_that_share_a_record_know_of_each_other
            a_job_that_has_not_ended_is_deleted_only_if_it_is_cancelled
            a_deleted_job_is_found_nowhere_and_stays_deleted
            of_a_delete_and_a_retry_at_once_one_wins
            readers_of_all_jobs_learn_which_were_deleted
            a_deleted_jobs_rows_go_in_chunks_and_what_nobody_needs_is_marked
            what_another_job_names_stays_until_that_is_deleted_too
            a_result_that_names_an_object_on_its_way_out_is_returned
            a_text_whose_result_names_an_object_on_its_way_out_is_wanted_again
            of_a_commit_and_a_mark_at_once_one_wins
            an_object_is_deleted_twice_and_remembered_until_nobody_can_store_it
            what_cannot_be_deleted_is_tried_later
            only_who_leads_removes
            texts_that_no_job_needs_are_forgotten_after_a_while
            of_a_submit_and_forgetting_its_text_at_once_the_job_has_its_text
            what_a_rewind_forgot_is_looked_at_later
            after_a_restore_what_is_marked_is_looked_up_again
            a_policy_removes_what_it_says_and_keeps_what_a_tenants_own_one_keeps
            an_upload_stays_while_a_job_uses_it_and_for_the_time_of_its_policy
            an_upload_of_one_tenant_stays_whatever_becomes_of_anothers
            a_removed_upload_is_refused_and_comes_again_under_another_key
            of_a_submit_and_a_removal_of_its_upload_at_once_one_wins
            what_a_submit_that_was_given_up_needed_is_forgotten
            a_reader_that_was_away_learns_of_deleted_jobs_of_which_no_row_is_left
            jobs_deleted_within_a_minute_do_not_wait_for_each_other
            a_repeated_submit_of_a_deleted_job_is_told_so_and_makes_no_second_job
            a_failure_is_noted_only_while_an_object_is_due
            a_jobs_pictures_are_noted_with_the_first_chunk_and_once
            a_policy_on_jobs_goes_on_where_it_was_and_comes_back
            a_file_is_its_tenants_and_its_id_stands_for_it_alone
            the_bytes_of_a_deleted_file_leave_and_come_again_under_another_key
            files_and_batches_are_listed_in_pages_from_either_end
            a_batch_goes_its_way_step_by_step
            of_two_runners_one_takes_a_batch_and_the_oldest_due_first
            a_runner_that_has_lost_its_batch_records_nothing
            a_step_after_a_cancel_records_nothing_and_gives_the_batch_back
            a_file_stays_while_an_open_batch_reads_it
            files_and_ended_batches_stay_for_their_own_time_or_that_of_the_policy
            a_policy_on_jobs_spares_those_of_an_open_batch
            a_file_over_the_quota_leaves_nothing_but_results_are_stored
            a_tenant_has_so_many_open_batches_and_no_more
        );
    };
    (@ $attributes:tt, $store:expr, $($check:ident)+) => {
        $( $crate::store_suite!(@@ $attributes, $store, $check); )+
    };
    (@@ [$(#[$attribute:meta])+], $store:expr, $check:ident) => {
        $(#[$attribute])+ async fn $check() {
            $crate::store::$check(&$crate::store::Bench::new($store).await).await;
        }
    };
}
