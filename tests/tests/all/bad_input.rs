//! Mistakes of users: each gets one clear sentence with the field and the accepted values, a
//! matching exit code and no backtrace, and nothing is lost.

use std::{fs, path::Path};

use darkroom_tests::{
    command::Darkroom,
    demo_cascade, eventually,
    farm::{Farm, Renderer},
};

#[test]
fn wrong_requests_are_refused_by_field_and_nothing_is_queued() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let long = "x".repeat(4097);
    let cases: &[(&[&str], &[&str])] = &[
        (&[""], &["prompt", "empty", "accepted"]),
        (&["  \n "], &["prompt", "empty", "accepted"]),
        (&[&long], &["prompt", "4097", "4096"]),
        (&["a\u{7}b"], &["prompt", "U+0007", "accepted"]),
        (&["a", "--size", "65"], &["size", "65", "64, 256, 1024"]),
        (&["a", "--size", "0"], &["size", "accepted"]),
        (&["a", "--guidance", "NaN"], &["guidance is", "NaN", "accepted: 1"]),
        (&["a", "--guidance", "-3"], &["guidance is", "-3", "accepted: 1"]),
        (&["a", "--guidance", "inf"], &["guidance is", "inf", "accepted: 1"]),
        (&["a", "--steps", "0"], &["steps", "0", "1 to 1000"]),
        (&["a", "--steps", "10001"], &["steps", "10001", "1 to 1000"]),
        (&["a", "--steps", "base=0"], &["steps", "1 to 1000"]),
        (&["a", "--steps", "sr9=5"], &["steps", "sr9", "base"]),
        (&["a", "--sampler", "euler"], &["sampler", "euler", "ddpm, ddim, dpmsolver++"]),
        (&["a", "--sampler", "ddim", "--preset", "fast27"], &["preset", "ddim", "sde-dpmsolver++"]),
        (&["a", "--preset", "fast28"], &["preset", "fast28", "super100"]),
        (&["a", "--preset", "fast27", "--steps", "5"], &["steps", "27"]),
        (&["a", "--timesteps", "base=5,9"], &["timesteps", "5 and then 9"]),
        (&["a", "--timesteps", "1000,9"], &["timesteps", "1000", "999"]),
        (&["a", "--spacing", "karras"], &["spacing", "karras", "trailing"]),
        (&["a", "--eta", "0.5"], &["eta", "dpmsolver++", "ddim"]),
        (&["a", "--sampler", "ddim", "--eta", "-1"], &["eta", "-1", "0"]),
        (&["a", "--guidance-schedule", "800..200"], &["guidance-schedule", "800..200", "accepted"]),
        (
            &["a", "--guidance-schedule", "oscillating:5:0"],
            &["guidance-schedule", "oscillating:5:0"],
        ),
        (&["a", "--thresholding", "dynamic:99.5:0.5"], &["thresholding", "accepted"]),
        (&["a", "--noise-level", "1000"], &["noise-level", "1000", "999"]),
        (&["a", "--noise-level", "base=5"], &["noise-level", "base"]),
        (&["a", "-n", "0"], &["images", "0", "accepted"]),
        (&["a", "-n", "10001"], &["images", "10001", "accepted"]),
        (&["a", "--negative", &long], &["negative", "4097", "4096"]),
    ];
    for (arguments, words) in cases {
        let ended = farm.command(["submit"]).args(*arguments).run();
        ended.refused(2, words);
    }
    let unknown = farm.command(["submit", "a", "--cascade", "imagen"]).run();
    unknown.refused(3, &["imagen", "demo"]);
    assert!(farm.command(["--json", "ls"]).run().json_lines().is_empty(), "nothing was queued");

    let ended = farm.command(["--json", "submit", "a", "--steps", "0"]).run();
    assert_eq!(ended.code, Some(2));
    let error: serde_json::Value = serde_json::from_str(ended.stderr.trim()).expect("a document");
    assert_eq!(error["error"]["code"], "INVALID_ARGUMENT");
    assert_eq!(error["error"]["field"], "steps");
}

