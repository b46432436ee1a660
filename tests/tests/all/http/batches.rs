//! Files and batches: what is kept when the farm is killed, and whose they are. What clients see of
//! them, OpenAI's own client tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use darkroom_test_servers::receiver::{Answer, Receiver};
use darkroom_tests::{
    demo_cascade, eventually_async,
    farm::{Farm, Renderer},
    http::Http,
};
use serde_json::{Value, json};

use super::{kept, open};

/// Sends a file of requests, and returns its id.
async fn upload(http: &Http, lines: &[Value]) -> String {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let body = format!(
        "--cut\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--cut\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"requests.jsonl\"\r\n\r\n{text}\r\n\
         --cut--\r\n"
    );
    let form = http.clone().with("content-type", "multipart/form-data; boundary=cut");
    let stored = form.send("POST", "/v1/files", body).await;
    assert_eq!(stored.status, 200, "{stored:?}");
    stored.json()["id"].as_str().expect("an id").to_owned()
}

async fn begin(http: &Http, lines: &[Value]) -> String {
    let body = json!({
        "input_file_id": upload(http, lines).await,
        "endpoint": "/v1/images/generations",
        "completion_window": "24h",
    });
    let begun = http.post("/v1/batches", &body).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    begun.json()["id"].as_str().expect("an id").to_owned()
}

fn request(name: &str, prompt: &str) -> Value {
    let body = json!({"prompt": prompt, "size": "64x64", "seed": 7});
    json!({"custom_id": name, "method": "POST", "url": "/v1/images/generations", "body": body})
}

async fn show(http: &Http, batch: &str) -> Value {
    http.get(&format!("/v1/batches/{batch}")).await.json()
}

/// Waits until a batch is as far as that.
async fn until(http: &Http, batch: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..2_400 {
        let told = show(http, batch).await;
        if is_so(&told) {
            return told;
        }
        // Rarely, because each answer looks at the jobs of the farm under test.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the batch stays as it is: {}", show(http, batch).await)
}

/// The results of a batch, by the names of their requests.
async fn results(http: &Http, file: &Value) -> BTreeMap<String, Value> {
    let file = file.as_str().expect("a file");
    let text = http.get(&format!("/v1/files/{file}/content")).await;
    let text = std::str::from_utf8(&text.body).expect("text").to_owned();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        (line["custom_id"].as_str().expect("a name").to_owned(), line)
    };
    text.lines().map(line).collect()
}

#[tokio::test]
async fn a_batch_goes_on_after_kills_and_renders_each_request_once() {
    let folder = tempfile::tempdir().expect("folder");
    let (mut farm, mut http) = open(folder.path());
    let lines: Vec<Value> =
        (0..300).map(|number| request(&format!("r{number}"), &format!("fox {number}"))).collect();
    let batch = begin(&http, &lines).await;
    // Each time, it is killed in another state, or as near to it as it happens.
    let states: [fn(&Value) -> bool; 4] = [
        |_| true,
        |told| told["status"] != "validating",
        |told| told["request_counts"]["completed"].as_u64() > Some(50),
        |told| ["finalizing", "completed"].iter().any(|state| told["status"] == *state),
    ];
    for is_so in states {
        until(&http, &batch, is_so).await;
        farm.kill();
        farm = Farm::start(folder.path(), Renderer::Fake);
        http = Http::new(&farm.address);
    }
    let told = until(&http, &batch, |told| told["status"] == "completed").await;
    assert_eq!(told["request_counts"], json!({"total": 300, "completed": 300, "failed": 0}));
    let done = results(&http, &told["output_file_id"]).await;
    assert_eq!(done.len(), 300);
    assert_eq!(told["error_file_id"], Value::Null);
    let jobs = http.get("/api/v1/jobs").await.json();
    let jobs = jobs["jobs"].as_array().expect("a list");
    assert_eq!(jobs.len(), 1, "the kills made no second job: {jobs:?}");
    assert_eq!(jobs[0]["images"], 300);
    let stored = http.get("/v1/files?purpose=batch_output").await.json();
    assert_eq!(stored["data"].as_array().map(Vec::len), Some(1), "one file of results");
    // The first farm had another port, and its links name it.
    let url = done["r42"]["response"]["body"]["data"][0]["url"].as_str().expect("a link");
    let path = &url[url.find("/links/").expect("a link of the farm's")..];
    let picture = Http::new(&farm.address).get(path).await;
    assert_eq!((picture.status.as_u16(), picture.header("content-type")), (200, "image/png"));
    farm.stop();
}

