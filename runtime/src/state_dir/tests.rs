use super::*;

#[test]
fn a_farm_on_another_machine_is_not_looked_for_on_this_one() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("state");
    let state = StateDir::open(&path).expect("free");
    state.publish("127.0.0.1:7878").expect("publish");
    let here = running(&path).expect("it is here").expect("it runs");
    assert_eq!((here.address.as_deref(), here.machine), (Some("127.0.0.1:7878"), this_machine()));
    // As a shared folder shows it to another machine, where the lock is seen too.
    let there = Farm { machine: Some("node-a 1234".to_owned()), ..read(&path).expect("read") };
    let text = serde_json::to_vec(&there).expect("text");
    files::replace(&path.join("farm.json"), &text).expect("written");
    let error = running(&path).expect_err("it is elsewhere");
    assert!(matches!(&error, Error::Elsewhere { machine, .. } if machine == "node-a"), "{error}");
    // An older farm says nothing of its machine.
    let older = br#"{"pid":1,"address":"127.0.0.1:7878"}"#;
    files::replace(&path.join("farm.json"), older).expect("written");
    assert_eq!(running(&path).expect("it is read").expect("it runs").machine, None);
}

#[test]
fn a_second_farm_is_refused_and_told_who_holds_the_folder() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("state");
    let first = StateDir::open(&path).expect("free");
    first.publish("127.0.0.1:7878").expect("publish");

    let message = StateDir::open(&path).expect_err("held").to_string();
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    assert!(message.contains("127.0.0.1:7878"), "{message}");

    drop(first);
    StateDir::open(&path).expect("free again");
}

#[test]
fn a_farm_is_seen_while_it_runs_and_not_after() {
    let folder = tempfile::tempdir().expect("folder");
    let running = |path: &Path| running(path).expect("ours");
    assert_eq!(running(folder.path()), None, "a folder without a farm");
    let state = StateDir::open(folder.path()).expect("free");
    state.publish("127.0.0.1:1").expect("publish");
    let seen = running(folder.path()).expect("seen");
    assert_eq!(seen.address.as_deref(), Some("127.0.0.1:1"));

    // The state after a farm was killed: the file exists, but the lock is free.
    let left = fs::read(folder.path().join("farm.json")).expect("published");
    drop(state);
    fs::write(folder.path().join("farm.json"), left).expect("write");
    assert_eq!(running(folder.path()), None);
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").mode() & 0o777
}

#[test]
fn a_folder_and_what_a_farm_keeps_in_it_are_its_owners_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("above/state");
    let state = StateDir::open(&path).expect("made");
    state.publish("127.0.0.1:1").expect("published");
    assert_eq!(mode(&path), 0o700);
    for name in ["farm.lock", "farm.json"] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
    let names: Vec<_> =
        fs::read_dir(&path).expect("read").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 2, "nothing else: {names:?}");
}

#[test]
fn a_folder_from_before_is_closed_and_links_in_it_lead_nowhere() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("state");
    let outside = folder.path().join("outside");
    fs::create_dir_all(path.join("artifacts/cas")).expect("made");
    let picture = path.join("artifacts/cas/1.png");
    let program = path.join("venv");
    for file in [&picture, &path.join("farm.sqlite"), &program, &outside] {
        fs::write(file, "kept").expect("written");
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("opened");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("opened");
    std::os::unix::fs::symlink(&outside, path.join("cache")).expect("a link");
    std::os::unix::fs::symlink(&outside, path.join("farm.json.new")).expect("a link");
    std::os::unix::fs::symlink(&outside, path.join("farm.probe")).expect("a link");
    drop(StateDir::open(&path).expect("ours"));
    assert_eq!((mode(&path), mode(&path.join("artifacts/cas"))), (0o700, 0o700));
    assert_eq!((mode(&picture), mode(&path.join("farm.sqlite"))), (0o700, 0o700));
    assert_eq!((mode(&outside), mode(&program)), (0o755, 0o755), "not a farm's");
    assert_eq!(fs::read(&outside).expect("there"), b"kept");

    std::os::unix::fs::symlink(&outside, path.join("farm.json")).expect("a link");
    fs::remove_file(path.join("farm.lock")).expect("removed");
    std::os::unix::fs::symlink(&outside, path.join("farm.lock")).expect("a link");
    assert!(matches!(StateDir::open(&path), Err(Error::Io { .. })), "a lock elsewhere");
    fs::remove_file(path.join("farm.lock")).expect("removed");
    let state = StateDir::open(&path).expect("ours");
    state.publish("127.0.0.1:1").expect("published");
    assert_eq!(fs::read(&outside).expect("there"), b"kept", "farm.json took the link's place");
}

#[test]
fn a_folder_of_somebody_else_is_refused_by_farms_and_clients() {
    if !Uid::effective().is_root() {
        // Only root can give a folder away, but root's are there to be looked at.
        let refused = make(Path::new("/proc/1")).expect_err("root's");
        assert!(matches!(refused, Error::Foreign { owner: 0, .. }), "{refused}");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("state");
    let state = StateDir::open(&path).expect("ours");
    state.publish("127.0.0.1:1").expect("published");
    let give = |path: &Path| std::os::unix::fs::lchown(path, Some(12_345), None).expect("root");
    give(&path);
    let says = "belongs to user 12345, and this program runs as user 0";
    let refused = running(&path).expect_err("theirs").to_string();
    assert!(refused.contains(says), "{refused}");
    drop(state);
    assert_eq!(running(&path).expect("no farm"), None);
    let refused = StateDir::open(&path).map(drop).expect_err("theirs").to_string();
    assert!(refused.contains(says) && refused.contains("--state"), "{refused}");

    let ours = folder.path().join("ours");
    fs::create_dir(&ours).expect("made");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&ours, &link).expect("a link");
    drop(StateDir::open(&link).expect("our own link"));
    give(&link);
    let refused = StateDir::open(&link).map(drop).expect_err("their link").to_string();
    assert!(refused.contains(says), "{refused}");

    // What they put into a folder that was open to all.
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o777)).expect("opened");
    fs::write(ours.join("farm.sqlite"), "theirs").expect("written");
    give(&ours.join("farm.sqlite"));
    let refused = StateDir::open(&ours).map(drop).expect_err("their record").to_string();
    assert!(refused.contains("farm.sqlite") && refused.contains(says), "{refused}");
}
