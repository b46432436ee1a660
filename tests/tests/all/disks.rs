//! A farm on a disk that fills up: it stops before anything fails, says why, and goes on by itself.
//! The disk is real, so most of these tests need to mount one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use darkroom_test_servers::{
    disk::SmallDisk,
    redis::Redis,
    s3::{
        S3,
        faults::{Fault, Rule, Which},
    },
};
use darkroom_tests::{
    command::Darkroom,
    eventually, eventually_async,
    farm::{Farm, Renderer},
    http::Http,
    processes::{Coordinator, Settings},
};
use serde_json::{Value, json};

const MIB: u32 = 1 << 10;
/// Pictures of the job that fills the disk.
const IMAGES: u64 = 240;

/// A disk of this many KiB at `folder/state`; none, with the reason printed, where nothing can be
/// mounted.
#[expect(
    clippy::print_stderr,
    reason = "whoever reads the test's output learns why it did nothing"
)]
fn disk(folder: &Path, kib: u32) -> Option<SmallDisk> {
    fs::create_dir_all(folder.join("state")).expect("a folder");
    let disk = SmallDisk::mount(&folder.join("state"), kib);
    if disk.is_none() {
        eprintln!("skipped: only root may mount a small disk");
    }
    disk
}

fn submit(farm: &Farm, images: u64) -> String {
    let images = images.to_string();
    let said = farm
        .command([
            "--json",
            "submit",
            "-n",
            &images,
            "--seed",
            "7",
            "--size",
            "256",
            "a red circle",
        ])
        .run()
        .json();
    said["job"]["id"].as_str().expect("an id").to_owned()
}

/// What a job waits for, if that is a disk.
fn waits_for_disk(farm: &Farm, job: &str) -> Option<String> {
    let waits = farm.job(job)["waiting_for"].as_str().expect("text").to_owned();
    waits.contains("is full").then_some(waits)
}

fn troubles(farm: &Farm) -> Vec<Value> {
    let said = farm.command(["--json", "farm"]).run().json();
    said["troubles"].as_array().expect("a list").clone()
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_disk_that_fills_up_stops_dispatch_before_anything_fails_and_work_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("folder");
    let Some(disk) = disk(folder.path(), 24 * MIB) else { return };
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = submit(&farm, IMAGES);
    // What was under way may change what is said to be free for a moment.
    let why = eventually("the job waits for the disk, and the farm says it too", || {
        let why = waits_for_disk(&farm, &job)?;
        (troubles(&farm) == [Value::from(&*why)]).then_some(why)
    });
    for part in ["the disk that holds the artifacts", "state/artifacts", "MiB free", "needed"] {
        assert!(why.contains(part), "{part:?} is not in {why:?}");
    }
    let text = farm.command(["farm"]).run().stdout;
    assert!(text.contains(&format!("trouble: {why}")), "{text}");

    // What needs room is refused in one sentence.
    let submit_more = farm.command(["submit", "-n", "1", "--size", "64", "a blue square"]).run();
    submit_more.refused(4, &["is full", "needed", "nothing was changed"]);
    fs::copy(
        darkroom_tests::demo_cascade().join("../../docs/contact-sheet.png"),
        folder.path().join("a.png"),
    )
    .expect("a picture");
    let upload = farm.command(["submit", "-n", "1", "--image", "a.png", "a blue square"]).run();
    upload.refused(4, &["is full"]);
    // Everything else goes on.
    let images = farm.images(&job);
    assert!(images.iter().any(|image| image["state"] == "done"), "some are done");
    assert_eq!(farm.command(["pause", &job]).run().code, Some(0));
    assert_eq!(farm.command(["resume", &job]).run().code, Some(0));
    assert!(farm.command(["get", &job, "-o", "out"]).run().code.is_some());

    let half = farm.job(&job);
    assert_eq!((&half["state"], &half["images_dead"]), (&"active".into(), &0.into()));
    disk.resize(512 * MIB);
    let ended = farm.command(["watch", &job]).run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let job_now = farm.job(&job);
    assert_eq!(job_now["images_done"].as_u64(), Some(IMAGES), "{job_now}");
    assert_eq!(farm.command(["verify", &job]).run().code, Some(0));
    assert_eq!(troubles(&farm), Vec::<Value>::new());

    let log = farm.log();
    assert_eq!(count(&log, "no work is dispatched"), 1, "{log}");
    assert_eq!(count(&log, "there is room again"), 1, "{log}");
    for fault in ["task failed", "disk is full", "no space left", "part failed", "is retried"] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(fault)).collect();
        let lines: Vec<_> =
            lines.into_iter().filter(|line| !line.contains("no work is dispatched")).collect();
        assert!(lines.is_empty(), "{fault}: {lines:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_over_http_in_one_sentence_and_reading_goes_on() {
    let folder = tempfile::tempdir().expect("folder");
    let Some(disk) = disk(folder.path(), 24 * MIB) else { return };
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = submit(&farm, IMAGES);
    eventually("the job waits for the disk", || waits_for_disk(&farm, &job));
    let http = Http::new(&farm.address);
    // What was under way may change what is said to be free for a moment.
    eventually_async("the listing and the farm say the same", async || {
        let listed = http.get("/api/v1/jobs").await.json();
        let why = listed["jobs"][0]["waiting_for"].as_str().expect("text").to_owned();
        let farm_now = http.get("/api/v1/farm").await.json();
        (why.contains("is full") && farm_now["troubles"] == json!([why])).then_some(())
    })
    .await;

    let small = json!({"spec": {}, "prompts": [{"text": "a blue square"}]});
    let refused = http.post("/api/v1/jobs", &small).await.problem();
    assert_eq!((refused.0, refused.1.as_str()), (429, "DISK_FULL"), "{refused:?}");
    assert!(refused.3.contains("is full") && refused.3.contains("nothing was changed"));
    let picture = fs::read(darkroom_tests::demo_cascade().join("../../docs/contact-sheet.png"));
    let png = http.clone().with("content-type", "image/png");
    let upload = png.send("POST", "/api/v1/inputs", picture.expect("a picture")).await;
    assert_eq!((upload.status.as_u16(), upload.problem().1.as_str()), (429, "DISK_FULL"));
    assert_eq!(upload.header("connection"), "close", "its body was not read");
    let form = "--cut\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--cut\r\n\
                Content-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\r\n--cut--\r\n";
    let forms = http.clone().with("content-type", "multipart/form-data; boundary=cut");
    for (answer, what) in [
        (
            http.post("/v1/images/generations", &json!({"prompt": "a blue square"})).await,
            "an image",
        ),
        (forms.send("POST", "/v1/files", form).await, "a file"),
    ] {
        let error = &answer.json()["error"];
        assert_eq!((answer.status.as_u16(), &error["code"]), (503, &json!("disk_full")), "{what}");
        assert!(error["message"].as_str().is_some_and(|said| said.contains("is full")), "{error}");
        assert_eq!(answer.header("x-should-retry"), "true", "{what}");
    }
    for path in ["/api/v1/jobs/JOB", "/api/v1/jobs/JOB/images", "/api/v1/jobs/JOB/images/0/picture"]
    {
        let read = http.get(&path.replace("JOB", &job)).await;
        assert_eq!(read.status, 200, "{path}: {read:?}");
    }
    disk.resize(512 * MIB);
    eventually("there is room", || waits_for_disk(&farm, &job).is_none().then_some(()));
    let accepted = http.post("/api/v1/jobs", &small).await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
}

