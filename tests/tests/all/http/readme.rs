//! What the README shows of the API does what it says.

use std::{fs, path::Path, process::Command};

use super::kept;

/// The shell commands of a section of the README.
fn commands(heading: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let section = readme.split(&format!("\n## {heading}\n")).nth(1).expect("the section");
    let block = section.split("\n## ").next().and_then(|section| section.split("```sh\n").nth(1));
    block.and_then(|block| block.split("\n```").next()).expect("commands").to_owned()
}

#[test]
fn the_commands_of_the_readme_submit_a_job_follow_it_and_fetch_its_picture() {
    let folder = tempfile::tempdir().expect("folder");
    let (farm, _, _) = kept(folder.path());
    std::os::unix::fs::symlink("state", folder.path().join(".darkroom")).expect("a link");
    let script = commands("Over HTTP").replace("127.0.0.1:7878", &farm.address);
    let ended = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .output()
        .expect("bash runs");
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}\n{}", String::from_utf8_lossy(&ended.stderr));
    assert!(told.contains("\"version\":") && told.contains("event: end"), "{told}");
    let picture = fs::read(folder.path().join("picture.png")).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG"), "{} bytes", picture.len());
}
