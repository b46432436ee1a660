//! Output to terminals, pipes, full devices and logs: it has no control sequences, causes no panic,
//! and the exit code tells the result of the work.

use std::{
    fs::{File, OpenOptions},
    os::fd::OwnedFd,
    path::Path,
};

use darkroom_core::shown::is_hidden;
use darkroom_tests::{
    command::{Darkroom, Ended},
    demo_cascade, eventually,
    farm::{Farm, Renderer},
    hostile::{self, HOSTILE},
};

/// A pipe whose reader has gone.
fn closed() -> OwnedFd {
    nix::unistd::pipe().expect("a pipe").1
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("/dev/full")
}

/// Whether the only invisible characters left are line ends.
fn is_safe(ended: &Ended) -> bool {
    let all = format!("{}{}", ended.stdout, ended.stderr);
    !all.contains(|character| character != '\n' && is_hidden(character))
        && !all.lines().any(|line| line.starts_with("error: forged"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nothing_that_a_farm_answers_is_obeyed_by_a_terminal() {
    let address = hostile::serve().await;
    let folder = tempfile::tempdir().expect("folder");
    let commands: &[&[&str]] = &[
        &["ls"],
        &["status", "x"],
        &["watch", "x"],
        &["watch"],
        &["queue"],
        &["history"],
        &["usage"],
        &["ls", "x", "--links=1h"],
        &["get", "x"],
        &["verify", "x"],
        &["cancel", "x"],
        &["pause", "x"],
        &["retry", "x"],
        &["workers"],
        &["drain", "x"],
        &["cascades"],
        &["farm"],
        &["webhook", "list"],
        &["webhook", "add", "http://example.com/"],
        &["webhook", "rm", "wh_0123456789abcdef0123456789abcdef"],
        &["submit", "a red circle"],
        &["submit", "--dry-run", "a red circle"],
        &["render", "a red circle"],
    ];
    for command in commands {
        for json in [false, true] {
            let mut run = Darkroom::new(folder.path()).args(["--farm", &address]);
            if json {
                run = run.args(["--json"]);
            }
            let run = run.args(*command);
            let ended = tokio::task::spawn_blocking(move || run.run()).await.expect("ended");
            assert!(is_safe(&ended), "{command:?}: {ended:?}");
            assert!(ended.stdout.len() + ended.stderr.len() > 0, "{command:?} says something");
            if json {
                // Notes are also printed at once, in addition to the document that has them.
                let stderr = ended.stderr.lines().filter(|line| !line.starts_with("note: "));
                for line in ended.stdout.lines().chain(stderr) {
                    let document: Result<serde_json::Value, _> = serde_json::from_str(line);
                    document.unwrap_or_else(|error| panic!("{error}: {command:?}: {line}"));
                }
            }
            if json && *command == ["ls"] {
                assert_eq!(ended.json_lines()[0]["id"], HOSTILE, "it means what it meant");
            }
        }
    }
}

#[test]
fn names_of_files_and_arguments_are_not_obeyed_either() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let folder = tempfile::tempdir().expect("folder");
    for bytes in [HOSTILE.as_bytes(), b"not\xffutf8\x1b[31m"] {
        let name = OsStr::from_bytes(bytes);
        for json in [&["--json"][..], &[]] {
            for command in [
                &["rerender"][..],
                &["--state"],
                &["submit", "--batch"],
                &["no-such-command"],
                &["model", "info"],
            ] {
                let ended =
                    Darkroom::new(folder.path()).args(json).args(command).args([name]).run();
                assert_ne!(ended.code, Some(0), "{ended:?}");
                assert!(ended.code.is_some() && is_safe(&ended), "{command:?}: {ended:?}");
                assert!(!ended.stderr.contains("panicked"), "{command:?}: {ended:?}");
            }
        }
    }
}

#[test]
fn a_reader_that_has_gone_ends_listings_quietly() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = farm.command(["submit", "-n", "3", "--size", "64", "a red circle"]).run();
    let job = job.stdout.trim();
    assert_eq!(farm.command(["watch", job]).run().code, Some(0));
    for command in [
        &["ls"][..],
        &["ls", job],
        &["--json", "ls", job],
        &["status", job],
        &["watch", job],
        &["workers"],
        &["cascades"],
        &["farm"],
        &["submit", "--size", "64", "a red circle"],
        &["--help"],
        &["--version"],
        &["completions", "bash"],
    ] {
        let ended = farm.command(command.iter().copied()).stdout(closed()).run();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn a_full_device_fails_what_only_shows_something_and_says_so_on_the_other_stream() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    for command in [
        &["workers"][..],
        &["cascades"],
        &["--json", "farm"],
        &["submit", "--size", "64", "a red circle"],
        &["--help"],
        &["--version"],
        &["completions", "bash"],
    ] {
        let ended = farm.command(command.iter().copied()).stdout(full()).run();
        assert_eq!(ended.code, Some(4), "{command:?}: {ended:?}");
        assert!(ended.stderr.contains("standard output"), "{command:?}: {ended:?}");
        // Neither stream can be written, so only the exit code tells the result.
        let ended = farm.command(command.iter().copied()).stdout(full()).stderr(full()).run();
        assert_eq!(ended.code, Some(4), "{command:?}");
    }
    let jobs = farm.command(["--json", "ls"]).run().json_lines();
    let told = farm.command(["submit", "--size", "64", "a red circle"]).stdout(full()).run();
    let newest = farm.command(["--json", "ls"]).run().json_lines();
    assert_eq!(newest.len(), jobs.len() + 1);
    assert!(
        told.stderr.contains(newest[0]["id"].as_str().expect("an id")),
        "the job is named: {told:?}"
    );
}

#[test]
fn work_goes_on_when_nobody_reads_and_its_end_is_the_commands() {
    let folder = tempfile::tempdir().expect("folder");
    let pictures =
        |out: &str| std::fs::read_dir(folder.path().join(out)).expect("a folder").count();
    for (out, closed_errors) in [("one", false), ("two", true)] {
        let run = Darkroom::render(folder.path())
            .args(["-n", "3", "-o", out, "a red circle"])
            .stdout(closed());
        let ended = if closed_errors { run.stderr(closed()) } else { run }.run();
        assert_eq!((ended.code, ended.stderr.contains("error")), (Some(0), false), "{ended:?}");
        assert_eq!(pictures(out), 3, "every picture is written");
    }
    let ended = Darkroom::render(folder.path())
        .args(["-n", "3", "-o", "three", "a red circle"])
        .stdout(full())
        .run();
    ended.refused(4, &["standard output", "space"]);
    assert_eq!(pictures("three"), 3, "every picture is written");
    // A refusal that cannot be printed still has its exit code.
    for to in [closed().into(), std::process::Stdio::from(full())] {
        assert_eq!(
            Darkroom::render(folder.path()).args(["-n", "0", "a"]).stderr(to).run().code,
            Some(2)
        );
    }
}

#[test]
fn a_farm_serves_on_when_nobody_reads_what_it_says_and_not_where_it_cannot_say_it() {
    let folder = tempfile::tempdir().expect("folder");
    let up = || {
        Darkroom::new(folder.path())
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
            .args([demo_cascade()])
    };
    let farm = up().stdout(closed()).stderr(closed()).start();
    eventually("it serves", || {
        let ended = Darkroom::new(folder.path()).args(["--state", "state", "farm"]).run();
        (ended.code == Some(0)).then_some(())
    });
    farm.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(farm.wait().code, Some(0));
    up().stdout(full()).run().refused(4, &["standard output"]);
}

/// A command on its own terminal, with additional environment variables; returns what it wrote to
/// the terminal.
fn on_terminal(folder: &Path, environment: &[(&str, &str)], arguments: &str) -> String {
    let script = format!(r#"exec script -qefc "$1 {arguments}" /dev/null </dev/null"#);
    let mut run = Darkroom::under(&script, folder).env("DARKROOM_CASCADE", demo_cascade());
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        run = run.env(name, "");
    }
    run = run.env("TERM", "xterm");
    for (name, value) in environment {
        run = run.env(name, value);
    }
    run.run().stdout
}

#[test]
fn logs_have_colours_on_a_terminal_that_knows_them_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("folder");
    // A farm that logs and then cannot start, because our listener has taken its port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let up = format!("up --renderer fake --listen 127.0.0.1:{port}");
    let render = "render --renderer fake --size 64 a";
    let logs = ("DARKROOM_LOG", "info");
    let coloured = |environment: &[(&str, &str)]| {
        let mut all = vec![logs];
        all.extend_from_slice(environment);
        let text = on_terminal(folder.path(), &all, render);
        assert!(text.contains("INFO"), "it logs: {text:?}");
        text.contains("\u{1b}[32m")
    };
    assert!(coloured(&[]));
    for plain in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
        assert!(!coloured(&[plain]), "{plain:?}");
    }
    let dumb = on_terminal(folder.path(), &[("TERM", "dumb")], render);
    assert!(!dumb.contains('\u{1b}'), "no bars either: {dumb:?}");
    assert!(on_terminal(folder.path(), &[], &up).contains(&port.to_string()));

    let piped = |environment: &[(&str, &str)]| {
        let mut run = Darkroom::render(folder.path()).args(["a"]).env("DARKROOM_LOG", "info");
        for (name, value) in environment {
            run = run.env(name, value);
        }
        run.run().stderr
    };
    let text = piped(&[]);
    assert!(text.contains("INFO") && !text.contains('\u{1b}'), "{text:?}");
    assert!(piped(&[("CLICOLOR_FORCE", "1")]).contains("\u{1b}[32m"));
    assert!(!piped(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains('\u{1b}'));
}
