use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use darkroom_farm_api::{Caller, Scope};
use futures::future::ready;

use super::*;
use crate::openai::refusals::{
    Refusals,
    tests::{refuse, visit},
};

const GRACE: Duration = Duration::from_secs(60);

/// A farm of jobs with these ids in its record, the newest first.
#[derive(Default)]
struct Farm {
    recorded: Vec<&'static str>,
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
        assert_eq!(request.labels[spec::REQUEST], "f");
        // Other retries go on meanwhile.
        tokio::task::yield_now().await;
        let jobs = self.recorded.iter();
        let jobs = jobs.map(|id| v1::Job { id: (*id).to_owned(), ..Default::default() });
        Ok(v1::ListJobsResponse { jobs: jobs.collect(), ..Default::default() })
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
        let ledger = Ledger::new(GRACE, |_, _| ready(()).boxed());
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
        (Code::FailedPrecondition, "job new3 was deleted")
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