#[test]
fn wrong_flags_are_refused_before_a_farm_is_looked_for_or_started() {
    let folder = tempfile::tempdir().expect("folder");
    // No farm runs here, and none is named.
    let cases: &[(&[&str], &str)] = &[
        (&["ls", "--label", "x"], "label is \"x\""),
        (&["ls", "--state-is", "x"], "state is \"x\""),
        (&["ls", "--since", "x"], "since is \"x\""),
        (&["ls", "J", "--state-is", "x"], "state is \"x\""),
        (&["ls", "J", "--links=x"], "links is \"x\""),
        (&["cancel", "J", "--images", "x"], "images has \"x\""),
        (&["cancel", "J", "--state-is", "done"], "state is \"done\""),
        (&["cancel", "J", "--text", " "], "text is blank"),
        (&["retry", "J", "--label", "x"], "label is \"x\""),
        (&["retry", "J", "--deadline", "soon"], "deadline is \"soon\""),
        (&["watch", "--after", "3"], "after is for one job"),
        (&["history", "--since", "x"], "since is \"x\""),
        (&["history", "--step", "90s"], "step is \"90s\""),
        (&["usage", "--until", "2026-02-30"], "until is \"2026-02-30\""),
        (&["get", "J", "--name", "{x"], "name"),
        (&["get", "J", "--max-edge", "7"], "max-edge is 7"),
        (&["sheet", "J", "--tile", "3"], "tile is 3"),
        (&["submit", "a", "--deadline", "soon"], "deadline is \"soon\""),
        (&["submit", "a", "--fit", "pad"], "fit is pad"),
        (&["submit", "a", "--steps", "base=0"], "steps is 0"),
        (&["submit"], "no prompt is given"),
        (&["render", "a", "--fit", "pad"], "fit is pad"),
        (&["render", "a", "--guidance", "0"], "guidance is 0"),
        (&["render", "a", "--preset", "slow"], "preset is \"slow\""),
    ];
    for (arguments, words) in cases {
        let ended = Darkroom::new(folder.path()).args(*arguments).run();
        ended.refused(2, &[words]);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was made");
    // What is right is looked for.
    Darkroom::new(folder.path()).args(["ls"]).run().refused(4, &["no farm runs"]);
}

#[test]
fn what_the_farm_refuses_is_told_by_the_names_of_flags() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let cases: &[(&[&str], &[&str])] = &[
        (&["history", "--since", "1h", "--until", "2h"], &["error: since is", "and until is"]),
        (&["history", "--since", "9d", "--step", "1m"], &["error: step is 60"]),
        (&["ls", "--since", "1h", "--until", "2h"], &["error: until is not later than since"]),
        (&["status", "J"], &["error: job is \"J\""]),
    ];
    for (arguments, words) in cases {
        farm.command(arguments.iter().copied()).run().refused(2, words);
    }
    let long = "x".repeat(1100);
    let label = format!("a={long}");
    for command in [&["ls"][..], &["submit", "a"]] {
        let ended = farm.command(command.iter().copied()).args(["--label", &label]).run();
        ended.refused(2, &["error: label[\"a\"] has 1100 characters"]);
    }
    let ended = farm.command(["--json", "drain", "--all-of", "nowhere"]).run();
    let error: serde_json::Value = serde_json::from_str(ended.stderr.trim()).expect("a document");
    assert_eq!(error["error"]["field"], "all-of", "{error}");
}

#[test]
fn a_command_says_at_once_what_it_waits_for() {
    let folder = tempfile::tempdir().expect("folder");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    for (number, command) in [&["sheet", "J"][..], &["watch", "J"], &["watch"]].iter().enumerate() {
        let log = folder.path().join(number.to_string());
        let to = fs::File::create(&log).expect("made");
        let run = Darkroom::new(folder.path()).args(["--farm", &address]).args(*command);
        let _running = run.stderr(to).start();
        let told = format!("note: trying again for 5 minutes: the farm at {address} cannot");
        eventually("it says what it waits for", || {
            fs::read_to_string(&log).expect("read").contains(&told).then_some(())
        });
    }
}

#[test]
fn jobs_that_are_not_there_and_ids_that_are_none_are_told_apart() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    farm.command(["status", "nonsense"]).run().refused(2, &["nonsense", "accepted"]);
    let absent = "01890000-0000-7000-8000-000000000000";
    for command in ["status", "watch", "get", "cancel", "pause", "resume", "retry"] {
        farm.command([command, absent]).run().refused(3, &[absent]);
    }
    farm.command(["ls", absent]).run().refused(3, &[absent]);
}

#[test]
fn a_batch_file_with_one_bad_line_is_refused_whole() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    fs::write(
        folder.path().join("p.jsonl"),
        "{\"prompt\": \"a red circle\"}\n{\"prompt\": \"\"}\n",
    )
    .expect("written");
    farm.command(["submit", "--batch", "p.jsonl"])
        .run()
        .refused(2, &["p.jsonl, line 2", "accepted"]);
    fs::write(folder.path().join("p.txt"), format!("good\n{}\n", "y".repeat(5000)))
        .expect("written");
    farm.command(["submit", "--batch", "p.txt"]).run().refused(2, &["p.txt, line 2", "5000"]);
    farm.command(["submit", "--batch", "absent.txt"]).run().refused(3, &["absent.txt"]);
    farm.command(["submit"]).run().refused(2, &["prompt", "--batch"]);
    assert!(farm.command(["--json", "ls"]).run().json_lines().is_empty(), "nothing was accepted");
}

