use std::pin::Pin;

use axum::{Router, body::Body, middleware, routing::post};
use darkroom_core::{
    error::{Code, UserError},
    scope::Scope,
};
use darkroom_farm_api::{CallerLayer, HttpRoute, Keeper, Known, Proof, Rule};
use tower::ServiceExt as _;

use super::*;

/// A request of a client, the first one or a retry.
pub(in crate::openai) fn visit(refusals: &Arc<Refusals>, key: &str, retry: &str) -> Visit {
    Visit::of(Arc::clone(refusals), request(key, retry).headers())
}

/// The client is told to send a request again.
pub(in crate::openai) fn refuse(visit: &Visit) {
    visit.refused();
}

fn request(key: &str, retry: &str) -> Request {
    let request = http::Request::post("/").header(header::AUTHORIZATION, key);
    request.header(RETRY_COUNT, retry).body(Body::empty()).expect("a request")
}

#[test]
fn a_retry_is_a_request_that_was_sent_before() {
    let of = |count: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(count) = count {
            headers.insert(RETRY_COUNT, count.parse().expect("a header"));
        }
        is_retry(&headers)
    };
    assert!(of(Some("1")) && of(Some("2")));
    for first in [None, Some("0"), Some(""), Some("-1"), Some("x")] {
        assert!(!of(first), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_refused_request_of_a_client_is_taken_off_once_within_a_minute() {
    let refusals = Arc::default();
    let (mine, theirs) = (visit(&refusals, "k", "1"), visit(&refusals, "l", "1"));
    assert!(!mine.take_refusal());
    for _ in 0..2 {
        refuse(&visit(&refusals, "k", "0"));
    }
    assert!(!theirs.take_refusal(), "another client");
    assert!(mine.take_refusal() && mine.take_refusal() && !mine.take_refusal());
    refuse(&visit(&refusals, "k", "0"));
    tokio::time::sleep(REMEMBERED).await;
    assert!(!mine.take_refusal(), "its retry did not come");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_twice_counts_once() {
    let refusals = Arc::default();
    refuse(&visit(&refusals, "k", "0"));
    tokio::time::sleep(REMEMBERED / 2).await;
    refuse(&visit(&refusals, "k", "1"));
    tokio::time::sleep(REMEMBERED / 2).await;
    let second = visit(&refusals, "k", "2");
    assert!(second.take_refusal(), "the last refusal is half a minute ago");
    assert!(!second.take_refusal());
    // The farm refuses the job that this retry submits, so it counts again.
    second.mark_seated();
    refuse(&second);
    assert!(visit(&refusals, "k", "3").take_refusal());
    // This one's retry finds its job.
    let busy = visit(&refusals, "k", "0");
    busy.mark_placed();
    refuse(&busy);
    assert!(!visit(&refusals, "k", "1").take_refusal());
}

#[tokio::test(start_paused = true)]
async fn the_client_whose_last_refusal_is_the_oldest_is_forgotten_when_there_are_too_many() {
    let refusals = Arc::<Refusals>::default();
    for client in 0..=MOST {
        refuse(&visit(&refusals, &client.to_string(), "0"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(refusals.counts().len(), MOST);
    assert!(!visit(&refusals, "0", "1").take_refusal());
    assert!(visit(&refusals, "1", "1").take_refusal());
}

#[tokio::test]
async fn an_answer_counts_if_the_client_is_told_to_send_the_request_again() {
    for (status, after, counts) in [
        (429, Some("2"), true),
        (503, Some("1"), true),
        (429, None, false),
        (503, None, false),
        (500, None, false),
        (400, Some("1"), false),
        (200, None, false),
    ] {
        let answer = move || async move {
            let answer = http::Response::builder().status(status);
            let after = after.into_iter();
            let answer =
                after.fold(answer, |answer, time| answer.header(header::RETRY_AFTER, time));
            answer.body(Body::empty()).expect("an answer")
        };
        let refusals = Arc::<Refusals>::default();
        let layer = middleware::from_fn_with_state(Arc::clone(&refusals), watch);
        let site: Router = Router::new().route("/", post(answer).layer(layer));
        let answer = site.oneshot(request("k", "0")).await.expect("an answer");
        assert_eq!(answer.status(), status);
        assert_eq!(visit(&refusals, "k", "1").take_refusal(), counts, "{status} {after:?}");
    }
}

/// Knows nobody now.
struct Full;

impl Keeper for Full {
    fn known<'own, 'proof, 'asked>(
        &'own self,
        _: &'proof Proof,
    ) -> Pin<Box<dyn Future<Output = Result<Known, UserError>> + Send + 'asked>>
    where
        'own: 'asked,
        'proof: 'asked,
    {
        let quota =
            UserError::new(Code::ResourceExhausted, "QUOTA_REQUESTS_PER_SECOND", "too many");
        let quota = UserError { retry_after: Some(Duration::from_secs(1)), ..quota };
        Box::pin(std::future::ready(Err(quota)))
    }
}

#[tokio::test]
async fn a_request_without_a_caller_counts_like_one_that_the_farm_refuses() {
    let refusals = Arc::<Refusals>::default();
    let needs = HttpRoute { needs: Rule::Scope(Scope::Submit), tls: false };
    let callers = CallerLayer::kept(Arc::new(Full)).over_http(needs);
    let route = crate::openai::making(post(|| async { "a picture" }), callers, &refusals);
    let key = format!("Bearer dk_0123456789ab_{}", "x".repeat(43));
    let answer = Router::new().route("/", route).oneshot(request(&key, "0")).await;
    assert_eq!(answer.expect("an answer").status(), 429);
    assert!(visit(&refusals, &key, "1").take_refusal());
}
