//! The suite that every backend of [`TaskQueue`](darkroom_queue::TaskQueue) passes, and samples of
//! tasks and results.
//!
//! Each guarantee in the docs of the trait is one of the checks. A backend runs them with
//! [`queue_suite!`](crate::queue_suite), each as a test of its own on a fresh queue ([`Harness`]).
//! Checks that need time to pass sleep on tokio's clock; the backend in memory runs them with that
//! clock paused.

mod harness;
mod leases;
mod results;
mod samples;
mod watched;
mod workers;

pub use harness::Harness;
pub use samples::{card, done, pool, suspect, task};
pub use watched::{Watch, Watched};
pub use {leases::*, results::*, workers::*};

/// Runs every check as a test: `queue_suite!(#[tokio::test], harness_expression)`.
#[macro_export]
macro_rules! queue_suite {
    ($(#[$attribute:meta])+, $harness:expr) => {
        $crate::queue_suite!(@ [$(#[$attribute])+], $harness,
            tasks_are_leased_in_order_and_once
            a_waiting_lease_gets_the_task_that_comes
            an_empty_line_answers_after_the_wait
            waiting_for_tasks_hints_at_any_pool_and_takes_nothing
            a_suspect_task_is_leased_alone
            pools_do_not_share_a_line
            a_heartbeat_keeps_a_lease_from_the_reaper
            a_heartbeat_never_takes_a_lease_back
            a_reaped_lease_cannot_complete
            only_the_holder_completes_and_only_once
            a_bulk_of_completions_is_answered_one_by_one
            leases_handed_back_go_to_the_head_in_order
            what_is_handed_back_later_comes_first
            only_the_holder_hands_back
            removed_tasks_are_gone_and_leased_ones_reported_lost
            a_pause_leaves_leased_tasks_alone
            results_are_read_once_by_their_committer
            results_of_a_silent_committer_are_read_by_the_next
            acknowledged_results_are_gone
            a_waiting_committer_gets_the_result_that_comes
            entries_tell_every_state
            a_silent_worker_expires_and_a_withdrawn_one_is_gone
            two_workers_never_share_a_task
            a_worker_that_is_to_drain_is_told_until_it_leaves
            a_worker_that_is_set_aside_gets_nothing_for_a_time
        );
    };
    (@ $attributes:tt, $harness:expr, $($check:ident)+) => {
        $($crate::queue_suite!(@@ $attributes, $harness, $check);)+
    };
    (@@ [$(#[$attribute:meta])+], $harness:expr, $check:ident) => {
        $(#[$attribute])+
        async fn $check() {
            $crate::queue::$check($harness).await;
        }
    };
}