#[tokio::test]
async fn a_batch_that_names_several_cascades_becomes_a_job_of_each() {
    let folder = tempfile::tempdir().expect("folder");
    // The same networks under another name are another cascade.
    let other = folder.path().join("other");
    copy_cascade(&demo_cascade(), &other);
    let farm = Farm::start_with_cascades(folder.path(), Renderer::Fake, &[&other]);
    let http = Http::new(&farm.address);
    let line = |number: u32| {
        let mut line = request(&format!("r{number}"), &format!("fox {number}"));
        line["body"]["model"] = ["demo", "other", "third"][number as usize % 3].into();
        line
    };
    let lines: Vec<_> = (0..30).map(line).collect();
    let batch = begin(&http, &lines).await;
    let told = until(&http, &batch, |told| told["completed_at"].is_u64()).await;
    assert_eq!(told["request_counts"], json!({"total": 30, "completed": 20, "failed": 10}));
    let mut used = BTreeSet::new();
    for job in told["jobs"].as_array().expect("jobs") {
        let job = http.get(&format!("/api/v1/jobs/{}", job.as_str().expect("an id"))).await.json();
        assert_eq!(job["images"], 10);
        used.insert(job["cascade_digest"].as_str().expect("a digest").to_owned());
    }
    let served = http.get("/api/v1/cascades").await.json();
    let served = served["cascades"].as_array().expect("a list").iter();
    let digests = served.map(|one| one["digest"].as_str().expect("a digest").to_owned());
    assert_eq!(used, digests.collect(), "a job of each");
    let done = results(&http, &told["output_file_id"]).await;
    let failed = results(&http, &told["error_file_id"]).await;
    for (name, line) in done.iter().chain(&failed) {
        let number: u32 = name[1..].parse().expect("a number");
        let status = &line["response"]["status_code"];
        assert_eq!(status == 200, number % 3 < 2, "{name}: {line}");
    }
    assert_eq!((done.len(), failed.len()), (20, 10));
    farm.stop();
}

/// A copy of a cascade, which has the folder's name.
fn copy_cascade(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-r").args([from, to]).status().expect("cp runs");
    assert!(done.success());
    let file = to.join("cascade.toml");
    let text = std::fs::read_to_string(&file).expect("cascade.toml");
    let name = to.file_name().expect("a name").to_string_lossy();
    let renamed = text.replace("name = \"demo\"", &format!("name = \"{name}\""));
    assert_ne!(renamed, text);
    std::fs::write(file, renamed).expect("written");
}

#[tokio::test]
async fn a_batch_whose_job_is_deleted_ends_and_says_that_its_pictures_are_gone() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    // So many that the farm cannot render all of them before this test finds the job.
    let lines: Vec<Value> =
        (0..2_000).map(|number| request(&format!("r{number}"), &format!("fox {number}"))).collect();
    let batch = begin(&http, &lines).await;
    let told = until(&http, &batch, |told| told["jobs"][0].is_string()).await;
    let job = told["jobs"][0].as_str().expect("a job");
    let deleted = http.send("DELETE", &format!("/api/v1/jobs/{job}?cancel=true"), "").await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let told = until(&http, &batch, |told| told["completed_at"].is_u64()).await;
    let counts = &told["request_counts"];
    let failed = results(&http, &told["error_file_id"]).await;
    assert_eq!((&counts["total"], &counts["failed"]), (&json!(2_000), &json!(2_000)));
    assert_eq!(failed.len(), 2_000, "a deleted job has no picture");
    assert_eq!(told["output_file_id"], Value::Null);
    for (name, line) in &failed {
        assert_eq!(line["error"]["code"], "request_cancelled", "{name}: {line}");
    }
}

