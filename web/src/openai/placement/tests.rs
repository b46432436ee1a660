use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use darkroom_farm_api::{Caller, Scope};
use futures::future::ready;

use super::*;
use crate::{
    openai::refusals::{
        Refusals,
        tests::{refuse, visit},
    },
    tasks::Tasks,
};

const GRACE: Duration = Duration::from_secs(60);
/// Jobs in a page of the record.
const PAGE: usize = 2;

/// A farm of jobs with these ids in its record, the newest first.
#[derive(Default)]
struct Farm {
    recorded: Vec<&'static str>,
    /// What the record was asked for.
    asked: Mutex<Vec<v1::ListJobsRequest>>,
    deleted: Mutex<Vec<String>>,
    submitted: AtomicUsize,
    /// Refuses what is submitted.
    full: bool,
}

impl Jobs for Farm {
    type Watched = String;

    fn submit(&self, _: v1::SubmitJobRequest) -> BoxFuture<'static, Answer<String>> {
        if self.full {
            return ready(Err(UserError::new(Code::Unavailable, "FULL", "full"))).boxed();
        }
        let number = self.submitted.fetch_add(1, Ordering::Relaxed) + 1;
        ready(Ok(format!("new{number}"))).boxed()
    }

    async fn list(&self, request: v1::ListJobsRequest) -> Answer<v1::ListJobsResponse> {
        let first: usize = request.page_token.parse().unwrap_or(0);
        self.asked.lock().expect("a lock").push(request);
        // Other retries go on meanwhile.
        tokio::task::yield_now().await;
        let rest = &self.recorded[first..];
        let next = first + PAGE;
        let jobs = rest.iter().take(PAGE);
        let jobs = jobs.map(|id| v1::Job { id: (*id).to_owned(), ..Default::default() });
        let next = if rest.len() > PAGE { next.to_string() } else { String::new() };
        Ok(v1::ListJobsResponse { jobs: jobs.collect(), next_page_token: next })
    }

    async fn watch(&self, id: &str) -> Answer<String> {
        if self.deleted.lock().expect("a lock").iter().any(|deleted| deleted == id) {
            return Err(UserError::new(Code::NotFound, "NOT_FOUND", "there is no such job"));
        }
        Ok(id.to_owned())
    }
}

/// A farm, what is known of its requests, and the requests that were refused.
struct Desk {
    farm: Farm,
    ledger: Ledger,
    refusals: Arc<Refusals>,
}

impl Desk {
    fn of(farm: Farm) -> Self {
        let ledger = Ledger::new(GRACE, |_, _| ready(()).boxed(), Tasks::default());
        Self { farm, ledger, refusals: Arc::default() }
    }

    /// A seat at a job, and its id.
    async fn place(&self, visit: &Visit) -> Answer<(Seat, String)> {
        let caller = Caller::of(None, [Scope::Submit], None);
        let sender = Sender { fingerprint: "f".to_owned(), caller };
        place((&self.ledger, &self.farm), visit, sender, v1::SubmitJobRequest::default()).await
    }

    fn visit(&self, retry: &str) -> Visit {
        visit(&self.refusals, "k", retry)
    }

    async fn first(&self) -> (Seat, String) {
        self.place(&self.visit("0")).await.expect("a job")
    }

