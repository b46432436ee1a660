//! How a worker with expired leases was lost: alone, while it was leaving, or with its host.
//!
//! If a worker dies alone, its tasks are blamed. A worker that had announced its departure counts
//! as interrupted, however it ends, because `docker stop` and others kill a process that does not
//! leave in time. If a host dies, several of its workers are lost at about the same time with
//! different tasks, and no task is to blame.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use darkroom_core::{id::WorkerId, worker_state::WorkerState};
use darkroom_queue::task::{TaskKey, WorkerCard};
use tokio::time::Instant;

/// A worker sends a heartbeat every two seconds. Without one for this long, it may be dead.
const SILENT: Duration = Duration::from_millis(2500);

/// A worker with expired leases.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) worker: WorkerId,
    pub(crate) tasks: HashSet<TaskKey>,
}

/// How it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// No other loss explains it, so it counts.
    Alone,
    /// It had announced its departure, or had a drain command.
    Announced,
    /// Another worker of its host was lost too, with different tasks.
    WithHost,
}

/// What is known of the workers when leases have expired.
pub(crate) struct Known<'a> {
    /// The latest card of each worker, including silent ones.
    pub(crate) cards: &'a [WorkerCard],
    /// Workers with a drain command in the record.
    pub(crate) leaving: &'a [WorkerId],
    /// The present leases, by worker.
    pub(crate) held: &'a BTreeMap<WorkerId, HashSet<TaskKey>>,
    /// How long a lease lasts.
    pub(crate) lease: Duration,
}

impl Known<'_> {
    fn card(&self, worker: &WorkerId) -> Option<&WorkerCard> {
        self.cards.iter().find(|card| &card.id == worker)
    }

    /// As announced, or else from the beginning of its id.
    fn host<'a>(&'a self, worker: &'a WorkerId) -> &'a str {
        self.card(worker).map_or_else(|| worker.host(), |card| &card.host)
    }

    fn leaves(&self, worker: &WorkerId) -> bool {
        self.leaving.contains(worker)
            || self.card(worker).is_some_and(|card| card.state == WorkerState::Draining)
    }

    fn is_silent(&self, worker: &WorkerId) -> bool {
        self.card(worker).is_none_or(|card| card.seen_seconds_ago >= SILENT.as_secs_f64())
    }
}

/// The workers lost within the duration of one lease.
#[derive(Debug, Default)]
pub(crate) struct Losses(Vec<Seen>);

/// A loss, when it was seen, and the host it was on.
#[derive(Debug)]
struct Seen {
    at: Instant,
    host: String,
    lost: Lost,
}

impl Losses {
    /// Decides for each worker whose leases have just expired how it was lost, in the given order.
    pub(crate) fn judge(&mut self, lost: &[Lost], known: &Known<'_>) -> Vec<Loss> {
        let now = Instant::now();
        self.0.retain(|seen| now.duration_since(seen.at) <= known.lease);
        // A leaving worker says nothing about its host.
        let alone = lost.iter().filter(|lost| !known.leaves(&lost.worker));
        let seen = |lost: &Lost| {
            let host = known.host(&lost.worker).to_owned();
            Seen { at: now, host, lost: lost.clone() }
        };
        self.0.extend(alone.map(seen));
        lost.iter()
            .map(|lost| {
                if known.leaves(&lost.worker) {
                    Loss::Announced
                } else if self.has_fellow(lost, known) {
                    Loss::WithHost
                } else {
                    Loss::Alone
                }
            })
            .collect()
    }

    /// Whether another worker of the same host was lost with a task that this one did not hold.
    fn has_fellow(&self, lost: &Lost, known: &Known<'_>) -> bool {
        let host = known.host(&lost.worker);
        let holds_other =
            |tasks: &HashSet<TaskKey>| tasks.iter().any(|task| !same(task, &lost.tasks));
        let before = self.0.iter().any(|seen| {
            let other = &seen.lost;
            other.worker != lost.worker && seen.host == host && holds_other(&other.tasks)
        });
        before
            || known.held.iter().any(|(worker, tasks)| {
                *worker != lost.worker
                    && known.host(worker) == host
                    && known.is_silent(worker)
                    && !known.leaves(worker)
                    && holds_other(tasks)
            })
    }
}

/// Whether a task is among these, in any dispatch.
fn same(task: &TaskKey, others: &HashSet<TaskKey>) -> bool {
    others.iter().any(|other| other.subject == task.subject)
}