#[tokio::test]
async fn files_and_batches_of_others_do_not_exist() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, owner, _) = kept(folder.path());
    let key = async |tenant: &str, scope: &str| {
        let body = json!({"tenant": tenant, "scopes": [scope]});
        let made = owner.post("/api/v1/keys", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        Http::new(&farm.address).with_key(made.json()["secret"].as_str().expect("a key"))
    };
    let (mine, theirs) = (key("a", "submit").await, key("b", "submit").await);
    let reader = key("a", "read").await;
    let batch = begin(&mine, &[request("one", "a fox")]).await;
    let told = until(&reader, &batch, |told| told["status"] == "completed").await;
    let (input, output) = (&told["input_file_id"], &told["output_file_id"]);
    let [input, output] = [input, output].map(|id| id.as_str().expect("an id").to_owned());
    let nobodys =
        ["file-00000000000000000000000000000000", "batch_00000000000000000000000000000000"];
    for (method, path, own, other) in [
        ("GET", "/v1/files/ID", &input, nobodys[0]),
        ("GET", "/v1/files/ID", &output, nobodys[0]),
        ("GET", "/v1/files/ID/content", &output, nobodys[0]),
        ("DELETE", "/v1/files/ID", &input, nobodys[0]),
        ("GET", "/v1/batches/ID", &batch, nobodys[1]),
        ("POST", "/v1/batches/ID/cancel", &batch, nobodys[1]),
    ] {
        let foreign = theirs.send(method, &path.replace("ID", own), "").await;
        let missing = theirs.send(method, &path.replace("ID", other), "").await;
        assert_eq!((foreign.status.as_u16(), missing.status.as_u16()), (404, 404), "{path}");
        let told = |reply: &darkroom_tests::http::Reply, id: &str| {
            String::from_utf8_lossy(&reply.body).replace(id, "ID")
        };
        assert_eq!(told(&foreign, own), told(&missing, other), "{path}");
    }
    for listing in ["/v1/files", "/v1/batches"] {
        assert_eq!(theirs.get(listing).await.json()["data"], json!([]), "{listing}");
        let own = mine.get(listing).await.json();
        assert!(!own["data"].as_array().expect("a list").is_empty(), "{listing}");
    }
    let after = theirs.get(&format!("/v1/files?after={input}")).await;
    assert_eq!(after.status, 404, "no page begins after another's file");
    let body = json!({
        "input_file_id": input, "endpoint": "/v1/images/generations", "completion_window": "24h",
    });
    assert_eq!(theirs.post("/v1/batches", &body).await.status, 404, "nor a batch from it");
    for (method, path) in [
        ("POST", "/v1/batches".to_owned()),
        ("POST", format!("/v1/batches/{batch}/cancel")),
        ("POST", "/v1/files".to_owned()),
        ("DELETE", format!("/v1/files/{input}")),
    ] {
        assert_eq!(reader.send(method, &path, "").await.status, 403, "{method} {path}");
    }
    assert_eq!(Http::new(&farm.address).get("/v1/files").await.status, 401, "no key");
}

#[tokio::test]
async fn webhooks_hear_of_a_batchs_end_and_of_its_jobs() {
    let folder = tempfile::tempdir().expect("folder");
    let allowed = [("DARKROOM_WEBHOOK_PRIVATE_ADDRESSES", "1")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &allowed);
    let http = Http::new(&farm.address);
    let receiver = Receiver::start(|_, _| Answer::Status(200));
    let made = http.post("/api/v1/webhooks", &json!({"url": receiver.url("127.0.0.1", "/")})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let good = begin(&http, &[request("one", "a fox")]).await;
    let done = until(&http, &good, |told| told["status"] == "completed").await;
    let bad = begin(&http, &[json!({"custom_id": 7})]).await;
    until(&http, &bad, |told| told["status"] == "failed").await;
    let told = eventually_async("three events", async || {
        Some(receiver.received()).filter(|told| told.len() >= 3)
    })
    .await;
    let event = |one: &darkroom_test_servers::receiver::Received| {
        let event: Value = serde_json::from_str(&one.body).expect("JSON");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        (text(&event["type"]), text(&event["data"]["id"]))
    };
    let told: std::collections::BTreeSet<_> = told.iter().map(event).collect();
    let job = done["jobs"][0].as_str().expect("a job").to_owned();
    let expected = [("batch.completed", good), ("batch.failed", bad), ("job.completed", job)];
    assert_eq!(told, expected.map(|(kind, id)| (kind.to_owned(), id)).into());
}

#[tokio::test]
async fn a_form_that_is_refused_leaves_no_file() {
    let folder = tempfile::tempdir().expect("folder");
    let (_farm, http) = open(folder.path());
    let form = http.clone().with("content-type", "multipart/form-data; boundary=cut");
    let part = |name: &str, text: &str| {
        format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    };
    let file = part("file\"; filename=\"a.jsonl", "{}");
    for (body, said) in [
        (format!("{file}{}--cut--\r\n", part("purpose", "vision")), "purpose is"),
        (format!("{file}--cut--\r\n"), "purpose is missing"),
        (format!("{file}{file}--cut--\r\n"), "file is given twice"),
        (
            format!("{file}{}--cut--\r\n", part("expires_after[seconds]", "3600")),
            "comes after file",
        ),
        (format!("{file}--cut"), "closing boundary is missing"),
    ] {
        let refused = form.send("POST", "/v1/files", body).await;
        let told = refused.json()["error"]["message"].as_str().expect("a sentence").to_owned();
        assert!(refused.status == 400 && told.contains(said), "{said}: {refused:?}");
        assert_eq!(http.get("/v1/files").await.json()["data"], json!([]), "{said}");
    }
}
