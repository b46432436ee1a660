//! Settings of single prompts in a prompt file, with the programs as they ship.

use darkroom_tests::farm::{Farm, Renderer};

#[test]
fn a_files_settings_are_those_of_its_pictures() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let table = "prompt,settings.size,settings.base.steps\na red circle,,\na blue star,64,2\n";
    std::fs::write(folder.path().join("prompts.csv"), table).expect("written");
    let submitted =
        farm.command(["submit", "--size", "256", "--batch", "prompts.csv", "-n", "2"]).run();
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let job = submitted.stdout.trim();
    assert_eq!(farm.command(["watch", job]).run().code, Some(0));
    let totals: Vec<u64> = farm.job(job)["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|stage| stage["total"].as_u64().expect("a number"))
        .collect();
    assert_eq!(totals, [3, 4, 2], "two texts and the empty one; four images, of which two go on");
    let images = farm.images(job);
    for image in &images[..2] {
        assert!(image.get("settings").is_none(), "{image}");
        assert_eq!(image["stage"], "sr256");
    }
    for image in &images[2..] {
        assert_eq!((&image["settings"]["size"], &image["stage"]), (&64.into(), &"base".into()));
        assert_eq!(image["settings"]["stages"][0]["steps"], 2);
    }
    assert_eq!(farm.command(["verify", job]).run().code, Some(0));
    let file =
        "{\"prompt\": \"a\", \"settings\": {\"stages\": [{\"stage\": \"base\", \"steps\": 0}]}}";
    let refused = farm.command(["submit", "--batch", "-"]).input(file.as_bytes()).run();
    refused.refused(2, &["prompts[0].settings.stages[0].steps is 0", "accepted: 1 to 1000"]);
}