#[cfg(test)]
mod tests {
    use darkroom_core::id::{ImageId, JobId};
    use darkroom_queue::task::Subject;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn card(id: &str, host: &str, seen_seconds_ago: f64, state: WorkerState) -> WorkerCard {
        WorkerCard {
            id: WorkerId(id.to_owned()),
            host: host.to_owned(),
            device: "cpu".to_owned(),
            device_class: "cpu".to_owned(),
            pools: BTreeMap::new(),
            leased: 1,
            done: 0,
            busy: 0.0,
            state,
            trouble: String::new(),
            failed: 0,
            memory: None,
            version: String::new(),
            seen_seconds_ago,
        }
    }

    fn tasks(indices: &[u64]) -> HashSet<TaskKey> {
        let job = JobId(uuid::Uuid::nil());
        let key = |index: &u64| TaskKey {
            subject: Subject::Image(ImageId { job, index: *index }),
            generation: 0,
            dispatch: 1,
        };
        indices.iter().map(key).collect()
    }

    fn lost(worker: &str, indices: &[u64]) -> Lost {
        Lost { worker: WorkerId(worker.to_owned()), tasks: tasks(indices) }
    }

    fn judge(
        losses: &mut Losses,
        cards: &[WorkerCard],
        lost: &[Lost],
        held: &[(&str, &[u64])],
    ) -> Vec<Loss> {
        let held = held
            .iter()
            .map(|(worker, indices)| (WorkerId((*worker).to_owned()), tasks(indices)))
            .collect();
        losses.judge(lost, &Known { cards, leaving: &[], held: &held, lease: LEASE })
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_worker_counts_whatever_happens_on_other_hosts() {
        let cards = [
            card("a", "one", 11.0, WorkerState::Working),
            card("b", "two", 11.0, WorkerState::Working),
        ];
        let found = judge(&mut Losses::default(), &cards, &[lost("a", &[1]), lost("b", &[2])], &[]);
        assert_eq!(found, [Loss::Alone, Loss::Alone]);
        // Another worker of the host that is alive, and one without tasks.
        let cards = [
            card("a", "one", 11.0, WorkerState::Working),
            card("b", "one", 1.0, WorkerState::Working),
            card("c", "one", 11.0, WorkerState::Working),
        ];
        let found = judge(&mut Losses::default(), &cards, &[lost("a", &[1])], &[("b", &[2])]);
        assert_eq!(found, [Loss::Alone]);
    }

    #[tokio::test(start_paused = true)]
    async fn workers_that_are_lost_with_their_host_are_told_from_others() {
        let cards = [
            card("a", "one", 11.0, WorkerState::Working),
            card("b", "one", 10.5, WorkerState::Working),
        ];
        let both = [lost("a", &[1]), lost("b", &[2, 3])];
        assert_eq!(
            judge(&mut Losses::default(), &cards, &both, &[]),
            [Loss::WithHost; 2],
            "in one look"
        );
        let mut losses = Losses::default();
        let first = judge(&mut losses, &cards, &both[..1], &[("b", &[2, 3])]);
        assert_eq!(first, [Loss::WithHost], "silent, but its leases have not expired");
        assert_eq!(
            judge(&mut losses, &cards, &both[1..], &[]),
            [Loss::WithHost],
            "the first is remembered"
        );
        tokio::time::advance(LEASE + Duration::from_secs(1)).await;
        assert_eq!(judge(&mut losses, &cards, &both[1..], &[]), [Loss::Alone], "not for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_that_kills_one_worker_after_another_is_no_dead_host() {
        let cards = [
            card("a", "one", 11.0, WorkerState::Working),
            card("b", "one", 11.0, WorkerState::Working),
        ];
        let mut losses = Losses::default();
        assert_eq!(judge(&mut losses, &cards, &[lost("a", &[1])], &[]), [Loss::Alone]);
        let mut again = lost("b", &[1]);
        again.tasks = again.tasks.into_iter().map(|key| TaskKey { dispatch: 2, ..key }).collect();
        assert_eq!(judge(&mut losses, &cards, &[again], &[]), [Loss::Alone]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_said_that_it_leaves_is_interrupted_and_says_nothing_of_its_host() {
        let cards = [
            card("a", "one", 11.0, WorkerState::Draining),
            card("b", "one", 11.0, WorkerState::Working),
        ];
        let found = judge(
            &mut Losses::default(),
            &cards,
            &[lost("a", &[1]), lost("b", &[2])],
            &[("a", &[1])],
        );
        assert_eq!(found, [Loss::Announced, Loss::Alone]);
        let (held, leaving) = (BTreeMap::new(), [WorkerId("b".to_owned())]);
        let known = Known { cards: &cards, leaving: &leaving, held: &held, lease: LEASE };
        let found = Losses::default().judge(&[lost("b", &[2])], &known);
        assert_eq!(found, [Loss::Announced], "the record has the command");
    }
}
