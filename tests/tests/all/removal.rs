//! Removal by real processes: whenever a coordinator is killed, what a job names stays, and what no
//! job names goes in the end.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use darkroom_test_servers::{
    redis::Redis,
    s3::{
        S3,
        faults::{Fault, Rule, When, Which},
    },
};
use darkroom_tests::{
    eventually,
    processes::{Coordinator, Settings},
};
use serde_json::Value;

fn submit(farm: &Coordinator, settings: &Settings, seed: &str) -> String {
    let arguments = ["--json", "submit", "-n", "2", "--seed", seed, "a red circle"];
    let said = farm.darkroom(settings, &arguments).run().json();
    said["job"]["id"].as_str().expect("an id").to_owned()
}

/// The files below a folder, except what the server itself keeps there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let below = paths.map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    below.flatten().collect()
}

fn waiting(farm: &Coordinator, settings: &Settings) -> u64 {
    let said = farm.darkroom(settings, &["--json", "clean"]).run().json();
    said["waiting"].as_u64().expect("a number")
}

#[test]
fn a_coordinator_killed_at_each_step_of_the_cleaner_loses_nothing_and_leaves_nothing() {
    let (redis, s3) = (Redis::start(), S3::start());
    let settings = Settings::on_s3(&redis, &s3);
    let mut farm = Coordinator::start(&settings);
    let members =
        ["darkroom-worker", "darkroom-encoder"].map(|name| settings.member(name, farm.port, &[]));
    let silent = || Rule::always(Fault::Silence);
    let mark = "cleaner/epoch.json";
    // Where the cleaner is stopped, and how long after the delete if storage does not stop it.
    let steps = [
        Some(silent().on(Which::Reads).on_key(mark)),
        Some(silent().on(Which::Writes).on_key(mark)),
        Some(silent().on(Which::Reads).on_key("list-type")),
        Some(silent().on_key("?delete")),
        Some(Rule { when: When::Share(0.5, 1), ..silent().on_key("?delete") }),
        None,
        None,
        None,
        None,
    ];
    let kept = submit(&farm, &settings, "7");
    let mut doomed = Vec::new();
    for step in 0..steps.len() {
        // One with pictures of its own, and one whose pictures are those of the kept job.
        let own = submit(&farm, &settings, &(100 + step).to_string());
        doomed.push([own, submit(&farm, &settings, "7")]);
    }
    for job in doomed.iter().flatten().chain([&kept]) {
        let ended = farm.darkroom(&settings, &["watch", job]).run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    eventually("every manifest is written", || {
        let jobs = doomed.iter().flatten().chain([&kept]);
        let is_written = |job: &String| farm.job(&settings, job)["manifest_key"] != "";
        jobs.clone().all(is_written).then_some(())
    });
    drop(members);
    let images = farm.darkroom(&settings, &["--json", "ls", &kept]).run().json_lines();
    let picture = |image: &Value| s3.file(image["key"].as_str().expect("a key"));
    let pictures: Vec<PathBuf> = images.iter().map(picture).collect();
    assert!(pictures.len() == 2 && pictures.iter().all(|file| file.is_file()), "{pictures:?}");
    for (position, (step, jobs)) in steps.iter().zip(&doomed).enumerate() {
        let before = s3.faults().struck();
        s3.faults().set(step.clone());
        for job in jobs {
            let deleted = farm.darkroom(&settings, &["rm", job]).run();
            assert_eq!(deleted.code, Some(0), "{deleted:?}");
        }
        match step {
            Some(step) => eventually(&format!("it comes to {step}"), || {
                (s3.faults().struck() > before).then_some(())
            }),
            None => std::thread::sleep(Duration::from_millis([0, 15, 40, 90][position % 4])),
        }
        farm.process.kill();
        s3.faults().clear();
        farm = Coordinator::start(&settings);
        assert!(pictures.iter().all(|file| file.is_file()), "step {position}");
    }
    eventually("all is removed", || (waiting(&farm, &settings) == 0).then_some(()));
    let verified = farm.darkroom(&settings, &["verify", &kept]).run();
    assert_eq!(verified.code, Some(0), "{verified:?}");
    // Of two images, their pictures and what their stages before the last one have stored.
    let stages = farm.job(&settings, &kept)["stages"].as_array().map_or(0, Vec::len) - 1;
    let folder = |name: &str| s3.file(&format!("fake/{name}"));
    let outputs = files(&folder("tasks"));
    assert_eq!(outputs.len(), 2 * stages, "{outputs:#?}");
    let manifests = files(&s3.file("manifests"));
    assert!(manifests.iter().all(|file| file.starts_with(s3.file(&format!("manifests/{kept}")))));
}
