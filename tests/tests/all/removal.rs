//! Removal by real processes: whenever a coordinator is killed, what a job names stays, and what no
//! job names goes in the end.

use std::{
    fs,
    path::{Path, PathBuf},
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

fn submit(farm: &Coordinator, settings: &Settings, seed: usize) -> String {
    let seed = seed.to_string();
    let arguments = ["--json", "submit", "-n", "2", "--seed", &seed, "a red circle"];
    let said = farm.darkroom(settings, &arguments).run().json();
    said["job"]["id"].as_str().expect("an id").to_owned()
}

fn until_ended(farm: &Coordinator, settings: &Settings, jobs: &[String]) {
    let mut open = jobs.to_vec();
    eventually("every manifest is written", || {
        open.retain(|job| farm.job(settings, job)["manifest_key"] == "");
        open.is_empty().then_some(())
    });
}

/// The files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let below = paths.map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    let mut all: Vec<PathBuf> = below.flatten().collect();
    all.sort();
    all
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
    // No worker runs meanwhile, so nothing else writes there.
    let deletes = || silent().on(Which::Writes).on_key("fake/tasks/");
    let mark = "cleaner/epoch.json";
    // Where storage stops the cleaner before it is killed.
    let steps = [
        silent().on(Which::Reads).on_key(mark),
        silent().on(Which::Writes).on_key(mark),
        silent().on(Which::Reads).on_key("list-type"),
        deletes(),
        Rule { when: When::Share(0.5, 1), ..deletes() },
    ];
    let kept = submit(&farm, &settings, 7);
    until_ended(&farm, &settings, std::slice::from_ref(&kept));
    let outputs = || files(&s3.file("fake/tasks"));
    let needed = outputs();
    assert_eq!(needed.len(), 6, "two images of three stages: {needed:#?}");
    // Each step deletes a job whose pictures no other job has, because its seeds are its own. The last
    // two steps also delete one whose pictures the kept job has.
    let doomed: Vec<Vec<String>> = (0..steps.len())
        .map(|step| {
            let seeds = if step < 3 { vec![100 + 10 * step] } else { vec![100 + 10 * step, 7] };
            seeds.into_iter().map(|seed| submit(&farm, &settings, seed)).collect()
        })
        .collect();
    until_ended(&farm, &settings, &doomed.concat());
    assert_eq!(outputs().len(), 6 + 6 * steps.len());
    drop(members);
    for (step, jobs) in steps.iter().zip(&doomed) {
        let before = s3.faults().struck();
        s3.faults().set([step.clone()]);
        let mut remove = vec!["rm"];
        remove.extend(jobs.iter().map(String::as_str));
        let deleted = farm.darkroom(&settings, &remove).run();
        assert_eq!(deleted.code, Some(0), "{deleted:?}");
        eventually(&format!("the cleaner comes to {step}"), || {
            (s3.faults().struck() > before).then_some(())
        });
        farm.process.kill();
        s3.faults().clear();
        farm = Coordinator::start(&settings);
        assert!(needed.iter().all(|file| file.is_file()), "{step}");
    }
    eventually("all is removed", || (waiting(&farm, &settings) == 0).then_some(()));
    let verified = farm.darkroom(&settings, &["verify", &kept]).run();
    assert_eq!(verified.code, Some(0), "{verified:?}");
    // Manifests of deleted jobs go with their last rows, a minute later.
    assert_eq!(outputs(), needed);
}
