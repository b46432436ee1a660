//! Commands to some images of a job from the command line, and pictures that are lost.

use darkroom_tests::{
    eventually,
    farm::{Farm, Renderer},
};

fn submit(farm: &Farm, arguments: &[&str]) -> String {
    let submit = ["--json", "submit", "-n", "6", "--seed", "7"];
    let said = farm.command(submit).args(arguments).run().json();
    let job = said["job"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    job
}

fn texts(farm: &Farm, job: &str, key: &str) -> Vec<String> {
    let images = farm.images(job);
    images.iter().map(|image| image[key].as_str().expect("text").to_owned()).collect()
}

#[test]
fn a_lost_and_a_damaged_picture_are_rendered_again_with_the_same_bytes() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = submit(&farm, &["a red circle"]);
    let keys = texts(&farm, &job, "key");
    let file = |index: usize| folder.path().join("state/artifacts").join(&keys[index]);
    std::fs::remove_file(file(1)).expect("removes");
    std::fs::write(file(4), b"not a picture").expect("damages");
    farm.command(["verify", &job]).run().refused(3, &["2 of the 6", "--lost"]);
    let counted = farm.command(["--json", "retry", &job, "--lost", "--dry-run"]).run().json();
    assert_eq!((&counted["images"], &counted["skipped_intact"]), (&2.into(), &4.into()));
    let retried = farm.command(["--json", "retry", &job, "--lost"]).run().json();
    assert_eq!((&retried["images"], &retried["checked"]), (&2.into(), &6.into()));
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0), "{}", farm.log());
    assert_eq!(farm.command(["verify", &job]).run().code, Some(0), "{}", farm.log());
    assert_eq!(texts(&farm, &job, "key"), keys);
    assert_eq!(farm.job(&job)["generation"], 2);
}

#[test]
fn a_job_without_reuse_renders_beside_what_is_there() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let first = submit(&farm, &["a red circle"]);
    let reused = submit(&farm, &["a red circle"]);
    let own = submit(&farm, &["--no-reuse", "a red circle"]);
    assert_eq!(texts(&farm, &first, "key"), texts(&farm, &reused, "key"));
    let (before, after) = (texts(&farm, &first, "key"), texts(&farm, &own, "key"));
    assert!(after.iter().all(|key| !before.contains(key)), "{after:?}");
    assert_eq!(texts(&farm, &first, "sha256"), texts(&farm, &own, "sha256"), "the same bytes");
    assert_eq!(farm.command(["verify", &first]).run().code, Some(0));
    assert_eq!(farm.job(&own)["no_reuse"], true);
}

#[test]
fn some_images_are_cancelled_and_retried_from_the_command_line() {
    let folder = tempfile::tempdir().expect("folder");
    // A batch takes four seconds, so nothing is done before the commands below have been given.
    let slow = [("DARKROOM_FAKE_STEP_MS", "200")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &slow);
    let submit = ["--json", "submit", "-n", "12", "--size", "64", "a red circle"];
    let said = farm.command(submit).run().json();
    let job = said["job"]["id"].as_str().expect("an id");
    assert_eq!(farm.command(["pause", job]).run().code, Some(0));
    let cancel = ["--json", "cancel", job, "--images", "8-11"];
    let counted = farm.command(cancel).args(["--dry-run"]).run().json();
    assert_eq!((&counted["images"], &counted["job"]["images_cancelled"]), (&4.into(), &0.into()));
    assert_eq!(farm.command(cancel).run().json()["images"], 4);
    assert_eq!(farm.command(["resume", job]).run().code, Some(0));

    let ended = |generation: u64| {
        let told = farm.job(job);
        let over = told["state"] == "done" && told["manifest_key"] != "";
        (over && told["generation"] == generation).then_some(told)
    };
    let told = eventually("the rest is done", || ended(1));
    assert_eq!((&told["images_done"], &told["images_cancelled"]), (&8.into(), &4.into()));
    let states = texts(&farm, job, "state");
    assert!(states[..8].iter().all(|state| state == "done"), "{states:?}");
    assert!(states[8..].iter().all(|state| state == "cancelled"), "{states:?}");

    let twice = ["retry", job, "--label", "a=1", "--label", "a=2"];
    farm.command(twice).run().refused(2, &["\"a\" is given twice"]);
    farm.command(["cancel", job, "--label", "nothing"]).run().refused(2, &["KEY=VALUE"]);
    let retried = farm.command(["--json", "retry", job, "--state-is", "cancelled"]).run().json();
    assert_eq!(retried["images"], 4);
    let told = eventually("all are done", || ended(2));
    assert_eq!((&told["images_done"], &told["images_cancelled"]), (&12.into(), &0.into()));
}
