//! The farm over HTTP, as any client sees it.

mod batches;
mod callers;
mod description;
mod events;
mod files;
mod openai;
mod readme;
mod same_words;
mod strange_requests;
mod submits;

use std::path::Path;

use darkroom_tests::{
    eventually, eventually_async,
    farm::{Farm, Renderer},
    http::Http,
};
use serde_json::{Value, json};

/// A farm where everybody may do everything, and a client of it.
fn open(folder: &Path) -> (Farm, Http) {
    let farm = Farm::start(folder, Renderer::Fake);
    let http = Http::new(&farm.address);
    (farm, http)
}

/// A farm whose callers need keys, and a client with the key of its owner.
fn kept(folder: &Path) -> (Farm, Http, String) {
    kept_with(folder, &[])
}

/// The same with more in its environment.
fn kept_with(folder: &Path, env: &[(&str, &str)]) -> (Farm, Http, String) {
    let env = [&[("DARKROOM_OPEN", "")], env].concat();
    let farm = Farm::start_with(folder, Renderer::Fake, &env);
    let key = eventually("the farm's own key", || {
        let key = std::fs::read_to_string(folder.join("state/farm.key")).ok()?;
        Some(key.trim().to_owned()).filter(|key| !key.is_empty())
    });
    let http = Http::new(&farm.address).with_key(&key);
    (farm, http, key)
}

/// Submits one prompt at the smallest size, and returns the job's id.
async fn submit(http: &Http, text: &str, images: u32) -> String {
    let body = json!({
        "spec": {"images_per_prompt": images, "settings": {"size": 64}, "seed": 7},
        "prompts": [{"text": text}],
    });
    let accepted = http.post("/api/v1/jobs", &body).await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
    accepted.json()["job"]["id"].as_str().expect("an id").to_owned()
}

/// Waits until a job has ended and its manifest is written.
async fn ended(http: &Http, job: &str) -> Value {
    let path = format!("/api/v1/jobs/{job}");
    eventually_async("the job ends", async || {
        let told = http.get(&path).await.json();
        let written = !told["manifest_key"].as_str().unwrap_or_default().is_empty();
        written.then_some(told)
    })
    .await
}