#[test]
fn a_very_large_batch_is_streamed_and_accepted_once() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let lines: String =
        (0..12_000).map(|number| format!("a red circle number {number}\n")).collect();
    fs::write(folder.path().join("many.txt"), lines).expect("written");
    let submit = || {
        let arguments =
            ["--json", "submit", "--size", "64", "--request-id", "many", "--batch", "many.txt"];
        farm.command(arguments).run().json()
    };
    let first = submit();
    assert_eq!(
        (first["job"]["images"].as_u64(), first["existed"].as_bool()),
        (Some(12_000), Some(false))
    );
    let second = submit();
    assert_eq!(
        (&second["job"]["id"], second["existed"].as_bool()),
        (&first["job"]["id"], Some(true))
    );
    let id = first["job"]["id"].as_str().expect("an id");
    farm.command(["submit", "--size", "64", "--request-id", "many", "something else"])
        .run()
        .refused(3, &["many"]);
    assert_eq!(farm.command(["--json", "cancel", id]).run().json()["state"], "cancelled");
}

#[test]
fn an_output_folder_that_cannot_be_written_is_found_before_anything_starts() {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("file"), "").expect("written");
    Darkroom::render(folder.path())
        .args(["a", "-o", "file/out"])
        .run()
        .refused(2, &["file/out", "accepted"]);
    assert!(!folder.path().join("state").exists(), "no farm was started");
}