#[test]
fn whoever_watches_a_job_is_told_when_the_disk_is_full_and_when_it_is_not() {
    let folder = tempfile::tempdir().expect("folder");
    let Some(disk) = disk(folder.path(), 24 * MIB) else { return };
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = submit(&farm, IMAGES);
    let told = folder.path().join("told");
    let watching =
        farm.command(["watch", &job]).stderr(fs::File::create(&told).expect("a file")).start();
    eventually("the watch tells", || {
        let told = fs::read_to_string(&told).expect("text");
        told.contains("waiting: the disk that holds").then_some(())
    });
    disk.resize(512 * MIB);
    assert_eq!(watching.wait().code, Some(0));
}

#[test]
fn a_farm_whose_disk_is_full_at_the_start_waits_and_a_render_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().expect("folder");
    let Some(disk) = disk(folder.path(), 64 * MIB) else { return };
    let floor = [("DARKROOM_DISK_FLOOR", "64MiB")];
    let render = |out: &str| Darkroom::render(folder.path()).args(["-o", out, "a red circle"]);
    let refused = render("out").env(floor[0].0, floor[0].1).run();
    refused.refused(4, &["is full", "64 MiB needed", "--disk-floor", "state"]);
    assert!(!folder.path().join("out/000000.png").exists());

    let farm = Farm::start_with(folder.path(), Renderer::Fake, &floor);
    assert_eq!(troubles(&farm).len(), 1);
    assert_eq!(farm.command(["ls"]).run().code, Some(0), "reads go on");
    disk.resize(256 * MIB);
    eventually("there is room", || troubles(&farm).is_empty().then_some(()));
    let job = submit(&farm, 2);
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0));
    drop(farm);
    assert_eq!(render("out").run().code, Some(0), "with the usual floor");
}

