//! The program as it ships: its help, and how it refuses wrong settings.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom-coordinator"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DARKROOM_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn help_names_what_a_coordinator_needs() {
    let help = run(&["--help"]);
    assert!(help.status.success(), "{help:?}");
    for flag in ["--database", "--redis", "--artifacts", "--cascade", "--listen"] {
        assert!(text(&help.stdout).contains(flag), "{flag} is missing: {}", text(&help.stdout));
    }
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let unknown = run(&["--no-such-flag"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(text(&unknown.stderr).contains("--no-such-flag"), "{}", text(&unknown.stderr));
    let sharing = run(&["--sharing", "open"]);
    assert_eq!(sharing.status.code(), Some(2), "{sharing:?}");
    let told = text(&sharing.stderr);
    assert!(told.contains("sharing is \"open\"; accepted: shared, sealed"), "{told}");
    let missing = run(&[]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(text(&missing.stderr).contains("--cascade"), "{}", text(&missing.stderr));
}
