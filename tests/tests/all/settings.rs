//! Settings that all programs share: `--farm`, empty environment variables, and the signal of a
//! closed terminal.

use std::{path::PathBuf, process::Command};

use darkroom_test_servers::{
    process::{Process, free_port},
    redis::Redis,
};
use darkroom_tests::{
    command::{Darkroom, Ended},
    demo_cascade, eventually,
    farm::{Farm, Renderer},
    processes::{Coordinator, Settings},
};
use nix::sys::signal::Signal;

/// One of the farm's programs, built beside this test.
fn program(name: &str) -> PathBuf {
    let path = darkroom_tests::binary().with_file_name(name);
    assert!(path.is_file(), "{} is not there: run `make test`", path.display());
    path
}

fn ended(mut command: Command) -> Ended {
    let output = command.output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn a_wrong_address_of_the_farm_is_refused_by_every_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = [
        ("nowhere", "no port"),
        ("http://farm", "no port"),
        ("https://farm", "no port"),
        ("farm:7878/path", "path"),
        ("farm:78 78", "space"),
        ("farm:1,", "comma"),
        ("::1:7878", "brackets"),
        ("me:s3cret@farm:7878", "password"),
    ];
    for (address, why) in wrong {
        for by_variable in [false, true] {
            let darkroom = Darkroom::new(folder.path());
            let darkroom = if by_variable {
                darkroom.env("DARKROOM_FARM", address)
            } else {
                darkroom.args(["--farm", address])
            };
            let mut all = vec![darkroom.args(["ls"]).run()];
            for name in ["darkroom-worker", "darkroom-encoder"] {
                let mut command = Command::new(program(name));
                command
                    .args(["--redis", "redis://127.0.0.1:1", "--artifacts"])
                    .arg(folder.path().join("artifacts"))
                    .args(["--renderer", "fake"]);
                if by_variable {
                    command.env("DARKROOM_FARM", address);
                } else {
                    command.args(["--farm", address]);
                }
                all.push(ended(command));
            }
            for ended in all {
                ended.refused(2, &["farm ", why, "accepted: host:port"]);
                assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
            }
        }
    }
}

#[test]
fn a_worker_and_an_encoder_say_what_answers_in_their_farms_place() {
    let (folder, redis) = (tempfile::tempdir().expect("a folder"), Redis::start());
    for name in ["darkroom-worker", "darkroom-encoder"] {
        let mut command = Command::new(program(name));
        command
            .args(["--redis", &redis.url(), "--renderer", "fake", "--artifacts"])
            .arg(folder.path().join("artifacts"))
            .args(["--farm", &format!("127.0.0.1:{}", redis.port())]);
        ended(command)
            .refused(3, &[&format!("127.0.0.1:{} is no farm: a Redis server", redis.port())]);
    }
}

/// What a fake stores would be used for pictures of the real models, so it may not join.
#[test]
fn a_farm_with_real_models_refuses_members_that_make_things_up() {
    let redis = Redis::start();
    let settings = Settings { real: true, ..Settings::small(&redis) };
    let farm = Coordinator::start(&settings);
    for name in ["darkroom-worker", "darkroom-encoder"] {
        let mut command = Command::new(program(name));
        command
            .args(["--redis", &redis.url(), "--renderer", "fake", "--artifacts"])
            .arg(&settings.artifacts)
            .args(["--farm", &format!("127.0.0.1:{}", farm.port)]);
        ended(command).refused(3, &["makes up what it stores", "has real models"]);
    }
}

#[test]
fn a_password_in_a_flag_is_warned_of_and_one_in_a_file_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = "redis://user:s3cret@127.0.0.1:1";
    let file = folder.path().join("redis");
    std::fs::write(&file, format!("{url}\n")).expect("written");
    let run = |redis: Option<&str>| {
        let mut command = Command::new(program("darkroom-worker"));
        command
            .args(["--renderer", "fake", "--farm", "127.0.0.1", "--artifacts"])
            .arg(folder.path().join("artifacts"));
        match redis {
            Some(redis) => command.args(["--redis", redis]),
            None => command.env("DARKROOM_REDIS", url),
        };
        let ended = ended(command);
        // The address has no port, so it ends at once.
        ended.refused(2, &["accepted: host:port"]);
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
        ended.stderr.contains("warning: --redis has a password")
    };
    assert!(run(Some(url)));
    assert!(!run(Some(&format!("@{}", file.display()))));
    assert!(!run(None));
}

/// Every variable that Darkroom or one of its libraries reads, set to an empty value.
const EMPTY: [&str; 46] = [
    "DARKROOM_FARM",
    "DARKROOM_STATE",
    "DARKROOM_CASCADE",
    "DARKROOM_DEVICE",
    "DARKROOM_DTYPE",
    "DARKROOM_THREADS",
    "DARKROOM_EAGER",
    "DARKROOM_MODEL_MEMORY_MIB",
    "DARKROOM_RENDERER",
    "DARKROOM_FAKE_STEP_MS",
    "DARKROOM_FAKE_FAILING_SEED",
    "DARKROOM_LISTEN",
    "DARKROOM_LOG",
    "DARKROOM_LEASE_SECONDS",
    "DARKROOM_SWEEP_SECONDS",
    "DARKROOM_CASCADE_WITHOUT_FILES",
    "DARKROOM_STAGES",
    "DARKROOM_BATCH",
    "DARKROOM_GRACE_SECONDS",
    "DARKROOM_HOST",
    "DARKROOM_CACHE_GIB",
    "DARKROOM_TLS_CERT",
    "DARKROOM_TLS_KEY",
    "DARKROOM_TLS_CLIENT_CA",
    "DARKROOM_PLAINTEXT",
    "DARKROOM_CA",
    "DARKROOM_CLIENT_CERT",
    "DARKROOM_CLIENT_KEY",
    "DARKROOM_FIRST_KEY_FILE",
    "DARKROOM_KEY",
    "DARKROOM_KEY_FILE",
    "DARKROOM_KEY_IN_PLAINTEXT",
    "DARKROOM_OPEN",
    "DARKROOM_SHARING",
    "DARKROOM_WORKER_DEATHS",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_SESSION_TOKEN",
    "AWS_ALLOW_HTTP",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PGSSLMODE",
    "HTTP_PROXY",
];

