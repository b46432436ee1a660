//! Every command explains itself.

use std::process::Command;

#[test]
fn every_command_has_help() {
    let help = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_darkroom")).args(arguments).output().expect("runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let all = help(&["--help"]);
    for command in [
        "render",
        "up",
        "submit",
        "status",
        "watch",
        "ls",
        "image",
        "map",
        "failures",
        "get",
        "sheet",
        "cancel",
        "pause",
        "resume",
        "retry",
        "workers",
        "cascades",
        "login",
        "logout",
        "key",
        "tenant",
        "audit",
        "rerender",
        "model",
        "completions",
    ] {
        assert!(all.contains(command), "{command} is not listed");
        help(&[command, "--help"]);
    }
    let submit = help(&["submit", "--help"]);
    let (general, files) = submit.split_once("Prompt files:").expect("a heading of their own");
    for flag in
        ["--batch", "--format", "--column", "--labels", "--comments", "--sample", "--per-image"]
    {
        let has = |text: &str| text.split_whitespace().any(|word| word == flag);
        assert!(has(files) && !has(general), "{flag}");
    }
    assert!(general.contains("--negative") && !files.contains("--negative"));
    assert!(help(&["completions", "bash"]).contains("darkroom"));
}
