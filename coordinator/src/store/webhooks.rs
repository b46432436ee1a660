//! Webhooks and the events that are sent to them: questions and answers.

use std::time::Duration;

use darkroom_core::{
    error::{Code, UserError},
    webhook::{EventType, WebhookId},
};

use super::removal::ms;

/// Most webhooks of a tenant.
pub const MOST_WEBHOOKS: u32 = 20;
/// Most events of a tenant that wait; above that the oldest are given up.
pub const MOST_WAITING: u32 = 10_000;
/// How long an event is tried.
pub const TRIED_FOR: Duration = Duration::from_secs(3 * 86_400);
/// How long an event that was delivered is kept.
pub const DELIVERED_KEPT: Duration = Duration::from_secs(86_400);
/// How long an event that was given up is kept.
pub const GIVEN_UP_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Most events that are sent to one webhook at a time, by all coordinators.
pub const AT_ONCE: u32 = 2;
/// Most events of one tenant that are sent at a time.
pub const AT_ONCE_OF_TENANT: u32 = 8;
/// Failures in a row after which a webhook is suspended.
pub const SUSPENDED_AFTER: u32 = 5;
/// How long it is suspended then; twice as long after each further failure, up to the longest time.
const FIRST_SUSPENSION: Duration = Duration::from_secs(30);
const LONGEST_SUSPENSION: Duration = Duration::from_secs(600);

/// Why an event was given up that the farm has tried for long.
pub(super) const TRIED_ENOUGH: &str = "it was tried for three days";
/// Why an event was given up that others have followed.
pub(super) const TOO_MANY: &str = "10,000 newer events of the tenant waited";

/// A new webhook.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Its id.
    pub id: WebhookId,
    /// The tenant whose events it gets.
    pub tenant: String,
    /// Where they are sent.
    pub url: String,
    /// For people.
    pub name: String,
    /// What they say; empty: everything.
    pub types: Vec<EventType>,
}

/// A webhook as the record has it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRecord {
    /// Its place in the order in which webhooks were made.
    pub seq: i64,
    /// Its id.
    pub id: WebhookId,
    /// The tenant whose events it gets.
    pub tenant: String,
    /// Where they are sent.
    pub url: String,
    /// For people.
    pub name: String,
    /// What they say; empty: everything. A newer coordinator may have added types.
    pub types: Vec<String>,
    /// When it was made.
    pub created_ms: i64,
    /// When an event was last delivered.
    pub success_ms: Option<i64>,
    /// When a try last failed.
    pub failure_ms: Option<i64>,
    /// Why; empty: no try has failed.
    pub error: String,
    /// Until when nothing is sent.
    pub suspended_until_ms: Option<i64>,
    /// Events that are still to be sent.
    pub waiting: u64,
    /// When the oldest of them happened.
    pub oldest_waiting_ms: Option<i64>,
    /// Events that were given up and are still known.
    pub given_up: u64,
}

/// Which webhooks to list, oldest first.
#[derive(Clone, Debug, Default)]
pub struct WebhookQuery {
    /// Only those of this tenant.
    pub tenant: Option<String>,
    /// Only those after this one, by [`WebhookRecord::seq`].
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// A webhook that was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedWebhook {
    /// The tenant whose events it got.
    pub tenant: String,
    /// Events that were still to be sent.
    pub dropped: u64,
}

/// An event that this coordinator sends to a webhook, until its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its row.
    pub row: i64,
    /// The webhook.
    pub webhook: WebhookId,
    /// Its place among webhooks.
    pub seq: i64,
    /// Where it is sent.
    pub url: String,
    /// The event's id, the same for all webhooks and in all tries.
    pub event: String,
    /// What it says: the name of a type, which may be one of a newer coordinator.
    pub kind: String,
    /// The id of what it tells of.
    pub data: String,
    /// When it happened, milliseconds since 1970.
    pub created_ms: i64,
    /// Which try this is, from 1. It names who has the event.
    pub tries: u32,
}

/// A webhook to which events may be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// Its place among webhooks.
    pub(super) seq: i64,
    /// Its tenant.
    pub(super) tenant: String,
    /// Its failures in a row.
    pub(super) failures: i64,
}

/// Events that are being sent: webhook, tenant, and how many.
pub(super) type UnderWay = (i64, String, i64);

/// How many events each webhook may take, of `free` places, in the order in which they come. One
/// that has failed often gets one event at a time, as a trial.
pub(super) fn share(ready: &[Ready], under_way: &[UnderWay], free: u32) -> Vec<(i64, i64)> {
    let mut free = i64::from(free);
    let mut shares: Vec<(i64, i64)> = ready.iter().map(|one| (one.seq, 0)).collect();
    // One for each first, so that a busy tenant does not take all places.
    for _ in 0..AT_ONCE {
        for at in 0..ready.len() {
            let one = &ready[at];
            let trial = one.failures >= i64::from(SUSPENDED_AFTER);
            let most = if trial { 1 } else { i64::from(AT_ONCE) };
            let busy = |is: &dyn Fn(&UnderWay) -> bool| -> i64 {
                under_way.iter().filter(|other| is(other)).map(|(.., count)| count).sum()
            };
            let own = busy(&|other| other.0 == one.seq) + shares[at].1;
            let given: i64 = (0..ready.len())
                .filter(|other| ready[*other].tenant == one.tenant)
                .map(|other| shares[other].1)
                .sum();
            let of_tenant = busy(&|other| other.1 == one.tenant) + given;
            if free > 0 && own < most && of_tenant < i64::from(AT_ONCE_OF_TENANT) {
                shares[at].1 += 1;
                free -= 1;
            }
        }
    }
    shares.retain(|(_, share)| *share > 0);
    shares
}

