//! Mounts that lack links, atomic renames, locks, permissions, syncing or shared memory. If there
//! is another way, it is used; if not, the start is refused in one sentence.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use darkroom_tests::{
    command::Darkroom,
    demo_cascade,
    farm::{Farm, Renderer},
    lacking::Lacking,
};
use nix::errno::Errno;

/// `render` on its own farm in `folder`, with the fake renderer.
fn render(folder: &Path, out: &str) -> Darkroom {
    Darkroom::render(folder).args(["--quiet", "-o", out, "a red circle"])
}

/// The same with two pictures.
fn two(folder: &Path, out: &str) -> Darkroom {
    render(folder, out).args(["-n", "2"])
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Supports only reading, writing and creating files.
fn bare(folder: &Path, of_links: Errno) -> Lacking {
    Lacking::nothing(folder)
        .call("link", of_links)
        .call("symlink", Errno::EPERM)
        .call("renameat2", Errno::EINVAL)
        .call("chmod", Errno::EPERM)
        .call_on("fsync", Errno::EINVAL, "out")
        .call_on("rename", Errno::EOPNOTSUPP, "out")
}

#[test]
fn pictures_are_written_without_links_renames_permissions_and_syncing_and_replace_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path();
    for (turn, error) in
        [Errno::EPERM, Errno::EOPNOTSUPP, Errno::EMLINK, Errno::EXDEV, Errno::ENOSYS]
            .iter()
            .enumerate()
    {
        let out = format!("out{turn}");
        fs::create_dir(place.join(&out)).expect("made");
        fs::write(place.join(&out).join("000000.png"), "mine").expect("written");
        let lacking = bare(place, *error);
        let ended = lacking.on(two(place, &out)).run();
        assert_eq!(ended.code, Some(0), "{error}: {ended:?}");
        assert_eq!(names(&place.join(&out)), ["000000.png", "000001.png", "000002.png"], "{error}");
        assert_eq!(fs::read(place.join(&out).join("000000.png")).expect("kept"), b"mine");
    }
}

#[test]
fn pictures_are_fetched_and_replaced_where_nothing_can_be_renamed() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start(folder.path(), Renderer::Fake);
    let job = farm.command(["submit", "-n", "2", "--size", "64", "a red circle"]).run().stdout;
    let job = job.trim();
    assert_eq!(farm.command(["watch", job]).run().code, Some(0));
    let lacking = bare(folder.path(), Errno::EPERM);
    let get = |more: &[&str]| lacking.on(farm.command(["get", job, "-o", "out"]).args(more)).run();
    assert_eq!(get(&[]).code, Some(0));
    let out = folder.path().join("out");
    let pictures = [fs::read(out.join("000000.png")), fs::read(out.join("000001.png"))]
        .map(|read| read.expect("there"));
    fs::write(out.join("000001.png"), "mine").expect("written");
    get(&[]).refused(3, &["000001.png", "--overwrite"]);
    assert_eq!(fs::read(out.join("000001.png")).expect("kept"), b"mine");
    assert_eq!(get(&["--overwrite"]).code, Some(0));
    for (name, picture) in ["000000.png", "000001.png"].iter().zip(&pictures) {
        assert!(fs::read(out.join(name)).expect("there") == *picture, "{name}");
    }
    assert_eq!(names(&out), ["000000.png", "000001.png"]);
}

#[test]
fn a_state_folder_needs_no_links_and_is_refused_without_locks_renames_or_shared_memory() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path();
    let ended = Lacking::nothing(place)
        .call("link", Errno::EPERM)
        .call("chmod", Errno::EPERM)
        .on(render(place, "one"))
        .run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for (call, error, part, says) in [
        ("flock", Errno::ENOLCK, "state", "cannot lock files"),
        ("flock", Errno::EOPNOTSUPP, "state", "cannot lock files"),
        ("flock", Errno::ENOSYS, "state", "cannot lock files"),
        ("rename", Errno::EPERM, "state/artifacts", "cannot rename files"),
        ("fcntl", Errno::ENOLCK, "state", "cannot lock files"),
        ("fcntl", Errno::EOPNOTSUPP, "state", "cannot lock files"),
        ("mmap", Errno::ENODEV, "farm.sqlite-shm", "locks or the shared memory"),
    ] {
        let ended =
            Lacking::nothing(place).call_on(call, error, part).on(render(place, "two")).run();
        ended.refused(3, &["state", says]);
        assert!(!place.join("two/000000.png").exists());
    }
}

