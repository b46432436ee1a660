//! A farm that is killed, and started again on the same state.

use std::{collections::BTreeMap, path::Path};

use darkroom_tests::{
    eventually,
    farm::{Farm, Renderer},
};
use serde_json::Value;

const PROMPTS: [&str; 3] = [
    "a red circle",
    "a blue square above a green star",
    "a large yellow heart on a black background",
];
const IMAGES: u64 = 120;

fn submit(farm: &Farm) -> String {
    let arguments = ["--json", "submit", "-n", "40", "--seed", "7", "--request-id", "survival"];
    let said = farm.command(arguments).args(PROMPTS).run().json();
    assert_eq!(said["job"]["images"], IMAGES);
    said["job"]["id"].as_str().expect("an id").to_owned()
}

fn done(farm: &Farm, job: &str) -> u64 {
    farm.job(job)["images_done"].as_u64().expect("a number")
}

fn hashes(farm: &Farm, job: &str) -> BTreeMap<u64, String> {
    let images = farm.images(job);
    assert_eq!(images.len() as u64, IMAGES, "every image once");
    let hash = |image: &Value| {
        assert_eq!(image["state"], "done", "{image}");
        (
            image["index"].as_u64().expect("index"),
            image["sha256"].as_str().expect("hash").to_owned(),
        )
    };
    let hashes: BTreeMap<_, _> = images.iter().map(hash).collect();
    assert_eq!(hashes.len() as u64, IMAGES, "no image twice");
    hashes
}

fn undisturbed(folder: &Path) -> BTreeMap<u64, String> {
    let farm = Farm::start(folder, Renderer::Fake);
    let job = submit(&farm);
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0));
    hashes(&farm, &job)
}

#[test]
fn killed_in_the_middle_a_farm_finishes_what_it_accepted_with_the_same_bytes() {
    let calm = tempfile::tempdir().expect("folder");
    let expected = undisturbed(calm.path());

    let folder = tempfile::tempdir().expect("folder");
    let slow = [("DARKROOM_FAKE_STEP_MS", "3")];
    let mut farm = Farm::start_with(folder.path(), Renderer::Fake, &slow);
    let job = submit(&farm);
    for enough in [IMAGES / 4, IMAGES / 2] {
        let before = eventually("some images are done", || {
            let done = done(&farm, &job);
            (done >= enough).then_some(done)
        });
        assert!(before < IMAGES, "killed in the middle, not at the end");
        farm.kill();
        farm = Farm::start_with(folder.path(), Renderer::Fake, &slow);
        assert!(done(&farm, &job) >= before, "what was done stays done");
        assert_eq!(submit(&farm), job, "a repeated submit finds its job");
    }
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    assert_eq!(hashes(&farm, &job), expected);
    let failures: u64 =
        farm.images(&job).iter().map(|image| image["failures"].as_u64().unwrap_or(9)).sum();
    assert_eq!(failures, 0, "no image is charged for a killed farm");

    // Downloads are complete, can be resumed, and agree with the rows.
    let get = farm.command(["--json", "get", &job, "-o", "out"]).run().json();
    assert_eq!(get["fetched"], IMAGES);
    std::fs::remove_file(folder.path().join("out/000003.png")).expect("was there");
    let again = farm.command(["--json", "get", &job, "-o", "out"]).run().json();
    assert_eq!(again["fetched"], 1, "only what is missing is fetched again");
}

#[test]
fn an_acknowledged_submit_survives_the_power_cut_right_after() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = submit(&farm);
    farm.kill();
    let farm = Farm::start(folder.path(), Renderer::Fake);
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    hashes(&farm, &job);
}

#[test]
fn asked_to_end_a_farm_ends_well_and_costs_no_image_a_failure() {
    let folder = tempfile::tempdir().expect("folder");
    let slow = [("DARKROOM_FAKE_STEP_MS", "3")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &slow);
    let job = submit(&farm);
    eventually("work has begun", || (done(&farm, &job) > 0).then_some(()));
    assert_eq!(farm.stop(), Some(0));
    let farm = Farm::start(folder.path(), Renderer::Fake);
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    for image in farm.images(&job) {
        assert_eq!(image["failures"], 0, "{image}");
    }
}

#[test]
fn a_watch_outlives_its_farm_and_misses_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let slow = [("DARKROOM_FAKE_STEP_MS", "3")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &slow);
    let address = farm.address.clone();
    let job = submit(&farm);
    let watch = farm.command(["--json", "watch", "--images", &job]).start();
    eventually("some images are done", || (done(&farm, &job) > IMAGES / 8).then_some(()));
    farm.kill();
    let _farm = Farm::start_at(folder.path(), Renderer::Fake, &slow, &address);

    let events = watch.wait().json_lines();
    let versions: Vec<_> =
        events.iter().map(|event| event["version"].as_u64().expect("a version")).collect();
    assert!(
        versions.windows(2).all(|pair| pair[0] < pair[1]),
        "each once and in order: {versions:?}"
    );
    let done: std::collections::BTreeSet<_> = events
        .iter()
        .flat_map(|event| event["images"].as_array().expect("images"))
        .filter(|image| image["state"] == "done")
        .map(|image| image["index"].as_u64())
        .collect();
    assert_eq!(done.len() as u64, IMAGES, "every image's end was reported");
    assert_eq!(events.last().expect("an end")["end"], true);
}

#[test]
fn an_interrupted_render_ends_its_job() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_FAKE_STEP_MS", "20")]);
    let render = farm.command(["render", "-n", "500", "-o", "out", "a red circle"]).start();
    let job = eventually("its job exists and runs", || {
        let jobs = farm.command(["--json", "ls"]).run().json_lines();
        let job = jobs.first().filter(|job| job["images_done"].as_u64() > Some(0))?;
        Some(job["id"].as_str().expect("an id").to_owned())
    });
    render.signal(nix::sys::signal::Signal::SIGINT);
    render.wait().refused(4, &["interrupted", &job]);
    assert_eq!(farm.job(&job)["state"], "cancelled");
}

#[test]
fn jobs_are_paused_resumed_and_cancelled_from_the_command_line() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_FAKE_STEP_MS", "5")]);
    let job = submit(&farm);
    assert_eq!(farm.command(["--json", "pause", &job]).run().json()["state"], "paused");
    let waits = farm.job(&job);
    assert!(waits["waiting_for"].as_str().expect("text").contains("paused"), "{waits}");
    assert_eq!(farm.command(["--json", "resume", &job]).run().json()["state"], "active");
    eventually("work goes on", || (done(&farm, &job) > 0).then_some(()));
    assert_eq!(farm.command(["--json", "cancel", &job]).run().json()["state"], "cancelled");
    farm.command(["watch", &job]).run().refused(3, &["cancelled", &job]);

    assert_eq!(farm.command(["--json", "retry", &job]).run().json()["state"], "active");
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    hashes(&farm, &job);

    let listed = farm.command(["--json", "ls", "--state-is", "done"]).run().json_lines();
    assert_eq!(listed.len(), 1);
    let workers = farm.command(["--json", "workers"]).run().json();
    assert!(!workers.as_array().expect("a list").is_empty());
    let cascades = farm.command(["--json", "cascades"]).run().json();
    assert_eq!(cascades[0]["name"], "demo");
}
