//! Farms that lie to their client: each command ends by itself, in one sentence, and what it wrote
//! is what it was told to expect.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use darkroom_tests::{
    command::{Darkroom, Ended},
    hostile::{self, JOB, Lie},
};

/// Longest that a command listens to a lie here. Only the changing picture takes long: the client
/// waits before it fetches one again.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs a command on a farm that lies. Its temporary files may have 64 MiB, as on a small disk.
fn told(lie: Lie, folder: &Path, arguments: &[&str]) -> Ended {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let address = runtime.block_on(hostile::serve_lie(lie));
    let begun = Instant::now();
    let script = "ulimit -f 65536; exec \"$@\"";
    let ended = Darkroom::under(script, folder).args(["--farm", &address]).args(arguments).run();
    assert!(begun.elapsed() < PATIENCE, "{lie:?}: {arguments:?} took {:?}", begun.elapsed());
    runtime.shutdown_background();
    ended
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| entries.count())
}

#[test]
fn a_farm_that_does_not_lie_is_believed() {
    let folder = tempfile::tempdir().expect("folder");
    let get = told(Lie::None, folder.path(), &["get", JOB, "-o", "out"]);
    assert_eq!(get.code, Some(0), "{get:?}");
    assert_eq!(files(&folder.path().join("out")), 1);
    let render = told(Lie::None, folder.path(), &["render", "-o", "rendered", "a red circle"]);
    assert_eq!(render.code, Some(0), "{render:?}");
    let verified = told(Lie::None, folder.path(), &["verify", JOB]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[test]
fn pictures_end_and_are_those_that_were_listed() {
    for (lie, says) in [
        (Lie::Endless, "has more bytes than the 17 that"),
        (Lie::Nothing, "comes in empty pieces"),
        (Lie::Vast, "has 18446744073709551615 bytes; accepted: at most"),
        (Lie::Changing, "changes whenever it is fetched"),
        (Lie::OtherPicture, "as it was listed, arrived with a different hash"),
        (Lie::NoPicture, "is no picture; accepted: "),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let get = told(lie, folder.path(), &["get", JOB, "-o", "out"]);
        get.refused(1, &["1 pictures"]);
        assert!(get.stderr.contains(says), "{lie:?}: {get:?}");
        assert_eq!(files(&folder.path().join("out")), 0, "{lie:?}: nothing is written");
        if lie == Lie::Changing {
            continue;
        }
        let render = told(lie, folder.path(), &["render", "-o", "out", "a red circle"]);
        assert_eq!(render.code, Some(1), "{lie:?}: {render:?}");
        assert!(render.stderr.contains(says), "{lie:?}: {render:?}");
        assert_eq!(files(&folder.path().join("out")), 0, "{lie:?}: nothing is written");
    }
}

#[test]
fn sheets_end_and_are_pictures() {
    let folder = tempfile::tempdir().expect("folder");
    let sheet = ["sheet", JOB, "-o", "sheet.png"];
    assert_eq!(told(Lie::None, folder.path(), &sheet).code, Some(0));
    for (lie, says) in [
        (Lie::Endless, "has more bytes than the 17 that"),
        (Lie::Nothing, "comes in empty pieces"),
        (Lie::Vast, "has 18446744073709551615 bytes; accepted: at most"),
        (Lie::OtherPicture, "arrived with a different hash"),
        (Lie::NoPicture, "is no PNG"),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        told(lie, folder.path(), &sheet).refused(1, &[says]);
        assert!(!folder.path().join("sheet.png").exists(), "{lie:?}: nothing is written");
    }
}

#[test]
fn manifests_end_and_their_sums_do_not_overflow() {
    for (lie, code, says) in [
        (Lie::Endless, 1, "has more bytes than the"),
        (Lie::Nothing, 1, "comes in empty pieces"),
        (Lie::Vast, 1, "has 18446744073709551615 bytes; accepted: at most"),
        (Lie::Sizes, 3, "image 0 has 18446744073709551615 bytes"),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        told(lie, folder.path(), &["verify", JOB]).refused(code, &[says]);
    }
}

#[test]
fn pages_and_repetitions_end() {
    let folder = tempfile::tempdir().expect("folder");
    let get = ["get", JOB, "-o", "out", "--name", "{index}"];
    for arguments in [&["ls"][..], &["ls", JOB], &get, &["map", JOB]] {
        let ended = told(Lie::SamePage, folder.path(), arguments);
        ended.refused(1, &["keeps sending the same page"]);
    }
    told(Lie::Pages, folder.path(), &["ls"]).refused(1, &["more pages than are possible"]);
    let vast = told(Lie::Vast, folder.path(), &["map", JOB]);
    assert_eq!(vast.code, Some(0), "the last index that there can be: {vast:?}");
    told(Lie::Repeats, folder.path(), &["watch", JOB])
        .refused(1, &["keeps sending the same state"]);
    told(Lie::Repeats, folder.path(), &["watch"]).refused(1, &["keeps sending the same changes"]);
    let ended = told(Lie::Repeats, folder.path(), &["--json", "watch"]);
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.contains("keeps sending the same changes"), "{ended:?}");
    let more = ["render", "-o", "out", "a red circle"];
    told(Lie::MoreImages, folder.path(), &more).refused(1, &["1 pictures were asked for"]);
}