#[test]
fn a_submit_that_was_accepted_is_answered_again_on_a_full_disk() {
    let folder = tempfile::tempdir().expect("folder");
    let submit = |farm: &Farm| {
        let repeated = ["--json", "submit", "--size", "64", "--request-id", "mine", "a red circle"];
        farm.command(repeated).run()
    };
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let first = submit(&farm).json();
    let job = first["job"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0));
    assert_eq!(farm.stop(), Some(0));
    // No disk has that much.
    let full = [("DARKROOM_DISK_FLOOR", "1000000TiB")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &full);
    let again = submit(&farm).json();
    assert_eq!((&again["job"]["id"], &again["existed"]), (&first["job"]["id"], &true.into()));
    let other = farm.command(["submit", "--size", "64", "a blue square"]).run();
    other.refused(4, &["is full"]);
}

#[test]
fn object_storage_without_room_stops_dispatch_and_the_farm_says_so_and_goes_on_by_itself() {
    let (redis, storage) = (Redis::start(), S3::start());
    let settings = Settings::on_s3(&redis, &storage);
    let farm = Coordinator::start(&settings);
    let _encoder = settings.member("darkroom-encoder", farm.port, &[]);
    let arguments = ["--fake-step-ms", "20", "--batch", "4"];
    let _worker = settings.member("darkroom-worker", farm.port, &arguments);
    let id = farm.submit(&settings, "60");
    eventually("some images are done", || {
        farm.job(&settings, &id)["images_done"].as_u64().filter(|done| *done > 4)
    });
    storage.faults().set([Rule::always(Fault::Status(507)).on(Which::Writes)]);
    let why = eventually("the job waits for storage", || {
        let waits = farm.job(&settings, &id)["waiting_for"].as_str().expect("text").to_owned();
        waits.contains("has no space left").then_some(waits)
    });
    assert!(why.starts_with("the artifact store s3://"), "{why}");
    let said = farm.darkroom(&settings, &["--json", "farm"]).run().json();
    assert_eq!(said["troubles"][0], *why, "{said}");
    farm.darkroom(&settings, &["submit", "a blue square"]).run().refused(4, &[&why]);

    storage.faults().clear();
    eventually("the job is done", || (farm.job(&settings, &id)["state"] == "done").then_some(()));
    let images = farm.darkroom(&settings, &["--json", "ls", &id]).run().json_lines();
    assert!(images.iter().all(|image| image["failures"] == 0), "{images:?}");
    let log = farm.process.log_text();
    assert_eq!(count(&log, "no work is dispatched"), 1, "{log}");
    assert_eq!(count(&log, "there is room again"), 1, "{log}");
}

/// Files below a folder with this extension.
fn files(folder: &Path, extension: &str) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| entry.path()).fold(0, |count, path| {
        let fits = path.extension().is_some_and(|found| found == extension);
        count + usize::from(fits) + files(&path, extension)
    })
}

#[test]
fn a_farm_above_its_budget_removes_what_can_be_made_again_and_keeps_every_picture() {
    let folder = tempfile::tempdir().expect("folder");
    let budget = [("DARKROOM_DISK_BUDGET", "256KiB")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &budget);
    let job = submit(&farm, 8);
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0));
    let tasks = folder.path().join("state/artifacts/fake/tasks");
    assert_eq!(files(&tasks, "png"), 8, "pictures");
    eventually("it tells that only pictures are left", || {
        let told = troubles(&farm).first()?.as_str()?.to_owned();
        assert!(
            told.contains("disk budget is 256 KiB") && told.contains("only pictures"),
            "{told}"
        );
        Some(())
    });
    assert_eq!(files(&tasks, "safetensors"), 0, "intermediates");
    assert_eq!(files(&tasks, "png"), 8, "pictures");
    assert_eq!(farm.command(["verify", &job]).run().code, Some(0));
    let log = farm.log();
    assert!(log.contains("intermediates") && log.contains("disk budget allows"), "{log}");

    // It goes on, and what was removed is made again where it is needed.
    fs::remove_dir_all(&tasks).expect("removed");
    let lost = farm.command(["retry", &job, "--lost"]).run();
    assert_eq!(lost.code, Some(0), "{lost:?}");
    assert_eq!(farm.command(["watch", &job]).run().code, Some(0));
    assert_eq!(farm.command(["verify", &job]).run().code, Some(0));
    assert_eq!(farm.stop(), Some(0));

    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_DISK_BUDGET", "none")]);
    assert_eq!(troubles(&farm), Vec::<Value>::new());
}