#[test]
fn variables_that_are_set_to_nothing_count_as_unset() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = EMPTY.map(|name| (name, ""));
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &empty);
    // The variables of libraries are removed from the process.
    let environment =
        std::fs::read(format!("/proc/{}/environ", farm.pid())).expect("a running process");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let has =
        |name: &str| environment.split('\0').any(|line| line.starts_with(&format!("{name}=")));
    assert!(
        has("AWS_REGION") && !has("SSL_CERT_FILE") && !has("SSL_CERT_DIR") && !has("PGSSLMODE"),
        "{environment}"
    );

    // Without --farm, DARKROOM_FARM and DARKROOM_STATE, it uses the farm of the folder .darkroom,
    // and there is none.
    let ls =
        empty.iter().fold(Darkroom::new(folder.path()), |ls, (name, value)| ls.env(name, value));
    ls.args(["ls"]).run().refused(4, &["no farm runs on the state folder .darkroom"]);
    // A required setting counts as missing, not as "".
    for (name, flag) in [
        ("darkroom-worker", "--redis"),
        ("darkroom-encoder", "--redis"),
        ("darkroom-coordinator", "--database"),
    ] {
        let mut command = Command::new(program(name));
        command.envs(empty).envs([
            ("DARKROOM_REDIS", ""),
            ("DARKROOM_ARTIFACTS", ""),
            ("DARKROOM_DATABASE", ""),
        ]);
        let ended = ended(command);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("required") && ended.stderr.contains(flag), "{ended:?}");
    }
    assert_eq!(farm.stop(), Some(0));
}

#[test]
fn a_farm_of_processes_starts_with_variables_that_are_set_to_nothing() {
    let (folder, redis) = (tempfile::tempdir().expect("a folder"), Redis::start());
    let command = |name: &str| {
        let mut command = Command::new(program(name));
        command
            .current_dir(folder.path())
            .envs(EMPTY.map(|name| (name, "")))
            .env("DARKROOM_REDIS", redis.url())
            .env("DARKROOM_ARTIFACTS", folder.path().join("artifacts"));
        command
    };
    let port = free_port();
    let mut coordinator = command("darkroom-coordinator");
    coordinator
        .env("DARKROOM_DATABASE", format!("sqlite:{}", folder.path().join("farm.sqlite").display()))
        .args(["--open", "--listen", &format!("127.0.0.1:{port}")])
        .args(["--without-files", "--cascade"])
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cascades/tiny"));
    let mut coordinator = Process::spawn(coordinator, &folder.path().join("coordinator.log"));
    let members = ["darkroom-worker", "darkroom-encoder"].map(|name| {
        let mut member = command(name);
        member.args([
            "--farm",
            &format!("127.0.0.1:{port}"),
            "--renderer",
            "fake",
            "--cache",
            "cache",
        ]);
        Process::spawn(member, &folder.path().join(format!("{name}.log")))
    });
    for mut member in members {
        eventually("it joined", || {
            assert!(member.runs(), "{}", member.log_text());
            member.log_text().contains("joined the farm").then_some(())
        });
        // A closed terminal ends a program, like SIGTERM.
        member.signal(Signal::SIGHUP);
        assert_eq!(member.wait(), Some(0), "{}", member.log_text());
        assert!(member.log_text().contains("left the farm"), "{}", member.log_text());
    }
    coordinator.signal(Signal::SIGHUP);
    assert_eq!(coordinator.wait(), Some(0), "{}", coordinator.log_text());
}

#[test]
fn a_closed_terminal_ends_a_farm_well_unless_it_was_told_to_ignore_that() {
    for ignores in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let script = if ignores { "trap '' HUP; exec \"$@\"" } else { "exec \"$@\"" };
        let cascade = demo_cascade().display().to_string();
        let up = ["up", "--listen", "127.0.0.1:0", "--renderer", "fake", "--cascade", &cascade];
        let mut farm = Darkroom::under(script, folder.path()).args(up).start();
        // `ls` finds it by its state folder once it serves.
        eventually("it serves", || {
            (Darkroom::new(folder.path()).args(["ls"]).run().code == Some(0)).then_some(())
        });
        farm.signal(Signal::SIGHUP);
        farm.signal(Signal::SIGHUP);
        if ignores {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", farm.pid())).expect("it runs");
            let mask = |name: &str| {
                let mask = status.lines().find_map(|line| line.strip_prefix(name)).expect("a mask");
                u64::from_str_radix(mask.trim(), 16).expect("hexadecimal")
            };
            assert_eq!((mask("SigIgn:") & 1, mask("SigCgt:") & 1), (1, 0), "{status}");
            assert!(!farm.ended());
            farm.signal(Signal::SIGTERM);
        }
        let ended = farm.wait();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains("shutting down"), "{ended:?}");
    }
}

#[test]
fn a_closed_terminal_ends_a_renders_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_FAKE_STEP_MS", "200")]);
    let render = farm.command(["render", "a red circle", "-n", "20"]).start();
    let jobs = || farm.command(["--json", "ls"]).run().json_lines();
    eventually("the job exists", || (jobs().len() == 1).then_some(()));
    render.signal(Signal::SIGHUP);
    let ended = render.wait();
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert_eq!(jobs()[0]["state"], "cancelled");
}
