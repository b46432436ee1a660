//! Jobs over HTTP: submitting, listing, commands.

use serde_json::{Value, json};

use super::{ended, open, submit};

#[tokio::test]
async fn a_job_is_submitted_listed_commanded_and_deleted() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let id = submit(&http, "a red circle", 2).await;
    let job = ended(&http, &id).await;
    assert_eq!((&job["state"], &job["images_done"]), (&json!("done"), &json!(2)));

    let listed = http.get("/api/v1/jobs?state=done&state=failed&page_size=5").await.json();
    assert_eq!(listed["jobs"][0]["id"], *id);
    assert_eq!(http.get("/api/v1/jobs?state=cancelled").await.json()["jobs"], json!([]));
    let images = http.get(&format!("/api/v1/jobs/{id}/images?start_index=1")).await.json();
    let [image] = images["images"].as_array().expect("a list").as_slice() else {
        panic!("{images}")
    };
    assert_eq!((&image["index"], &image["seed"]), (&json!(1), &json!(8)));
    let image = http.get(&format!("/api/v1/jobs/{id}/images/1")).await.json();
    assert_eq!(image["attempts"][0]["outcome"], "done", "{image}");
    let map = http.get(&format!("/api/v1/jobs/{id}/image-map")).await.json();
    assert_eq!((&map["whole"], &map["lengths"]), (&json!(true), &json!([2])));
    for path in ["farm", "cascades", "queue", "workers", "history", "usage", "display", "tenants"] {
        let answer = http.get(&format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    let nothing = http.post(&format!("/api/v1/jobs/{id}/image-retries"), &json!({})).await;
    assert_eq!(nothing.status, 400, "a filter without conditions: {nothing:?}");
    let again = json!({"filter": {"states": ["dead"]}, "dry_run": true});
    let again = http.post(&format!("/api/v1/jobs/{id}/image-retries"), &again).await;
    assert_eq!(again.json()["images"], 0);

    let deleted = http.send("DELETE", &format!("/api/v1/jobs/{id}"), "").await;
    assert_eq!(deleted.json()["deleted"], true);
    let gone = http.get(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!(gone.status, 404, "{gone:?}");
}

#[tokio::test]
async fn pause_resume_and_cancel_are_what_a_job_has_or_has_not() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let id = submit(&http, "a red circle", 5_000).await;
    let at = |part: &str| format!("/api/v1/jobs/{id}/{part}");
    let state = |answer: darkroom_tests::http::Reply| answer.json()["state"].clone();
    assert_eq!(state(http.send("PUT", &at("pause"), "").await), "paused");
    assert_eq!(state(http.send("PUT", &at("pause"), "").await), "paused", "idempotent");
    assert_eq!(state(http.send("DELETE", &at("pause"), "").await), "active");
    assert_eq!(state(http.send("PUT", &at("cancellation"), "").await), "cancelled");
    ended(&http, &id).await;
    let retried = http.post(&at("retries"), &json!({"no_deadline": true})).await;
    assert_eq!(state(retried), "active");
    assert_eq!(state(http.send("PUT", &at("cancellation"), "").await), "cancelled");
}

#[tokio::test]
async fn a_repeated_submit_with_its_key_returns_the_first_job() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let keyed = http.clone().with("idempotency-key", "night-1");
    let body =
        |text: &str| json!({"spec": {"settings": {"size": 64}}, "prompts": [{"text": text}]});
    let first = keyed.post("/api/v1/jobs", &body("a red circle")).await;
    let again = keyed.post("/api/v1/jobs", &body("a red circle")).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 200));
    assert_eq!(first.json()["job"]["id"], again.json()["job"]["id"]);
    assert_eq!(first.header("location"), again.header("location"));
    let place = http.get(first.header("location")).await;
    assert_eq!(place.json()["id"], first.json()["job"]["id"]);
    let other = keyed.post("/api/v1/jobs", &body("a blue square")).await;
    assert_eq!(other.status, 409, "{other:?}");
    assert_eq!(http.get("/api/v1/jobs").await.json()["jobs"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_job_of_any_size_comes_as_json_lines() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let lines = http.clone().with("content-type", "application/jsonl");
    let mut body = json!({"name": "many", "settings": {"size": 64}}).to_string();
    for prompt in 0..25_000 {
        body.push_str(&format!("\n{{\"text\": \"a circle\", \"custom_id\": \"p{prompt}\"}}"));
    }
    let forecast = lines.send("POST", "/api/v1/forecasts", body.clone()).await;
    assert_eq!(forecast.json()["images"], 25_000, "{forecast:?}");
    let accepted = lines.send("POST", "/api/v1/jobs", body.clone()).await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let job = accepted.json();
    assert_eq!((&job["job"]["images"], &job["job"]["name"]), (&json!(25_000), &json!("many")));
    let id = job["job"]["id"].as_str().expect("an id");
    http.send("PUT", &format!("/api/v1/jobs/{id}/cancellation"), "").await;

    body.push_str("\n{\"txt\": \"a circle\"}");
    let wrong = lines.send("POST", "/api/v1/jobs", body).await;
    let (status, _, field, detail) = wrong.problem();
    assert_eq!((status, field.as_deref()), (400, Some("txt")));
    assert!(detail.starts_with("line 25002: txt cannot be read"), "{detail}");
    let jobs = http.get("/api/v1/jobs").await.json();
    let jobs: Vec<&Value> = jobs["jobs"].as_array().expect("a list").iter().collect();
    assert_eq!(jobs.len(), 1, "nothing is left of the wrong one");
}

#[tokio::test]
async fn every_listing_comes_in_pages_without_gaps_or_doubles() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, http) = open(folder.path());
    let mut jobs = Vec::new();
    for number in 0..5 {
        jobs.push(submit(&http, &format!("fox {number}"), 5).await);
    }
    for job in &jobs {
        ended(&http, job).await;
    }
    let newest_first: Vec<String> = jobs.iter().rev().cloned().collect();
    let ids = |list: &str, field: &'static str| {
        let (http, path) = (http.clone(), format!("/api/v1/{list}"));
        async move {
            let mut all = Vec::new();
            let mut token = String::new();
            loop {
                let joint = if path.contains('?') { '&' } else { '?' };
                let page =
                    http.get(&format!("{path}{joint}page_size=2&page_token={token}")).await.json();
                let key = path.rsplit('/').next().expect("a name").split('?').next().expect("it");
                let items = page[key].as_array().expect("a list").clone();
                assert!(items.len() <= 2, "{page}");
                all.extend(items.iter().map(|item| match &item[field] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                }));
                token = page["next_page_token"].as_str().expect("a token").to_owned();
                if token.is_empty() {
                    break all;
                }
            }
        }
    };
    assert_eq!(ids("jobs", "id").await, newest_first);
    assert_eq!(ids("jobs?state=done", "id").await, newest_first);
    let images = ids(&format!("jobs/{}/images", jobs[0]), "index").await;
    assert_eq!(images, ["0", "1", "2", "3", "4"]);
    let token = http.get("/api/v1/jobs?page_size=2").await.json()["next_page_token"].clone();
    let token = token.as_str().expect("a token");
    let other =
        http.get(&format!("/api/v1/jobs?state=failed&page_size=2&page_token={token}")).await;
    assert_eq!(other.status, 400, "a token belongs to its filter: {other:?}");
    farm.stop();
}
