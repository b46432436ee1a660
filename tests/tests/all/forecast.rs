//! The cost of a job, on the command line: before it is submitted, while it runs, and after its
//! end.

use darkroom_tests::{
    eventually,
    farm::{Farm, Renderer},
};
use serde_json::Value;

const PROMPT: &str = "a red circle";

fn dry_run(farm: &Farm, rest: &[&str]) -> Value {
    let said =
        farm.command(["--json", "submit", "--dry-run", "-n", "8", PROMPT]).args(rest).run().json();
    assert_eq!(said["images"], 8);
    said["forecast"].clone()
}

fn seconds(forecast: &Value) -> f64 {
    forecast["device_seconds"].as_f64().unwrap_or_else(|| panic!("it is known: {forecast}"))
}

#[test]
fn the_cost_of_a_job_is_told_before_while_it_runs_and_compared_in_the_end() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_FAKE_STEP_MS", "4")]);
    assert_eq!(dry_run(&farm, &[])["device_seconds"], Value::Null, "nothing was ever rendered");
    let text = farm.command(["submit", "--dry-run", PROMPT]).run();
    assert!(text.stdout.contains("never measured"), "{}", text.stdout);

    let submit = |images: &str| {
        let said =
            farm.command(["--json", "submit", "--seed", "1", "-n", images, PROMPT]).run().json();
        said["job"].clone()
    };
    let first = submit("2");
    let watched = farm.command(["watch", first["id"].as_str().expect("an id")]).run();
    assert_eq!(watched.code, Some(0));
    let before = eventually("the workers reported what they measured", || {
        let forecast = dry_run(&farm, &[]);
        forecast["seconds"].is_number().then_some(forecast)
    });
    let steps = dry_run(&farm, &["--steps", "base=40"]);
    let of = |forecast: &Value, stage: usize| {
        forecast["stages"][stage]["seconds_per_image"].as_f64().expect("known")
    };
    let ratio = of(&steps, 1) / of(&before, 1);
    assert!(
        ratio > 1.5 && ratio < 3.0,
        "twice the steps of the base, about twice the time: {ratio}"
    );
    assert_eq!(
        farm.command(["--json", "ls"]).run().json_lines().len(),
        1,
        "a dry run submits nothing"
    );

    let job = submit("40");
    let id = job["id"].as_str().expect("an id");
    let promised = seconds(&job["first_forecast"]);
    assert!(promised > 0.0 && job["forecast_check"].is_null(), "{job}");
    let halfway = eventually("it is running", || {
        let job = farm.job(id);
        (job["images_done"].as_u64() >= Some(8)).then_some(job)
    });
    if halfway["state"] == "active" {
        assert!(seconds(&halfway["forecast"]) < promised, "less is left: {halfway}");
        assert!(halfway["forecast"]["stages"][1]["images"].as_u64() < Some(40), "{halfway}");
    }
    assert_eq!(farm.command(["watch", id]).run().code, Some(0));
    let ended = farm.job(id);
    assert_eq!((&ended["forecast"], seconds(&ended["first_forecast"])), (&Value::Null, promised));
    let check = &ended["forecast_check"];
    let number = |key: &str| check[key].as_f64().unwrap_or_else(|| panic!("{key} of {check}"));
    assert!(
        (number("device_seconds_ratio")
            - number("device_seconds") / number("forecast_device_seconds"))
        .abs()
            < 1e-9
    );
    assert!(
        (number("seconds_ratio") - number("seconds") / number("forecast_seconds")).abs() < 1e-9
    );
    assert_eq!(check["stages"].as_array().map(Vec::len), Some(3));
    let spent: f64 = farm
        .images(id)
        .iter()
        .flat_map(|image| image["stage_seconds"].as_array().cloned().unwrap_or_default())
        .filter_map(|stage| stage["seconds"].as_f64())
        .sum();
    assert!(
        (number("device_seconds") - spent).abs() < 1e-6 * spent,
        "{spent} s in the images, {check}"
    );
    let text = farm.command(["status", id]).run();
    assert!(
        text.stdout.contains("of device time, ") && text.stdout.contains("was forecast"),
        "{}",
        text.stdout
    );
}