#[test]
fn an_artifact_folder_that_cannot_be_used_is_found_at_the_start() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path();
    for (file, code) in [("artifacts", 3), ("artifacts/probes", 4)] {
        let file = place.join("state").join(file);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(&file, "a file").expect("written");
        render(place, "out").run().refused(code, &["state/artifacts"]);
        fs::remove_dir_all(place.join("state")).expect("removed");
    }
    let full = Lacking::nothing(place).call_on("write", Errno::ENOSPC, "state/artifacts");
    full.on(render(place, "out")).run().refused(4, &["state/artifacts"]);
}

#[test]
fn artifacts_that_cannot_be_stored_any_more_end_a_render() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path();
    let mut run =
        render(place, "out").args(["-n", "1000"]).env("DARKROOM_FAKE_STEP_MS", "20").start();
    darkroom_tests::eventually("pictures come", || {
        assert!(!run.ended(), "it renders for long");
        place.join("out/000000.png").exists().then_some(())
    });
    fs::rename(place.join("state/artifacts"), place.join("state/moved")).expect("moved");
    fs::write(place.join("state/artifacts"), "a file").expect("written");
    run.wait().refused(4, &["state/artifacts", "darkroom up"]);
}

#[test]
fn a_picture_that_cannot_be_written_is_the_cause_that_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path();
    let one = |out: &str| {
        Darkroom::new(place)
            .args([
                "--state",
                "state",
                "render",
                "--renderer",
                "fake",
                "--size",
                "64",
                "-o",
                out,
                "a",
                "--cascade",
            ])
            .args([demo_cascade()])
    };
    // The job is done when its only picture is written.
    for (error, code, says) in [
        (Errno::ENOSPC, 4, "no space"),
        (Errno::EDQUOT, 4, "quota"),
        (Errno::EIO, 1, "error"),
        (Errno::EFBIG, 4, "large"),
    ] {
        // The folder takes a draft, but no way of renaming it works.
        let full = Lacking::nothing(place)
            .call_on("write", error, "full/0")
            .call_on("link", error, "full/0");
        let ended = full.call_on("renameat2", error, "full/0").on(one("full")).run();
        ended.refused(code, &["cannot write full/000000.png", says, "is done"]);
        assert!(!ended.stderr.contains("cannot be cancelled"), "{ended:?}");
        assert!(!place.join("full/000000.png").exists(), "nothing half written");
    }
}

#[test]
fn a_folder_that_is_removed_while_it_is_rendered_for_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let farm = Farm::start_with(folder.path(), Renderer::Fake, &[("DARKROOM_FAKE_STEP_MS", "200")]);
    let run = farm.command(["render", "--size", "64", "-o", "out", "a red circle"]).start();
    darkroom_tests::eventually("the job exists", || {
        let jobs = farm.command(["--json", "ls"]).run().json_lines();
        (!jobs.is_empty()).then_some(())
    });
    fs::remove_dir_all(folder.path().join("out")).expect("removed");
    let ended = run.wait();
    ended.refused(3, &["cannot write out/000000.png", "is done"]);
}

#[test]
fn pictures_have_the_permissions_that_the_umask_leaves_and_state_is_its_owners_alone() {
    let folder = tempfile::tempdir().expect("folder");
    for (umask, file, made) in [("022", 0o644, 0o755), ("002", 0o664, 0o775), ("077", 0o600, 0o700)]
    {
        let script = format!("umask {umask}; exec \"$@\"");
        let ended = Darkroom::under(&script, folder.path())
            .args([
                "--state",
                &format!("state{umask}"),
                "render",
                "--renderer",
                "fake",
                "--size",
                "64",
                "-o",
                umask,
            ])
            .args(["a", "--cascade"])
            .args([demo_cascade()])
            .run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let out = folder.path().join(umask);
        assert_eq!((mode(&out), mode(&out.join("000000.png"))), (made, file), "umask {umask}");
        let state = folder.path().join(format!("state{umask}"));
        assert_eq!(mode(&state), 0o700, "umask {umask}");
        let mut left = vec![state];
        while let Some(path) = left.pop() {
            if path.is_file() {
                assert_eq!(mode(&path), 0o600, "umask {umask}: {}", path.display());
            } else {
                left.extend(
                    fs::read_dir(&path).expect("read").map(|entry| entry.expect("entry").path()),
                );
            }
        }
    }
}
