//! Finding jobs and images, and viewing them: listings, failures, maps, single images, sheets,
//! previews, and the watch of the whole farm.

use std::fs::{self, File};

use darkroom_artifacts::picture;
use darkroom_core::output::Format;
use darkroom_tests::{
    eventually,
    farm::{Farm, Renderer},
};
use serde_json::{Value, json};

/// The state of a job that has ended for the `generation`th time.
fn ended(farm: &Farm, job: &str, generation: u64) -> Value {
    eventually("the job has ended", || {
        let told = farm.job(job);
        let over = matches!(told["state"].as_str(), Some("done" | "failed"));
        (over && told["generation"] == generation && told["manifest_key"] != "").then_some(told)
    })
}

fn submit(farm: &Farm, arguments: &[&str]) -> String {
    let submit = ["--json", "submit", "--size", "256", "--seed", "10"];
    let said = farm.command(submit).args(arguments).run().json();
    said["job"]["id"].as_str().expect("an id").to_owned()
}

/// The ids of the jobs that `darkroom ls` finds.
fn found(farm: &Farm, arguments: &[&str]) -> Vec<String> {
    let jobs = farm.command(["--json", "ls"]).args(arguments).run().json_lines();
    jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect()
}

/// The indices of the images of a job that `darkroom ls` finds.
fn indices(farm: &Farm, job: &str, arguments: &[&str]) -> Vec<u64> {
    let images = farm.command(["--json", "ls", job]).args(arguments).run().json_lines();
    images.iter().map(|image| image["index"].as_u64().expect("an index")).collect()
}