#[test]
fn broken_weights_are_named_and_nothing_is_rendered() {
    let folder = tempfile::tempdir().expect("folder");
    let cascade = folder.path().join("cascade");
    copy(&demo_cascade(), &cascade);
    let weights = cascade.join("sr256/unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).expect("weights");
    let attempt = || {
        Darkroom::new(folder.path())
            .args(["--state", "state", "render", "a red circle", "--cascade"])
            .args([&cascade])
            .run()
    };
    fs::write(&weights, &whole[..whole.len() / 2]).expect("cut");
    attempt().refused(3, &["sr256/unet/diffusion_pytorch_model.safetensors"]);

    fs::remove_file(&weights).expect("removed");
    attempt().refused(3, &["sr256"]);

    fs::write(&weights, &whole).expect("whole again");
    fs::write(
        cascade.join("SHA256SUMS"),
        format!("{}  sr256/unet/diffusion_pytorch_model.safetensors\n", "0".repeat(64)),
    )
    .expect("written");
    attempt().refused(3, &["sr256/unet/diffusion_pytorch_model.safetensors", "SHA-256"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "SHA256SUMS" {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn a_corrupt_database_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("folder");
    assert_eq!(Darkroom::render(folder.path()).args(["a"]).run().code, Some(0));
    let database = fs::read_dir(folder.path().join("state"))
        .expect("state")
        .map(|entry| entry.expect("entry").path())
        .find(|path| {
            path.extension().is_some_and(|extension| extension == "sqlite" || extension == "db")
        })
        .expect("a database in the state folder");
    let broken = vec![0x5a_u8; 40_000];
    fs::write(&database, &broken).expect("written");
    let name = database.file_name().expect("name").to_str().expect("text").to_owned();
    Darkroom::render(folder.path()).args(["a"]).run().refused(3, &[&name]);
    assert_eq!(fs::read(&database).expect("there"), broken, "a broken file is evidence: it stays");
}

#[test]
fn a_port_in_use_is_named_with_a_way_out() {
    let folder = tempfile::tempdir().expect("folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let address = taken.local_addr().expect("bound");
    let ended = Darkroom::new(folder.path())
        .args(["up", "--renderer", "fake", "--listen", &address.to_string(), "--cascade"])
        .args([&demo_cascade()])
        .run();
    ended.refused(3, &[&address.port().to_string(), "--listen"]);
}

#[test]
fn a_second_farm_on_one_state_folder_is_refused_and_told_of_the_first() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let ended = Darkroom::new(folder.path())
        .args([
            "--state",
            "state",
            "up",
            "--renderer",
            "fake",
            "--listen",
            "127.0.0.1:0",
            "--cascade",
        ])
        .args([&demo_cascade()])
        .run();
    ended.refused(3, &[&farm.pid().to_string(), &farm.address, "--state"]);

    // A render there uses the running farm.
    let rendered = Darkroom::new(folder.path())
        .args(["--state", "state", "render", "--size", "64", "a"])
        .run();
    assert_eq!(rendered.paths(folder.path()).len(), 1);
}

#[test]
fn no_farm_and_a_wrong_address_say_how_to_go_on() {
    let folder = tempfile::tempdir().expect("folder");
    Darkroom::new(folder.path()).args(["ls"]).run().refused(4, &[".darkroom", "darkroom up"]);
    Darkroom::new(folder.path())
        .args(["--farm", "nowhere", "ls"])
        .run()
        .refused(2, &["nowhere", "host:port"]);
}

/// A tiny file system at ./tiny if the system lets us mount one, else a limit on the size of files.
const TINY: &str = r#"
mkdir -p tiny
if [ "${INSIDE:-}" = "" ]; then
    for flags in -m -Urm; do
        if unshare $flags mount -t tmpfs -o size=192k tmpfs tiny 2>/dev/null; then
            export INSIDE=1 SCRIPT="$0"
            exec unshare $flags bash -c 'mount -t tmpfs -o size=192k tmpfs tiny && "$@"; code=$?; ls tiny/out >listing 2>/dev/null; exit $code' bash "$@"
        fi
    done
fi
trap '' XFSZ
ulimit -f 96
"$@"; code=$?; ls tiny/out >listing 2>/dev/null; exit $code
"#;

#[test]
fn a_full_disk_ends_a_render_with_a_sentence_and_no_broken_picture() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let ended = Darkroom::under(TINY, folder.path())
        .args([
            "--farm",
            &farm.address,
            "render",
            "-n",
            "60",
            "--size",
            "256",
            "-o",
            "tiny/out",
            "a red circle",
        ])
        .run();
    ended.refused(4, &["tiny/out", "space"]);
    let listing = fs::read_to_string(folder.path().join("listing")).expect("listed");
    assert!(listing.lines().all(|name| name.ends_with(".png")), "nothing half-written: {listing}");
    let jobs = farm.command(["--json", "ls"]).run().json_lines();
    assert_eq!(jobs[0]["state"], "cancelled", "its job is cancelled when nobody waits for it");
}

#[test]
fn a_state_folder_on_a_full_disk_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("folder");
    let script = TINY.replace("ulimit -f 96", "ulimit -f 2");
    let ended = Darkroom::under(&script, folder.path())
        .args([
            "--state",
            "tiny/state",
            "render",
            "--renderer",
            "fake",
            "--size",
            "64",
            "a",
            "--cascade",
        ])
        .args([&demo_cascade()])
        .run();
    ended.refused(4, &["tiny/state"]);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_ends_the_render_and_keeps_the_job() {
    if !mounts() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let script = TINY.replace("size=192k", "size=12m");
    let ended = Darkroom::under(&script, folder.path())
        .args([
            "--state",
            "tiny/state",
            "render",
            "--renderer",
            "fake",
            "-n",
            "60",
            "-o",
            "out",
            "a",
            "--cascade",
        ])
        .args([&demo_cascade()])
        .run();
    ended.refused(4, &["tiny/state", "full", "darkroom up"]);
}

/// Whether the system lets this test mount a file system of its own.
fn mounts() -> bool {
    let folder = tempfile::tempdir().expect("folder");
    ["-m", "-Urm"].iter().any(|flags| {
        let mut mount = std::process::Command::new("unshare");
        mount.args([flags, "mount", "-t", "tmpfs", "tmpfs"]).arg(folder.path());
        mount.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

#[test]
fn a_failed_image_fails_alone_and_is_listed() {
    let folder = tempfile::tempdir().expect("folder");
    let farm =
        Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_FAKE_FAILING_SEED", "13")]);
    let ended = farm
        .command(["render", "-n", "8", "--seed", "10", "--size", "64", "-o", "out", "a red circle"])
        .run();
    ended.refused(1, &["1 of 8 images", "darkroom ls"]);
    assert!(ended.stderr.contains("failed: image 3 (seed 13)"), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 7, "the others are there: {ended:?}");
    let jobs = farm.command(["--json", "ls"]).run().json_lines();
    assert_eq!((&jobs[0]["state"], jobs[0]["images_done"].as_u64()), (&"failed".into(), Some(7)));
    let dead = farm
        .command(["--json", "ls", jobs[0]["id"].as_str().expect("id"), "--state-is", "dead"])
        .run();
    assert_eq!(dead.json_lines()[0]["seed"], 13);
}
