use std::future::ready;

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
    (Ledger::new(GRACE, cancel), cancelled)
}

fn enter(ledger: &Ledger, fingerprint: &str, job: &str) -> Seat {
    let caller = Caller::of(None, [Scope::Submit], None);
    ledger.enter((fingerprint.to_owned(), caller), ready(Ok(job.to_owned())))
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
    assert!(ledger.knows("j1") && !ledger.knows("j2"));
    tokio::time::sleep(GRACE).await;
    assert!(cancelled.lock().expect("a lock").is_empty());
    tokio::time::sleep(REMEMBERED).await;
    drop(enter(&ledger, "g", "j2"));
    assert!(!ledger.knows("j1"), "it is forgotten");
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
    let caller = Caller::of(None, [Scope::Submit], None);
    drop(ledger.enter(("f".to_owned(), caller), slow));
    let retry = ledger.rejoin("f").expect("it is being submitted");
    assert_eq!(retry.job().await.expect("a job"), "j1");
    drop(retry);
    tokio::time::sleep(GRACE + SECOND).await;
    assert_eq!(*cancelled.lock().expect("a lock"), ["j1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_job_is_forgotten_and_a_full_ledger_forgets_the_oldest_answer() {
    let (ledger, _) = ledger();
    let caller = Caller::of(None, [Scope::Submit], None);
    let refused = ready(Err(UserError::invalid("n", "n is 0")));
    let seat = ledger.enter(("f".to_owned(), caller), refused);
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