/// The output of a command.
fn said(farm: &Farm, arguments: &[&str]) -> String {
    let ended = farm.command(arguments.iter().copied()).run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

#[test]
fn jobs_and_images_are_found_and_looked_at() {
    let folder = tempfile::tempdir().expect("folder");
    let failing = [("DARKROOM_FAKE_FAILING_SEED", "13")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &failing);
    let log = folder.path().join("watch.jsonl");
    let to = File::create(&log).expect("made");
    let _watch = farm.command(["--json", "watch"]).stdout(to).start();
    let events = || -> Vec<Value> {
        let text = fs::read_to_string(&log).expect("read");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let begin = eventually("the watch begins", || events().first().cloned());
    assert_eq!(begin["reset"], true, "{begin}");
    assert!(begin.get("workers").is_some(), "{begin}");

    let first = submit(&farm, &["-n", "4", "--label", "set=a", "--label", "old=", "a red circle"]);
    let second = submit(&farm, &["-n", "1", "--label", "set=b", "a blue star"]);
    let before = ended(&farm, &first, 1);
    assert_eq!((&before["state"], &before["images_done"]), (&"failed".into(), &3.into()));
    assert_eq!(before["labels"], json!({"old": "", "set": "a"}));
    assert_eq!(ended(&farm, &second, 1)["state"], "done");
    eventually("the watch reports the failed job", || {
        let told = events();
        let mut jobs = told.iter().filter_map(|event| event["jobs"].as_array()).flatten();
        jobs.any(|job| job["id"] == first && job["state"] == "failed").then_some(())
    });

    jobs_are_found(&farm, &first, &second);
    images_are_found(&farm, &first, &before);
    images_are_shown(&farm, folder.path(), &first);
}

fn jobs_are_found(farm: &Farm, first: &str, second: &str) {
    for (flags, jobs) in [
        (&["--label", "set=a"][..], &[first][..]),
        (&["--label", "set=b", "--label", "old="], &[]),
        (&["--text", "STAR"], &[second]),
        (&["--text", "-star"], &[]),
        (&["--since", "1h"], &[second, first]),
        (&["--since", "1h", "--oldest-first"], &[first, second]),
        (&["--until", "1h"], &[]),
        (&["--state-is", "failed"], &[first]),
    ] {
        assert_eq!(found(farm, flags), jobs, "{flags:?}");
    }
    let twice = ["ls", "--label", "set=a", "--label", "set=b"];
    farm.command(twice).run().refused(2, &["\"set\" is given twice"]);
    let never = ["ls", "--state-is", "receiving"];
    farm.command(never).run().refused(2, &["accepted: active, paused"]);
    said(farm, &["history", "--since", "2h", "--until", "1h"]);
    said(farm, &["usage", "--since", "2026-01-01"]);
}

fn images_are_found(farm: &Farm, job: &str, before: &Value) {
    assert_eq!(indices(farm, job, &["--from", "2"]), [2, 3]);
    assert_eq!(indices(farm, job, &["--state-is", "dead"]), [3]);
    let failures = farm.command(["--json", "failures", job]).run().json();
    let failure = &failures["failures"][0];
    assert_eq!((&failure["images_dead"], &failure["first_index"]), (&1.into(), &3.into()));
    assert_eq!(failure["code"], farm.images(job)[3]["error_code"], "{failures}");

    let attempts = |index: &str| -> Vec<(String, String)> {
        let told = farm.command(["--json", "image", job, index]).run().json();
        let word = |attempt: &Value, key: &str| attempt[key].as_str().expect("text").to_owned();
        let attempts = told["attempts"].as_array().expect("attempts").iter();
        attempts.map(|attempt| (word(attempt, "stage"), word(attempt, "outcome"))).collect()
    };
    let pair = |stage: &str, outcome: &str| (stage.to_owned(), outcome.to_owned());
    assert_eq!(attempts("0"), [pair("base", "done"), pair("sr256", "done")]);
    let failed = attempts("3");
    assert!(!failed.is_empty());
    assert!(failed.iter().all(|attempt| *attempt == pair("base", "failed")), "{failed:?}");

    assert_eq!(said(farm, &["map", job]), "000000-000002  done\n000003-000003  dead  base\n");
    let version = before["version"].as_u64().expect("a number").to_string();
    let since = ["--changed-since", &version];
    assert!(indices(farm, job, &since).is_empty());
    said(farm, &["retry", job, "--images", "3"]);
    assert_eq!(ended(farm, job, 2)["state"], "failed");
    assert_eq!(indices(farm, job, &since), [3]);
    let changed = said(farm, &["map", job, "--changed-since", &version]);
    assert_eq!(changed, "000003-000003  dead  base\n");
    assert!(attempts("3").len() > failed.len(), "attempts stay when a job is retried");
}

fn images_are_shown(farm: &Farm, folder: &std::path::Path, job: &str) {
    let sheet = ["sheet", job, "--from", "1", "--count", "3", "--tile", "32", "-o", "s.png"];
    let told = farm.command(["--json"]).args(sheet).run().json();
    assert_eq!((&told["sheet"]["first_index"], &told["path"]), (&1.into(), &"s.png".into()));
    assert_eq!(told["sheet"]["tiles"], json!(["filled", "filled", "empty"]));
    let format = || Format::of_bytes(&fs::read(folder.join("s.png")).expect("read"));
    assert_eq!(format(), Some(Format::Png));
    fs::write(folder.join("s.png"), b"mine").expect("written");
    farm.command(sheet).run().refused(3, &["s.png holds something else", "--out", "--overwrite"]);
    assert_eq!(format(), None, "nothing is replaced");
    assert_eq!(farm.command(sheet).args(["--overwrite"]).run().code, Some(0));
    assert_eq!(format(), Some(Format::Png));

    let paths = farm.command(["get", job, "--stage", "base"]).run().paths(folder);
    let place = folder.join("renders").join(job).join("base");
    let names = ["000000.png", "000001.png", "000002.png"].map(|name| place.join(name));
    assert_eq!(paths, names);
    for path in paths {
        let base = picture::decode(&fs::read(path).expect("read")).expect("a picture");
        assert_eq!((base.width, base.height), (64, 64));
    }
}
