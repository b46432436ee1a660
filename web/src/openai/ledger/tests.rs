use darkroom_farm_api::Scope;

use super::*;

const GRACE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A ledger, and the jobs that it cancelled.
fn ledger() -> (Ledger, Arc<Mutex<Vec<String>>>) {
    let cancelled = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&cancelled);
    let cancel = move |_, job: String| {
        noted.lock().expect("a lock").push(job);
        ready(()).boxed()
    };
    (Ledger::new(GRACE, cancel, Tasks::default()), cancelled)
}

fn sender(fingerprint: &str) -> Sender {
    let caller = Caller::of(None, [Scope::Submit], None);
    Sender { fingerprint: fingerprint.to_owned(), caller }
}

fn enter(ledger: &Ledger, fingerprint: &str, job: &str) -> Seat {
    ledger.enter(sender(fingerprint), ready(Ok(job.to_owned())))
}

/// Whether there is a request for a job.
fn knows(ledger: &Ledger, job: &str) -> bool {
    let state = ledger.book.state();
    state.requests.values().any(|request| request.job.as_deref() == Some(job))
}

async fn rejoined(ledger: &Ledger, fingerprint: &str) -> Option<String> {
    let seat = ledger.rejoin(fingerprint)?;
    let job = seat.job().await.expect("a job");
    seat.answered();
    Some(job)
}