#[test]
fn a_budget_is_told_at_the_start_and_what_is_no_size_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    for (flag, value) in [("--disk-budget", "lots"), ("--disk-floor", "20GB")] {
        let refused = Darkroom::render(folder.path()).args([flag, value, "a"]).run();
        assert_eq!(refused.code, Some(2), "{refused:?}");
        for part in [flag, value, "like 20GiB"] {
            assert!(refused.stderr.contains(part), "{part:?} is not in {refused:?}");
        }
    }
    let told = folder.path().join("told");
    let up = Darkroom::new(folder.path())
        .args(["--state", "state", "up", "--renderer", "fake", "--listen", "127.0.0.1:0"])
        .args(["--disk-budget", "3GiB", "--cascade"])
        .args([darkroom_tests::demo_cascade()])
        .stdout(fs::File::create(&told).expect("a file"))
        .start();
    eventually("it tells", || {
        let told = fs::read_to_string(&told).expect("text");
        told.contains("disk budget 3 GiB, 0 bytes used").then_some(())
    });
    up.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(up.wait().code, Some(0));
}

/// The files below a folder, with the bytes that they take of a disk.
fn sized_files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let below = entries.flatten().map(|entry| {
        let path = entry.path();
        let bytes = entry.metadata().map_or(0, |found| found.len().div_ceil(4096) * 4096);
        if path.is_dir() { sized_files(&path) } else { vec![(path, bytes)] }
    });
    below.flatten().collect()
}

fn bytes(files: &[(PathBuf, u64)]) -> u64 {
    files.iter().map(|(_, bytes)| bytes).sum()
}

#[test]
fn a_budget_takes_intermediates_first_and_then_the_oldest_pictures_if_the_user_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let artifacts = folder.path().join("state/artifacts");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    // Each image has the next seed, so these share no pictures.
    let jobs: Vec<String> = ["1", "101", "201"]
        .into_iter()
        .map(|seed| {
            let words =
                ["--json", "submit", "-n", "8", "--seed", seed, "--size", "256", "a circle"];
            let said = farm.command(words).run().json();
            let job = said["job"]["id"].as_str().expect("an id").to_owned();
            assert_eq!(farm.command(["watch", &job]).run().code, Some(0));
            eventually("its manifest is written", || {
                (farm.job(&job)["manifest_key"] != "").then_some(job.clone())
            })
        })
        .collect();
    let pictures = |farm: &Farm, job: &str| -> Vec<PathBuf> {
        let images = farm.images(job);
        let keys = images.iter().map(|image| image["key"].as_str().expect("a key").to_owned());
        keys.map(|key| artifacts.join(key)).collect()
    };
    let all: Vec<_> = jobs.iter().flat_map(|job| pictures(&farm, job)).collect();
    let first = pictures(&farm, &jobs[0]);
    assert_eq!(farm.stop(), Some(0));
    let stored = sized_files(&artifacts);
    let of_tasks: Vec<_> = stored
        .iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "tasks"))
        .cloned()
        .collect();
    let (shown, hidden): (Vec<_>, Vec<_>) =
        of_tasks.into_iter().partition(|(path, _)| all.contains(path));
    assert!(shown.len() == 24 && hidden.len() >= 24, "{} {}", shown.len(), hidden.len());
    let oldest: Vec<_> = shown.into_iter().filter(|(path, _)| first.contains(path)).collect();
    // What is above the budget, together with a twentieth of it, equals all intermediates and half of
    // the oldest job's pictures.
    let wanted = bytes(&hidden) + bytes(&oldest) / 2;
    let budget = (bytes(&stored) - wanted) * 20 / 19;
    let env = budget.to_string();
    let env = [("DARKROOM_DISK_BUDGET", env.as_str()), ("DARKROOM_DISK_BUDGET_PICTURES", "true")];
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &env);
    eventually("pictures of the oldest job are removed", || {
        farm.job(&jobs[0])["pictures_removed_at"].is_number().then_some(())
    });
    eventually("what was taken is deleted", || {
        hidden.iter().all(|(path, _)| !path.exists()).then_some(())
    });
    let gone = || oldest.iter().filter(|(path, _)| !path.exists()).count();
    eventually("so are its pictures", || (gone() > 0).then_some(()));
    // The cleaner may still be at it.
    let mut before = 0;
    while before < gone() {
        before = gone();
        std::thread::sleep(Duration::from_secs(2));
    }
    assert!(gone() < 8, "more than was needed");
    for job in &jobs[1..] {
        assert!(farm.job(job)["pictures_removed_at"].is_null(), "newer jobs keep theirs");
        let got = farm.command(["get", job, "-o", job]).run();
        assert_eq!(got.code, Some(0), "{got:?}");
    }
    let said = farm.job(&jobs[0])["pictures_removed_by"].as_str().unwrap_or_default().to_owned();
    assert_eq!(said, "the disk budget");
    // They are rendered again where somebody asks for them. The budget would make room for them.
    assert_eq!(farm.stop(), Some(0));
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_DISK_BUDGET", "none")]);
    let again = farm.command(["retry", &jobs[0], "--lost"]).run();
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(farm.command(["watch", &jobs[0]]).run().code, Some(0));
    assert_eq!(farm.command(["get", &jobs[0], "-o", "again"]).run().code, Some(0));
}