/// Until when a webhook is suspended after so many failures in a row; `None`: it is not.
pub(super) fn suspended_until(failures: i64, now_ms: i64) -> Option<i64> {
    let further = failures - i64::from(SUSPENDED_AFTER);
    if further < 0 {
        return None;
    }
    let further = u32::try_from(further).unwrap_or(u32::MAX);
    let factor = 2_u32.checked_pow(further).unwrap_or(u32::MAX);
    let pause = FIRST_SUSPENSION.saturating_mul(factor).min(LONGEST_SUSPENSION);
    Some(now_ms.saturating_add(ms(pause)))
}

/// When an event is tried again; `None`: it has been tried for long enough.
pub(super) fn next_try(created_ms: i64, now_ms: i64, pause: Duration) -> Option<i64> {
    let due = now_ms.saturating_add(ms(pause));
    Some(due).filter(|due| *due <= created_ms.saturating_add(ms(TRIED_FOR)))
}

/// Types as a column: each name between spaces, so that one can be looked for.
pub(super) fn types_column(types: &[EventType]) -> String {
    let names: Vec<_> = EventType::ALL
        .into_iter()
        .filter(|kind| types.contains(kind))
        .map(EventType::name)
        .collect();
    if names.is_empty() { String::new() } else { format!(" {} ", names.join(" ")) }
}

/// The tenant has as many webhooks as it may have.
pub(super) fn too_many(tenant: &str) -> UserError {
    let message = format!(
        "tenant {tenant:?} has {MOST_WEBHOOKS} webhooks, the most that it may have; delete one first"
    );
    UserError::new(Code::ResourceExhausted, "MANY_WEBHOOKS", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(seq: i64, tenant: &str, failures: i64) -> Ready {
        Ready { seq, tenant: tenant.to_owned(), failures }
    }

    #[test]
    fn each_webhook_has_its_turn_before_any_has_a_second_one() {
        let all = [ready(1, "a", 0), ready(2, "a", 4), ready(3, "b", 0)];
        assert_eq!(share(&all, &[], 3), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(share(&all, &[], 4), [(1, 2), (2, 1), (3, 1)]);
        assert_eq!(share(&all, &[], 100), [(1, 2), (2, 2), (3, 2)]);
        assert_eq!(share(&all, &[], 0), []);
    }

    #[test]
    fn what_is_under_way_counts_for_its_webhook_and_its_tenant() {
        let all = [ready(1, "a", 0), ready(2, "a", 0), ready(3, "b", 0)];
        let own = [(1, "a".to_owned(), 2), (3, "b".to_owned(), 1)];
        assert_eq!(share(&all, &own, 100), [(2, 2), (3, 1)]);
        let busy: Vec<_> = (10..14).map(|seq| (seq, "a".to_owned(), 2)).collect();
        assert_eq!(share(&all, &busy, 100), [(3, 2)]);
        let nearly: Vec<_> = (10..17).map(|seq| (seq, "a".to_owned(), 1)).collect();
        assert_eq!(share(&all, &nearly, 100), [(1, 1), (3, 2)]);
    }

    #[test]
    fn a_webhook_that_has_failed_often_is_tried_with_one_event_after_a_pause() {
        let all = [ready(1, "a", 5)];
        assert_eq!(share(&all, &[], 100), [(1, 1)]);
        assert_eq!(share(&all, &[(1, "a".to_owned(), 1)], 100), []);
        let pauses: Vec<_> = (4..12).map(|failures| suspended_until(failures, 0)).collect();
        let minutes = |some: &Option<i64>| some.map(|ms| ms / 1000);
        assert_eq!(
            pauses.iter().map(minutes).collect::<Vec<_>>(),
            [None, Some(30), Some(60), Some(120), Some(240), Some(480), Some(600), Some(600)]
        );
        assert_eq!(suspended_until(i64::MAX, 0), Some(600_000));
    }

    #[test]
    fn an_event_is_tried_for_three_days() {
        let (pause, days) = (Duration::from_secs(60), 3 * 86_400_000);
        assert_eq!(next_try(1000, 2000, pause), Some(62_000));
        assert_eq!(next_try(1000, days + 1000 - 60_000, pause), Some(days + 1000));
        assert_eq!(next_try(1000, days + 1001 - 60_000, pause), None);
    }

    #[test]
    fn types_are_looked_for_between_spaces() {
        assert_eq!(types_column(&[]), "");
        let types = [EventType::JobFailed, EventType::JobCompleted, EventType::JobFailed];
        assert_eq!(types_column(&types), " job.completed job.failed ");
    }
}