#[tokio::test(start_paused = true)]
async fn the_job_of_a_client_that_is_gone_is_cancelled_unless_a_retry_comes() {
    let (ledger, cancelled) = ledger();
    let list = || cancelled.lock().expect("a lock").clone();
    drop(enter(&ledger, "f", "j1"));
    tokio::time::sleep(GRACE - SECOND).await;
    let retry = ledger.rejoin("f").expect("in time");
    tokio::time::sleep(10 * GRACE).await;
    assert!(list().is_empty(), "somebody waits again");
    assert_eq!(retry.job().await.expect("a job"), "j1");
    drop(retry);
    tokio::time::sleep(GRACE + SECOND).await;
    assert_eq!(list(), ["j1"]);
    assert!(ledger.rejoin("f").is_none(), "too late");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_sent_ends_the_matter() {
    let (ledger, cancelled) = ledger();
    let seat = enter(&ledger, "f", "j1");
    seat.job().await.expect("a job");
    seat.answered();
    assert_eq!(rejoined(&ledger, "f").await.as_deref(), Some("j1"), "lost on the way");
    tokio::time::sleep(LOST).await;
    assert!(ledger.rejoin("f").is_none());
    assert!(knows(&ledger, "j1") && !knows(&ledger, "j2"));
    tokio::time::sleep(GRACE).await;
    assert!(cancelled.lock().expect("a lock").is_empty());
    tokio::time::sleep(REMEMBERED).await;
    drop(enter(&ledger, "g", "j2"));
    assert!(!knows(&ledger, "j1"), "it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_retry_takes_the_newest_request_like_it_that_nobody_waits_for() {
    let (ledger, _) = ledger();
    let first = enter(&ledger, "f", "j1");
    drop(enter(&ledger, "f", "j2"));
    drop(enter(&ledger, "f", "j3"));
    let waiting = enter(&ledger, "f", "j4");
    drop(enter(&ledger, "other", "j5"));
    assert_eq!(rejoined(&ledger, "f").await.as_deref(), Some("j3"));
    assert_eq!(rejoined(&ledger, "f").await.as_deref(), Some("j2"));
    assert_eq!(rejoined(&ledger, "f").await.as_deref(), Some("j4"), "its client may be gone");
    drop((first, waiting));
}

#[tokio::test(start_paused = true)]
async fn two_clients_of_one_request_must_both_go_before_it_is_cancelled() {
    let (ledger, cancelled) = ledger();
    let first = enter(&ledger, "f", "j1");
    let second = ledger.rejoin("f").expect("the first one waits");
    drop(first);
    tokio::time::sleep(2 * GRACE).await;
    assert!(cancelled.lock().expect("a lock").is_empty());
    drop(second);
    tokio::time::sleep(GRACE + SECOND).await;
    assert_eq!(*cancelled.lock().expect("a lock"), ["j1"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_is_submitted_and_then_cancelled_even_if_its_client_leaves_at_once() {
    let (ledger, cancelled) = ledger();
    let slow = async {
        tokio::time::sleep(3 * SECOND).await;
        Ok("j1".to_owned())
    };
    drop(ledger.enter(sender("f"), slow));
    let retry = ledger.rejoin("f").expect("it is being submitted");
    assert_eq!(retry.job().await.expect("a job"), "j1");
    drop(retry);
    tokio::time::sleep(GRACE + SECOND).await;
    assert_eq!(*cancelled.lock().expect("a lock"), ["j1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_job_is_forgotten_and_a_full_ledger_forgets_the_oldest_answer() {
    let (ledger, _) = ledger();
    let refused = ready(Err(UserError::invalid("n", "n is 0")));
    let seat = ledger.enter(sender("f"), refused);
    assert_eq!(seat.job().await.expect_err("refused").message, "n is 0");
    drop(seat);
    assert!(ledger.rejoin("f").is_none());
    let waiting = enter(&ledger, "w", "w");
    for number in 0..MOST + 10 {
        enter(&ledger, "f", &number.to_string()).answered();
    }
    assert!(ledger.book.state().requests.len() <= MOST);
    assert!(ledger.rejoin("w").is_some(), "it is waited for");
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn only_a_request_whose_client_is_gone_is_rejoined_as_abandoned() {
    let (ledger, _) = ledger();
    let waiting = enter(&ledger, "f", "j1");
    enter(&ledger, "f", "j2").answered();
    assert!(ledger.rejoin_abandoned("f").is_none());
    drop(enter(&ledger, "f", "j3"));
    drop(enter(&ledger, "g", "j4"));
    let seat = ledger.rejoin_abandoned("f").expect("its client is gone");
    assert_eq!(seat.job().await.expect("a job"), "j3");
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_being_cancelled_is_taken_by_nobody() {
    let cancelled = Arc::new(tokio::sync::Semaphore::new(0));
    let done = Arc::clone(&cancelled);
    let cancel = move |_, _| {
        let done = Arc::clone(&done);
        async move { done.acquire().await.expect("open").forget() }.boxed()
    };
    let ledger = Ledger::new(GRACE, cancel, Tasks::default());
    drop(enter(&ledger, "f", "j1"));
    tokio::time::sleep(GRACE + SECOND).await;
    assert!(ledger.rejoin("f").is_none() && ledger.rejoin_abandoned("f").is_none());
    assert!(ledger.adopt(&sender("f"), "j1".to_owned()).is_none(), "it is about to end");
    cancelled.add_permits(1);
    tokio::time::sleep(SECOND).await;
    assert!(!knows(&ledger, "j1"), "it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_job_has_one_request_from_the_beginning() {
    let (ledger, cancelled) = ledger();
    let first = ledger.adopt(&sender("f"), "j1".to_owned()).expect("nobody's");
    assert!(ledger.adopt(&sender("f"), "j1".to_owned()).is_none(), "there is one");
    let second = ledger.rejoin("f").expect("a seat there");
    assert_eq!(second.job().await.expect("a job"), "j1");
    drop(first);
    tokio::time::sleep(2 * GRACE).await;
    assert!(cancelled.lock().expect("a lock").is_empty(), "the second one waits");
    drop(second);
    tokio::time::sleep(GRACE + SECOND).await;
    assert_eq!(*cancelled.lock().expect("a lock"), ["j1"]);
    drop(enter(&ledger, "g", "j2"));
    tokio::time::sleep(SECOND).await;
    assert!(knows(&ledger, "j2"), "although nobody waited for its id");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_request_is_found_by_nobody() {
    let (ledger, cancelled) = ledger();
    let other = enter(&ledger, "f", "j1");
    ledger.rejoin("f").expect("it waits").forget();
    assert!(ledger.rejoin("f").is_none());
    drop(other);
    tokio::time::sleep(2 * GRACE).await;
    assert!(cancelled.lock().expect("a lock").is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_when_the_ledger_is_gone() {
    let (ledger, cancelled) = ledger();
    drop(enter(&ledger, "f", "j1"));
    let seat = ledger.enter(sender("f"), std::future::pending());
    let tasks = ledger.book.tasks.clone();
    assert!(!tasks.tracker.is_empty());
    drop(ledger);
    tokio::time::timeout(SECOND, tasks.tracker.wait()).await.expect("all tasks ended");
    let error = seat.job().await.expect_err("never submitted");
    assert_eq!(error.message, "the farm is stopping; send the request again");
    drop(seat);
    tokio::time::timeout(SECOND, tasks.tracker.wait()).await.expect("nothing new goes on");
    assert!(cancelled.lock().expect("a lock").is_empty());
}