    async fn retry(&self) -> (Seat, String) {
        self.place(&self.visit("1")).await.expect("a job")
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_refused_early_gets_pictures_of_its_own() {
    let desk = Desk::of(Farm { recorded: vec!["old"], ..Farm::default() });
    let (waiting, first) = desk.first().await;
    let (answered, second) = desk.first().await;
    answered.answered();
    assert_eq!((&first[..], &second[..]), ("new1", "new2"));
    for _ in 0..2 {
        refuse(&desk.visit("0"));
    }
    let (seat, third) = desk.retry().await;
    assert_eq!(third, "new3", "neither that which waits, nor that which was answered, nor old");
    drop(seat);
    let (seat, again) = desk.retry().await;
    assert_eq!(again, "new3", "its client is gone");
    let (other, fourth) = desk.retry().await;
    assert_eq!(fourth, "new4", "the other one that was refused");
    let (last, joined) = desk.retry().await;
    assert_eq!(joined, "new4", "nobody else was refused");
    drop((waiting, seat, other, last));
}

#[tokio::test(start_paused = true)]
async fn a_retry_whose_own_job_is_refused_may_come_once_more() {
    let mut desk = Desk::of(Farm::default());
    let (waiting, _) = desk.first().await;
    refuse(&desk.visit("0"));
    desk.farm.full = true;
    let retry = desk.visit("1");
    assert_eq!(desk.place(&retry).await.err().expect("full").reason, "FULL");
    refuse(&retry);
    desk.farm.full = false;
    let (seat, second) = desk.retry().await;
    assert_eq!(second, "new2");
    // What fails behind a job leaves the job for the retry.
    let busy = desk.visit("0");
    let (last, third) = desk.place(&busy).await.expect("a job");
    refuse(&busy);
    assert_eq!(desk.retry().await.1, third);
    drop((waiting, seat, last));
}

#[tokio::test(start_paused = true)]
async fn a_retry_whose_job_was_deleted_gets_a_new_one() {
    let desk = Desk::of(Farm { recorded: vec!["old"], ..Farm::default() });
    let delete = |job: &str| desk.farm.deleted.lock().expect("a lock").push(job.to_owned());
    delete("old");
    let (seat, first) = desk.retry().await;
    assert_eq!(first, "new1", "the recorded one was deleted");
    drop(seat);
    delete("new1");
    let (seat, second) = desk.retry().await;
    assert_eq!(second, "new2", "the abandoned one was deleted");
    delete("new3");
    let error = desk.place(&desk.visit("0")).await.err().expect("deleted at once");
    assert_eq!(
        (error.code, &error.message[..]),
        (Code::FailedPrecondition, "job new3 was deleted; send the request again for a new job")
    );
    drop(seat);
}

#[tokio::test(start_paused = true)]
async fn retries_at_the_same_time_take_a_recorded_job_once_and_leave_it_to_each_other() {
    let desk = Desk::of(Farm { recorded: vec!["old"], ..Farm::default() });
    let ((first, job), (second, same)) = tokio::join!(desk.retry(), desk.retry());
    assert_eq!((&job[..], &same[..]), ("old", "old"));
    drop(first);
    assert!(desk.ledger.rejoin_abandoned("f").is_none(), "the second one still waits");
    drop(second);
    assert!(desk.ledger.rejoin_abandoned("f").is_some());
    let desk = Desk::of(Farm { recorded: vec!["newer", "older"], ..Farm::default() });
    let ((_first, one), (_second, other)) = tokio::join!(desk.retry(), desk.retry());
    assert_ne!(one, other, "each has its own");
    assert!(
        [&one, &other].iter().all(|job| desk.farm.recorded.contains(&&job[..])),
        "{one} {other}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_record_is_asked_for_recent_jobs_of_the_request_that_were_not_given_up() {
    let desk = Desk::of(Farm { recorded: vec!["a", "b", "c", "d"], ..Farm::default() });
    let earliest = now() - RECENT.as_secs();
    // Of a request that is known already, the job is not taken from the record.
    let seats: Vec<_> = ["a", "b", "c"]
        .map(|job| {
            let caller = Caller::of(None, [Scope::Submit], None);
            let sender = Sender { fingerprint: "other".to_owned(), caller };
            desk.ledger.adopt(&sender, job.to_owned())
        })
        .into();
    let (seat, job) = desk.retry().await;
    assert_eq!(job, "d", "the second page has it");
    let latest = now() - RECENT.as_secs();
    let asked = desk.farm.asked.lock().expect("a lock").clone();
    let tokens: Vec<_> = asked.iter().map(|asked| asked.page_token.as_str()).collect();
    assert_eq!(tokens, ["", "2"]);
    for asked in &asked {
        assert_eq!(asked.labels, [(spec::REQUEST.to_owned(), "f".to_owned())].into());
        let states: Vec<_> = asked.states().collect();
        use v1::JobState::{Active, Done, Paused};
        assert_eq!(states, [Active, Paused, Done], "neither cancelled nor failed ones");
        let from = asked.created_from.as_ref().expect("a time");
        let from = u64::try_from(from.seconds).expect("after 1970");
        assert!((earliest..=latest).contains(&from), "{earliest} {from} {latest}");
    }
    drop((seat, seats));
}

#[tokio::test(start_paused = true)]
async fn only_the_first_pages_of_the_record_are_looked_at() {
    let jobs = ["a", "b", "c", "d", "e", "f", "g"];
    let desk = Desk::of(Farm { recorded: jobs.to_vec(), ..Farm::default() });
    let caller = Caller::of(None, [Scope::Submit], None);
    let sender = Sender { fingerprint: "other".to_owned(), caller };
    let taken = jobs[..PAGES * PAGE].iter();
    let seats: Vec<_> = taken.map(|job| desk.ledger.adopt(&sender, (*job).to_owned())).collect();
    let (seat, job) = desk.retry().await;
    assert_eq!(job, "new1");
    assert_eq!(desk.farm.asked.lock().expect("a lock").len(), PAGES);
    drop((seat, seats));
}
