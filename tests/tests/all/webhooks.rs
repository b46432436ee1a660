//! Webhooks of a farm in a process of its own: made by the command line, sent over kills, and
//! checked by OpenAI's client.

use std::{path::Path, process::Command};

use darkroom_test_servers::receiver::{Answer, Received, Receiver};
use darkroom_tests::{
    clients::client,
    eventually,
    farm::{Farm, Renderer},
};
use serde_json::{Value, json};

const ALLOWED: (&str, &str) = ("DARKROOM_WEBHOOK_PRIVATE_ADDRESSES", "1");

fn submit(farm: &Farm) -> String {
    let said = farm.command(["--json", "submit", "--size", "64", "a red circle"]).run().json();
    said["job"]["id"].as_str().expect("an id").to_owned()
}

fn add(farm: &Farm, url: &str) -> (String, String) {
    let made = farm.command(["--json", "webhook", "add", url]).run().json();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    (text(&made["webhook"]["id"]), text(&made["secret"]))
}

fn list(farm: &Farm) -> Vec<Value> {
    farm.command(["--json", "webhook", "list"]).run().json_lines()
}

fn received(receiver: &Receiver, count: usize) -> Vec<Received> {
    eventually("events", || Some(receiver.received()).filter(|all| all.len() >= count))
}

#[test]
fn an_event_is_unwrapped_by_openais_client() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[ALLOWED]);
    let receiver = Receiver::start(|_, _| Answer::Status(200));
    let (_, secret) = add(&farm, &receiver.url("127.0.0.1", "/hook"));
    let job = submit(&farm);
    let told = received(&receiver, 1);
    let lines: Vec<_> = told
        .iter()
        .map(|one| json!({"headers": one.headers, "body": one.body}).to_string())
        .collect();
    let file = folder.path().join("events");
    std::fs::write(&file, lines.join("\n")).expect("written");
    let ended = Command::new(client("python"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("openai"))
        .args(["-B", "-m", "unittest", "-v", "test_webhooks"])
        .env("DARKROOM_EVENTS", file)
        .env("DARKROOM_SECRET", &secret)
        .env("DARKROOM_JOB", job)
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("Ran 2 tests"), "{said}\n{}", farm.log());
    let secret = secret.strip_prefix("whsec_").expect("a secret");
    assert!(!farm.log().contains(secret), "the secret is in the log");
    let audit = farm.command(["--json", "audit"]).run().stdout;
    assert!(audit.contains("webhook.create") && !audit.contains(secret), "{audit}");
}

#[test]
fn killed_between_the_end_of_a_job_and_its_event_a_farm_sends_it_later() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[ALLOWED]);
    // The first request gets no answer, so nobody can say whether it was taken.
    let receiver = Receiver::start(|before, _| match before {
        0 => Answer::Nothing,
        _ => Answer::Status(200),
    });
    let (webhook, _) = add(&farm, &receiver.url("127.0.0.1", "/"));
    let job = submit(&farm);
    received(&receiver, 1);
    farm.kill();
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[ALLOWED]);
    let told = received(&receiver, 2);
    assert_eq!(told[0].body, told[1].body, "the same event");
    assert_eq!(told[0].headers["webhook-id"], told[1].headers["webhook-id"]);
    assert!(told[1].body.contains(&job), "{told:?}");
    eventually("it is delivered", || (list(&farm)[0]["events_waiting"] == 0).then_some(()));
    let listed = &list(&farm)[0];
    assert_eq!(
        (listed["id"].as_str(), &listed["last_error"]),
        (Some(webhook.as_str()), &json!(""))
    );
}

#[test]
fn the_command_line_makes_lists_and_ends_webhooks() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let refused = farm.command(["webhook", "add", "http://127.0.0.1:1/"]).run();
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--webhook-private-addresses"), "{}", refused.stderr);
    let refused =
        farm.command(["webhook", "add", "http://example.com/", "--event", "job.done"]).run();
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("event has \"job.done\"; accepted: job.completed"),
        "{}",
        refused.stderr
    );
    let made = farm
        .command([
            "webhook",
            "add",
            "http://localhost:1/a",
            "--event",
            "job.failed",
            "--name",
            "ops",
        ])
        .run();
    assert!(made.stdout.starts_with("whsec_"), "{}", made.stdout);
    let (other, _) = add(&farm, "http://localhost:1/b");
    let listed = farm.command(["webhook", "ls"]).run().stdout;
    for words in
        ["job.failed", "http://localhost:1/a (ops)", "http://localhost:1/b", "default", "all"]
    {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    submit(&farm);
    // The farm may not connect to loopback, and says so.
    let failing = eventually("the error is told", || {
        let listed = farm.command(["webhook", "list"]).run();
        listed.stderr.contains("has no public address").then_some(listed.stdout)
    });
    assert!(failing.contains("failing") || failing.contains("suspended"), "{failing}");
    let ended = farm.command(["webhook", "rm", &other]).run();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stdout.contains("1 event that waited is dropped"), "{}", ended.stdout);
    assert_eq!(list(&farm).len(), 1);
    assert_eq!(farm.command(["webhook", "rm", &other]).run().code, Some(3));
}
